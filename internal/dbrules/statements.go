package dbrules

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/payment-services/accounts/internal/postgres"
)

const (
	lockOrder      = "lock-order"
	listLimit      = "list-limit"
	listOrder      = "list-order"
	listOffset     = "list-offset"
	optionalFilter = "optional-filter"
	indexedColumn  = "indexed-column"
	whenOthers     = "when-others"
	selectStar     = "select-star"
	nullCompare    = "null-comparison"
	notInNulls     = "not-in-nulls"
	updateWhere    = "update-where"
	readClock      = "read-clock"
	sessionState   = "session-state"
	errorCode      = "error-code"
	errorMessage   = "error-message"
	raiseLog       = "raise-log"
	parallelSafe   = "parallel-safe"
	immutableReads = "immutable-table"
)

// table is what the catalog knows of a table of ours.
type table struct {
	unique  [][]string // the columns of each unique index without a condition
	partial [][]string // and of those with one
	indexed []string   // columns of indexes
	indexes string     // the definitions of the indexes on expressions
}

func readTables(ctx context.Context, conn *pgx.Conn) (map[name]table, error) {
	rows, err := conn.Query(ctx, `
		SELECT n.nspname::text, c.relname::text, i.indisunique, i.indpred IS NOT NULL, i.indexprs IS NOT NULL, pg_get_indexdef(i.indexrelid),
		       ARRAY(SELECT a.attname::text FROM unnest(i.indkey::smallint[]) WITH ORDINALITY AS k (n, o)
		               JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = k.n ORDER BY k.o)
		  FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
		 WHERE n.nspname = ANY ($1)`, ourSchemas)
	if err != nil {
		return nil, err
	}
	tables := map[name]table{}
	var n name
	var unique, partial, expressions bool
	var definition string
	var columns []string
	_, err = pgx.ForEachRow(rows, []any{&n.schema, &n.object, &unique, &partial, &expressions, &definition, &columns}, func() error {
		t := tables[n]
		list := slices.Clone(columns)
		switch {
		case expressions:
			t.indexes += definition + "\n"
		case unique && partial:
			t.partial = append(t.partial, list)
		case unique:
			t.unique = append(t.unique, list)
		}
		if !expressions {
			t.indexed = append(t.indexed, list...)
		}
		tables[n] = t
		return nil
	})
	return tables, err
}

// statementRules checks each statement of each function; tables may be nil, if they are not known.
func statementRules(routines []*routine, tables map[name]table) []Violation {
	c := &statementCheck{tables: tables, byName: map[name]*routine{}}
	for _, r := range routines {
		c.byName[r.name] = r
	}
	for _, r := range routines {
		if r.tree == nil {
			if r.parseErr != nil {
				c.found = append(c.found, r.violation(writeDecidable, 0, "the body cannot be parsed: %v", r.parseErr))
			}
			continue
		}
		c.r = r
		c.errors()
		for _, f := range r.fragments {
			c.f = f
			for _, s := range f.statements {
				if !f.dynamic || f.err == nil {
					c.statement(s)
				}
			}
		}
		c.volatility()
	}
	return c.found
}

type statementCheck struct {
	tables map[name]table
	byName map[name]*routine
	found  []Violation
	r      *routine
	f      fragment
}

func (c *statementCheck) report(rule, format string, args ...any) {
	if !c.r.allows(rule) {
		c.found = append(c.found, c.r.violation(rule, c.f.line, format, args...))
	}
}

// statements that a body may run; PL/pgSQL has its own for everything else.
var bodyStatements = []string{"SelectStmt", "InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt", "TruncateStmt", "CallStmt"}

func (c *statementCheck) statement(s statement) {
	if !slices.Contains(bodyStatements, s.kind) {
		c.report(sessionState, "it runs %s", strings.TrimSuffix(s.kind, "Stmt"))
		return
	}
	if s.kind == "TruncateStmt" {
		c.report(updateWhere, "TRUNCATE removes every row")
	}
	top := s.node
	walk(map[string]any{s.kind: map[string]any(s.node)}, func(kind string, n node) bool {
		switch kind {
		case "SelectStmt":
			c.selects(n, shape(n) == shape(top))
		case "UpdateStmt", "DeleteStmt":
			_, relation := n.wrapped("relation")
			if rangeName(relation).ours() && c.always(n["whereClause"]) {
				c.report(updateWhere, "%s of %s has no WHERE that leaves rows out", changeVerbs[kind], rangeName(relation))
			}
			c.returnsStar(n)
			c.filter(n["whereClause"], append(sources(n["fromClause"]), sources(n["usingClause"])...))
		case "InsertStmt":
			if len(n.list("cols")) == 0 && n["selectStmt"] != nil {
				c.report(selectStar, "INSERT without the names of the columns")
			}
			c.returnsStar(n)
		case "JoinExpr":
			c.filter(n["quals"], sources([]any{n["larg"], n["rarg"]}))
		case "A_Expr":
			c.comparison(n)
		case "BoolExpr":
			if n.text("boolop") == "NOT_EXPR" {
				if k, link := kindOf("", n.list("args")[0]); k == "SubLink" && link.text("subLinkType") == "ANY_SUBLINK" {
					c.report(notInNulls, "NOT IN (SELECT ...)")
				}
			}
		case "SubLink":
			if ops := n.names("operName"); n.text("subLinkType") == "ALL_SUBLINK" && len(ops) > 0 && ops[len(ops)-1] == "<>" {
				c.report(notInNulls, "<> ALL (SELECT ...)")
			}
		case "RangeVar", "FuncCall":
			c.target(kind, n)
			if kind == "FuncCall" {
				c.sessionCall(n)
			}
		case "IntoClause":
			c.report(sessionState, "SELECT INTO makes a table")
		}
		return true
	})
}

