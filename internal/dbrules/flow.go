package dbrules

import (
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"
)

const (
	writeRecords   = "write-records"
	writeVersion   = "write-raises-version"
	writeLocks     = "write-locks-user"
	writeDecidable = "write-decidable"
	touchedAgrees  = "touched-recorded"
)

// recordingHelpers are the functions that record what a change invalidates, without their version.
var recordingHelpers = []string{"record_change", "enqueue_invalidation"}

// obligation is something that must happen on every path that changes certain tables and returns.
type obligation struct {
	rule   string
	tables []string
	// helpers fulfil it when they are called, whatever they are in the end; without their version.
	helpers []string
	// by reports whether a change fulfils it.
	by func(change) bool
	// before: it also counts if it happens before the change.
	before bool
	what   string
}

var obligations = []obligation{
	{
		rule: writeRecords, tables: trackedTables, helpers: recordingHelpers,
		by: func(change) bool { return false }, what: "without a call of accounts." + recordingHelpers[0] + "_v1 after it",
	},
	{
		rule: writeVersion, tables: versionedTables, helpers: nil,
		by: func(c change) bool {
			return c.table.table([]string{"users"}) && (c.verb == "INSERT" || slices.Contains(c.columns, "version"))
		},
		before: true, what: "without a new version of the user",
	},
}

func isHelper(object string, helpers []string) bool {
	base, _, _ := cutVersion(object)
	return slices.Contains(helpers, base)
}

func cutVersion(object string) (base, version string, ok bool) {
	i := strings.LastIndex(object, "_v")
	if i < 0 {
		return object, "", false
	}
	return object[:i], object[i+2:], true
}

// site is a change that is not yet followed by what it obliges to.
type site struct {
	line int
	what string
	// guards are tests that tell, when they fail, that the change did not happen: "v" for a variable that
	// is NULL, empty, zero or false then, "T:<condition>" and "F:<condition>" for a condition that holds or not.
	guards map[string]bool
}

// state is what is known at one point of a path.
type state struct {
	pending    map[string]map[string]site // by the rule of the obligation, then by place
	done       map[string]bool            // the obligation was fulfilled on every way here
	locked     bool                       // the user is locked on every way here
	lockedMany bool
	conditions map[string]bool // "T:<condition>" or "F:<condition>" that hold here
	recorded   map[string]bool // variables that were passed to the recording helper
	lockedUser string          // the argument of the helper that locked the user, empty if it differs between the ways here
}

func (s *state) clone() *state {
	if s == nil {
		return nil
	}
	c := &state{map[string]map[string]site{}, maps.Clone(s.done), s.locked, s.lockedMany, maps.Clone(s.conditions), maps.Clone(s.recorded), s.lockedUser}
	for rule, sites := range s.pending {
		c.pending[rule] = map[string]site{}
		for key, at := range sites {
			c.pending[rule][key] = site{at.line, at.what, maps.Clone(at.guards)}
		}
	}
	return c
}

func newState() *state {
	return &state{map[string]map[string]site{}, map[string]bool{}, false, false, map[string]bool{}, map[string]bool{}, ""}
}

// merge joins the states of two ways; nil is a way that does not come here.
func merge(a, b *state) *state {
	if a == nil {
		return b.clone()
	}
	if b == nil {
		return a.clone()
	}
	m := a.clone()
	m.locked, m.lockedMany = a.locked && b.locked, a.lockedMany && b.lockedMany
	if a.lockedUser != b.lockedUser {
		m.lockedUser = ""
	}
	intersect(m.done, b.done)
	intersect(m.conditions, b.conditions)
	maps.Copy(m.recorded, b.recorded)
	for rule, sites := range b.pending {
		for key, at := range sites {
			if there, ok := m.pending[rule][key]; ok {
				intersect(there.guards, at.guards)
				continue
			}
			if m.pending[rule] == nil {
				m.pending[rule] = map[string]site{}
			}
			m.pending[rule][key] = site{at.line, at.what, maps.Clone(at.guards)}
		}
	}
	return m
}

func intersect(into, other map[string]bool) {
	maps.DeleteFunc(into, func(key string, _ bool) bool { return !other[key] })
}

func (s *state) key() string {
	if s == nil {
		return ""
	}
	return fmt.Sprint(s.pending, s.done, s.locked, s.lockedMany, s.conditions, s.recorded, s.lockedUser)
}

func (s *state) eachSite(visit func(at site)) {
	for _, sites := range s.pending {
		for _, at := range sites {
			visit(at)
		}
	}
}

// dropGuarded removes the changes that did not happen because a guard failed.
func (s *state) dropGuarded(guard string) {
	for _, sites := range s.pending {
		maps.DeleteFunc(sites, func(_ string, at site) bool { return at.guards[guard] })
	}
}

// summary is what a caller needs to know of a function.
type summary struct {
	leaves   map[string][]site // changes that are pending when it returns
	always   map[string]bool   // obligations that it fulfils on every path
	unlocked []site            // changes of a user's rows without the user's lock
	locks    bool
	many     bool
	records  bool // it calls the recording helper somewhere
}

// flows analyses functions from the callees up.
type flows struct {
	routines  map[name]*routine
	summaries map[name]*summary
	running   []name
	found     []Violation
}

