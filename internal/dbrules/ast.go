package dbrules

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"

	pgquery "github.com/wasilibs/go-pgquery"
)

// node is a node of a parse tree in the JSON form of libpg_query, without the wrapper that names its kind.
type node map[string]any

// statement is one SQL statement and where its text begins in the text that was parsed.
type statement struct {
	kind   string
	node   node
	offset int
	end    int
}

// implied are the kinds of the fields that libpg_query writes without a wrapper.
var implied = map[string]string{
	"relation": "RangeVar", "larg": "SelectStmt", "rarg": "SelectStmt", "withClause": "WithClause",
	"onConflictClause": "OnConflictClause", "typeName": "TypeName", "over": "WindowDef", "intoClause": "IntoClause",
	"sequence": "RangeVar", "newtablename": "RangeVar", "alias": "Alias", "returnType": "TypeName", "argType": "TypeName", "func": "ObjectWithArgs",
}

func (n node) child(key string) node {
	m, _ := n[key].(map[string]any)
	return m
}

// kindOf returns the kind and the content of a wrapped node, or of a field whose kind is implied.
func kindOf(key string, value any) (string, node) {
	m, ok := value.(map[string]any)
	if !ok {
		return "", nil
	}
	if len(m) == 1 {
		for name, inner := range m {
			if content, ok := inner.(map[string]any); ok && name[0] >= 'A' && name[0] <= 'Z' {
				return name, content
			}
		}
	}
	return implied[key], m
}

func (n node) wrapped(key string) (string, node) { return kindOf(key, n[key]) }

// items returns the nodes of a list that have a kind.
func (n node) items(key, kind string) (items []node) {
	list, _ := n[key].([]any)
	for _, value := range list {
		if k, item := kindOf("", value); k == kind {
			items = append(items, item)
		}
	}
	return items
}

func (n node) list(key string) []any {
	list, _ := n[key].([]any)
	return list
}

func (n node) text(key string) string {
	s, _ := n[key].(string)
	return s
}

func (n node) number(key string) int {
	f, _ := n[key].(float64)
	return int(f)
}

func (n node) is(key string) bool {
	b, _ := n[key].(bool)
	return b
}

// names returns the texts of a list of String nodes.
func (n node) names(key string) (names []string) {
	for _, item := range n.items(key, "String") {
		names = append(names, item.text("sval"))
	}
	return names
}

// walk visits every node of a tree; visit returns false to leave out what is below.
func walk(value any, visit func(kind string, n node) bool) { walkField("", value, visit) }

func walkField(key string, value any, visit func(kind string, n node) bool) {
	switch v := value.(type) {
	case node:
		walkField(key, map[string]any(v), visit)
	case []any:
		for _, item := range v {
			walkField("", item, visit)
		}
	case map[string]any:
		kind, content := kindOf(key, v)
		if kind != "" && !visit(kind, content) {
			return
		}
		for _, name := range sortedKeys(content) {
			walkField(name, content[name], visit)
		}
	}
}

func sortedKeys(m map[string]any) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// Prepare compiles the parser, which takes a second, so call it while something else runs.
func Prepare() { _, _ = parseSQL("SELECT") }

type parsed struct {
	statements []statement
	err        error
}

var parseCache sync.Map // the text to what it was parsed to

// parseSQL parses statements with PostgreSQL's own grammar.
func parseSQL(sql string) ([]statement, error) {
	if found, ok := parseCache.Load(sql); ok {
		return found.(parsed).statements, found.(parsed).err
	}
	statements, err := parseUncached(sql)
	parseCache.Store(sql, parsed{statements, err})
	return statements, err
}

func parseUncached(sql string) ([]statement, error) {
	text, err := pgquery.ParseToJSON(sql)
	if err != nil {
		return nil, err
	}
	var result struct {
		Stmts []struct {
			Stmt     map[string]any
			Location int `json:"stmt_location"`
			Len      int `json:"stmt_len"`
		}
	}
	if err := json.Unmarshal([]byte(text), &result); err != nil {
		return nil, fmt.Errorf("read the parse tree: %w", err)
	}
	statements := make([]statement, 0, len(result.Stmts))
	for _, s := range result.Stmts {
		kind, n := kindOf("", s.Stmt)
		end := s.Location + s.Len
		if s.Len == 0 {
			end = len(sql)
		}
		statements = append(statements, statement{kind, n, s.Location, end})
	}
	return statements, nil
}

// isOurSchema reports whether a schema is one of those that the migrations may fill.
func isOurSchema(schema string) bool { return slices.Contains(ourSchemas, schema) }

// name is a name with its schema; the schema is empty if it was not written.
type name struct{ schema, object string }

func (n name) String() string {
	if n.schema == "" {
		return n.object
	}
	return n.schema + "." + n.object
}

func (n name) ours() bool { return isOurSchema(n.schema) }

func nameOf(parts []string) name {
	switch len(parts) {
	case 0:
		return name{}
	case 1:
		return name{"", parts[0]}
	}
	return name{parts[len(parts)-2], parts[len(parts)-1]}
}

