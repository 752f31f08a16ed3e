package dbrules

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path"
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
	queryCardinality    = "query-cardinality"
	queryNullable       = "query-nullable"
	queryArgument       = "query-argument-name"
	contractRenamed     = "contract-renamed"
	generated           = "generated"
)

var queryRules = []Rule{
	{queryOneCall, "the service's logins may call functions and nothing else: this would fail with permission denied, or depend on tables that may change",
		"SELECT * FROM accounts.f_v1(p_x => @x); or, for a scalar, SELECT accounts.f_v1(p_x => @x); put the rest into the function"},
	{queryNamedArguments, "arguments in the wrong order of the same type compile and run", "pass every argument as p_name => @name"},
	{queryInvalid, "sqlc cannot generate anything from it", "correct what sqlc reports"},
	{queryFolder, "read queries run on a replica as accounts_read, which may not call this function; " +
		"a read among the writes would always load the primary",
		"move the query to db/queries/read or db/queries/write, or correct the grants of the function"},
	{queryName, "one looks for the Go method under the name of the function", "call it like the function, in Go's case: get_user_v1 is GetUserV1"},
	{queryArrayCast, "without a database sqlc cannot see that the argument is an array, and generates a single value",
		"cast it: p_ids => @ids::uuid[]"},
	{queryCardinality, "with :one sqlc drops every row but the first, with :exec all of them: touched and outbox_id too, so the cache is not invalidated",
		":many for a function that returns rows, :one for ROWS 1 and for a scalar, :exec for void only"},
	{queryNullable, "the function treats NULL apart, and Go passes the zero value instead: an empty text or false is written, or filters everything out",
		"p_name => sqlc.narg('name')"},
	{queryArgument, "two arguments of one type that are crossed compile and run", "name the argument like the parameter, without p_: p_user_id => @user_id"},
	{contractRenamed, "sqlc would call the Go type AccountsUserV1, and every user of it would have to change later",
		"add the line to rename: in sqlc.yaml (make function does)"},
	{generated, "the service is built from what the SQL was, not from what it is", "make generate, and commit what it writes"},
}

var (
	// vetLine is what sqlc vet prints: "users.sql: GetUserV1: rule: message".
	vetLine = regexp.MustCompile(`^(\S+\.sql): (\w+): ([\w-]+): (.*)$`)
	// parseLine is what sqlc prints of a query that it does not understand.
	parseLine = regexp.MustCompile(`^(\S+\.sql):(\d+):\d+: (.*)$`)
)

// called is what queries need to know of a function.
type called struct {
	read, write bool
	parameters  map[string]string // types by name
	contract    string            // the table that it returns; empty: a scalar
	set, void   bool
	rows        int
	nullable    map[string]bool // parameters whose NULL the body treats apart
}

// command is what sqlc must call a query of the function.
func (f called) command(function string) string {
	switch {
	case f.void:
		return "exec"
	case f.set && (f.rows != 1 || strings.HasPrefix(function, "list_") || strings.HasPrefix(function, "lookup_")):
		return "many"
	}
	return "one"
}

// passed is an argument of a query.
type passed struct {
	parameter string
	name      string // of the argument; empty: something else
	nullable  bool
	array     bool // it is cast to an array
}

// arguments returns what a query passes by name.
func (q query) arguments() (all []passed) {
	statements, err := parseSQL(q.text)
	if err != nil {
		return nil // sqlc reports it
	}
	for _, s := range statements {
		walk(map[string]any{s.kind: map[string]any(s.node)}, func(kind string, n node) bool {
			if kind == "NamedArgExpr" {
				a := passed{parameter: n.text("name")}
				walk(n["arg"], func(kind string, n node) bool {
					switch kind {
					case "A_Expr": // @name is an operator to PostgreSQL
						if ops := n.names("name"); n["lexpr"] == nil && len(ops) == 1 && ops[0] == "@" {
							walk(n["rexpr"], func(kind string, n node) bool {
								if kind == "ColumnRef" && a.name == "" {
									a.name = columnRef(n)[0]
								}
								return true
							})
						}
					case "TypeCast":
						_, t := n.wrapped("typeName")
						a.array = a.array || len(t.list("arrayBounds")) > 0
					case "FuncCall":
						if f := n.names("funcname"); len(f) == 2 && f[0] == "sqlc" && len(n.list("args")) == 1 {
							a.nullable = f[1] == "narg"
							if text, ok := constant(n.list("args")[0]); ok {
								a.name = text
							} else if kind, ref := kindOf("", n.list("args")[0]); kind == "ColumnRef" {
								a.name = columnRef(ref)[0]
							}
						}
					}
					return true
				})
				all = append(all, a)
			}
			return true
		})
	}
	return all
}

