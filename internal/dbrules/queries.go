package dbrules

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/payment-services/accounts/internal/dbcatalog"
)

const (
	queryOneCall        = "query-one-call"        // of sqlc.yaml
	queryNamedArguments = "query-named-arguments" // of sqlc.yaml
	queryInvalid        = "query-invalid"
	queryFolder         = "query-folder"
	queryName           = "query-name"
	queryArrayCast      = "query-array-cast"
	contractRenamed     = "contract-renamed"
	generated           = "generated"
)

var queryRules = []Rule{
	{queryOneCall, "the service's logins may call functions and nothing else: this would fail with permission denied, or be half an API of its own",
		"SELECT * FROM accounts.f_v1(p_x => @x); or, for a scalar, SELECT accounts.f_v1(p_x => @x); put the rest into the function"},
	{queryNamedArguments, "arguments in the wrong order of the same type compile and run", "pass every argument as p_name => @name"},
	{queryInvalid, "sqlc cannot generate anything from it", "correct what sqlc says"},
	{queryFolder, "read queries run on a replica as accounts_read, which may not call this function; " +
		"a read among the writes would always load the primary",
		"move the query to db/queries/read or db/queries/write, or correct the grants of the function"},
	{queryName, "one looks for the Go method under the name of the function", "call it like the function, in Go's case: get_user_v1 is GetUserV1"},
	{queryArrayCast, "without a database sqlc cannot see that the argument is an array, and generates a single value",
		"cast it: p_ids => @ids::uuid[]"},
	{contractRenamed, "sqlc would call the Go type AccountsUserV1, and every user of it would have to change later",
		"add the line to rename: in sqlc.yaml (make function does)"},
	{generated, "the service is built from what the SQL was, not from what it is", "make generate, and commit what it writes"},
}

var (
	// vetLine is what sqlc vet prints: "users.sql: GetUserV1: rule: message".
	vetLine = regexp.MustCompile(`^(\S+\.sql): (\w+): ([\w-]+): (.*)$`)
	// parseLine is what sqlc prints of a query that it does not understand.
	parseLine = regexp.MustCompile(`^(\S+\.sql):(\d+):\d+: (.*)$`)
	argument  = regexp.MustCompile(`(p_\w+)\s*=>\s*([^,;\s]+)`)
)

// called is what queries need to know of a function.
type called struct {
	read, write bool
	parameters  map[string]string // types by name
	contract    string            // the table that it returns; empty: a scalar
}

// Queries checks the queries against the functions of the database.
func Queries(ctx context.Context, conn *pgx.Conn, tree Tree, sqlc string) ([]Violation, error) {
	found, err := vet(ctx, tree, sqlc)
	if err != nil {
		return nil, err
	}
	functions, err := calledFunctions(ctx, conn)
	if err != nil {
		return nil, err
	}
	missing := map[string]bool{}
	for _, q := range tree.queries {
		f, known := functions[q.function]
		if !known {
			continue // sqlc has said so
		}
		report := func(rule, format string, args ...any) {
			found = append(found, Violation{rule, q.path, q.line, q.name + ": " + fmt.Sprintf(format, args...)})
		}
		switch {
		case q.kind == "read" && !f.read:
			report(queryFolder, "accounts_read may not execute accounts.%s", q.function)
		case q.kind == "write" && f.read:
			report(queryFolder, "accounts.%s is a read", q.function)
		case q.kind == "write" && !f.write:
			report(queryFolder, "accounts_write may not execute accounts.%s", q.function)
		}
		if strings.ReplaceAll(q.function, "_", "") != strings.ToLower(q.name) {
			report(queryName, "calls accounts.%s", q.function)
		}
		for _, m := range argument.FindAllStringSubmatch(q.text, -1) {
			if kind := f.parameters[m[1]]; strings.HasSuffix(kind, "[]") && !strings.HasSuffix(strings.TrimRight(m[2], ")"), "[]") {
				report(queryArrayCast, "%s is %s, and its argument has no cast", m[1], kind)
			}
		}
		if f.contract != "" && !regexp.MustCompile(`(?m)^\s+accounts_`+f.contract+`:`).MatchString(tree.sqlc) && !missing[f.contract] {
			missing[f.contract] = true
			found = append(found, Violation{contractRenamed, sqlcFile, 0, "the contract " + f.contract + " has no Go name"})
		}
	}
	return found, nil
}

