package dbrules

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// ourSchemas are the schemas that the migrations may fill.
var ourSchemas = []string{"accounts", "contract"}

// routine is a function of ours as the rules see it: its head, and its body as a tree.
type routine struct {
	name
	kind       string // f: function, p: procedure, a: aggregate, w: window function
	language   string
	source     string
	create     string // the statement that creates it
	parameters []string
	types      []string
	result     string   // the type, without SETOF
	set        bool     // SETOF
	columns    []string // of the table that it returns
	volatility string   // i, s or v
	parallel   string   // s, r or u
	strict     bool
	rows       int  // the estimate of a set
	reads      bool // accounts_read may execute it
	writes     bool // accounts_write may execute it
	comment    string

	file string // of the migration that creates it last
	line int    // of the head
	body int    // the line of the file in which the body begins

	tree      node
	parseErr  error
	datums    []node
	variables map[string][]any // what is assigned to each variable; nil: something unknown
	fragments []fragment
}

func (r *routine) granted() bool { return r.reads || r.writes }

// operation reports whether it is a whole operation: granted, and not a helper that was granted by mistake.
func (r *routine) operation() bool { return r.granted() && !isInternal(r) }

// fragment is a SQL statement or expression in a body.
type fragment struct {
	in         string // the kind of the PL/pgSQL statement
	statement  node   // the PL/pgSQL statement itself
	line       int    // of the body
	statements []statement
	into       []string // the variables that get the result
	dynamic    bool     // it is the text of an EXECUTE
	unknown    bool     // parts of that text are not known
	err        error
}

// at returns the place of a line of the body.
func (r *routine) at(line int) (file string, number int) {
	if line > 0 && r.body > 0 {
		return r.file, r.body + line - 1
	}
	return r.file, r.line
}

func (r *routine) violation(rule string, line int, format string, args ...any) Violation {
	file, number := r.at(line)
	return Violation{rule, file, number, r.name.String() + ": " + fmt.Sprintf(format, args...)}
}

// allows reports whether a comment of the body names a rule and a reason to break it:
// "-- allow list-limit: a user has a handful of groups".
func (r *routine) allows(rule string) bool { return allowed(r.source, rule) }

func allowed(text, rule string) bool {
	return regexp.MustCompile(`(?m)^\s*-- allow ` + regexp.QuoteMeta(rule) + `: \S+ \S+`).MatchString(text)
}

// readRoutines reads the functions of our schemas from the catalog.
func readRoutines(ctx context.Context, conn *pgx.Conn, tree Tree) ([]*routine, error) {
	rows, err := conn.Query(ctx, `
		SELECT n.nspname::text, p.proname::text, p.prokind::text, l.lanname::text, p.prosrc,
		       CASE WHEN p.prokind IN ('f', 'p') THEN pg_get_functiondef(p.oid) ELSE '' END,
		       coalesce(p.proargnames, '{}')::text[],
		       ARRAY(SELECT format_type(a.t, NULL) FROM unnest(p.proargtypes::oid[]) WITH ORDINALITY AS a (t, i) ORDER BY a.i),
		       CASE WHEN p.prorettype = 0 THEN '' ELSE format_type(p.prorettype, NULL) END, p.proretset,
		       ARRAY(SELECT a.attname::text FROM pg_type AS t JOIN pg_attribute AS a ON a.attrelid = t.typrelid
		              WHERE t.oid = p.prorettype AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum),
		       p.provolatile::text, p.proparallel::text, p.proisstrict, p.prorows::integer, `+mayRead+`, `+mayWrite+`,
		       coalesce(obj_description(p.oid, 'pg_proc'), '')
		  FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace JOIN pg_language AS l ON l.oid = p.prolang
		 WHERE n.nspname = ANY ($1)
		 ORDER BY n.nspname, p.proname, p.oid`, ourSchemas)
	if err != nil {
		return nil, err
	}
	routines, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*routine, error) {
		r := &routine{}
		err := row.Scan(&r.schema, &r.object, &r.kind, &r.language, &r.source, &r.create, &r.parameters, &r.types, &r.result, &r.set,
			&r.columns, &r.volatility, &r.parallel, &r.strict, &r.rows, &r.reads, &r.writes, &r.comment)
		return r, err
	})
	if err != nil {
		return nil, fmt.Errorf("read the functions: %w", err)
	}
	for _, r := range routines {
		r.place(tree)
		r.parse()
	}
	return routines, nil
}