// nullableParameters finds the parameters whose NULL a body treats apart, also by passing them on. A test
// that only raises an error is none.
func nullableParameters(routines []*routine) map[name]map[string]bool {
	byName := map[name]*routine{}
	found := map[name]map[string]bool{}
	for _, r := range routines {
		byName[r.name], found[r.name] = r, map[string]bool{}
		refused := map[string]bool{} // conditions under which nothing but an error happens
		walk(r.tree, func(kind string, n node) bool {
			if kind == "PLpgSQL_stmt_if" {
				if first := n.list("then_body"); len(first) == 1 {
					if k, _ := kindOf("", first[0]); k == "PLpgSQL_stmt_raise" {
						_, e := n.wrapped("cond")
						refused[e.text("query")] = true
					}
				}
			}
			return true
		})
		for _, f := range r.fragments {
			if _, e := f.statement.wrapped("cond"); refused[e.text("query")] && f.in == "PLpgSQL_stmt_if" {
				continue
			}
			for _, s := range f.statements {
				walk(map[string]any{s.kind: map[string]any(s.node)}, func(kind string, n node) bool {
					var tested any
					switch kind {
					case "NullTest":
						tested = n["arg"]
					case "CoalesceExpr":
						tested = n.list("args")[0]
					}
					if variable, ok := plain(tested); ok && slices.Contains(r.parameters, variable) {
						found[r.name][variable] = true
					}
					return true
				})
			}
		}
	}
	for range routines { // as deep as calls can go
		changed := false
		for _, r := range routines {
			for _, f := range r.fragments {
				for _, s := range f.statements {
					for _, c := range effectOf(s).calls {
						callee := byName[c.name]
						if callee == nil || callee == r {
							continue
						}
						for i, arg := range c.node.list("args") {
							variable, ok := plain(arg)
							if ok && i < len(callee.parameters) && found[c.name][callee.parameters[i]] && slices.Contains(r.parameters, variable) &&
								!found[r.name][variable] {
								found[r.name][variable], changed = true, true
							}
						}
					}
				}
			}
		}
		if !changed {
			break
		}
	}
	return found
}

// Lost finds arguments that may be NULL in a query of the base and not in the same query now.
func Lost(ctx context.Context, tree Tree, base Base) (found []Violation, err error) {
	old, err := base.files(ctx, queriesFolder)
	if err != nil {
		return nil, err
	}
	was := map[string]bool{}
	for file, text := range old {
		for _, q := range newQueries(path.Base(path.Dir(file)), path.Base(file), text) {
			for _, a := range q.arguments() {
				was[q.function+" "+a.parameter] = was[q.function+" "+a.parameter] || a.nullable
			}
		}
	}
	for _, q := range tree.queries {
		for _, a := range q.arguments() {
			if was[q.function+" "+a.parameter] && !a.nullable && a.name != "" {
				found = append(found, Violation{queryNullable, q.path, q.line, fmt.Sprintf("%s: %s may be NULL, and its argument may not", q.name, a.parameter)})
			}
		}
	}
	return found, nil
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
	routines, err := readRoutines(ctx, conn, tree)
	if err != nil {
		return nil, err
	}
	for n, parameters := range nullableParameters(routines) {
		if f, known := functions[n.object]; known && n.schema == "accounts" {
			f.nullable = parameters
			functions[n.object] = f
		}
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
		want := f.command(q.function)
		if q.command != "" && q.command != want {
			report(queryCardinality, "it is :%s, and accounts.%s needs :%s", q.command, q.function, want)
		}
		for _, a := range q.arguments() {
			kind := f.parameters[a.parameter]
			if strings.HasSuffix(kind, "[]") && !a.array {
				report(queryArrayCast, "%s is %s, and its argument has no cast", a.parameter, kind)
			}
			own := strings.TrimPrefix(a.parameter, "p_")
			_, other := f.parameters["p_"+a.name]
			if a.name != "" && a.name != own && (other || !strings.HasSuffix(a.name, "_"+own)) {
				report(queryArgument, "%s gets @%s", a.parameter, a.name)
			}
			if a.name != "" && !a.nullable && f.nullable[a.parameter] {
				report(queryNullable, "%s may be NULL, and its argument may not", a.parameter)
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
		       coalesce(c.relname::text, ''), p.proretset, y.typname = 'void', p.prorows::integer
		  FROM pg_proc AS p JOIN pg_type AS y ON y.oid = p.prorettype LEFT JOIN pg_class AS c ON c.oid = y.typrelid
		 WHERE p.pronamespace = 'accounts'::regnamespace`)
	if err != nil {
		return nil, err
	}
	functions := map[string]called{}
	var f called
	var name string
	var names, types []string
	_, err = pgx.ForEachRow(rows, []any{&name, &f.read, &f.write, &names, &types, &f.contract, &f.set, &f.void, &f.rows}, func() error {
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