// callGraph checks what every write function must do on every path.
func callGraph(routines []*routine) []Violation {
	a := &flows{routines: map[name]*routine{}, summaries: map[name]*summary{}}
	for _, r := range routines {
		a.routines[r.name] = r
	}
	for _, r := range routines {
		if r.volatility == "v" && r.tree != nil {
			a.summary(r)
		}
	}
	for _, r := range routines {
		if !r.operation() || a.summaries[r.name] == nil {
			continue
		}
		s := a.summaries[r.name]
		for _, o := range obligations {
			for _, at := range s.leaves[o.rule] {
				a.found = append(a.found, r.violation(o.rule, at.line, "%s, and a path returns %s", at.what, o.what))
			}
		}
		for _, at := range s.unlocked {
			a.found = append(a.found, r.violation(writeLocks, at.line, "%s, and the user is not locked before on every path", at.what))
		}
	}
	return a.found
}

func (a *flows) summary(r *routine) *summary {
	if s := a.summaries[r.name]; s != nil {
		return s
	}
	if slices.Contains(a.running, r.name) {
		// What a function does by calling itself is not followed.
		for _, member := range a.running[slices.Index(a.running, r.name):] {
			if c := a.routines[member]; changesTracked(c) {
				a.found = append(a.found, c.violation(writeDecidable, 0, "it changes rows and calls itself (%s)", joinNames(a.running, r.name)))
			}
		}
		return &summary{leaves: map[string][]site{}, always: map[string]bool{}}
	}
	a.running = append(a.running, r.name)
	defer func() { a.running = a.running[:len(a.running)-1] }()
	f := &flow{flows: a, r: r, sum: &summary{leaves: map[string][]site{}, always: map[string]bool{}}}
	f.run()
	a.summaries[r.name] = f.sum
	return f.sum
}

func joinNames(names []name, last name) string {
	var parts []string
	for _, n := range append(slices.Clone(names), last) {
		parts = append(parts, n.String())
	}
	return strings.Join(parts, " -> ")
}

func changesTracked(r *routine) bool {
	for _, f := range r.fragments {
		for _, s := range f.statements {
			for _, c := range effectOf(s).changes {
				if c.table.table(trackedTables) {
					return true
				}
			}
		}
	}
	return false
}

// flow is the analysis of one function.
type flow struct {
	*flows
	r       *routine
	sum     *summary
	returns []*state
	loops   []*loop
}

type loop struct {
	label     string
	exits     *state
	continues *state
}

func (f *flow) run() {
	for _, fragment := range f.r.fragments {
		f.decide(fragment)
	}
	s := newState()
	for _, d := range f.r.datums {
		if kind, e := d.wrapped("default_val"); kind == "PLpgSQL_expr" {
			s = f.apply(s, f.r.fragment("declare", d, e), []string{d.text("refname")})
		}
	}
	_, block := f.r.tree.wrapped("action")
	if s = f.block(s, block); s != nil {
		f.returns = append(f.returns, s)
	}
	for _, o := range obligations {
		always := len(f.returns) > 0
		seen := map[string]bool{}
		for _, s := range f.returns {
			always = always && s.done[o.rule]
			for key, at := range s.pending[o.rule] {
				if !seen[key] {
					seen[key] = true
					f.sum.leaves[o.rule] = append(f.sum.leaves[o.rule], at)
				}
			}
		}
		sort.Slice(f.sum.leaves[o.rule], func(i, j int) bool { return f.sum.leaves[o.rule][i].line < f.sum.leaves[o.rule][j].line })
		f.sum.always[o.rule] = always
	}
	f.sum.locks = len(f.returns) > 0 && !slices.ContainsFunc(f.returns, func(s *state) bool { return !s.locked })
	f.sum.many = len(f.returns) > 0 && !slices.ContainsFunc(f.returns, func(s *state) bool { return !s.lockedMany })
}

// decide reports what cannot be followed.
func (f *flow) decide(fragment fragment) {
	if fragment.dynamic && (fragment.unknown || fragment.err != nil) {
		f.found = append(f.found, f.r.violation(writeDecidable, fragment.line, "the text of an EXECUTE cannot be known here"))
	} else if fragment.err != nil {
		f.found = append(f.found, f.r.violation(writeDecidable, fragment.line, "a statement cannot be parsed: %v", fragment.err))
	}
}

func (f *flow) block(s *state, block node) *state {
	before := s.clone()
	out := f.list(s, block.list("body"))
	_, exceptions := block.wrapped("exceptions")
	if block["exceptions"] != nil {
		if exceptions == nil {
			exceptions = block.child("exceptions")
		}
		// The changes of the block are undone when a handler runs, but not its variables.
		assigned := f.assigned(block["body"])
		for _, handler := range exceptions.items("exc_list", "PLpgSQL_exception") {
			entry := before.clone()
			if entry != nil {
				for _, variable := range assigned {
					f.kill(entry, variable)
				}
				f.kill(entry, "found")
			}
			out = merge(out, f.list(entry, handler.list("action")))
		}
	}
	return out
}

// assigned lists the variables that are assigned below.
func (f *flow) assigned(value any) (names []string) {
	walk(value, func(kind string, n node) bool {
		if strings.HasPrefix(kind, "PLpgSQL_stmt_") {
			names = append(names, f.r.targets(n)...)
			for _, item := range n.items("diag_items", "PLpgSQL_diag_item") {
				names = append(names, f.r.datum(item.number("target")))
			}
		}
		return true
	})
	return names
}

func (f *flow) list(s *state, statements []any) *state {
	for _, item := range statements {
		if s == nil {
			return nil // what follows is not reached
		}
		kind, n := kindOf("", item)
		s = f.statement(s, kind, n)
	}
	return s
}