// target looks for a table or function whose name is put together.
func (c *statementCheck) target(kind string, n node) {
	if !c.f.dynamic {
		return
	}
	called := rangeName(n)
	if kind == "FuncCall" {
		called = nameOf(n.names("funcname"))
	}
	if strings.Contains(called.String(), unknownName) || strings.Contains(called.String(), unknownPart) {
		c.report(dynamicSQL, "the name of a table or function is put together when it runs")
	}
}

func (c *statementCheck) comparison(n node) {
	ops := n.names("name")
	op := ""
	if len(ops) > 0 {
		op = ops[len(ops)-1]
	}
	if n.text("kind") == "AEXPR_OP" && (op == "=" || op == "<>" || op == "!=" || op == "<" || op == ">" || op == "<=" || op == ">=") &&
		(isNull(n["lexpr"]) || isNull(n["rexpr"])) {
		c.report(nullCompare, "%s NULL is never true", op)
	}
	if n.text("kind") == "AEXPR_IN" {
		kind, list := n.wrapped("rexpr")
		if kind == "List" && slices.ContainsFunc(list.list("items"), isNull) {
			if op == "<>" {
				c.report(notInNulls, "NOT IN with NULL in its list is never true")
			} else {
				c.report(nullCompare, "IN with NULL in its list does not find NULL")
			}
		}
	}
	if n.text("kind") == "AEXPR_OP_ANY" && op == "=" {
		if kind, array := n.wrapped("rexpr"); kind == "A_ArrayExpr" && slices.ContainsFunc(array.list("elements"), isNull) {
			c.report(nullCompare, "= ANY with NULL in its array does not find NULL")
		}
	}
	if n.text("kind") == "AEXPR_OP_ALL" && op == "<>" {
		if kind, array := n.wrapped("rexpr"); kind == "A_ArrayExpr" && slices.ContainsFunc(array.list("elements"), isNull) {
			c.report(notInNulls, "<> ALL with NULL in its array is never true")
		}
	}
}

// always reports whether a condition is true for every row.
func (c *statementCheck) always(where any) bool {
	return !slices.ContainsFunc(conjuncts(where), func(condition any) bool {
		if op, left, right := operator(condition); op == "=" && shape(left) == shape(right) {
			return false
		}
		kind, n := kindOf("", condition)
		if column, ok := plain(n["arg"]); kind == "NullTest" && ok && n.text("nulltesttype") == "IS_NOT_NULL" && !c.r.isVariable(column) {
			_, ref := kindOf("", n["arg"])
			parts := columnRef(ref)
			return !neverNull(parts[len(parts)-1])
		}
		depends := false
		walk(condition, func(kind string, _ node) bool {
			depends = depends || kind == "ColumnRef" || kind == "ParamRef" || kind == "SubLink" || kind == "FuncCall" || kind == "CurrentOfExpr"
			return !depends
		})
		return depends
	})
}

// returnsStar looks for RETURNING * that is the result of the function.
func (c *statementCheck) returnsStar(n node) {
	for _, target := range n.items("returningList", "ResTarget") {
		kind, ref := kindOf("", target["val"])
		if parts := columnRef(ref); kind == "ColumnRef" && len(parts) > 0 && parts[len(parts)-1] == "*" && c.f.in == "PLpgSQL_stmt_return_query" {
			c.report(selectStar, "RETURNING * is the result")
		}
	}
}

// protectedSettings change the rules by which every statement of the transaction runs.
var protectedSettings = []string{"synchronous_commit", "session_replication_role", "role", "session_authorization", "search_path", "row_security",
	"statement_timeout", "lock_timeout", "transaction_timeout", "idle_in_transaction_session_timeout", "default_transaction_read_only",
	"transaction_read_only", "transaction_isolation"}