func calledFunctions(ctx context.Context, conn *pgx.Conn) (map[string]called, error) {
	rows, err := conn.Query(ctx, `
		SELECT p.proname::text, `+mayRead+`, `+mayWrite+`, coalesce(p.proargnames, '{}')::text[],
		       ARRAY(SELECT format_type(a.t, NULL) FROM unnest(p.proargtypes::oid[]) WITH ORDINALITY AS a (t, i) ORDER BY a.i),
		       coalesce(c.relname::text, '')
		  FROM pg_proc AS p JOIN pg_type AS y ON y.oid = p.prorettype LEFT JOIN pg_class AS c ON c.oid = y.typrelid
		 WHERE p.pronamespace = 'accounts'::regnamespace`)
	if err != nil {
		return nil, err
	}
	functions := map[string]called{}
	var f called
	var name string
	var names, types []string
	_, err = pgx.ForEachRow(rows, []any{&name, &f.read, &f.write, &names, &types, &f.contract}, func() error {
		f.parameters = map[string]string{}
		for i := range min(len(names), len(types)) {
			f.parameters[names[i]] = types[i]
		}
		functions[name] = f
		return nil
	})
	return functions, err
}

// Generated compares what make generate would write with what is there.
func Generated(ctx context.Context, tree Tree, files dbcatalog.Catalog, sqlc string) ([]Violation, error) {
	var found []Violation
	if err := files.Compare(filepath.Join(tree.root, "db")); err != nil {
		for line := range strings.Lines(err.Error()) {
			found = append(found, Violation{generated, "db", 0, strings.TrimSpace(line)})
		}
	}
	program, err := filepath.Abs(sqlc)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, program, "diff")
	cmd.Dir = tree.root
	var exit *exec.ExitError
	if out, err := cmd.CombinedOutput(); errors.As(err, &exit) {
		found = append(found, Violation{generated, "internal/dbgen", 0, "is not what sqlc generates:\n" + strings.TrimSpace(string(out))})
	} else if err != nil {
		return nil, fmt.Errorf("sqlc diff: %w", err)
	}
	return found, nil
}

// vet runs the rules of sqlc.yaml.
func vet(ctx context.Context, tree Tree, sqlc string) ([]Violation, error) {
	program, err := filepath.Abs(sqlc)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, program, "vet")
	cmd.Dir = tree.root
	out, err := cmd.CombinedOutput()
	if err == nil {
		return nil, nil
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return nil, fmt.Errorf("sqlc vet: %w", err)
	}
	var found []Violation
	for line := range strings.Lines(string(out)) {
		line = strings.TrimSpace(line)
		if m := vetLine.FindStringSubmatch(line); m != nil {
			// sqlc leaves the folder out.
			for _, q := range tree.queries {
				if q.name == m[2] && strings.HasSuffix(q.path, "/"+m[1]) {
					found = append(found, Violation{m[3], q.path, q.line, q.name + ": " + m[4]})
				}
			}
		} else if m := parseLine.FindStringSubmatch(line); m != nil {
			n := 0
			_, _ = fmt.Sscan(m[2], &n)
			found = append(found, Violation{queryInvalid, m[1], n, m[3]})
		}
	}
	known := func(v Violation) bool {
		return slices.ContainsFunc(queryRules, func(r Rule) bool { return r.Name == v.Rule })
	}
	if len(found) == 0 || slices.ContainsFunc(found, func(v Violation) bool { return !known(v) }) {
		return nil, fmt.Errorf("sqlc vet: %w\n%s", err, out)
	}
	return found, nil
}