// expression applies what an expression of a statement does.
func (f *flow) expression(s *state, at node, key string, into []string) *state {
	kind, e := at.wrapped(key)
	if kind != "PLpgSQL_expr" || s == nil {
		return s
	}
	return f.apply(s, f.r.fragment("", at, e), into)
}

// dynamic applies what the text of an EXECUTE does.
func (f *flow) dynamic(s *state, at node, key string) *state {
	kind, e := at.wrapped(key)
	if kind != "PLpgSQL_expr" || s == nil {
		return s
	}
	base := f.r.fragment("", at, e)
	s = f.apply(s, base, nil)
	var out *state
	for _, text := range f.r.texts(base) {
		d := fragment{line: base.line, dynamic: true}
		d.statements, d.err = parseSQL(text.sql)
		out = merge(out, f.apply(s.clone(), d, f.r.targets(at)))
	}
	for _, e := range at.items("params", "PLpgSQL_expr") {
		out = f.apply(out, f.r.fragment("", at, e), nil)
	}
	return out
}

// cursor applies the query of the declared cursor that a statement opens.
func (f *flow) cursor(s *state, n node) *state {
	number, has := n["curvar"].(float64)
	if !has || s == nil || int(number) >= len(f.r.datums) {
		return s
	}
	if kind, e := f.r.datums[int(number)].wrapped("cursor_explicit_expr"); kind == "PLpgSQL_expr" {
		return f.apply(s, f.r.fragment("", n, e), nil)
	}
	return s
}

func (f *flow) condition(at node, key string) any {
	kind, e := at.wrapped(key)
	if kind != "PLpgSQL_expr" {
		return nil
	}
	return f.r.fragment("", at, e).expression()
}

const errorLevel = 21

func (f *flow) statement(s *state, kind string, n node) *state {
	switch kind {
	case "PLpgSQL_stmt_block":
		return f.block(s, n)
	case "PLpgSQL_stmt_assign":
		targets := f.r.targets(n)
		_, e := n.wrapped("expr")
		fragment := f.r.fragment("", n, e)
		s = f.apply(s, fragment, targets)
		// v := FOUND, v := cardinality(w) > 0: the test moves to the new variable.
		if guard, positive, ok := emptiness(fragment.expression()); ok && positive && s != nil {
			for _, target := range targets {
				s.eachSite(func(at site) {
					if at.guards[guard] {
						at.guards[target] = true
					}
				})
			}
		}
		return s
	case "PLpgSQL_stmt_if":
		return f.branches(s, n)
	case "PLpgSQL_stmt_case":
		return f.cases(s, n)
	case "PLpgSQL_stmt_loop":
		return f.iterate(s, n, s, false, nil)
	case "PLpgSQL_stmt_while":
		s = f.expression(s, n, "cond", nil)
		f.orderedLoop(s, n, f.r.variablesOf(f.condition(n, "cond")))
		return f.iterate(s, n, nil, true, f.condition(n, "cond"))
	case "PLpgSQL_stmt_fori":
		for _, key := range []string{"lower", "upper", "step"} {
			s = f.expression(s, n, key, nil)
		}
		f.kill(s, "found")
		f.orderedLoop(s, n, f.r.targets(n))
		return f.iterate(s, n, nil, true, nil)
	case "PLpgSQL_stmt_fors", "PLpgSQL_stmt_forc", "PLpgSQL_stmt_foreach_a", "PLpgSQL_stmt_dynfors":
		return f.over(s, kind, n)
	case "PLpgSQL_stmt_exit":
		return f.exit(s, n)
	case "PLpgSQL_stmt_return":
		if s = f.expression(s, n, "expr", nil); s != nil {
			f.returns = append(f.returns, s)
		}
		return nil
	case "PLpgSQL_stmt_raise":
		if level := n.number("elog_level"); level >= errorLevel || level == 0 {
			return nil
		}
		return s
	case "PLpgSQL_stmt_getdiag":
		for _, item := range n.items("diag_items", "PLpgSQL_diag_item") {
			variable := f.r.datum(item.number("target"))
			f.kill(s, variable)
			if item.text("kind") == "ROW_COUNT" {
				s.eachSite(func(at site) {
					if at.guards["row count"] {
						at.guards[variable] = true
					}
				})
			}
		}
		return s
	case "PLpgSQL_stmt_dynexecute":
		return f.dynamic(s, n, "query")
	case "PLpgSQL_stmt_return_query":
		return f.dynamic(f.expression(s, n, "query", nil), n, "dynquery")
	case "PLpgSQL_stmt_open":
		s = f.cursor(s, n)
		return f.dynamic(f.expression(s, n, "query", nil), n, "dynquery")
	case "PLpgSQL_stmt_fetch":
		for _, target := range f.r.targets(n) {
			f.kill(s, target)
		}
		f.kill(s, "found")
		return s
	case "PLpgSQL_stmt_commit", "PLpgSQL_stmt_rollback":
		f.found = append(f.found, f.r.violation(writeDecidable, n.number("lineno"), "it ends a transaction"))
		return s
	}
	if kind == "PLpgSQL_stmt_perform" || kind == "PLpgSQL_stmt_execsql" { // also one without FROM sets FOUND
		f.kill(s, "found")
		f.kill(s, "row count")
	}
	for _, key := range []string{"sqlstmt", "expr", "cond", "message"} {
		s = f.expression(s, n, key, f.r.targets(n))
	}
	return s
}