func (c *statementCheck) sessionCall(n node) {
	called := nameOf(n.names("funcname"))
	args := n.list("args")
	switch {
	case called.builtin("set_config"):
		setting, local := "", ""
		if len(args) == 3 {
			setting, _ = constant(args[0])
			local, _ = constant(args[2])
		}
		if slices.Contains(protectedSettings, strings.ToLower(setting)) {
			c.report(sessionState, "it sets %s", strings.ToLower(setting))
		} else if local != "true" && local != "t" && local != "on" {
			c.report(sessionState, "set_config without is_local = true changes the session")
		}
	case called.builtin("pg_advisory_lock", "pg_advisory_lock_shared", "pg_try_advisory_lock", "pg_try_advisory_lock_shared",
		"pg_advisory_unlock", "pg_advisory_unlock_shared", "pg_advisory_unlock_all"):
		c.report(sessionState, "%s belongs to the session, not to the transaction", called.object)
	case called.builtin("pg_notify"):
		c.report(sessionState, "pg_notify")
	case called.builtin("setseed"):
		c.report(sessionState, "setseed changes the session")
	case strings.HasPrefix(called.object, "dblink"), called.builtin("pg_sleep", "pg_sleep_for", "pg_sleep_until", "pg_read_file",
		"pg_terminate_backend", "pg_cancel_backend", "pg_reload_conf"), strings.HasPrefix(called.object, "lo_"):
		c.report(sessionState, "%s acts outside the transaction", called.object)
	}
}

// selects checks one SELECT; top: it is the whole statement.
func (c *statementCheck) selects(n node, top bool) {
	from := sources(n["fromClause"])
	ours := slices.DeleteFunc(slices.Clone(from), func(s source) bool { return !s.table.ours() })
	for _, target := range n.items("targetList", "ResTarget") {
		kind, ref := kindOf("", target["val"])
		if kind != "ColumnRef" {
			continue
		}
		parts := columnRef(ref)
		if len(parts) == 0 || parts[len(parts)-1] != "*" {
			continue
		}
		if len(parts) == 1 {
			c.report(selectStar, "SELECT *")
			continue
		}
		for _, s := range ours {
			if s.alias == parts[0] && top && c.f.in == "PLpgSQL_stmt_return_query" && !isContract(s.table) {
				c.report(selectStar, "%s.* returns the columns of %s", parts[0], s.table)
			}
		}
	}
	c.filter(n["whereClause"], from)
	limited := limits(n["limitCount"])
	if c.numbered(n) {
		c.report(listOffset, "row_number() computes every row before the page, as OFFSET does")
	}
	if offset, ok := constant(n["limitOffset"]); n["limitOffset"] != nil && !(ok && offset == "0") && reads(n) {
		c.report(listOffset, "OFFSET reads and discards every row before the page")
	}
	if limited && len(n.list("targetList")) > 0 && len(ours) > 0 {
		if n["sortClause"] == nil {
			c.report(listOrder, "LIMIT without ORDER BY")
		} else if c.tables != nil && !c.f.foreignOrder(n, from) && !c.uniqueOrder(n, ours) {
			c.report(listOrder, "ORDER BY does not end in a unique key, so pages may repeat and miss rows")
		}
	}
	returned := c.f.in == "PLpgSQL_stmt_return_query" || (c.f.in == "PLpgSQL_stmt_fors" || c.f.in == "PLpgSQL_stmt_dynfors") && c.r.returnsNext()
	if top && c.isList() && returned && !limited && !c.bounded(n, from) {
		c.report(listLimit, "a list without LIMIT")
	}
	for _, locking := range n.items("lockingClause", "LockingClause") {
		if locking.text("waitPolicy") == "LockWaitSkip" || locking.text("waitPolicy") == "LockWaitError" {
			continue
		}
		for _, s := range lockedTables(n, locking) {
			if !s.table.ours() || c.tables == nil || c.oneRow(n["whereClause"], s) {
				continue
			}
			if limit, ok := constant(n["limitCount"]); ok && limit == "1" {
				continue
			}
			if !c.orderedByKey(n, s) {
				c.report(lockOrder, "it locks rows of %s in any order", s.table)
			}
		}
	}
}

// limits reports whether the value of LIMIT bounds a list.
func limits(value any) bool {
	const most = 10_000
	if value == nil || isNull(value) {
		return false
	}
	if text, ok := constant(value); ok {
		number, err := strconv.ParseInt(text, 10, 64)
		return err == nil && number <= most
	}
	switch kind, n := kindOf("", value); kind {
	case "CaseExpr":
		return limits(n["defresult"])
	case "A_Expr":
		return n.text("kind") != "AEXPR_NULLIF"
	}
	return true
}

