// Package accounts_test holds the rules of the tree: which package may know what.
package accounts_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/payment-services/accounts/"

// imports returns what each package of the module imports, tests left out.
func imports(t *testing.T) map[string][]string {
	t.Helper()
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, "./...").Output()
	require.NoError(t, err)
	packages := map[string][]string{}
	for line := range strings.Lines(string(out)) {
		words := strings.Fields(line)
		packages[strings.TrimPrefix(words[0], module)] = words[1:]
	}
	require.Contains(t, packages, "internal/http")
	return packages
}

// A request flows http -> accounts -> outbox -> cache -> routing -> postgres -> function; nothing flows back.
func TestLayersDoNotReachPastTheNext(t *testing.T) {
	t.Parallel()
	forbidden := map[string][]string{
		"internal/http": {"github.com/jackc/pgx", "github.com/redis/go-redis", module + "internal/postgres",
			module + "internal/dbgen", module + "db"},
		"internal/accounts": {"net/http", "github.com/redis/go-redis", "github.com/go-chi", module + "internal/http",
			module + "internal/auth"},
		"internal/outbox":      {"net/http", "github.com/redis/go-redis", module + "internal/accounts", module + "internal/http"},
		"internal/cache":       {"net/http", module + "internal/postgres", module + "internal/outbox", module + "internal/accounts"},
		"internal/routing":     {"net/http", "github.com/redis/go-redis", module + "internal/cache", module + "internal/accounts"},
		"internal/postgres":    {"net/http", module + "internal/routing", module + "internal/accounts", module + "internal/cache"},
		"internal/identifier":  {module, "github.com/jackc/pgx", "net/http"},
		"internal/errcode":     {module, "net/http"},
		"internal/spreadsheet": {module, "net/http"},
	}
	packages := imports(t)
	for name, prefixes := range forbidden {
		for _, imported := range packages[name] {
			for _, prefix := range prefixes {
				require.False(t, strings.HasPrefix(imported, prefix), "%s imports %s", name, imported)
			}
		}
	}
}

func TestOnlyPostgresKnowsThePool(t *testing.T) {
	t.Parallel()
	for name, imported := range imports(t) {
		if name != "internal/postgres" && name != "bench/yardstick/pgcall" { // which has nothing to be careful of
			require.NotContains(t, imported, "github.com/jackc/pgx/v5/pgxpool", name)
		}
	}
}

// Programs that start servers do so without the test harness.
func TestProgramsDoNotLinkTesting(t *testing.T) {
	t.Parallel()
	programs := []string{"./cmd/server", "./cmd/devstack", "./cmd/dbtool", "./bench/run", "./bench/replication"}
	for _, program := range programs {
		out, err := exec.Command("go", "list", "-deps", program).Output()
		require.NoError(t, err, program)
		packages := strings.Fields(string(out))
		require.Contains(t, packages, "fmt", program)
		require.NotContains(t, packages, "testing", program)
	}
}

// Configuration comes from cmd/server; the other packages take values. localservers, pgtest and the tests
// look for programs and folders of the machine.
func TestOnlyCommandsReadTheEnvironment(t *testing.T) {
	t.Parallel()
	allowed := []string{"cmd", "test", "bench", filepath.Join("internal", "localservers"), filepath.Join("internal", "pgtest")}
	err := filepath.WalkDir(".", func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") ||
			path == filepath.Join("internal", "mutation", "mutation_on.go") ||
			slices.ContainsFunc(allowed, func(dir string) bool { return strings.HasPrefix(path, dir+string(filepath.Separator)) }) {
			return err
		}
		text, err := os.ReadFile(path)
		for _, call := range []string{"os.Getenv", "os.LookupEnv", "os.Environ"} {
			require.NotContains(t, string(text), call, path)
		}
		return err
	})
	require.NoError(t, err)
}