func (f *flow) branches(s *state, n node) *state {
	s = f.expression(s, n, "cond", nil)
	condition := f.condition(n, "cond")
	out := f.list(f.refine(s.clone(), condition, true), n.list("then_body"))
	s = f.refine(s, condition, false)
	for _, elsif := range n.items("elsif_list", "PLpgSQL_if_elsif") {
		s = f.expression(s, elsif, "cond", nil)
		condition = f.condition(elsif, "cond")
		out = merge(out, f.list(f.refine(s.clone(), condition, true), elsif.list("stmts")))
		s = f.refine(s, condition, false)
	}
	return merge(out, f.list(s, n.list("else_body")))
}

func (f *flow) cases(s *state, n node) *state {
	s = f.expression(s, n, "t_expr", nil)
	var out *state
	for _, when := range n.items("case_when_list", "PLpgSQL_case_when") {
		s = f.expression(s, when, "expr", nil)
		condition := f.condition(when, "expr")
		if n["t_expr"] != nil {
			condition = nil // it names a variable of PL/pgSQL's own
		}
		out = merge(out, f.list(f.refine(s.clone(), condition, true), when.list("stmts")))
		s = f.refine(s, condition, false)
	}
	if !n.is("have_else") {
		return out // case_not_found is an error
	}
	return merge(out, f.list(s, n.list("else_stmts")))
}

// iterate follows a loop until nothing changes. zero: the body may be left out.
func (f *flow) iterate(s *state, n node, _ *state, zero bool, condition any) *state {
	entry := s.clone()
	var out *state
	this := &loop{label: n.text("label")}
	const enough = 6 // joins only ever lose facts, and there are few kinds of them
	for range enough {
		this.exits, this.continues = nil, nil
		f.loops = append(f.loops, this)
		body := entry.clone()
		if condition != nil {
			body = f.refine(body, condition, true)
		}
		out = f.list(body, n.list("body"))
		f.loops = f.loops[:len(f.loops)-1]
		next := merge(entry, merge(out, this.continues))
		if next.key() == entry.key() {
			break
		}
		entry = next
	}
	if !zero {
		return this.exits
	}
	end := entry
	if condition != nil {
		end = f.refine(entry.clone(), condition, false)
	}
	return merge(end, this.exits)
}

// over follows a loop over rows.
func (f *flow) over(s *state, kind string, n node) *state {
	before := s.clone()
	switch kind {
	case "PLpgSQL_stmt_dynfors":
		s = f.dynamic(s, n, "query")
	case "PLpgSQL_stmt_foreach_a":
		s = f.expression(s, n, "expr", nil)
	case "PLpgSQL_stmt_forc":
		s = f.cursor(s, n)
	default:
		s = f.expression(s, n, "query", nil)
	}
	for _, target := range f.r.targets(n) {
		f.kill(s, target)
	}
	f.kill(s, "found")
	ordered := kind == "PLpgSQL_stmt_fors" && orderedQuery(f.r, n)
	if !ordered && !s.lockedMany && f.locksIn(n["body"]) {
		f.found = append(f.found, f.r.violation(lockOrder, n.number("lineno"), "a loop locks users in the order in which its rows come"))
	}
	// Without a row of UPDATE ... RETURNING the body does not run, and nothing was changed.
	if query, e := n.wrapped("query"); kind == "PLpgSQL_stmt_fors" && query == "PLpgSQL_expr" {
		fragment := f.r.fragment("", n, e)
		if len(fragment.statements) == 1 && changeVerbs[fragment.statements[0].kind] != "" {
			this := &loop{label: n.text("label")}
			entry := s.clone()
			var out *state
			for range 3 {
				this.exits, this.continues = nil, nil
				f.loops = append(f.loops, this)
				out = f.list(entry.clone(), n.list("body"))
				f.loops = f.loops[:len(f.loops)-1]
				entry = merge(entry, merge(out, this.continues))
			}
			return merge(before, merge(merge(out, this.continues), this.exits))
		}
	}
	return f.iterate(s, n, nil, true, nil)
}

// orderedLoop reports a loop over positions that locks a user at each of them.
func (f *flow) orderedLoop(s *state, n node, positions []string) {
	if s == nil || s.lockedMany || !f.locksIn(n["body"]) {
		return
	}
	used := false
	walk(n["body"], func(kind string, e node) bool {
		if kind == "PLpgSQL_expr" {
			for _, statement := range f.r.fragment("", node{}, e).statements {
				for _, position := range positions {
					used = used || mentions(map[string]any{statement.kind: map[string]any(statement.node)}, position)
				}
			}
		}
		return !used
	})
	if used {
		f.found = append(f.found, f.r.violation(lockOrder, n.number("lineno"), "a loop locks users in the order of its positions"))
	}
}

func (f *flow) exit(s *state, n node) *state {
	s = f.expression(s, n, "cond", nil)
	leaving, staying := s.clone(), (*state)(nil)
	if condition := f.condition(n, "cond"); n["cond"] != nil {
		leaving, staying = f.refine(s.clone(), condition, true), f.refine(s, condition, false)
	}
	for i := len(f.loops) - 1; i >= 0; i-- {
		if label := n.text("label"); label != "" && label != f.loops[i].label {
			continue
		}
		if n.is("is_exit") {
			f.loops[i].exits = merge(f.loops[i].exits, leaving)
		} else {
			f.loops[i].continues = merge(f.loops[i].continues, leaving)
		}
		return staying
	}
	// The label of a block: what is left out of it is not followed.
	f.found = append(f.found, f.r.violation(writeDecidable, n.number("lineno"), "EXIT leaves a block that is no loop"))
	return staying
}

