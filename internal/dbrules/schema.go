package dbrules

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/wasilibs/go-pgquery/parser"
)

const (
	migrationSyntax     = "migration-syntax"
	migrationBackfill   = "migration-backfill"
	migrationDo         = "migration-do"
	migrationCopy       = "migration-copy"
	migrationRepeatable = "migration-repeatable"
	qualifiedNames      = "qualified-names"
	migrationCascade    = "migration-cascade"
	uniqueIndexData     = "unique-index-data"
	dictionarySeed      = "dictionary-seed"
	downLosesData       = "down-loses-data"
	storageOptions      = "storage-options"
	typeSpelling        = "type-spelling"
	longestLockTimeout  = 10 * time.Second
)

// part is the Up or the Down of a migration.
type part struct {
	m     migration
	name  string
	text  string
	first int // the line of the file at which the text begins
	list  []statement
	err   error
}

func (m migration) parts() []part {
	parts := []part{{m: m, name: "Up", text: m.up, first: 1}}
	if m.both {
		parts = append(parts, part{m: m, name: "Down", text: m.down, first: lineOf(m.up, len(m.up))})
	}
	for i := range parts {
		parts[i].list, parts[i].err = parseSQL(parts[i].text)
	}
	return parts
}

// line is the line of the file on which a statement begins; what stands before it are comments.
func (p part) line(s statement) int {
	text := code(p.text[s.offset:s.end])
	return p.first + lineOf(p.text, s.offset+len(text)-len(strings.TrimLeft(text, " \t\r\n;"))) - 1
}

// above is the text of a statement with the comments above it.
func (p part) above(s statement) string { return p.text[s.offset:s.end] }

// schemaRules checks the statements of the migrations.
func schemaRules(tree Tree) []Violation {
	var found []Violation
	for _, m := range tree.migrations {
		c := &migrationCheck{m: m}
		parts := m.parts()
		for _, p := range parts {
			if p.err != nil {
				var syntax *parser.Error
				line := 0
				if errors.As(p.err, &syntax) && syntax.Cursorpos > 0 {
					line = p.first + lineOf(p.text, min(syntax.Cursorpos-1, len(p.text))) - 1
				}
				found = append(found, Violation{migrationSyntax, m.path, line, p.err.Error()})
			}
		}
		c.created = created(parts[0])
		for _, p := range parts {
			if p.err == nil {
				c.part(p)
			}
		}
		found = append(found, c.found...)
	}
	return found
}

// created lists the tables that a part creates.
func created(p part) map[string]bool {
	tables := map[string]bool{}
	for _, s := range p.list {
		if s.kind == "CreateStmt" {
			_, relation := s.node.wrapped("relation")
			tables[rangeName(relation).String()] = true
		}
		if s.kind == "CreateTableAsStmt" {
			_, into := kindOf("into", s.node["into"])
			if rel := into.child("rel"); rel != nil {
				tables[rangeName(rel).String()] = true
			}
		}
	}
	return tables
}

type migrationCheck struct {
	m       migration
	created map[string]bool
	p       part
	found   []Violation
}

func (c *migrationCheck) report(rule string, s statement, format string, args ...any) {
	if !allowed(c.p.above(s), rule) {
		c.found = append(c.found, Violation{rule, c.m.path, c.p.line(s), fmt.Sprintf(format, args...)})
	}
}

func (c *migrationCheck) part(p part) {
	c.p = p
	c.timeout()
	ddl := slices.ContainsFunc(p.list, func(s statement) bool { return isDDL(s.kind) })
	for i, s := range p.list {
		c.names(s)
		c.cascade(s)
		switch s.kind {
		case "DoStmt":
			c.report(migrationDo, s, "a DO block")
		case "IndexStmt":
			_, relation := s.node.wrapped("relation")
			if t := rangeName(relation); s.node.is("unique") && !c.created[t.String()] && p.name == "Up" {
				c.report(uniqueIndexData, s, "a unique index on %s, which has rows", t)
			}
		case "AlterTableStmt":
			c.alter(s)
			c.spelling(s)
		case "VariableSetStmt":
			c.setting(s)
		case "LockStmt":
			for _, relation := range s.node.items("relations", "RangeVar") {
				if t := rangeName(relation); !c.created[t.String()] && p.name == "Up" && !strings.Contains(p.above(s), longLockMark) {
					c.report(migrationLock, s, "LOCK takes all of %s", t)
				}
			}
		case "CreateStmt":
			_, relation := s.node.wrapped("relation")
			if relation.text("relpersistence") == "u" {
				c.report(storageOptions, s, "%s is UNLOGGED: it is empty after a crash, and on a replica it cannot be read", rangeName(relation))
			}
			if relation.text("relpersistence") == "t" {
				c.report(migrationDo, s, "a temporary table, which is code that runs once")
			}
			c.spelling(s)
		case "CreateFunctionStmt":
			if nameOf(s.node.names("funcname")).schema == "pg_temp" {
				c.report(migrationDo, s, "a function in pg_temp, which is a DO block with a name")
			}
			c.spelling(s)
		case "CreateTableAsStmt":
			c.report(migrationCopy, s, "CREATE TABLE AS copies rows and leaves the constraints behind")
		case "DropStmt":
			c.drop(s)
		}
		for _, change := range effectOf(s).changes {
			c.change(change, s, p.list[i+1:], ddl)
		}
	}
	if c.m.noTransaction() {
		c.repeatable()
	}
}