// numbered reports whether a SELECT takes its page from row_number() over all rows.
func (c *statementCheck) numbered(n node) bool {
	found := false
	for _, from := range n.list("fromClause") {
		kind, sub := kindOf("", from)
		if kind != "RangeSubselect" {
			continue
		}
		_, selects := sub.wrapped("subquery")
		for _, target := range selects.items("targetList", "ResTarget") {
			k, call := kindOf("", target["val"])
			over := call.child("over")
			found = found || k == "FuncCall" && over != nil && len(over.list("partitionClause")) == 0 &&
				nameOf(call.names("funcname")).builtin("row_number", "rank", "dense_rank") && mentions(n["whereClause"], target.text("name"))
		}
	}
	return found
}

func isContract(n name) bool {
	base, version, ok := cutVersion(n.object)
	return n.schema == "contract" || ok && base != "" && version != "" && strings.Trim(version, "0123456789") == ""
}

func reads(n node) bool {
	found := false
	walk(n["fromClause"], func(kind string, r node) bool {
		if kind == "RangeVar" {
			found = true
		}
		return !found
	})
	return found
}

// isList reports whether the function returns rows of which there may be many.
func (c *statementCheck) isList() bool {
	return c.r.reads && c.r.set && len(c.r.columns) > 0 && (c.r.rows != 1 || strings.HasPrefix(c.r.object, "list_"))
}

// bounded reports whether the number of rows of a SELECT has a bound without LIMIT.
func (c *statementCheck) bounded(n node, from []source) bool {
	if _, left := n.wrapped("larg"); left != nil { // UNION
		_, right := n.wrapped("rarg")
		side := func(s node) bool { return s["limitCount"] != nil || c.bounded(s, sources(s["fromClause"])) }
		return side(left) && side(right)
	}
	if n["fromClause"] == nil {
		return true
	}
	if len(from) == 0 { // functions and subqueries only
		bounded := true
		walk(n["fromClause"], func(kind string, s node) bool {
			if kind == "SelectStmt" {
				bounded = bounded && (s["limitCount"] != nil || c.bounded(s, sources(s["fromClause"])))
				return false
			}
			return true
		})
		return bounded
	}
	if n["groupClause"] == nil && len(n.list("targetList")) > 0 && !slices.ContainsFunc(n.items("targetList", "ResTarget"), func(t node) bool {
		kind, call := kindOf("", t["val"])
		return kind != "FuncCall" || !nameOf(call.names("funcname")).builtin("count", "max", "min", "sum", "array_agg", "jsonb_agg", "bool_or")
	}) {
		return true
	}
	// What is driven by an array of the caller has a row for each element; a dictionary is read as a whole.
	driven := false
	if kind, first := kindOf("", leftmost(n.list("fromClause")[0])); kind == "RangeFunction" {
		walk(map[string]any(first), func(kind string, f node) bool {
			driven = driven || kind == "FuncCall" && nameOf(f.names("funcname")).builtin("unnest")
			return true
		})
	}
	if driven {
		return true
	}
	return !slices.ContainsFunc(from, func(s source) bool {
		return !s.table.table(dictionaries) && !c.oneRow(n["whereClause"], s) && s.table.schema != ""
	}) && !slices.ContainsFunc(from, func(s source) bool { return s.table.schema == "" && !c.boundedWith(n, s) }) ||
		slices.ContainsFunc(from, func(s source) bool { return s.table.schema == "" && c.boundedWith(n, s) })
}

// boundedWith reports whether a part of WITH has a bound.
func (c *statementCheck) boundedWith(n node, s source) bool {
	_, with := n.wrapped("withClause")
	for _, cte := range with.items("ctes", "CommonTableExpr") {
		if kind, q := cte.wrapped("ctequery"); cte.text("ctename") == s.table.object {
			return kind != "SelectStmt" || q["limitCount"] != nil || c.bounded(q, sources(q["fromClause"]))
		}
	}
	return true // a catalog of PostgreSQL
}

func leftmost(value any) any {
	if kind, n := kindOf("", value); kind == "JoinExpr" {
		return leftmost(n["larg"])
	}
	return value
}

func (c *statementCheck) oneRow(where any, s source) bool {
	t := c.tables[s.table]
	for _, key := range append(slices.Clone(t.unique), t.partial...) {
		if isOneRow(where, s.alias, key) {
			return true
		}
	}
	return false
}

// sortKeys returns the columns of ORDER BY that are columns of a table.
func sortKeys(n node, alias string) (columns []string) {
	for _, by := range n.items("sortClause", "SortBy") {
		if kind, ref := kindOf("", by["node"]); kind == "ColumnRef" {
			parts := columnRef(ref)
			if len(parts) == 1 || parts[len(parts)-2] == alias {
				columns = append(columns, parts[len(parts)-1])
			}
		}
	}
	return columns
}

// foreignOrder reports whether ORDER BY names a table that FROM does not have: two pieces of a text that
// never meet.
func (f fragment) foreignOrder(n node, from []source) bool {
	for _, by := range n.items("sortClause", "SortBy") {
		if kind, ref := kindOf("", by["node"]); f.dynamic && kind == "ColumnRef" {
			if parts := columnRef(ref); len(parts) > 1 && !slices.ContainsFunc(from, func(s source) bool { return s.alias == parts[0] }) {
				return true
			}
		}
	}
	return false
}