// kill forgets what a variable told.
func (f *flow) kill(s *state, variable string) {
	if s == nil || variable == "" {
		return
	}
	stale := func(guard string) bool {
		return guard == variable || len(guard) > 1 && guard[1] == ':' && strings.Contains(guard, `"sval":"`+variable+`"`)
	}
	s.eachSite(func(at site) { maps.DeleteFunc(at.guards, func(g string, _ bool) bool { return stale(g) }) })
	maps.DeleteFunc(s.conditions, func(g string, _ bool) bool { return stale(g) })
}

// apply adds what a fragment does to a state; into are the variables that get its result.
func (f *flow) apply(s *state, fragment fragment, into []string) *state {
	if s == nil {
		return nil
	}
	total := effect{}
	for _, st := range fragment.statements {
		e := effectOf(st)
		total.changes = append(total.changes, e.changes...)
		total.calls = append(total.calls, e.calls...)
		total.lockOne = total.lockOne || e.lockOne
		total.lockMany = total.lockMany || e.lockMany
	}
	standalone := len(fragment.statements) == 1 && (fragment.statements[0].kind != "SelectStmt" || fragment.statements[0].node["fromClause"] != nil)
	if standalone && !fragment.dynamic {
		f.kill(s, "found")
	}
	if standalone {
		f.kill(s, "row count")
	}
	locked := s.locked
	if total.lockMany {
		s.locked, s.lockedMany = true, true
	}
	s.locked = s.locked || total.lockOne
	// Calls first: the arguments of a changing statement are evaluated before it, and a helper that locks
	// stands before what it protects.
	var fulfilled []string
	for _, c := range total.calls {
		if !c.ours() {
			continue
		}
		callee := f.routines[c.name]
		for _, o := range obligations {
			if isHelper(c.object, o.helpers) {
				f.sum.records = true
				if args := c.node.list("args"); o.rule == writeRecords && len(args) > 0 && f.r.alwaysEmpty(args[0], 0) {
					f.found = append(f.found, f.r.violation(writeRecords, fragment.line, "it records no key: the first argument of %s is always empty", c))
				}
				if c.certain {
					fulfilled = append(fulfilled, o.rule)
				}
				if o.rule == writeRecords {
					for _, arg := range c.node.list("args") {
						for _, variable := range f.r.variablesOf(arg) {
							s.recorded[variable] = true
						}
					}
				}
			}
		}
		if callee == nil || callee.volatility != "v" || callee.tree == nil || isHelper(c.object, recordingHelpers) {
			continue
		}
		sum := f.summary(callee)
		f.lockOrder(s, fragment, c, sum)
		for _, at := range sum.unlocked {
			if !s.locked && !callee.operation() {
				f.unlocked(site{line: fragment.line, what: "it calls " + c.String() + ", which " + strings.TrimPrefix(at.what, "it ")})
			}
		}
		s.locked = s.locked || c.certain && sum.locks
		s.lockedMany = s.lockedMany || c.certain && sum.many
		for _, o := range obligations {
			for _, at := range sum.leaves[o.rule] {
				if !callee.operation() && !(o.before && s.done[o.rule]) {
					what := at.what
					if !strings.HasPrefix(what, "calls ") {
						what = "calls " + c.String() + ", which " + strings.TrimPrefix(what, "it ")
					}
					f.add(s, o.rule, site{fragment.line, what, map[string]bool{}})
				}
			}
			if sum.always[o.rule] && c.certain && !callee.operation() {
				fulfilled = append(fulfilled, o.rule)
			}
		}
	}
	for _, c := range total.changes {
		for _, o := range obligations {
			if o.by(c) && !slices.Contains(fulfilled, o.rule) {
				fulfilled = append(fulfilled, o.rule)
			}
		}
		if c.table.table([]string{"users"}) && (c.verb == "INSERT" || c.verb == "UPDATE") {
			s.locked = true
		}
	}
	guards := f.guards(fragment, into, len(total.changes))
	for _, variable := range into {
		f.kill(s, variable)
		if s.recorded[variable] && len(f.loops) == 0 && slices.Contains(f.r.columns, "touched") && !isRecordingResult(fragment) {
			f.found = append(f.found, f.r.violation(touchedAgrees, fragment.line, "%s changes after it was recorded", variable))
			delete(s.recorded, variable)
		}
	}
	for _, c := range total.changes {
		what := "it has " + c.verb + " of " + c.table.String()
		if c.table.table(versionedTables) && !s.locked {
			f.unlocked(site{line: fragment.line, what: what})
		}
		// In one statement the order of the changes is PostgreSQL's: a lock must be held before.
		if c.table.table(versionedTables) && !locked && s.locked && !total.lockOne && !total.lockMany && !lockedByCall(f, total) && len(total.changes) > 1 {
			f.unlocked(site{line: fragment.line, what: what})
		}
		if c.table.table([]string{"users"}) && c.verb == "UPDATE" && !c.one && !locked && !s.lockedMany && !lockedByCall(f, total) {
			f.found = append(f.found, f.r.violation(lockOrder, fragment.line, "UPDATE of accounts.users locks several rows in any order"))
		}
		for _, o := range obligations {
			if !c.table.table(o.tables) || o.before && (s.done[o.rule] || slices.Contains(fulfilled, o.rule)) {
				continue
			}
			f.add(s, o.rule, site{fragment.line, what, maps.Clone(guards)})
		}
		if c.table.table([]string{"users"}) && (c.verb == "UPDATE" || strings.Contains(c.verb, "DO UPDATE")) && !slices.Contains(c.columns, "version") {
			f.found = append(f.found, f.r.violation(writeVersion, fragment.line, "UPDATE of accounts.users does not set version"))
		} else if c.table.table([]string{"users"}) && c.otherVersion {
			f.found = append(f.found, f.r.violation(writeVersion, fragment.line, "%s of accounts.users sets version to something else than version + 1", c.verb))
		}
	}
	for _, rule := range fulfilled {
		s.pending[rule] = nil
		s.done[rule] = true
	}
	return s
}