func isDDL(kind string) bool {
	switch kind {
	case "CommentStmt", "GrantStmt", "VariableSetStmt", "SelectStmt", "InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt", "DoStmt", "TruncateStmt",
		"CopyStmt", "CallStmt", "LockStmt", "VacuumStmt":
		return false
	}
	return true
}

// timeout checks that lock_timeout is set first, to something short, and stays.
func (c *migrationCheck) timeout() {
	first := true
	for _, s := range c.p.list {
		sets := s.kind == "VariableSetStmt" && strings.EqualFold(s.node.text("name"), "lock_timeout")
		all := s.kind == "VariableSetStmt" && s.node.text("kind") == "VAR_RESET_ALL" || s.kind == "DiscardStmt"
		walk(map[string]any{s.kind: map[string]any(s.node)}, func(kind string, n node) bool {
			if kind == "FuncCall" && nameOf(n.names("funcname")).builtin("set_config") && len(n.list("args")) > 0 {
				if setting, _ := constant(n.list("args")[0]); strings.EqualFold(setting, "lock_timeout") {
					all = true
				}
			}
			return true
		})
		switch {
		case first && c.p.name == "Up" && !upMark.MatchString(c.p.text):
			return // migration-up
		case first && !sets:
			c.report(migrationTimeout, s, "%s does not begin with lock_timeout", c.p.name)
			return
		case first:
			limit, ok := duration(s.node)
			if !ok || limit <= 0 || limit > longestLockTimeout {
				c.report(migrationTimeout, s, "lock_timeout is not between 1ms and %s", longestLockTimeout)
			}
			if !c.m.noTransaction() && !s.node.is("is_local") {
				c.report(migrationTimeout, s, "SET without LOCAL stays for the migrations that follow")
			}
			if c.m.noTransaction() && s.node.is("is_local") {
				c.report(migrationTimeout, s, "SET LOCAL has no effect without a transaction")
			}
		case sets || all:
			c.report(migrationTimeout, s, "lock_timeout is changed again")
		}
		first = false
	}
	if first {
		line := c.p.first
		if at := upMark.FindStringIndex(c.p.text); at != nil {
			line = lineOf(c.p.text, at[0])
		} else if c.p.name == "Up" {
			return // migration-up
		}
		c.found = append(c.found, Violation{migrationTimeout, c.m.path, line, c.p.name + " does not begin with lock_timeout"})
	}
}

// setting looks for settings other than lock_timeout.
func (c *migrationCheck) setting(s statement) {
	setting := strings.ToLower(s.node.text("name"))
	if setting == "lock_timeout" || setting == "" { // c.timeout; RESET ALL
		return
	}
	value := ""
	if args := s.node.list("args"); len(args) > 0 {
		value, _ = constant(args[0])
	}
	if setting == "statement_timeout" && s.node.is("is_local") && value != "0" && value != "" {
		return
	}
	c.report(sessionState, s, "the migration sets %s, which changes what its statements or later migrations do", setting)
}

var durationText = regexp.MustCompile(`^\s*(\d+(?:\.\d+)?)\s*(us|ms|s|min|h|d)?\s*$`)