func (c *statementCheck) uniqueOrder(n node, from []source) bool {
	for _, s := range from {
		sorted := sortKeys(n, s.alias)
		for _, key := range c.tables[s.table].unique {
			if !slices.ContainsFunc(key, func(column string) bool {
				return !slices.Contains(sorted, column) && !pinned(n, s.alias, column)
			}) {
				return true
			}
		}
		if len(c.tables[s.table].unique) == 0 {
			return true // a contract table, or one that another rule complains about
		}
	}
	return false
}

// pinned reports whether WHERE or a join compares a column with one value.
func pinned(n node, alias, column string) bool {
	if isOneRow(n["whereClause"], alias, []string{column}) {
		return true
	}
	found := false
	walk(n["fromClause"], func(kind string, j node) bool {
		found = found || kind == "JoinExpr" && isOneRow(j["quals"], alias, []string{column})
		return true
	})
	return found
}

// orderedByKey reports whether ORDER BY begins with the primary or another unique key of a table.
func (c *statementCheck) orderedByKey(n node, s source) bool {
	by := n.items("sortClause", "SortBy")
	if len(by) == 0 {
		return false
	}
	sorted := sortKeys(n, s.alias)
	for _, key := range c.tables[s.table].unique {
		var open []string
		for _, column := range key {
			if !pinned(n, s.alias, column) {
				open = append(open, column)
			}
		}
		if len(sorted) >= len(open) && slices.Equal(sorted[:len(open)], open) && len(open) > 0 {
			if kind, ref := kindOf("", by[0]["node"]); kind == "ColumnRef" && columnRef(ref)[len(columnRef(ref))-1] == open[0] &&
				by[0].text("sortby_dir") != "SORTBY_DESC" {
				return true
			}
		}
	}
	return false
}

// filter checks a condition on tables.
func (c *statementCheck) filter(where any, from []source) {
	if where == nil || len(from) == 0 && c.r.tree == nil {
		return
	}
	isParameter := func(value any) bool {
		kind, n := kindOf("", value)
		if kind == "TypeCast" {
			kind, n = kindOf("", n["arg"])
		}
		if kind == "ParamRef" {
			return true
		}
		if kind != "ColumnRef" {
			return false
		}
		parts := columnRef(n)
		return c.r.isVariable(parts[0]) || len(parts) > 1 && parts[0] == c.r.object && c.r.isVariable(parts[1])
	}
	hasColumn := func(value any) bool {
		found := false
		walk(value, func(kind string, n node) bool {
			found = found || kind == "ColumnRef" && !isParameter(map[string]any{"ColumnRef": map[string]any(n)})
			return !found
		})
		return found
	}
	hasParameter := func(value any) bool {
		found := false
		walk(value, func(kind string, n node) bool {
			found = found || (kind == "ColumnRef" || kind == "ParamRef") && isParameter(map[string]any{kind: map[string]any(n)})
			return !found
		})
		return found
	}
	testsNull := func(value any, test string) bool {
		found := false
		walk(value, func(kind string, n node) bool {
			if kind == "SubLink" {
				return false
			}
			found = found || kind == "NullTest" && (test == "" || n.text("nulltesttype") == test) && isParameter(n["arg"])
			return !found
		})
		return found
	}
	if len(from) > 0 {
		walk(where, func(kind string, n node) bool {
			switch kind {
			case "SubLink", "SelectStmt":
				return false
			case "BoolExpr":
				op := n.text("boolop")
				if op == "OR_EXPR" && c.switchedOff(n.list("args"), hasColumn) || (op == "OR_EXPR" && testsNull(n["args"], "IS_NULL") || op == "NOT_EXPR" && testsNull(n["args"], "IS_NOT_NULL")) && hasColumn(n["args"]) {
					c.report(optionalFilter, "a condition that a NULL parameter switches off")
				}
			case "CoalesceExpr":
				if hasColumn(n["args"]) && hasParameter(n["args"]) {
					c.report(optionalFilter, "coalesce of a parameter and a column in a condition")
				}
			case "CaseExpr":
				if testsNull(map[string]any(n), "") && hasColumn(map[string]any(n)) {
					c.report(optionalFilter, "CASE on a NULL parameter in a condition")
				}
			case "A_Expr":
				if left, right := n["lexpr"], n["rexpr"]; n.text("kind") == "AEXPR_OP" {
					k, l := kindOf("", left)
					if k == "NullTest" && isParameter(l["arg"]) && hasColumn(right) {
						c.report(optionalFilter, "a condition that a NULL parameter switches off")
					}
				}
			}
			return true
		})
	}
	for _, condition := range conjuncts(where) {
		c.indexed(condition, from, hasColumn)
		if kind, n := kindOf("", condition); kind == "BoolExpr" && n.text("boolop") == "OR_EXPR" {
			for _, part := range n.list("args") {
				c.indexed(part, from, hasColumn)
			}
		}
	}
}