// lockOrder checks a call that locks a user.
func (f *flow) lockOrder(s *state, fragment fragment, c call, sum *summary) {
	if !sum.locks || s.lockedMany {
		return
	}
	args := c.node.list("args")
	if !c.certain && usesAlias(f.r, args) && !sortedBelow(fragment) {
		f.found = append(f.found, f.r.violation(lockOrder, fragment.line, "%s locks users in the order in which rows come", c))
	}
	if !isHelper(c.object, []string{"lock_user"}) || len(args) == 0 {
		return
	}
	user := shape(args[0])
	if s.lockedUser != "" && s.lockedUser != user {
		f.found = append(f.found, f.r.violation(lockOrder, fragment.line, "it locks a second user, whose id may be the lower one"))
	}
	s.lockedUser = user
}

// sortedBelow reports whether a subquery of a fragment has ORDER BY.
func sortedBelow(fragment fragment) bool {
	found := false
	for _, s := range fragment.statements {
		walk(s.node["fromClause"], func(_ string, n node) bool {
			found = found || n["sortClause"] != nil
			return !found
		})
	}
	return found
}

func lockedByCall(f *flow, e effect) bool {
	for _, c := range e.calls {
		if callee := f.routines[c.name]; callee != nil && callee.tree != nil && callee.volatility == "v" && f.summary(callee).locks {
			return true
		}
	}
	return false
}

func isRecordingResult(fragment fragment) bool {
	kind, n := kindOf("", fragment.expression())
	return kind == "FuncCall" && isHelper(nameOf(n.names("funcname")).object, recordingHelpers)
}

func (f *flow) unlocked(at site) {
	if !slices.ContainsFunc(f.sum.unlocked, func(s site) bool { return s.line == at.line }) {
		f.sum.unlocked = append(f.sum.unlocked, at)
	}
}

func (f *flow) add(s *state, rule string, at site) {
	if s.pending[rule] == nil {
		s.pending[rule] = map[string]site{}
	}
	for condition := range s.conditions {
		at.guards[condition] = true
	}
	key := fmt.Sprint(at.line, at.what)
	if there, ok := s.pending[rule][key]; ok { // again, in a loop: it may have happened the first time
		intersect(there.guards, at.guards)
		maps.DeleteFunc(there.guards, func(g string, _ bool) bool { return g == "found" || g == "row count" })
		return
	}
	s.pending[rule][key] = at
}

// guards are the tests that tell whether the changes of a fragment happened.
func (f *flow) guards(fragment fragment, into []string, changes int) map[string]bool {
	guards := map[string]bool{}
	if len(fragment.statements) != 1 || changes == 0 {
		return guards
	}
	s := fragment.statements[0]
	if s.kind != "SelectStmt" {
		if changes > 1 {
			return guards
		}
		guards["row count"] = true
		if !fragment.dynamic {
			guards["found"] = true
		}
		for i, target := range s.node.items("returningList", "ResTarget") {
			if kind, c := kindOf("", target["val"]); kind == "ColumnRef" {
				parts := columnRef(c)
				if last := parts[len(parts)-1]; last == "*" {
					for _, variable := range into {
						guards[variable] = true
					}
				} else if i < len(into) && neverNull(last) {
					guards[into[i]] = true
				}
			}
			if text, ok := constant(target["val"]); ok && text == "true" && i < len(into) {
				guards[into[i]] = true
			}
		}
		return guards
	}
	if !reachesAll(s.node) {
		return guards
	}
	for i, target := range s.node.items("targetList", "ResTarget") {
		if i >= len(into) {
			break
		}
		if gathers(target["val"]) {
			guards[into[i]] = true
		}
	}
	return guards
}

// neverNull reports whether a column of the tracked tables is NOT NULL.
func neverNull(column string) bool {
	return column == "id" || slices.Contains([]string{"user_id", "group_id", "contact_type_id", "version", "updated_at", "created_at",
		"normalized", "name", "is_active", "on_second"}, column)
}

// gathers reports whether a value tells if there were rows: an aggregate without a filter, or a key.
func gathers(value any) bool {
	kind, n := kindOf("", value)
	switch kind {
	case "CoalesceExpr":
		return len(n.list("args")) > 0 && gathers(n.list("args")[0])
	case "TypeCast":
		return gathers(n["arg"])
	case "FuncCall":
		return n["agg_filter"] == nil &&
			nameOf(n.names("funcname")).builtin("array_agg", "count", "jsonb_agg", "json_agg", "max", "min", "sum", "bool_or", "string_agg")
	case "A_Expr":
		op, left, right := operator(value)
		zero, ok := constant(right)
		return op == ">" && ok && zero == "0" && gathers(left)
	case "ColumnRef":
		parts := columnRef(n)
		return neverNull(parts[len(parts)-1])
	}
	return false
}