// duration reads the value of a setting whose unit is a millisecond.
func duration(n node) (time.Duration, bool) {
	args := n.list("args")
	if len(args) != 1 {
		return 0, false
	}
	text, ok := constant(args[0])
	m := durationText.FindStringSubmatch(text)
	if !ok || m == nil {
		return 0, false
	}
	value, err := strconv.ParseFloat(m[1], 64)
	unit := map[string]time.Duration{"us": time.Microsecond, "": time.Millisecond, "ms": time.Millisecond, "s": time.Second, "min": time.Minute,
		"h": time.Hour, "d": 24 * time.Hour}[m[2]]
	return time.Duration(value * float64(unit)), err == nil
}

var versioned = regexp.MustCompile(`_v[1-9][0-9]*$`)

// names looks for names without a schema.
func (c *migrationCheck) names(s statement) {
	ctes := withNames(s)
	reported := false
	report := func(n name) {
		if !reported && n.object != "" {
			reported = true
			c.report(qualifiedNames, s, "%s has no schema", n)
		}
	}
	bare := func(parts []string) {
		if len(parts) == 1 {
			report(nameOf(parts))
		}
	}
	switch s.kind {
	case "CreateFunctionStmt":
		bare(s.node.names("funcname"))
	case "CreateEnumStmt", "CreateRangeStmt":
		bare(s.node.names("typeName"))
	case "CreateDomainStmt":
		bare(s.node.names("domainname"))
	case "ViewStmt", "CompositeTypeStmt":
		for _, key := range []string{"view", "typevar"} {
			if relation := s.node.child(key); relation != nil {
				bare(slices.DeleteFunc([]string{relation.text("schemaname"), relation.text("relname")}, func(part string) bool { return part == "" }))
			}
		}
	}
	if s.kind == "CreateTrigStmt" {
		return // no-triggers
	}
	if s.kind == "DropStmt" || s.kind == "CommentStmt" {
		lists := s.node.items("objects", "List")
		if kind, object := s.node.wrapped("object"); kind == "List" {
			lists = append(lists, object)
		}
		for _, list := range lists {
			parts := list.names("items")
			if object := s.node.text("objtype"); object == "OBJECT_COLUMN" || object == "OBJECT_TABCONSTRAINT" || object == "OBJECT_TRIGGER" {
				parts = parts[:max(len(parts)-1, 0)]
			}
			bare(parts)
		}
	}
	walk(map[string]any{s.kind: map[string]any(s.node)}, func(kind string, n node) bool {
		switch kind {
		case "RangeVar":
			if n.text("schemaname") == "" && !ctes[n.text("relname")] && n.text("relname") != "" {
				report(rangeName(n))
			}
		case "Constraint":
			if target := n.child("pktable"); target != nil && target.text("schemaname") == "" && target.text("relname") != "" {
				report(rangeName(target))
			}
		case "ObjectWithArgs":
			bare(n.names("objname"))
		case "FuncCall":
			if f := n.names("funcname"); len(f) == 1 && versioned.MatchString(f[0]) {
				report(nameOf(f))
			}
		case "TypeName":
			if f := n.names("names"); len(f) == 1 && versioned.MatchString(f[0]) {
				report(nameOf(f))
			}
		}
		return true
	})
}

// spelling looks for timestamp with time zone, which PostgreSQL's grammar turns into a name with a schema.
func (c *migrationCheck) spelling(s statement) {
	if c.p.name == "Up" && strings.Contains(shape(map[string]any(s.node)), `[{"String":{"sval":"pg_catalog"}},{"String":{"sval":"timestamptz"}}]`) {
		c.report(typeSpelling, s, "timestamp with time zone")
	}
}

func (c *migrationCheck) cascade(s statement) {
	walk(map[string]any{s.kind: map[string]any(s.node)}, func(kind string, n node) bool {
		if n.text("behavior") == "DROP_CASCADE" {
			c.report(migrationCascade, s, "CASCADE")
			return false
		}
		return true
	})
}

// storageCommands are those of ALTER TABLE that change how rows are stored.
var storageCommands = []string{"AT_SetRelOptions", "AT_ResetRelOptions", "AT_ReplaceRelOptions", "AT_SetStorage", "AT_SetCompression", "AT_SetUnLogged",
	"AT_SetLogged", "AT_SetTableSpace", "AT_SetOptions", "AT_ResetOptions", "AT_ReplicaIdentity", "AT_ClusterOn", "AT_SetAccessMethod", "AT_SetStatistics"}

