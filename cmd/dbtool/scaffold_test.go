package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/db"
	"github.com/payment-services/accounts/internal/dbcatalog"
	"github.com/payment-services/accounts/internal/dbrules"
	"github.com/payment-services/accounts/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const root = "../.."

// copyModule makes a copy of the whole module, as a developer has it.
func copyModule(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"go.mod", "go.sum", "sqlc.yaml", "cmd", "db", "internal", "test", "tools"} {
		out, err := exec.CommandContext(t.Context(), "cp", "-r", filepath.Join(root, name), dir).CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	return dir
}

func command(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Env = withoutMake()
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s %s: %s", name, strings.Join(args, " "), out)
	return string(out)
}

// failing is like command for one that fails.
func failing(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Env = withoutMake()
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	var failed *exec.ExitError
	require.ErrorAs(t, err, &failed, "%s", out)
	return string(out)
}

// tool builds a program as the Makefile does, one test process at a time.
func tool(t *testing.T, name string) string {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Join(root, ".tools"), 0o755))
	command(t, root, "flock", ".tools/lock", "make", "-s", ".tools/"+name)
	path, err := filepath.Abs(filepath.Join(root, ".tools", name))
	require.NoError(t, err)
	return path
}

func read(t *testing.T, dir, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, name))
	require.NoError(t, err)
	return string(text)
}

// every kind of function; those without parameters keep every rule once their marks are filled in.
var requests = []request{
	{name: "get_user_groups_v1", kind: kindRead},                                                                       // makes a contract
	{name: "list_loud_groups_v1", kind: kindRead, returns: "user_group_v1", file: "user_groups"},                       // takes one
	{name: "get_group_tree_v1", kind: kindRead, returns: "group_tree_v1", columns: "id uuid NOT NULL, parent_id uuid"}, // of these columns
	{name: "count_groups_v1", kind: kindRead, returns: "bigint"},
	{name: "reset_groups_v1", kind: kindWrite},
	{name: "prune_groups_v1", kind: kindWrite, returns: "void"},
	{name: "list_user_groups_v2"},
	{name: "bulk_create_users_v2"},
	{name: "get_user_membership_v2", returns: "membership_v1"},
	{name: "find_groups_v1", kind: kindRead, returns: "user_group_v1", params: "p_name text NULL, p_limit integer, p_ids uuid[]"},
	{name: "set_group_owner_v1", kind: kindWrite, params: "p_group_id uuid, p_user_id uuid, p_since timestamptz, p_note jsonb"},
	{name: "add_users_v1", kind: kindWrite, returns: "membership_result_v1", params: "p_group_id uuid, p_user_ids uuid[]"},
	{name: "move_contact_v1", kind: kindWrite, params: "p_contact_id uuid"},
	{name: "rename_user_v1", kind: kindWrite, params: "p_user_id uuid, p_name text"},
	{name: "is_group_used_v1", kind: kindRead, returns: "boolean", params: "p_group_id uuid, p_since timestamptz"},
}