// reachesAll reports whether a SELECT reads, without leaving rows out, every changing part of its WITH.
func reachesAll(n node) bool {
	_, with := n.wrapped("withClause")
	if with == nil || n["whereClause"] != nil || n["havingClause"] != nil || n["limitCount"] != nil || n["limitOffset"] != nil {
		return false
	}
	queries := map[string]node{}
	changing := map[string]bool{}
	for _, cte := range with.items("ctes", "CommonTableExpr") {
		kind, content := cte.wrapped("ctequery")
		queries[cte.text("ctename")] = content
		changing[cte.text("ctename")] = kind != "SelectStmt"
	}
	seen := map[string]bool{}
	var visit func(value any)
	visit = func(value any) {
		walk(value, func(kind string, r node) bool {
			if cte := r.text("relname"); kind == "RangeVar" && r.text("schemaname") == "" && queries[cte] != nil && !seen[cte] {
				seen[cte] = true
				visit(map[string]any(queries[cte]))
			}
			return true
		})
	}
	// One source: a join could leave rows out.
	from := n.list("fromClause")
	if len(from) != 1 {
		return false
	}
	if kind, _ := kindOf("", from[0]); kind == "JoinExpr" {
		return false
	}
	visit(from[0])
	for cte, is := range changing {
		if is && !seen[cte] {
			return false
		}
	}
	return true
}

// refine adds what follows from a condition that holds, or does not.
func (f *flow) refine(s *state, condition any, truth bool) *state {
	if s == nil || condition == nil {
		return s
	}
	kind, n := kindOf("", condition)
	if kind == "BoolExpr" {
		args := n.list("args")
		switch n.text("boolop") {
		case "NOT_EXPR":
			return f.refine(s, args[0], !truth)
		case "AND_EXPR", "OR_EXPR":
			if (n.text("boolop") == "AND_EXPR") == truth { // each of them holds, or none
				for _, arg := range args {
					s = f.refine(s, arg, truth)
				}
				return s
			}
			var out *state // at least one of them
			for _, arg := range args {
				out = merge(out, f.refine(s.clone(), arg, truth))
			}
			return f.remember(out, condition, truth)
		}
	}
	if guard, positive, ok := emptiness(condition); ok && positive != truth {
		s.dropGuarded(guard)
	}
	return f.remember(s, condition, truth)
}

// remember keeps a condition, to be recognised when it is tested again.
func (f *flow) remember(s *state, condition any, truth bool) *state {
	stable := true
	walk(condition, func(kind string, n node) bool {
		if kind == "SubLink" || kind == "FuncCall" && !nameOf(n.names("funcname")).builtin("cardinality", "coalesce", "array_length", "lower", "upper", "btrim") {
			stable = false
		}
		return stable
	})
	if !stable {
		return s
	}
	text := shape(condition)
	holds, fails := "T:"+text, "F:"+text
	if !truth {
		holds, fails = fails, holds
	}
	s.dropGuarded(fails)
	s.conditions[holds] = true
	return s
}

// emptiness takes a condition for a test whether a variable is empty: NULL, false, zero or an empty array.
// positive: the condition holds only if it is not.
func emptiness(condition any) (variable string, positive, ok bool) {
	kind, n := kindOf("", condition)
	switch kind {
	case "ColumnRef":
		if parts := columnRef(n); len(parts) > 0 {
			return parts[0], true, true
		}
	case "BoolExpr":
		if n.text("boolop") == "NOT_EXPR" {
			v, p, ok := emptiness(n.list("args")[0])
			return v, !p, ok
		}
	case "NullTest":
		if v, ok := plain(n["arg"]); ok {
			return v, n.text("nulltesttype") == "IS_NOT_NULL", true
		}
	case "BooleanTest":
		if v, ok := plain(n["arg"]); ok {
			switch n.text("booltesttype") {
			case "IS_TRUE":
				return v, true, true
			case "IS_NOT_TRUE":
				return v, false, true
			}
		}
	case "CoalesceExpr":
		if args := n.list("args"); len(args) == 2 {
			if text, is := constant(args[1]); is && text == "false" {
				return emptiness(args[0])
			}
		}
	case "SubLink":
		if n.text("subLinkType") != "EXISTS_SUBLINK" {
			return "", false, false
		}
		_, s := n.wrapped("subselect")
		if from := s.list("fromClause"); len(from) == 1 && s["whereClause"] == nil && s["limitCount"] == nil && s["limitOffset"] == nil {
			found := ""
			if kind, r := kindOf("", from[0]); kind == "RangeFunction" {
				walk(map[string]any(r), func(kind string, c node) bool {
					if kind == "FuncCall" && nameOf(c.names("funcname")).builtin("unnest") && len(c.list("args")) == 1 {
						found, _ = plain(c.list("args")[0])
					}
					return true
				})
			}
			return found, true, found != ""
		}
	case "A_Expr":
		op, left, right := operator(condition)
		v, is := measured(left)
		text, literal := constant(right)
		if !is || !literal {
			return "", false, false
		}
		switch {
		case op == ">" && text == "0", op == ">=" && text == "1", op == "<>" && (text == "0" || text == "{}"):
			return v, true, true
		case op == "=" && (text == "0" || text == "{}"), op == "<" && text == "1", op == "<=" && text == "0":
			return v, false, true
		}
	}
	return "", false, false
}