// switchedOff reports whether one side of OR tests only a parameter that another side compares with a column.
func (c *statementCheck) switchedOff(sides []any, hasColumn func(any) bool) bool {
	for i, side := range sides {
		if kind, _ := kindOf("", side); kind != "A_Expr" && kind != "NullTest" || hasColumn(side) {
			continue
		}
		for j, other := range sides {
			if i != j && hasColumn(other) && slices.ContainsFunc(c.r.variablesOf(side), func(v string) bool { return mentions(other, v) }) {
				return true
			}
		}
	}
	return false
}

// indexed looks for an index that a condition cannot use.
func (c *statementCheck) indexed(condition any, from []source, hasColumn func(any) bool) {
	kind, n := kindOf("", condition)
	if kind != "A_Expr" {
		return
	}
	for _, side := range [][2]any{{n["lexpr"], n["rexpr"]}, {n["rexpr"], n["lexpr"]}} {
		k, e := kindOf("", side[0])
		computed := k == "FuncCall" || k == "TypeCast" || k == "A_Expr" || k == "CollateClause" || k == "CoalesceExpr"
		if !computed || hasColumn(side[1]) {
			continue
		}
		walk(map[string]any{k: map[string]any(e)}, func(kind string, ref node) bool {
			if kind != "ColumnRef" {
				return kind != "SubLink"
			}
			parts := columnRef(ref)
			for _, s := range from {
				column := parts[len(parts)-1]
				if len(parts) > 1 && parts[len(parts)-2] != s.alias || len(parts) == 1 && c.r.isVariable(parts[0]) {
					continue
				}
				t := c.tables[s.table]
				if slices.Contains(t.indexed, column) && !strings.Contains(t.indexes, column) {
					c.report(indexedColumn, "the condition computes with %s.%s, whose index is of no use then", s.table, column)
				}
			}
			return true
		})
	}
}

func isClock(kind string, n node) string {
	switch kind {
	case "FuncCall":
		called := nameOf(n.names("funcname"))
		if called.builtin("now", "clock_timestamp", "statement_timestamp", "transaction_timestamp", "timeofday", "random", "random_normal",
			"gen_random_uuid", "txid_current", "pg_current_xact_id", "current_setting", "pg_backend_pid", "inet_client_addr") || called.builtin("age") && len(n.list("args")) == 1 {
			return called.object + "()"
		}
	case "SQLValueFunction":
		if op := n.text("op"); strings.Contains(op, "TIME") || strings.Contains(op, "DATE") || strings.HasSuffix(op, "_USER") || strings.HasSuffix(op, "_ROLE") {
			return strings.TrimPrefix(op, "SVFOP_")
		}
	case "TypeCast":
		if text, ok := constant(n["arg"]); ok && slices.Contains([]string{"now", "today", "tomorrow", "yesterday"}, strings.ToLower(strings.TrimSpace(text))) {
			return "'" + text + "'"
		}
	case "RangeTableSample":
		if n["repeatable"] == nil {
			return "TABLESAMPLE without REPEATABLE"
		}
	}
	return ""
}

// volatility checks what a function promises: IMMUTABLE, PARALLEL SAFE, or that it may be cached.
func (c *statementCheck) volatility() {
	r := c.r
	tracked := false
	for _, called := range c.reachable(r, nil) {
		tracked = tracked || readsTracked(called)
	}
	for _, called := range c.reachable(r, nil) {
		for _, f := range called.fragments {
			for _, s := range f.statements {
				c.f = f
				if called != r {
					c.f = fragment{}
				}
				e := effectOf(s)
				if r.parallel == "r" && len(e.changes) > 0 {
					c.report(parallelSafe, "it is PARALLEL RESTRICTED, and %s changes rows", called.name)
				}
				if r.parallel == "s" && (len(e.changes) > 0 || called.parallel != "s") {
					c.report(parallelSafe, "it is PARALLEL SAFE, and %s changes rows or is not", called.name)
				}
				ctes := withNames(s)
				walk(map[string]any{s.kind: map[string]any(s.node)}, func(kind string, n node) bool {
					if r.reads && r.volatility == "s" && tracked {
						if clock := isClock(kind, n); clock != "" {
							c.report(readClock, "%s in a read that may be cached (%s)", clock, called.name)
						}
					}
					if r.volatility == "i" {
						if kind == "RangeVar" && !(n.text("schemaname") == "" && ctes[n.text("relname")]) {
							c.report(immutableReads, "it is IMMUTABLE, and %s reads %s", called.name, rangeName(n))
						}
						if clock := isClock(kind, n); clock != "" {
							c.report(immutableReads, "it is IMMUTABLE, and %s has %s", called.name, clock)
						}
						if kind == "FuncCall" && nameOf(n.names("funcname")).builtin("nextval", "currval", "to_regclass") {
							c.report(immutableReads, "it is IMMUTABLE, and %s calls %s", called.name, nameOf(n.names("funcname")))
						}
						if callee := c.byName[nameOf(n.names("funcname"))]; kind == "FuncCall" && callee != nil && callee.volatility != "i" {
							c.report(immutableReads, "it is IMMUTABLE and calls %s, which is not", callee.name)
						}
					}
					return true
				})
			}
		}
	}
}