func (c *migrationCheck) alter(s statement) {
	_, relation := s.node.wrapped("relation")
	t := rangeName(relation)
	if c.created[t.String()] {
		return
	}
	for _, command := range s.node.items("cmds", "AlterTableCmd") {
		subtype := command.text("subtype")
		_, def := command.wrapped("def")
		switch {
		case slices.Contains(storageCommands, subtype):
			c.report(storageOptions, s, "it changes how %s is stored", t)
		case subtype == "AT_AddConstraint" && def.text("indexname") == "" && c.p.name == "Up" &&
			(def.text("contype") == "CONSTR_UNIQUE" || def.text("contype") == "CONSTR_PRIMARY" || def.text("contype") == "CONSTR_EXCLUSION"):
			c.report(uniqueIndexData, s, "a unique constraint on %s, which has rows", t)
		case subtype == "AT_DropColumn" && (c.p.name == "Up" || !c.addsColumn(t, command.text("name"))):
			if isContract(t) {
				break
			}
			c.report(downLosesData, s, "%s drops the column %s of %s; Down cannot bring its values back", c.p.name, command.text("name"), t)
		case subtype == "AT_AlterColumnType" && c.p.name == "Down" && !isContract(t):
			c.report(downLosesData, s, "Down changes the type of %s.%s: values that do not fit are lost or make it fail", t, command.text("name"))
		}
	}
}

// addsColumn reports whether Up adds a column.
func (c *migrationCheck) addsColumn(t name, column string) bool {
	list, _ := parseSQL(c.m.up)
	for _, s := range list {
		_, relation := s.node.wrapped("relation")
		if s.kind != "AlterTableStmt" || rangeName(relation) != t {
			continue
		}
		for _, command := range s.node.items("cmds", "AlterTableCmd") {
			if _, def := command.wrapped("def"); command.text("subtype") == "AT_AddColumn" && def.text("colname") == column {
				return true
			}
		}
	}
	return false
}

func (c *migrationCheck) drop(s statement) {
	if s.node.text("removeType") != "OBJECT_TABLE" {
		return
	}
	for _, list := range s.node.items("objects", "List") {
		t := nameOf(list.names("items"))
		if (c.p.name == "Up" || !c.created[t.String()]) && !isContract(t) {
			c.report(downLosesData, s, "%s drops %s; Down cannot bring its rows back", c.p.name, t)
		}
	}
}

// change checks a change of rows.
func (c *migrationCheck) change(change change, s statement, after []statement, ddl bool) {
	t := change.table
	if c.created[t.String()] && c.p.name == "Up" {
		return
	}
	if c.p.name == "Down" && change.verb != "INSERT" && !c.created[t.String()] {
		c.report(downLosesData, s, "Down has %s of %s: rows that were written since are lost", change.verb, t)
		return
	}
	if c.p.name == "Down" {
		return
	}
	if t.table(dictionaries) && !slices.ContainsFunc(after, invalidates) {
		c.report(dictionarySeed, s, "%s of %s, and nothing records it after that", change.verb, t)
	}
	if s.kind == "InsertStmt" {
		copied := false
		walk(s.node["selectStmt"], func(kind string, n node) bool {
			copied = copied || kind == "RangeVar" && rangeName(n).ours() && !c.created[rangeName(n).String()]
			return !copied
		})
		if copied {
			c.report(migrationCopy, s, "INSERT ... SELECT reads a table that is in use")
			return
		}
	}
	if !ddl && t.table(trackedTables) && !t.table(dictionaries) && change.verb != "INSERT" && !slices.ContainsFunc(after, invalidates) {
		c.report(dictionarySeed, s, "%s of %s, which the cache holds, and nothing records it after that", change.verb, t)
	}
	if ddl {
		c.report(migrationBackfill, s, "%s of %s in the migration that changes the schema", change.verb, t)
	}
}

// invalidates reports whether a statement records an invalidation.
func invalidates(s statement) bool {
	e := effectOf(s)
	return slices.ContainsFunc(e.calls, func(c call) bool { return c.ours() && isHelper(c.object, recordingHelpers) }) ||
		slices.ContainsFunc(e.changes, func(c change) bool { return c.table == name{"accounts", "cache_outbox"} })
}