// place finds the statement of the migrations that made the body.
func (r *routine) place(tree Tree) {
	r.file, r.line = tree.place(r.object)
	first, _, _ := strings.Cut(r.source, "\n")
	for i := len(tree.migrations) - 1; i >= 0; i-- {
		m := tree.migrations[i]
		if at := strings.LastIndex(m.up, r.source); at >= 0 && strings.TrimSpace(r.source) != "" {
			r.file, r.body = m.path, lineOf(m.up, at)
			if strings.TrimSpace(first) != "" && r.line == 0 {
				r.line = r.body
			}
			return
		}
	}
}

func (r *routine) parse() {
	if r.language != "plpgsql" || r.create == "" {
		return
	}
	tree, err := parsePlpgsql(r.create)
	if err != nil {
		r.parseErr = err
		return
	}
	r.tree = tree
	for _, datum := range tree.list("datums") {
		_, d := kindOf("", datum)
		r.datums = append(r.datums, d)
	}
	r.collectVariables()
	for _, d := range r.datums {
		for _, key := range []string{"default_val", "cursor_explicit_expr"} {
			if kind, e := d.wrapped(key); kind == "PLpgSQL_expr" {
				f := r.fragment("declare", d, e)
				if key == "default_val" {
					f.into = []string{d.text("refname")}
				}
				r.fragments = append(r.fragments, f)
			}
		}
	}
	r.collect(tree["action"], "", nil)
}

// collect gathers the fragments below a PL/pgSQL statement.
func (r *routine) collect(value any, in string, at node) {
	switch v := value.(type) {
	case []any:
		for _, item := range v {
			r.collect(item, in, at)
		}
	case map[string]any:
		kind, n := kindOf("", v)
		if kind == "" {
			n = v
		}
		if kind == "PLpgSQL_expr" {
			return // of a place that is not listed below
		}
		if strings.HasPrefix(kind, "PLpgSQL_stmt_") || kind == "PLpgSQL_if_elsif" || kind == "PLpgSQL_case_when" {
			in, at = kind, n
		}
		for _, key := range sortedKeys(n) {
			if k, e := n.wrapped(key); k == "PLpgSQL_expr" {
				r.fragments = append(r.fragments, r.use(kind, key, at, e)...)
				continue
			}
			if key == "params" {
				for _, e := range n.items(key, "PLpgSQL_expr") {
					r.fragments = append(r.fragments, r.fragment(kind, at, e))
				}
				continue
			}
			r.collect(n[key], in, at)
		}
	}
}

// use returns the fragments of an expression: itself and, if it is the text of an EXECUTE, what that text is.
func (r *routine) use(kind, key string, at, e node) []fragment {
	f := r.fragment(kind, at, e)
	dynamic := kind == "PLpgSQL_stmt_dynexecute" && key == "query" || kind == "PLpgSQL_stmt_dynfors" && key == "query" || key == "dynquery"
	if !dynamic {
		f.into = r.targets(at)
		return []fragment{f}
	}
	all := []fragment{f}
	for _, text := range r.texts(f) {
		d := fragment{in: kind, statement: at, line: f.line, dynamic: true, unknown: text.unknown, into: r.targets(at)}
		d.statements, d.err = parseSQL(text.sql)
		all = append(all, d)
	}
	return all
}

var assignment = regexp.MustCompile(`(?s)^\s*[\w."$]+\s*(?:\[[^=]*?\]\s*)*(?:\.\s*[\w"]+\s*)*:?=`)

// fragment parses an expression of PL/pgSQL.
func (r *routine) fragment(in string, at, e node) fragment {
	f := fragment{in: in, statement: at, line: at.number("lineno")}
	text := e.text("query")
	const statementMode, assignMode = 0, 3
	switch mode := e.number("parseMode"); {
	case mode == statementMode:
	case mode >= assignMode:
		text = "SELECT " + assignment.ReplaceAllString(text, "")
	default:
		text = "SELECT " + text
	}
	f.statements, f.err = parseSQL(text)
	return f
}