func withNames(s statement) map[string]bool {
	found := map[string]bool{}
	walk(map[string]any{s.kind: map[string]any(s.node)}, func(kind string, n node) bool {
		if kind == "CommonTableExpr" {
			found[n.text("ctename")] = true
		}
		return true
	})
	return found
}

func readsTracked(r *routine) bool {
	for _, f := range r.fragments {
		for _, s := range f.statements {
			found := false
			walk(map[string]any{s.kind: map[string]any(s.node)}, func(kind string, n node) bool {
				found = found || kind == "RangeVar" && rangeName(n).table(trackedTables)
				return !found
			})
			if found {
				return true
			}
		}
	}
	return false
}

// reachable is a function and what it calls, directly or not.
func (c *statementCheck) reachable(r *routine, seen []*routine) []*routine {
	if slices.Contains(seen, r) {
		return seen
	}
	seen = append(seen, r)
	for _, called := range callsOf(r) {
		if next := c.byName[called]; next != nil {
			seen = c.reachable(next, seen)
		}
	}
	return seen
}

// callsOf lists the functions of ours that a function calls.
func callsOf(r *routine) (names []name) {
	for _, f := range r.fragments {
		for _, s := range f.statements {
			for _, called := range effectOf(s).calls {
				if called.ours() && !slices.Contains(names, called.name) {
					names = append(names, called.name)
				}
			}
		}
	}
	return names
}

// conditionNames are the names of SQLSTATEs that functions may be tempted to raise.
var conditionNames = map[string]string{
	"unique_violation": "23505", "check_violation": "23514", "foreign_key_violation": "23503", "not_null_violation": "23502",
	"exclusion_violation": "23P01", "restrict_violation": "23001", "integrity_constraint_violation": "23000",
	"serialization_failure": "40001", "deadlock_detected": "40P01", "transaction_rollback": "40000",
	"lock_not_available": "55P03", "object_in_use": "55006", "query_canceled": "57014", "raise_exception": "P0001",
	"no_data_found": "P0002", "too_many_rows": "P0003", "assert_failure": "P0004", "invalid_parameter_value": "22023",
	"insufficient_privilege": "42501", "numeric_value_out_of_range": "22003", "invalid_text_representation": "22P02",
	"untranslatable_character": "22P05", "character_not_in_repertoire": "22021", "statement_too_complex": "54001",
	"program_limit_exceeded": "54000", "data_exception": "22000", "feature_not_supported": "0A000",
	"undefined_function": "42883", "insufficient_resources": "53000", "out_of_memory": "53200", "disk_full": "53100",
}

// retriedConditions end a transaction that the service runs again.
var retriedConditions = []string{"transaction_rollback", "serialization_failure", "deadlock_detected", "statement_completion_unknown", "query_canceled",
	"admin_shutdown", "crash_shutdown", "cannot_connect_now", "operator_intervention", "idle_session_timeout"}

// What the options of RAISE are in the parse tree.
const (
	raiseErrcode    = 0
	raiseMessage    = 1
	raiseDetail     = 2
	raiseHint       = 3
	raiseConstraint = 5
)

// anyDetail has every member that a DETAIL may have.
const anyDetail = `{"entity": "User", "id": "x", "version": 1, "limit": "contacts", "maximum": 1, "errors": [{"field": "x", "code": "x"}]}`

// errors checks RAISE and the other ways to raise an error, and WHEN OTHERS.
func (c *statementCheck) errors() {
	walk(c.r.tree["action"], func(kind string, n node) bool {
		line := n.number("lineno")
		c.f = fragment{line: line}
		switch kind {
		case "PLpgSQL_exception":
			for _, condition := range n.items("conditions", "PLpgSQL_condition") {
				name := strings.ToLower(condition.text("condname"))
				if name == "others" {
					c.report(whenOthers, "WHEN OTHERS")
				} else if slices.Contains(retriedConditions, name) || strings.HasPrefix(name, "40") || strings.HasPrefix(name, "57") {
					c.report(whenOthers, "WHEN %s hides an error that the service retries", name)
				}
			}
		case "PLpgSQL_stmt_raise":
			c.raise(n)
		case "PLpgSQL_stmt_assert":
			c.report(errorCode, "ASSERT raises P0004, which the service does not know")
		case "PLpgSQL_stmt_execsql", "PLpgSQL_stmt_dynexecute":
			if n.is("strict") {
				c.report(errorCode, "INTO STRICT raises P0002 or P0003, which the service does not know")
			}
		case "PLpgSQL_stmt_commit", "PLpgSQL_stmt_rollback":
			c.report(sessionState, "it ends the transaction of its caller")
		}
		return true
	})
}

