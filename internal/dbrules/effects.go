package dbrules

import (
	"slices"
	"strings"
)

// trackedTables are the tables whose rows the cache holds: a change of one must be recorded.
var trackedTables = []string{"users", "contact_types", "user_contacts", "user_groups", "user_group_memberships"}

// versionedTables belong to a user: a change of one raises the user's version, under the user's lock.
var versionedTables = []string{"user_contacts", "user_group_memberships"}

// dictionaries are the tables that the cache holds as a whole.
var dictionaries = []string{"contact_types", "user_groups"}

func (n name) table(of []string) bool { return n.schema == "accounts" && slices.Contains(of, n.object) }

// change is a statement that changes rows of a table.
type change struct {
	table   name
	verb    string
	columns []string
	one     bool // the condition names one row by its key
	// otherVersion: it sets the column version, and not to version + 1.
	otherVersion bool
}

// call is a call of a function. It is certain if nothing in the statement can leave it out.
type call struct {
	name
	certain bool
	node    node
}

// effect is what a statement does.
type effect struct {
	changes  []change
	calls    []call
	lockOne  bool // it locks one user against other writers
	lockMany bool // it locks several
}

func effectOf(s statement) effect {
	e := effect{}
	e.visit(map[string]any{s.kind: map[string]any(s.node)}, true)
	return e
}

var changeVerbs = map[string]string{
	"InsertStmt": "INSERT", "UpdateStmt": "UPDATE", "DeleteStmt": "DELETE", "MergeStmt": "MERGE", "TruncateStmt": "TRUNCATE",
	"CopyStmt": "COPY",
}

// visit adds the effects of a tree. certain: the tree is evaluated whenever the statement is.
func (e *effect) visit(value any, certain bool) {
	switch v := value.(type) {
	case []any:
		for _, item := range v {
			e.visit(item, certain)
		}
		return
	case map[string]any:
		kind, n := kindOf("", v)
		if kind == "" {
			e.fields(v, certain)
			return
		}
		e.node(kind, n, certain)
	}
}

func (e *effect) fields(n node, certain bool, without ...string) {
	for _, key := range sortedKeys(n) {
		if slices.Contains(without, key) {
			continue
		}
		if kind, content := n.wrapped(key); kind != "" {
			e.node(kind, content, certain)
		} else {
			e.visit(n[key], certain)
		}
	}
}

func (e *effect) node(kind string, n node, certain bool) {
	switch kind {
	case "InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt":
		e.change(kind, n)
		if kind == "InsertStmt" {
			e.fields(n, certain, "returningList", "onConflictClause")
			e.visit(n["returningList"], false)
			e.visit(n["onConflictClause"], false)
			return
		}
		if _, with := n.wrapped("withClause"); with != nil {
			e.node("WithClause", with, certain)
		}
		e.fields(n, false, "withClause")
	case "TruncateStmt":
		for _, relation := range n.items("relations", "RangeVar") {
			e.changes = append(e.changes, change{table: rangeName(relation), verb: "TRUNCATE"})
		}
	case "CopyStmt":
		if _, relation := n.wrapped("relation"); relation != nil && n.is("is_from") {
			e.changes = append(e.changes, change{table: rangeName(relation), verb: "COPY"})
		}
		e.fields(n, false)
	case "WithClause":
		for _, cte := range n.items("ctes", "CommonTableExpr") {
			// PostgreSQL runs a changing part always and to its end, and a SELECT only as far as it is read.
			inner, content := cte.wrapped("ctequery")
			e.node(inner, content, certain && inner != "SelectStmt")
		}
	case "SelectStmt":
		e.selects(n, certain)
	case "FuncCall":
		e.calls = append(e.calls, call{nameOf(n.names("funcname")), certain, n})
		e.fields(n, certain, "agg_filter")
		e.visit(n["agg_filter"], false)
	case "CallStmt":
		if c := n.child("funccall"); c != nil {
			e.node("FuncCall", c, certain)
		}
	case "CaseExpr":
		e.visit(n["arg"], certain)
		e.fields(n, false, "arg")
	case "CoalesceExpr", "BoolExpr", "MinMaxExpr":
		for i, arg := range n.list("args") {
			e.visit(arg, certain && (i == 0 || kind == "MinMaxExpr"))
		}
	case "SubLink":
		e.visit(n["testexpr"], certain)
		e.visit(n["subselect"], certain)
	default:
		e.fields(n, certain)
	}
}

func (e *effect) selects(n node, certain bool) {
	if _, with := n.wrapped("withClause"); with != nil {
		e.node("WithClause", with, certain)
	}
	from := n.list("fromClause")
	filtered := n["whereClause"] != nil || n["havingClause"] != nil || n["limitCount"] != nil || n["limitOffset"] != nil ||
		n["groupClause"] != nil || n["larg"] != nil
	alone := false // FROM is one function, which is called once
	if len(from) == 1 {
		kind, _ := kindOf("", from[0])
		alone = kind == "RangeFunction"
	}
	e.visit(n["fromClause"], certain && alone && !filtered)
	e.fields(n, certain && len(from) == 0 && !filtered, "withClause", "fromClause")
	for _, locking := range n.items("lockingClause", "LockingClause") {
		strength := locking.text("strength")
		if locking.text("waitPolicy") == "LockWaitSkip" {
			continue // the row may stay without the lock
		}
		if strength != "LCS_FORNOKEYUPDATE" && strength != "LCS_FORUPDATE" {
			continue
		}
		for _, t := range lockedTables(n, locking) {
			if t.table.table([]string{"users"}) {
				if isOneRow(n["whereClause"], t.alias, []string{"id"}) {
					e.lockOne = true
				} else {
					e.lockMany = true
				}
			}
		}
	}
}

