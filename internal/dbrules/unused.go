package dbrules

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

const (
	helperUsed    = "helper-used"
	functionQuery = "function-query"
)

// unusedHelpers finds functions that neither the service nor another function nor a default or constraint
// calls.
func unusedHelpers(ctx context.Context, conn *pgx.Conn, routines []*routine) (found []Violation, err error) {
	rows, err := conn.Query(ctx, `
		SELECT DISTINCT n.nspname::text, p.proname::text
		  FROM pg_depend AS d JOIN pg_proc AS p ON d.refclassid = 'pg_proc'::regclass AND p.oid = d.refobjid
		  JOIN pg_namespace AS n ON n.oid = p.pronamespace
		 WHERE n.nspname = ANY ($1)`, ourSchemas)
	if err != nil {
		return nil, err
	}
	used := map[name]bool{}
	var n name
	if _, err = pgx.ForEachRow(rows, []any{&n.schema, &n.object}, func() error { used[n] = true; return nil }); err != nil {
		return nil, fmt.Errorf("read what depends on functions: %w", err)
	}
	for _, r := range routines {
		for _, called := range callsOf(r) {
			if called != r.name {
				used[called] = true
			}
		}
	}
	for _, r := range routines {
		if !r.granted() && !used[r.name] && r.kind == "f" {
			found = append(found, r.violation(helperUsed, 0, "it is granted to no role, and nothing calls it"))
		}
	}
	return found, nil
}

// unqueried finds functions that the service may call and has no query for. Helpers are the business of
// helper-granted.
func unqueried(tree Tree, routines []*routine) (found []Violation) {
	called := map[string]bool{}
	for _, q := range tree.queries {
		called[q.function] = true
	}
	for _, r := range routines {
		if r.granted() && !called[r.object] && !isInternal(r) && r.kind == "f" {
			found = append(found, r.violation(functionQuery, 0, "it is granted, and no query calls it"))
		}
	}
	return found
}

func isInternal(r *routine) bool { return strings.HasPrefix(r.comment, "Internal:") }