func (c *statementCheck) raise(n node) {
	if level := n.number("elog_level"); level != errorLevel {
		c.report(raiseLog, "RAISE of a message that is no error")
		return
	}
	options := map[int][]any{}
	for _, option := range n.items("options", "PLpgSQL_raise_option") {
		_, e := option.wrapped("expr")
		kind := option.number("opt_type")
		options[kind] = append(options[kind], c.r.fragment("", n, e).expression())
	}
	if n.text("condname") == "" && n.text("message") == "" && len(options) == 0 {
		return // RAISE; in a handler raises the error again
	}
	value := func(kind int) (string, bool) {
		for _, e := range options[kind] {
			for _, t := range c.r.resolve(e, 0) {
				return t.sql, !t.unknown
			}
		}
		return "", len(options[kind]) == 0
	}
	code, known := value(raiseErrcode)
	if len(options[raiseErrcode]) == 0 {
		code = n.text("condname")
	}
	if state, ok := conditionNames[strings.ToLower(code)]; ok {
		code = state
	}
	constraint, constraintKnown := value(raiseConstraint)
	detail, detailKnown := value(raiseDetail)
	if !detailKnown {
		detail = anyDetail
	}
	switch {
	case !known || !constraintKnown:
		c.report(errorCode, "the SQLSTATE or the constraint of RAISE is not a literal")
	case code == "" || code == "P0001":
		c.report(errorCode, "RAISE without ERRCODE is P0001, which the service does not know")
	case !postgres.IsMapped(code, constraint, detail):
		c.report(errorCode, "the service does not map SQLSTATE %s%s%s", code, with(" of constraint ", constraint), missingDetail(code, constraint, detail))
	}
	for _, e := range options[raiseErrcode] {
		for _, t := range c.r.resolve(e, 0) {
			state := t.sql
			if mapped, ok := conditionNames[strings.ToLower(state)]; ok {
				state = mapped
			}
			if !t.unknown && state != code && !postgres.IsMapped(state, constraint, detail) {
				c.report(errorCode, "the service does not map SQLSTATE %s", state)
			}
		}
	}
	for option, name := range map[int]string{raiseMessage: "MESSAGE", raiseHint: "HINT"} {
		for _, text := range options[option] {
			if _, ok := constant(text); !ok {
				c.report(errorMessage, "%s is not a literal", name)
			}
		}
	}
	if len(n.list("params")) > 0 || strings.Contains(strings.ReplaceAll(n.text("message"), "%%", ""), "%") {
		c.report(errorMessage, "the message has parameters")
	}
}

func missingDetail(code, constraint, detail string) string {
	if detail != anyDetail && postgres.IsMapped(code, constraint, anyDetail) {
		return " without the DETAIL that it needs (docs/errors.md)"
	}
	return ""
}

func with(prefix, text string) string {
	if text == "" {
		return ""
	}
	return fmt.Sprintf("%s%s", prefix, text)
}

// orderedQuery reports whether a loop reads its rows in the order of a key.
func orderedQuery(r *routine, n node) bool {
	_, e := n.wrapped("query")
	f := r.fragment("", n, e)
	if len(f.statements) != 1 {
		return false
	}
	by := f.statements[0].node.items("sortClause", "SortBy")
	if len(by) == 0 || by[0].text("sortby_dir") == "SORTBY_DESC" {
		return false
	}
	kind, ref := kindOf("", by[0]["node"])
	if kind != "ColumnRef" {
		return false
	}
	parts := columnRef(ref)
	last := parts[len(parts)-1]
	return last == "id" || last == "user_id"
}

// locksIn reports whether statements of a loop lock users.
func (f *flow) locksIn(body any) bool {
	found := false
	walk(body, func(kind string, n node) bool {
		if kind != "PLpgSQL_expr" || found {
			return !found
		}
		for _, s := range f.r.fragment("", node{}, n).statements {
			e := effectOf(s)
			found = found || e.lockOne || e.lockMany
			for _, c := range e.calls {
				callee := f.routines[c.name]
				if callee != nil && callee.tree != nil && callee.volatility == "v" && c.ours() && f.summary(callee).locks {
					found = true
				}
			}
			for _, c := range e.changes {
				found = found || c.table.table([]string{"users"}) && c.verb == "UPDATE"
			}
		}
		return !found
	})
	return found
}