// Three commands: what the scaffold makes migrates, generates and compiles as it is. Its tests fail until
// they are written, and it keeps the rules once the marks are filled in.
func TestFromNothingToATypedCall(t *testing.T) {
	t.Parallel()
	pgtest.NeedServers(t)
	dir := copyModule(t)
	for _, r := range requests {
		require.NoError(t, writeFunction(dir, r), r.name)
	}
	sqlc := tool(t, "sqlc")
	command(t, dir, sqlc, "generate")
	require.Empty(t, command(t, dir, "gofmt", "-l", "db"))
	require.Contains(t, read(t, dir, "internal/dbgen/read/querier.go"), "GetUserGroupsV1(ctx context.Context) (UserGroupsV1, error)")
	require.Contains(t, read(t, dir, "internal/dbgen/read/querier.go"), "CountGroupsV1(ctx context.Context) (int64, error)")
	require.Contains(t, read(t, dir, "internal/dbgen/write/querier.go"), "ResetGroupsV1(ctx context.Context) (GroupsWriteV1, error)")
	require.Contains(t, read(t, dir, "internal/dbgen/read/querier.go"),
		"FindGroupsV1(ctx context.Context, name *string, limit int32, ids []uuid.UUID) ([]UserGroupV1, error)")
	var tests []string
	for _, r := range requests {
		tests = append(tests, camel(r.name))
	}
	out := failing(t, dir, "go", "test", "-v", "-run", "^Test("+strings.Join(tests, "|")+")", "./db")
	for _, name := range tests {
		require.Contains(t, out, "--- FAIL: Test"+name+" ")
	}
	for _, name := range []string{"ResetGroupsV1_TwoCallersAtOnce", "PruneGroupsV1_TwoCallersAtOnce", "SetGroupOwnerV1_TwoCallersAtOnce",
		"BulkCreateUsersV2_TwoCallersAtOnce", "AddUsersV1_LocksInKeyOrder"} {
		require.Contains(t, out, "--- FAIL: Test"+name+" ")
	}
	command(t, dir, "go", "vet", "./db", "./test/plans")
	plans := read(t, dir, plansFile)
	for _, name := range []string{"get_user_groups_v1", "list_user_groups_v2", "is_group_used_v1"} {
		require.Contains(t, plans, `{"`+name+`", "", 20, "", func(context.Context, *read.Queries) error {`)
	}
	require.NotContains(t, plans, "reset_groups_v1")

	migrate, super := empty(t)
	check := func() []dbrules.Violation {
		report, err := dbrules.Check(t.Context(), dbrules.Config{Root: dir, MigrateURL: migrate, SuperURL: super, SQLC: sqlc})
		require.NoError(t, err)
		return report.Violations
	}
	marks := 0
	for _, v := range check() {
		switch v.Rule {
		case "fill-in":
			marks++
			continue
		case "generated": // of sqlc alone, so far
			require.Equal(t, "db", v.File)
			continue
		}
		// What the body will use.
		require.Regexp(t, "find_groups_v1|set_group_owner_v1|is_group_used_v1|add_users_v1|move_contact_v1|rename_user_v1", v.Message)
		require.Contains(t, v.Message, "unused parameter", "%+v", v)
	}
	require.Greater(t, marks, 2*len(requests))

	// The catalog writes down what is there, and again from there.
	conn, err := pgx.Connect(t.Context(), super)
	require.NoError(t, err)
	defer conn.Close(context.Background())
	files, err := dbcatalog.Read(t.Context(), conn)
	require.NoError(t, err)
	require.NoError(t, files.Write(filepath.Join(dir, "db")))
	for _, name := range []string{"list_user_groups", "bulk_create_users", "get_user_membership"} {
		one, two := read(t, dir, functionFile(name+"_v1")), read(t, dir, functionFile(name+"_v2"))
		require.Equal(t, one, strings.ReplaceAll(two, name+"_v2", name+"_v1"), "a new version begins as the old one")
	}
	require.NoError(t, writeFunction(dir, request{name: "find_groups_v2"}))
	require.Contains(t, read(t, dir, "db/queries/read/user_groups.sql"), "-- name: FindGroupsV2 :many\n"+
		"SELECT * FROM accounts.find_groups_v2(\n    p_name => sqlc.narg('name'),\n    p_limit => sqlc.arg('limit'),\n    p_ids => @ids::uuid[]\n);\n")
}

// Filled in, a scaffold without parameters keeps every rule.
func TestFilledInItKeepsTheRules(t *testing.T) {
	t.Parallel()
	pgtest.NeedServers(t)
	dir := copyModule(t)
	for _, r := range requests {
		if r.params == "" {
			require.NoError(t, writeFunction(dir, r), r.name)
		}
	}
	mark := regexp.MustCompile(`FILL IN: `)
	files, err := filepath.Glob(filepath.Join(dir, "db", "*", "*.sql"))
	require.NoError(t, err)
	tests, err := filepath.Glob(filepath.Join(dir, "db", "*_test.go"))
	require.NoError(t, err)
	for _, file := range append(files, tests...) {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(file, mark.ReplaceAll(text, nil), 0o600))
	}
	migrate, super := empty(t)
	cfg := dbrules.Config{Root: dir, MigrateURL: migrate, SuperURL: super, SQLC: tool(t, "sqlc")}
	if _, err := exec.LookPath("npm"); err == nil && runtime.GOARCH == "amd64" {
		cfg.Squawk = tool(t, "squawk")
	}
	report, err := dbrules.Check(t.Context(), cfg)
	require.NoError(t, err)
	report.Violations = slices.DeleteFunc(report.Violations, func(v dbrules.Violation) bool { return v.Rule == "generated" })
	var out bytes.Buffer
	report.Write(&out)
	require.Empty(t, report.Violations, out.String())
}

func empty(t *testing.T) (migrate, super string) {
	t.Helper()
	d := pgtest.Shared(t)
	admin, err := pgx.Connect(t.Context(), d.SuperURL)
	require.NoError(t, err)
	name := d.Name + "_empty"
	_, err = admin.Exec(t.Context(), "CREATE DATABASE "+name+" TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C.UTF-8'")
	require.NoError(t, err)
	t.Cleanup(func() {
		_, err := admin.Exec(context.Background(), "DROP DATABASE "+name+" WITH (FORCE)")
		require.NoError(t, err)
		require.NoError(t, admin.Close(context.Background()))
	})
	to := func(url string) string { return strings.Replace(url, "/"+d.Name+"?", "/"+name+"?", 1) }
	conn, err := pgx.Connect(t.Context(), to(d.SuperURL))
	require.NoError(t, err)
	require.NoError(t, db.Bootstrap(t.Context(), conn, db.Passwords{}))
	require.NoError(t, conn.Close(t.Context()))
	return to(d.MigrateURL), to(d.SuperURL)
}