func (e *effect) change(kind string, n node) {
	_, relation := n.wrapped("relation")
	c := change{table: rangeName(relation), verb: changeVerbs[kind]}
	add := func(targets []node) {
		for _, t := range targets {
			c.columns = append(c.columns, t.text("name"))
		}
	}
	switch kind {
	case "InsertStmt":
		add(n.items("cols", "ResTarget"))
		if _, conflict := n.wrapped("onConflictClause"); conflict != nil && conflict.text("action") == "ONCONFLICT_UPDATE" {
			c.verb = "INSERT ... ON CONFLICT DO UPDATE"
			c.columns = nil
			add(conflict.items("targetList", "ResTarget"))
			c.otherVersion = otherVersion(conflict.items("targetList", "ResTarget"))
		}
	case "UpdateStmt":
		add(n.items("targetList", "ResTarget"))
		c.otherVersion = otherVersion(n.items("targetList", "ResTarget"))
	case "MergeStmt":
		for _, when := range n.items("mergeWhenClauses", "MergeWhenClause") {
			add(when.items("targetList", "ResTarget"))
		}
	}
	alias := relation.text("relname")
	if a := relation.child("alias"); a != nil {
		alias = a.text("aliasname")
	}
	c.one = isOneRow(n["whereClause"], alias, []string{"id"})
	e.changes = append(e.changes, c)
}

// otherVersion reports whether an assignment sets version to something else than version + 1.
func otherVersion(targets []node) bool {
	return slices.ContainsFunc(targets, func(t node) bool {
		if t.text("name") != "version" {
			return false
		}
		value := t["val"]
		if kind, m := kindOf("", value); kind == "MultiAssignRef" {
			inner, row := m.wrapped("source")
			if args := row.list("args"); inner == "RowExpr" && m.number("colno") <= len(args) {
				value = args[m.number("colno")-1]
			} else {
				return false // a subquery
			}
		}
		op, left, right := operator(value)
		kind, ref := kindOf("", left)
		one, _ := constant(right)
		parts := columnRef(ref)
		return op != "+" || one != "1" || kind != "ColumnRef" || len(parts) == 0 || parts[len(parts)-1] != "version"
	})
}

// source is a table in a FROM.
type source struct {
	table name
	alias string
	node  node
}

// sources lists the tables of a FROM, those of joins among them, but not those of subqueries.
func sources(from any) (all []source) {
	walk(from, func(kind string, n node) bool {
		switch kind {
		case "RangeSubselect", "SubLink", "SelectStmt":
			return false
		case "RangeVar":
			alias := n.text("relname")
			if a := n.child("alias"); a != nil {
				alias = a.text("aliasname")
			}
			all = append(all, source{rangeName(n), alias, n})
		}
		return true
	})
	return all
}

// lockedTables are the tables that a locking clause of a SELECT names, or all.
func lockedTables(selects, locking node) []source {
	all := sources(selects["fromClause"])
	names := locking.items("lockedRels", "RangeVar")
	if len(names) == 0 {
		return all
	}
	return slices.DeleteFunc(all, func(s source) bool {
		return !slices.ContainsFunc(names, func(n node) bool { return n.text("relname") == s.alias })
	})
}

// isOneRow reports whether a condition compares each column of a key with one value from outside.
func isOneRow(where any, alias string, key []string) bool {
	if len(key) == 0 {
		return false
	}
	for _, column := range key {
		if !slices.ContainsFunc(conjuncts(where), func(c any) bool {
			op, left, right := operator(c)
			return op == "=" && (isColumn(left, alias, column) && !mentions(right, alias) || isColumn(right, alias, column) && !mentions(left, alias))
		}) {
			return false
		}
	}
	return true
}

func isColumn(value any, alias, column string) bool {
	kind, n := kindOf("", value)
	if kind == "TypeCast" {
		return isColumn(n["arg"], alias, column)
	}
	if kind != "ColumnRef" {
		return false
	}
	parts := columnRef(n)
	return parts[len(parts)-1] == column && (len(parts) == 1 || parts[len(parts)-2] == alias)
}

// variablesOf lists the first parts of the column references of a tree that are variables of a function.
func (r *routine) variablesOf(value any) (names []string) {
	walk(value, func(kind string, n node) bool {
		if kind == "ColumnRef" {
			parts := columnRef(n)
			if len(parts) > 0 && !slices.Contains(names, parts[0]) && (parts[0] == "found" || r.isVariable(parts[0])) {
				names = append(names, parts[0])
			}
		}
		return true
	})
	return names
}

// upTo cuts a text for a message.
func upTo(text string, length int) string {
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > length {
		return text[:length] + "..."
	}
	return text
}