// repeatable checks what runs without a transaction: if it stops in the middle, it must be able to run again.
func (c *migrationCheck) repeatable() {
	count := 0
	dropped := map[string]bool{}
	var bad []statement
	for _, s := range c.p.list {
		if s.kind == "VariableSetStmt" {
			continue
		}
		count++
		switch s.kind {
		case "DropStmt":
			if !s.node.is("missing_ok") {
				bad = append(bad, s)
			}
			for _, list := range s.node.items("objects", "List") {
				dropped[nameOf(list.names("items")).object] = true
			}
		case "IndexStmt":
			if !dropped[s.node.text("idxname")] {
				bad = append(bad, s) // IF NOT EXISTS would leave an invalid index in place
			}
		case "CreateStmt":
			if !s.node.is("if_not_exists") {
				bad = append(bad, s)
			}
		case "CreateFunctionStmt":
			if !s.node.is("replace") {
				bad = append(bad, s)
			}
		case "AlterTableStmt":
			for _, command := range s.node.items("cmds", "AlterTableCmd") {
				switch command.text("subtype") {
				case "AT_ValidateConstraint", "AT_SetNotNull", "AT_DropNotNull", "AT_ColumnDefault":
				default:
					if !command.is("missing_ok") {
						bad = append(bad, s)
					}
				}
			}
		case "CommentStmt", "GrantStmt", "VacuumStmt", "SelectStmt", "ReindexStmt":
		default:
			bad = append(bad, s)
		}
	}
	if count > 1 {
		for _, s := range bad {
			c.report(migrationRepeatable, s, "one of several statements without a transaction, and it cannot run again")
		}
	}
}

// staticRoutines reads the functions from the text of the migrations, for when they do not run.
func staticRoutines(tree Tree) []*routine {
	found := map[name]*routine{}
	columns := map[string][]string{}
	for _, m := range tree.migrations {
		p := m.parts()[0]
		for _, s := range p.list {
			switch s.kind {
			case "CreateStmt":
				_, relation := s.node.wrapped("relation")
				for _, column := range s.node.items("tableElts", "ColumnDef") {
					table := rangeName(relation).String()
					columns[table] = append(columns[table], column.text("colname"))
				}
			case "CreateFunctionStmt":
				r := staticRoutine(p, s)
				if r.columns = columns[r.result]; r.ours() {
					if before := found[r.name]; before != nil {
						r.reads, r.writes = before.reads, before.writes
					}
					found[r.name] = r
				}
			case "DropStmt":
				for _, o := range s.node.items("objects", "ObjectWithArgs") {
					delete(found, nameOf(o.names("objname")))
				}
			case "GrantStmt":
				for _, o := range s.node.items("objects", "ObjectWithArgs") {
					r := found[nameOf(o.names("objname"))]
					for _, role := range s.node.items("grantees", "RoleSpec") {
						if r != nil && role.text("rolename") == "accounts_read" {
							r.reads = s.node.is("is_grant")
						}
						if r != nil && role.text("rolename") == "accounts_write" {
							r.writes = s.node.is("is_grant")
						}
					}
				}
			}
		}
	}
	var all []*routine
	for _, n := range slices.SortedFunc(maps.Keys(found), func(a, b name) int { return strings.Compare(a.String(), b.String()) }) {
		found[n].parse()
		all = append(all, found[n])
	}
	return all
}

func staticRoutine(p part, s statement) *routine {
	const defaultRows = 1000
	r := &routine{name: nameOf(s.node.names("funcname")), kind: "f", language: "plpgsql", volatility: "v", parallel: "u", rows: defaultRows,
		file: p.m.path, line: p.line(s)}
	if s.node.is("is_procedure") {
		r.kind = "p"
	}
	r.create = strings.TrimSpace(p.text[s.offset:s.end])
	for _, parameter := range s.node.items("parameters", "FunctionParameter") {
		r.parameters = append(r.parameters, parameter.text("name"))
		_, t := parameter.wrapped("argType")
		r.types = append(r.types, strings.Join(t.names("names"), "."))
	}
	if result := s.node.child("returnType"); result != nil {
		r.set = result.is("setof")
		r.result = strings.Join(result.names("names"), ".")
	}
	for _, option := range s.node.items("options", "DefElem") {
		kind, arg := option.wrapped("arg")
		switch option.text("defname") {
		case "language":
			r.language = arg.text("sval")
		case "volatility":
			r.volatility = arg.text("sval")[:1]
		case "parallel":
			r.parallel = arg.text("sval")[:1]
		case "strict":
			r.strict = arg.is("boolval")
		case "rows":
			r.rows = arg.number("ival")
		case "as":
			if bodies := arg.names("items"); kind == "List" && len(bodies) > 0 {
				r.source = bodies[0]
				if at := strings.Index(p.text[s.offset:s.end], r.source); at >= 0 {
					r.body = p.first + lineOf(p.text, s.offset+at) - 1
				}
			}
		}
	}
	return r
}