// expression returns the expression of a fragment that is one.
func (f fragment) expression() any {
	if len(f.statements) != 1 || f.statements[0].kind != "SelectStmt" {
		return nil
	}
	targets := f.statements[0].node.items("targetList", "ResTarget")
	if len(targets) != 1 {
		return nil
	}
	return targets[0]["val"]
}

// targets are the variables that a PL/pgSQL statement fills.
func (r *routine) targets(at node) []string {
	var names []string
	for _, key := range []string{"target", "var"} {
		kind, target := at.wrapped(key)
		if kind == "PLpgSQL_row" {
			for _, field := range target.list("fields") {
				if m, ok := field.(map[string]any); ok {
					names = append(names, r.datum(node(m).number("varno")))
				}
			}
		} else if kind != "" {
			names = append(names, target.text("refname"))
		}
	}
	if _, has := at["varno"]; has {
		names = append(names, r.datum(at.number("varno")))
	}
	return names
}

// datum is the name of the variable with a number; that of the record for a field of one.
func (r *routine) datum(number int) string {
	if number < 0 || number >= len(r.datums) {
		return ""
	}
	d := r.datums[number]
	if parent, has := d["recparentno"]; has {
		f, _ := parent.(float64)
		return r.datum(int(f))
	}
	return d.text("refname")
}

// returnsNext reports whether the function builds its result row by row.
func (r *routine) returnsNext() bool {
	found := false
	walk(r.tree["action"], func(kind string, _ node) bool {
		found = found || kind == "PLpgSQL_stmt_return_next"
		return !found
	})
	return found
}

func (r *routine) isVariable(name string) bool {
	return slices.ContainsFunc(r.datums, func(d node) bool { return d.text("refname") == name })
}

func (r *routine) collectVariables() {
	r.variables = map[string][]any{}
	unknown := map[string]bool{}
	for _, parameter := range r.parameters {
		unknown[parameter] = true
	}
	assign := func(at, e node, names []string) {
		f := r.fragment("", at, e)
		for _, n := range names {
			if expression := f.expression(); expression != nil {
				r.variables[n] = append(r.variables[n], expression)
			} else {
				unknown[n] = true
			}
		}
	}
	for _, d := range r.datums {
		if kind, e := d.wrapped("default_val"); kind == "PLpgSQL_expr" {
			assign(d, e, []string{d.text("refname")})
		}
	}
	walk(r.tree["action"], func(kind string, n node) bool {
		if kind == "PLpgSQL_stmt_assign" {
			_, e := n.wrapped("expr")
			assign(n, e, r.targets(n))
		} else if strings.HasPrefix(kind, "PLpgSQL_stmt_") {
			for _, name := range r.targets(n) {
				unknown[name] = true
			}
			for _, item := range n.items("diag_items", "PLpgSQL_diag_item") {
				unknown[r.datum(item.number("target"))] = true
			}
		}
		return true
	})
	for name := range unknown {
		delete(r.variables, name)
	}
}

// text is what an EXECUTE may run.
type text struct {
	sql     string
	unknown bool
}

// What stands in a text for a part of it: an expression that is not known, and a name from %I.
const (
	unknownPart = "dbrules_unknown"
	unknownName = "dbrules_name"
	maxTexts    = 32
)

// texts returns what the text of an EXECUTE may be.
func (r *routine) texts(f fragment) []text {
	found := r.resolve(f.expression(), 0)
	if len(found) == 0 || len(found) > maxTexts {
		return []text{{unknownPart, true}}
	}
	return found
}

