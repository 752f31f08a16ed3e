package dbrules

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/db"
	"github.com/payment-services/accounts/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const root = "../.."

// fault is a rule and what breaks it and no other.
type fault struct {
	name  string
	rule  string
	plant string
}

// The next migration, as a developer would write it.
const (
	next = "db/migrations/90000_next.sql"
	head = "-- The next one.\n\n-- +goose Up\nSET LOCAL lock_timeout = '5s';\n"
	foot = "\n-- +goose Down\nSET LOCAL lock_timeout = '5s';\n"
)

// copyTree makes a copy of the SQL in which main has what is released, and a branch is checked out.
func copyTree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"db/migrations", "db/queries", "db/functions", "db/contract.txt", "internal/dbgen", "sqlc.yaml",
		"tools/squawk.toml"} {
		to := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(to), 0o755))
		if info, err := os.Stat(filepath.Join(root, name)); err == nil && info.IsDir() {
			require.NoError(t, os.CopyFS(to, os.DirFS(filepath.Join(root, name))))
			continue
		}
		text, err := os.ReadFile(filepath.Join(root, name))
		require.NoError(t, err)
		write(t, dir, name, string(text))
	}
	git(t, dir, "init", "-q", "-b", "main")
	commit(t, dir)
	git(t, dir, "checkout", "-q", "-b", "work")
	return dir
}

func commit(t *testing.T, dir string) {
	t.Helper()
	git(t, dir, "add", "-A")
	git(t, dir, "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-q", "-m", "x")
}

func git(t *testing.T, dir string, args ...string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "git", append([]string{"-C", dir}, args...)...).CombinedOutput()
	require.NoError(t, err, "%s", out)
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
}

func read(t *testing.T, dir, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, name))
	require.NoError(t, err)
	return string(text)
}

func readTree(t *testing.T, dir string) Tree {
	t.Helper()
	tree, err := ReadTree(dir)
	require.NoError(t, err)
	return tree
}

// tool builds a program as the Makefile does, one test process at a time.
func tool(t *testing.T, name string) string {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Join(root, ".tools"), 0o755))
	lock := filepath.Join(root, ".tools", "lock")
	out, err := exec.CommandContext(t.Context(), "flock", lock, "make", "-s", "-C", root, ".tools/"+name).CombinedOutput()
	require.NoError(t, err, "%s", out)
	path, err := filepath.Abs(filepath.Join(root, ".tools", name))
	require.NoError(t, err)
	return path
}

// squawk is empty where it cannot be installed.
func squawk(t *testing.T) string {
	t.Helper()
	if _, err := exec.LookPath("npm"); err != nil || runtime.GOARCH != "amd64" {
		return ""
	}
	return tool(t, "squawk")
}

// requireOnly wants violations of one rule and of no other.
func requireOnly(t *testing.T, rule string, found []Violation) {
	t.Helper()
	require.NotEmpty(t, found, "%s is not noticed", rule)
	for _, v := range found {
		require.Equal(t, rule, v.Rule, "%+v", v)
		require.NotEmpty(t, v.File)
	}
	var out bytes.Buffer
	Report{Violations: found}.Write(&out)
	for _, part := range []string{found[0].File, "rule: " + rule, "why:  " + find(rule).Why, "fix:  " + find(rule).Fix} {
		require.Contains(t, out.String(), part)
	}
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func execute(t *testing.T, conn *pgx.Conn, sql string) {
	t.Helper()
	_, err := conn.PgConn().Exec(t.Context(), sql).ReadAll()
	require.NoError(t, err)
}

// empty is a database on which bootstrap.sql was run, and nothing else.
func empty(t *testing.T) (migrate, super string) {
	t.Helper()
	d := pgtest.Shared(t).RemoveOracle("the rules are about what the migrations make")
	admin := connect(t, d.SuperURL)
	name := d.Name + "_empty"
	execute(t, admin, "CREATE DATABASE "+name+" TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C.UTF-8'")
	t.Cleanup(func() {
		_, err := admin.Exec(context.Background(), "DROP DATABASE "+name+" WITH (FORCE)")
		require.NoError(t, err)
	})
	to := func(url string) string { return strings.Replace(url, "/"+d.Name+"?", "/"+name+"?", 1) }
	require.NoError(t, db.Bootstrap(t.Context(), connect(t, to(d.SuperURL)), db.Passwords{}))
	return to(d.MigrateURL), to(d.SuperURL)
}

// The work tree itself, and with it the whole of Check, on the base that a developer's branch has.
func TestTheTreeKeepsTheRules(t *testing.T) {
	t.Parallel()
	migrate, super := empty(t)
	report, err := Check(t.Context(), Config{
		Root: copyTree(t), MigrateURL: migrate, SuperURL: super, SQLC: tool(t, "sqlc"), Squawk: squawk(t),
	})
	require.NoError(t, err)
	require.Empty(t, report.Violations)
	require.Equal(t, squawk(t) == "", len(report.Notes) == 1)
	require.Contains(t, report.Base.How, "where this branch left main")
}

// Every rule is planted somewhere below.
func TestEveryRuleHasAFault(t *testing.T) {
	t.Parallel()
	planted := map[string]bool{}
	for _, f := range slices.Concat(fileFaults, schemaFaults, roundTripFaults, catalogFaults, objectFaults, bodyFaults, outsideFaults,
		queryFaults, generatedFaults, contractFaults, checkFaults) {
		planted[f.rule] = true
	}
	names := map[string]bool{}
	for _, r := range All() {
		require.True(t, planted[r.Name], "no test breaks %s", r.Name)
		require.False(t, names[r.Name], r.Name)
		require.NotEmpty(t, r.Why, r.Name)
		require.NotEmpty(t, r.Fix, r.Name)
		require.NotEmpty(t, examples[r.Name].wrong, "no example of %s", r.Name)
		require.NotEmpty(t, examples[r.Name].right, "no example of %s", r.Name)
		names[r.Name] = true
	}
	require.Len(t, examples, len(names))
}