func TestWhatTheScaffoldRefuses(t *testing.T) {
	t.Parallel()
	for want, r := range map[string]request{
		"is not <verb>_<noun>_v<N>":             {name: "GetUser_v1", kind: kindRead},
		"say read or write":                     {name: "get_pets_v1"},
		"makes its next version":                {name: "get_contact_v1", kind: kindRead},
		"get_contact_v3 follows get_contact_v2": {name: "get_contact_v3"},
		"but get_contact_v1 is a read":          {name: "get_contact_v2", kind: kindWrite},
		"is not p_<name> <type>":                {name: "get_pets_v1", kind: kindRead, params: "id uuid"},
		"the type citext is not one of":         {name: "get_pets_v1", kind: kindRead, params: "p_name citext"},
		"write the type int as integer":         {name: "get_pets_v1", kind: kindRead, params: "p_n int"},
		"COLUMNS: n: write the type json":       {name: "get_pets_v1", kind: kindRead, columns: "n json"},
		"is not <name> <type>":                  {name: "get_pets_v1", kind: kindRead, columns: "n"},
		"is neither a contract":                 {name: "get_pets_v1", kind: kindRead, returns: "hstore"},
		"the contract user_group_v1 exists":     {name: "get_pets_v1", kind: kindRead, returns: "user_group_v1", columns: "id uuid"},
		"db/get_contact_v2_test.go exists":      {name: "get_contact_v2"},
	} {
		dir := root
		if strings.Contains(want, "_test.go exists") {
			dir = t.TempDir()
			require.NoError(t, os.MkdirAll(filepath.Join(dir, "db/functions"), 0o755))
			require.NoError(t, os.MkdirAll(filepath.Join(dir, "db/migrations"), 0o755))
			for _, name := range []string{"db/functions/get_contact_v1.sql", "db/migrations/00001_create_schema.sql"} {
				require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(read(t, root, name)), 0o600))
			}
			require.NoError(t, os.WriteFile(filepath.Join(dir, "db/get_contact_v2_test.go"), nil, 0o600))
		}
		_, err := scaffold(dir, r)
		require.ErrorContains(t, err, want)
	}
}

// The body of a scaffold locks, changes, raises the version, records and returns, and a list is bounded.
func TestScaffold_Bodies(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		request
		want []string // in this order
	}{
		{request{name: "rename_user_v1", kind: kindWrite, returns: "user_write_v1", params: "p_user_id uuid"}, []string{
			"v_touched text[];", "v_outbox_id bigint;", "BEGIN", "accounts.lock_user_v1(p_user_id)", "FILL IN: the change",
			"accounts.raise_user_version_v1(p_user_id)", "ARRAY['u:' || p_user_id]", "v_outbox_id := accounts.record_change_v1(v_touched, '{}');",
			"SELECT r.id, ", "v_touched, v_outbox_id"}},
		{request{name: "move_contact_v1", kind: kindWrite, returns: "contact_write_v1", params: "p_contact_id uuid"}, []string{
			"accounts.lock_contact_v1(p_contact_id)", "BEGIN", "record_change_v1", "v_touched, v_outbox_id"}},
		{request{name: "move_users_v1", kind: kindWrite, returns: "membership_result_v1", params: "p_user_ids uuid[]"}, []string{
			"BEGIN", "ORDER BY u.id\n        FOR NO KEY UPDATE", "version = u.version + 1", "record_change_v1", "v_touched, v_outbox_id"}},
		{request{name: "list_loud_groups_v1", kind: kindRead, returns: "user_group_v1"}, []string{
			"p_limit integer", "BEGIN", "test/plans", "ORDER BY r.id", "LIMIT p_limit"}},
	} {
		files, err := scaffold(root, test.request)
		require.NoError(t, err)
		text := files[0].text
		for _, want := range test.want {
			_, after, found := strings.Cut(text, want)
			require.True(t, found, "%s: %q is missing, or stands too early:\n%s", test.name, want, files[0].text)
			text = after
		}
	}
}

func TestScaffold_PutsTheQueryIntoTheFileOfItsResource(t *testing.T) {
	t.Parallel()
	for noun, want := range map[string]string{
		"user_groups": "user_groups", "loud_groups": "user_groups", "user": "users", "user_detail": "users", "user_contacts": "contacts",
		"contact": "contacts", "contact_type": "contact_types", "group_members": "memberships", "user_membership": "memberships",
		"import_rows": "imports", "cache_outbox": "operations", "pet_tree": "pet_trees",
	} {
		require.Equal(t, want, resourceFile(root, noun), noun)
	}
}

// withoutMake returns the environment without the variables of a make that runs these tests: a make within
// make reports the folders that it enters.
func withoutMake() []string {
	return slices.DeleteFunc(os.Environ(), func(variable string) bool {
		name, _, _ := strings.Cut(variable, "=")
		return name == "MAKEFLAGS" || name == "MAKELEVEL" || name == "MFLAGS"
	})
}