func (r *routine) resolve(value any, depth int) []text {
	const maxDepth = 20
	unknown := []text{{" " + unknownPart + " ", true}}
	if depth > maxDepth {
		return unknown
	}
	if s, ok := constant(value); ok {
		return []text{{s, false}}
	}
	if isNull(value) {
		return nil
	}
	kind, n := kindOf("", value)
	switch kind {
	case "TypeCast":
		return r.resolve(n["arg"], depth+1)
	case "A_Expr":
		if op, left, right := operator(value); op == "||" {
			return join(r.resolve(left, depth+1), r.resolve(right, depth+1))
		}
	case "CaseExpr":
		var all []text
		for _, when := range n.items("args", "CaseWhen") {
			all = append(all, r.resolve(when["result"], depth+1)...)
		}
		if n["defresult"] != nil {
			all = append(all, r.resolve(n["defresult"], depth+1)...)
		}
		return all
	case "CoalesceExpr":
		var all []text
		for _, arg := range n.list("args") {
			all = append(all, r.resolve(arg, depth+1)...)
		}
		return all
	case "ColumnRef":
		parts := columnRef(n)
		if values := r.variables[parts[0]]; len(parts) == 1 && len(values) > 0 {
			var all []text
			for _, v := range values {
				if mentions(v, parts[0]) {
					return unknown // it is built up
				}
				all = append(all, r.resolve(v, depth+1)...)
			}
			return all
		}
	case "FuncCall":
		called := nameOf(n.names("funcname"))
		args := n.list("args")
		switch {
		case called.builtin("quote_ident"):
			return []text{{unknownName, false}}
		case called.builtin("quote_literal", "quote_nullable"):
			return []text{{"'" + unknownPart + "'", false}}
		case called.builtin("concat"):
			all := []text{{"", false}}
			for _, arg := range args {
				all = join(all, r.resolve(arg, depth+1))
			}
			return all
		case called.builtin("lower", "upper", "btrim", "trim") && len(args) == 1:
			return r.resolve(args[0], depth+1)
		case called.builtin("format") && len(args) > 0:
			return r.format(args, depth)
		}
	}
	return unknown
}

// alwaysEmpty reports whether an expression is an empty array, or NULL, whatever happens.
func (r *routine) alwaysEmpty(value any, depth int) bool {
	const maxDepth = 5
	if text, ok := constant(value); ok {
		return text == "{}"
	}
	if isNull(value) {
		return true
	}
	switch kind, n := kindOf("", value); kind {
	case "TypeCast":
		return r.alwaysEmpty(n["arg"], depth)
	case "A_ArrayExpr":
		return len(n.list("elements")) == 0
	case "ColumnRef":
		parts := columnRef(n)
		if values := r.variables[parts[0]]; len(parts) == 1 && len(values) > 0 && depth < maxDepth {
			return !slices.ContainsFunc(values, func(v any) bool { return !r.alwaysEmpty(v, depth+1) })
		}
	}
	return false
}

var formatPart = regexp.MustCompile(`%(?:(\d+)\$)?(?:-?\d+)?([sIL%])`)

func (r *routine) format(args []any, depth int) []text {
	template, ok := constant(args[0])
	if !ok {
		return []text{{unknownPart, true}}
	}
	all := []text{{"", false}}
	last, next := 0, 1
	for _, m := range formatPart.FindAllStringSubmatchIndex(template, -1) {
		all = join(all, []text{{template[last:m[0]], false}})
		last = m[1]
		verb := template[m[4]:m[5]]
		if verb == "%" {
			all = join(all, []text{{"%", false}})
			continue
		}
		at := next
		if m[2] >= 0 {
			_, _ = fmt.Sscan(template[m[2]:m[3]], &at)
		}
		next = at + 1
		part := []text{{" " + unknownPart + " ", true}}
		if at < len(args) {
			known := r.resolve(args[at], depth+1)
			complete := len(known) > 0 && !slices.ContainsFunc(known, func(t text) bool { return t.unknown })
			switch {
			case verb == "s" || verb == "I" && complete:
				part = known
			case verb == "I":
				part = []text{{unknownName, false}}
			case verb == "L":
				part = []text{{"'" + unknownPart + "'", false}}
			}
		}
		all = join(all, part)
	}
	return join(all, []text{{template[last:], false}})
}

func join(left, right []text) []text {
	var all []text
	for _, l := range left {
		for _, r := range right {
			if len(all) > maxTexts {
				return all
			}
			all = append(all, text{l.sql + r.sql, l.unknown || r.unknown})
		}
	}
	return all
}

// mentions reports whether an expression names a variable or column.
func mentions(value any, name string) bool {
	found := false
	walk(value, func(kind string, n node) bool {
		if kind == "ColumnRef" && slices.Contains(columnRef(n), name) {
			found = true
		}
		return !found
	})
	return found
}