// plain returns the variable of an expression that is one.
func plain(value any) (string, bool) {
	kind, n := kindOf("", value)
	if kind != "ColumnRef" {
		return "", false
	}
	parts := columnRef(n)
	return parts[0], len(parts) > 0
}

// measured returns the variable whose size an expression is.
func measured(value any) (string, bool) {
	kind, n := kindOf("", value)
	switch kind {
	case "CoalesceExpr":
		if args := n.list("args"); len(args) == 2 {
			return measured(args[0])
		}
	case "FuncCall":
		if args := n.list("args"); len(args) > 0 && nameOf(n.names("funcname")).builtin("cardinality", "array_length", "jsonb_array_length") {
			return measured(args[0])
		}
	}
	return plain(value)
}

// touchedRules checks that a function returns as touched what it recorded, and the outbox row of that.
func touchedRules(routines []*routine) (found []Violation) {
	for _, r := range routines {
		touched := slices.Index(r.columns, "touched")
		if !r.granted() || r.tree == nil || touched < 0 {
			continue
		}
		var recorded, ids []string
		literals := map[string]bool{}
		direct := false
		for _, f := range r.fragments {
			for _, s := range f.statements {
				for _, c := range effectOf(s).calls {
					if !c.ours() || !isHelper(c.object, recordingHelpers) {
						continue
					}
					direct = true
					ids = append(ids, f.into...)
					for _, arg := range c.node.list("args") {
						recorded = append(recorded, r.variablesOf(arg)...)
						prefixes(arg, literals)
					}
				}
			}
		}
		if !direct {
			continue // it returns what a function that it calls recorded
		}
		for _, f := range r.fragments {
			if f.in != "PLpgSQL_stmt_return_query" || len(f.statements) != 1 {
				continue
			}
			s := f.statements[0].node
			value := targetAt(s, touched, len(r.columns))
			if value == nil {
				continue
			}
			returned := r.variablesOf(value)
			if usesAlias(r, value) {
				returned = append(returned, r.variablesOf(s["fromClause"])...)
			}
			own := map[string]bool{}
			prefixes(value, own)
			for _, variable := range recorded {
				if !slices.Contains(returned, variable) && !strings.HasPrefix(variable, "p_") {
					found = append(found, r.violation(touchedAgrees, f.line, "%s is recorded and not returned as touched", variable))
				}
			}
			for _, variable := range returned {
				if !slices.Contains(recorded, variable) && strings.HasPrefix(variable, "v_") && r.isArray(variable) && len(r.variablesOf(value)) <= len(recorded)+1 &&
					slices.Contains(r.variablesOf(value), variable) && !usesAlias(r, value) {
					found = append(found, r.violation(touchedAgrees, f.line, "%s is returned as touched and was not recorded", variable))
				}
			}
			for prefix := range own {
				if len(recorded) > 0 && !usesAlias(r, value) && !literals[prefix] {
					found = append(found, r.violation(touchedAgrees, f.line, "a key %q is returned as touched and was not recorded", prefix))
				}
			}
			if len(recorded) > 0 && len(returned) == 0 && len(own) == 0 {
				found = append(found, r.violation(touchedAgrees, f.line, "touched is a constant, and something was recorded"))
			}
			if at := slices.Index(r.columns, "outbox_id"); at >= 0 {
				id := targetAt(s, at, len(r.columns))
				ok := id == nil
				for _, variable := range r.variablesOf(id) {
					ok = ok || slices.Contains(ids, variable)
				}
				walk(id, func(kind string, n node) bool {
					ok = ok || kind == "FuncCall" && isHelper(nameOf(n.names("funcname")).object, recordingHelpers)
					return !ok
				})
				if !ok {
					found = append(found, r.violation(touchedAgrees, f.line, "outbox_id is not what the recording helper returned"))
				}
			}
		}
	}
	return found
}

func (r *routine) isArray(variable string) bool {
	for _, d := range r.datums {
		if d.text("refname") == variable {
			_, t := d.wrapped("datatype")
			return strings.HasSuffix(strings.TrimSpace(t.text("typname")), "[]")
		}
	}
	return false
}

// prefixes gathers the kinds of the logical keys that an expression builds: 'u:' || id.
func prefixes(value any, into map[string]bool) {
	walk(value, func(kind string, n node) bool {
		if kind == "A_Const" {
			if text, ok := constant(map[string]any{kind: map[string]any(n)}); ok {
				if prefix, _, is := strings.Cut(text, ":"); is && len(prefix) == 1 {
					into[prefix] = true
				}
			}
		}
		return true
	})
}

// usesAlias reports whether an expression reads a column of the FROM.
func usesAlias(r *routine, value any) bool {
	found := false
	walk(value, func(kind string, n node) bool {
		if kind == "ColumnRef" {
			parts := columnRef(n)
			found = found || len(parts) > 0 && !r.isVariable(parts[0])
		}
		return !found
	})
	return found
}

// targetAt returns the expression of one of some columns of a SELECT; a star stands for several.
func targetAt(s node, column, columns int) any {
	targets := s.items("targetList", "ResTarget")
	isStar := func(t node) bool {
		kind, ref := kindOf("", t["val"])
		parts := columnRef(ref)
		return kind == "ColumnRef" && len(parts) > 0 && parts[len(parts)-1] == "*"
	}
	if star := slices.IndexFunc(targets, isStar); star >= 0 && column >= star {
		column -= columns - len(targets)
		if column <= star {
			return nil
		}
	}
	if column < 0 || column >= len(targets) {
		return nil
	}
	return targets[column]["val"]
}