func rangeName(n node) name { return name{n.text("schemaname"), n.text("relname")} }

// builtin reports whether a call is of a function of PostgreSQL itself with one of these names.
func (n name) builtin(names ...string) bool {
	return (n.schema == "" || n.schema == "pg_catalog") && slices.Contains(names, n.object)
}

// columnRef returns the parts of a column reference; a star is "*".
func columnRef(n node) (parts []string) {
	for _, field := range n.list("fields") {
		switch kind, f := kindOf("", field); kind {
		case "String":
			parts = append(parts, f.text("sval"))
		case "A_Star":
			parts = append(parts, "*")
		}
	}
	return parts
}

// constant returns the text of a literal; a cast of one is one.
func constant(value any) (string, bool) {
	kind, n := kindOf("", value)
	switch kind {
	case "A_Const":
		if s := n.child("sval"); s != nil {
			return s.text("sval"), true
		}
		if i, ok := n["ival"].(map[string]any); ok {
			return fmt.Sprint(node(i).number("ival")), true
		}
		if b, ok := n["boolval"].(map[string]any); ok {
			return fmt.Sprint(node(b).is("boolval")), true
		}
		if f := n.child("fval"); f != nil {
			return f.text("fval"), true
		}
	case "TypeCast":
		return constant(n["arg"])
	}
	return "", false
}

func isNull(value any) bool {
	kind, n := kindOf("", value)
	return kind == "A_Const" && n.is("isnull") || kind == "TypeCast" && isNull(n["arg"])
}

// shape is a tree as text without its places, so that two spellings of one expression are equal.
func shape(value any) string {
	text, err := json.Marshal(strip(value))
	if err != nil {
		panic(err) // it came from JSON
	}
	return string(text)
}

func strip(value any) any {
	switch v := value.(type) {
	case node:
		return strip(map[string]any(v))
	case map[string]any:
		out := map[string]any{}
		for key, item := range v {
			if key != "location" && key != "stmt_location" && key != "stmt_len" {
				out[key] = strip(item)
			}
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, item := range v {
			out[i] = strip(item)
		}
		return out
	}
	return value
}

// conjuncts cuts a condition at its top-level ANDs.
func conjuncts(value any) []any {
	if kind, n := kindOf("", value); kind == "BoolExpr" && n.text("boolop") == "AND_EXPR" {
		var all []any
		for _, arg := range n.list("args") {
			all = append(all, conjuncts(arg)...)
		}
		return all
	}
	if value == nil {
		return nil
	}
	return []any{value}
}

// operator returns the operator of an expression and its two sides; "" if it is none.
func operator(value any) (op string, left, right any) {
	kind, n := kindOf("", value)
	if kind != "A_Expr" || n.text("kind") != "AEXPR_OP" {
		return "", nil, nil
	}
	ops := n.names("name")
	if len(ops) == 0 {
		return "", nil, nil
	}
	return ops[len(ops)-1], n["lexpr"], n["rexpr"]
}

var unknownVariable = regexp.MustCompile(`"([^".]+)\.[^"]+" is not a known variable`)

var plpgsqlCache sync.Map // the statement that creates a function to what it was parsed to

type parsedFunction struct {
	tree node
	err  error
}

// parsePlpgsql parses the body of a function, given the statement that creates it.
func parsePlpgsql(create string) (node, error) {
	if found, ok := plpgsqlCache.Load(create); ok {
		return found.(parsedFunction).tree, found.(parsedFunction).err
	}
	tree, err := parsePlpgsqlUncached(create)
	plpgsqlCache.Store(create, parsedFunction{tree, err})
	return tree, err
}

func parsePlpgsqlUncached(create string) (node, error) {
	const attempts = 50 // one for each variable of a composite type
	create = withoutCommentText(create)
	for range attempts {
		text, err := pgquery.ParsePlPgSqlToJSON(create)
		if err == nil {
			var functions []map[string]any
			if err := json.Unmarshal([]byte(text), &functions); err != nil {
				return nil, fmt.Errorf("read the parse tree: %w", err)
			}
			if len(functions) != 1 {
				return nil, fmt.Errorf("there are %d functions in it", len(functions))
			}
			_, n := kindOf("", functions[0])
			return n, nil
		}
		// Without a catalog the parser takes a variable of a composite type for a scalar, and refuses
		// an assignment to its field. As a record it is accepted.
		m := unknownVariable.FindStringSubmatch(err.Error())
		if m == nil {
			return nil, err
		}
		declared := regexp.MustCompile(`(?i)(\b` + regexp.QuoteMeta(m[1]) + `\s+(?:CONSTANT\s+)?)([\w"]+\s*\.\s*[\w"]+(?:%ROWTYPE)?|\w+%ROWTYPE|[\w"]+)`)
		changed := false
		create = declared.ReplaceAllStringFunc(create, func(found string) string {
			if changed || strings.HasSuffix(strings.ToLower(found), "record") {
				return found
			}
			changed = true
			return declared.ReplaceAllString(found, "${1}record")
		})
		if !changed {
			return nil, err
		}
	}
	return nil, fmt.Errorf("too many variables of composite types")
}
