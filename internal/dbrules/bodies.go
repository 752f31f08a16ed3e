package dbrules

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

const (
	plpgsqlCheck = "plpgsql-check"
	readWrites   = "read-writes"
	dynamicSQL   = "dynamic-sql"
)

var bodyRules = []Rule{
	{plpgsqlCheck, "PostgreSQL looks into a body only when it is called: a wrong column is found by a user",
		"correct what plpgsql_check reports"},
	{readWrites, "PostgreSQL does not stop a STABLE function from calling one that writes: it works on the primary and fails on a replica, " +
		"and the cache is never told",
		"let it call STABLE functions only; if it must write, declare it VOLATILE and grant it to accounts_write alone"},
	{dynamicSQL, "text that becomes SQL is where an injection enters, and nothing checks it before it is run",
		"write plain SQL; or EXECUTE with format('%I', ...) for names and USING for values, with the reason " +
			"in a comment directly above: -- Dynamic because ..."},
}

// bodies checks what functions do.
func bodies(ctx context.Context, conn *pgx.Conn, tree Tree, routines []*routine) ([]Violation, error) {
	if _, err := conn.Exec(ctx, "CREATE EXTENSION IF NOT EXISTS plpgsql_check SCHEMA public"); err != nil {
		return nil, fmt.Errorf("plpgsql_check is missing: run scripts/install-deps --check: %w", err)
	}
	found, err := checked(ctx, conn, tree)
	if err != nil {
		return nil, err
	}
	return append(found, effects(routines)...), nil
}

// effects checks what functions that do not write do, and how any function builds SQL.
func effects(routines []*routine) (found []Violation) {
	byName := map[name]*routine{}
	for _, r := range routines {
		byName[r.name] = r
	}
	for _, r := range routines {
		if r.tree == nil {
			continue
		}
		if r.volatility != "v" {
			if chain := pathToWriter(byName, r.name, nil); chain != nil {
				found = append(found, r.violation(readWrites, 0, "it is not VOLATILE and calls one that is: %s", joinNames(chain[:len(chain)-1], chain[len(chain)-1])))
			}
			for _, f := range r.fragments {
				if effect := sideEffect(f); effect != "" {
					found = append(found, r.violation(readWrites, f.line, "it is not VOLATILE and has %s", effect))
				}
			}
		}
		found = append(found, dynamic(r)...)
	}
	return found
}

// sideEffect finds what writes or locks in a fragment, without the help of plpgsql_check.
func sideEffect(f fragment) string {
	for _, s := range f.statements {
		e := effectOf(s)
		if f.dynamic {
			for _, c := range e.changes {
				return c.verb + " of " + c.table.String()
			}
			locks := false
			walk(map[string]any{s.kind: map[string]any(s.node)}, func(kind string, _ node) bool {
				locks = locks || kind == "LockingClause"
				return !locks
			})
			if locks {
				return "a locking clause"
			}
		}
		for _, c := range e.calls {
			if c.builtin("nextval", "setval") || strings.HasPrefix(c.object, "pg_advisory_xact_lock") || strings.HasPrefix(c.object, "pg_try_advisory_xact_lock") {
				return c.object
			}
		}
	}
	return ""
}

// checked runs plpgsql_check.
func checked(ctx context.Context, conn *pgx.Conn, tree Tree) (found []Violation, err error) {
	rows, err := conn.Query(ctx, `
		SELECT p.proname::text, coalesce(c.lineno, 0), c.level, coalesce(c.sqlstate, ''), c.message, coalesce(c.detail, '')
		  FROM pg_proc AS p JOIN pg_language AS l ON l.oid = p.prolang
		 CROSS JOIN LATERAL public.plpgsql_check_function_tb(
		           p.oid, fatal_errors => false, extra_warnings => true, security_warnings => true) AS c
		 WHERE p.pronamespace = 'accounts'::regnamespace AND l.lanname = 'plpgsql' AND p.prorettype <> ALL ('{trigger,event_trigger}'::regtype[]) AND p.prokind = 'f'
		   AND coalesce(c.detail, '') NOT LIKE 'cast "text" value to %' -- a literal, cast once
		 ORDER BY 1, 2`)
	if err != nil {
		return nil, err
	}
	var name, level, state, message, detail string
	var row int
	_, err = pgx.ForEachRow(rows, []any{&name, &row, &level, &state, &message, &detail}, func() error {
		rule := plpgsqlCheck
		if state == "0A000" && strings.Contains(message, "not allowed in a non volatile function") {
			rule = readWrites
		}
		where := "accounts." + name
		if row > 0 {
			where += fmt.Sprintf(", line %d of the body", row)
		}
		file, line := tree.place(name)
		found = append(found, Violation{rule, file, line, strings.TrimSpace(
			fmt.Sprintf("%s: %s: %s %s", where, level, strings.TrimSuffix(message, "."), detail))})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("plpgsql_check: %w", err)
	}
	return found, nil
}

// pathToWriter is the way from a function to a VOLATILE one that it calls, nil if there is none.
func pathToWriter(routines map[name]*routine, from name, way []name) []name {
	way = append(slices.Clone(way), from)
	for _, called := range callsOf(routines[from]) {
		callee := routines[called]
		if callee == nil {
			continue
		}
		if callee.volatility == "v" {
			return append(way, called)
		}
		if !slices.Contains(way, called) {
			if found := pathToWriter(routines, called, way); found != nil {
				return found
			}
		}
	}
	return nil
}

// dynamic finds each EXECUTE of a body that lacks its reason, or the quoting.
func dynamic(r *routine) (found []Violation) {
	lines := strings.Split(r.source, "\n")
	seen := map[int]bool{}
	for _, f := range r.fragments {
		if !f.dynamic || seen[f.line] {
			continue
		}
		seen[f.line] = true
		quoted := len(f.statement.list("params")) > 0
		walk(map[string]any(f.statement), func(kind string, n node) bool {
			if kind != "PLpgSQL_expr" {
				return kind == "" || !strings.HasPrefix(kind, "PLpgSQL_stmt_")
			}
			for _, s := range r.fragment("", f.statement, n).statements {
				for _, c := range effectOf(s).calls {
					template := ""
					if args := c.node.list("args"); len(args) > 0 {
						template, _ = constant(args[0])
					}
					quoted = quoted || c.builtin("quote_ident", "quote_literal", "quote_nullable") || c.builtin("format") && formatName.MatchString(template)
				}
			}
			return true
		})
		if !quoted {
			found = append(found, r.violation(dynamicSQL, f.line, "EXECUTE has neither USING nor format('%%I')"))
		}
		reason := ""
		for i := f.line - 2; i >= 0 && i < len(lines) && strings.HasPrefix(strings.TrimSpace(lines[i]), "--"); i-- {
			reason = lines[i] + "\n" + reason
		}
		if !strings.Contains(reason, "Dynamic") {
			found = append(found, r.violation(dynamicSQL, f.line, "EXECUTE has no reason above it"))
		}
	}
	return found
}

var formatName = regexp.MustCompile(`%(\d+\$)?[IL]`)
