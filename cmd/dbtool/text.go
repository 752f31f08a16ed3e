package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// zeros are the scalar types that a function may return, with a value in SQL.
var zeros = map[string]string{
	"void": "", "bigint": "0", "integer": "0", "smallint": "0", "boolean": "false", "text": "''",
	"double precision": "0", "jsonb": "'{}'", "timestamptz": "'epoch'",
	"uuid": "'00000000-0000-0000-0000-000000000000'",
}

// values are arguments for a test in Go, by type; the zero value does for every other type.
var values = map[string]string{
	"uuid": "uuid.New()", "text": `"x"`, "boolean": "true", "smallint": "1", "integer": "1", "bigint": "1",
	"double precision": "1", "timestamptz": "time.Now()", "jsonb": "json.RawMessage(`{}`)",
}

// otherSpellings are types as SQL also knows them.
var otherSpellings = map[string]string{
	"int": "integer", "int4": "integer", "int8": "bigint", "int2": "smallint", "bool": "boolean", "float8": "double precision",
	"real": "double precision", "float4": "double precision", "json": "jsonb", "varchar": "text", "character varying": "text",
	"timestamp with time zone": "timestamptz", "timestamp": "timestamptz",
}

// limitParameter bounds a list.
const limitParameter = "p_limit"

// reserved words cannot stand after @.
var reserved = []string{"all", "and", "any", "array", "as", "asc", "case", "check", "column", "default", "desc", "end", "for",
	"from", "group", "in", "limit", "not", "null", "offset", "on", "or", "order", "select", "table", "then", "to", "union",
	"unique", "user", "using", "when", "where", "with"}

func (f function) defaultAttributes() string {
	attributes := "VOLATILE"
	if f.kind == kindRead {
		attributes = "STABLE PARALLEL SAFE"
	}
	switch {
	case f.many:
		attributes += " ROWS 100"
	case f.result.contract != "":
		attributes += " ROWS 1"
	}
	return attributes
}

// recordsChange reports whether the function returns what it touched, and so has to record it.
func (f function) recordsChange() bool {
	return f.kind == kindWrite && slices.Contains(f.columns, "touched") && slices.Contains(f.columns, "outbox_id")
}

func (f function) has(name, kind string) bool {
	return slices.Contains(f.params, parameter{name: name, kind: kind})
}

// defaultBody can be created as it is.
func (f function) defaultBody() string {
	if f.recordsChange() {
		return f.writeBody()
	}
	hint := "    -- FILL IN: the query. test/plans measures what it costs.\n"
	if f.kind == kindWrite {
		hint = `    -- FILL IN: the change. A function that changes users, contacts, memberships or a dictionary
    -- returns a contract with touched and outbox_id, and records the change: leave out RETURNS.
`
	}
	switch {
	case f.result.contract != "": // a contract table is empty, and has the right shape
		end := ""
		if f.has(limitParameter, "integer") && len(f.columns) > 0 {
			end = "\n     ORDER BY r." + f.columns[0] + "\n     LIMIT " + limitParameter
		}
		hint += "    RETURN QUERY\n    SELECT r.*\n      FROM accounts." + f.result.contract + " AS r" + end + ";\n"
	case f.result.scalar == "void":
		hint += "    RETURN;\n"
	default:
		hint += "    RETURN " + zeros[f.result.scalar] + ";\n"
	}
	return "BEGIN\n" + hint + "END"
}

// writeBody locks, changes, raises the version, records and returns, in this order.
func (f function) writeBody() string {
	var declare, lock, raise, touched string
	switch {
	case f.has("p_user_id", "uuid"):
		lock = "    PERFORM accounts.lock_user_v1(p_user_id);\n"
		raise = "    PERFORM accounts.raise_user_version_v1(p_user_id);\n"
		touched = "ARRAY['u:' || p_user_id]"
	case f.has("p_contact_id", "uuid"):
		declare = "    v_contact accounts.user_contacts := accounts.lock_contact_v1(p_contact_id); -- and its user\n"
		raise = "    PERFORM accounts.raise_user_version_v1(v_contact.user_id);\n"
		touched = "ARRAY['u:' || v_contact.user_id, 'c:' || p_contact_id]"
	case f.has("p_user_ids", "uuid[]"):
		lock = `    -- In primary-key order, so that two calls for overlapping users cannot deadlock.
    PERFORM
       FROM accounts.users AS u
      WHERE u.id = ANY (p_user_ids)
      ORDER BY u.id
        FOR NO KEY UPDATE;
`
		raise = `    UPDATE accounts.users AS u
       SET version = u.version + 1,
           updated_at = greatest(clock_timestamp(), u.updated_at + interval '1 microsecond')
     WHERE u.id = ANY (p_user_ids);
`
		touched = "ARRAY(SELECT 'u:' || i.id FROM unnest(p_user_ids) AS i (id))"
	default:
		lock = "    -- FILL IN: lock the row that changes: FOR NO KEY UPDATE, several in primary-key order.\n"
		touched = "ARRAY['d:user_groups']"
	}
	var columns []string
	for _, name := range f.columns {
		switch name {
		case "touched", "outbox_id":
			columns = append(columns, "v_"+name)
		default:
			columns = append(columns, "r."+name)
		}
	}
	return "DECLARE\n" + declare + `    v_touched text[];
    v_outbox_id bigint;
BEGIN
` + lock + `    -- FILL IN: the change. If nothing changes: no version, no record, touched is empty.
` + raise + `    -- FILL IN: every logical key that changed, as docs/caching.md lists them; g: and t: apart.
    v_touched := ` + touched + `;
    v_outbox_id := accounts.record_change_v1(v_touched, '{}');
    RETURN QUERY
    SELECT ` + wrap(columns, "           ") + `
      FROM accounts.` + f.result.contract + ` AS r; -- FILL IN: the new state
END`
}

// wrap joins columns with commas, in lines of the project's width.
func wrap(columns []string, indent string) string {
	var b strings.Builder
	width := len(indent)
	for i, column := range columns {
		if i > 0 {
			b.WriteString(",")
			if width+len(column)+len(" ,") > maxColumns {
				b.WriteString("\n" + indent)
				width = len(indent)
			} else {
				b.WriteString(" ")
			}
		}
		b.WriteString(column)
		width += len(column) + len(", ")
	}
	return b.String()
}

// addPlan adds the entry of a read function, which fails until it is written, to the list in test/plans.
func (f function) addPlan(text string) (string, error) {
	const end = "\n\t}\n}\n\nfunc full("
	before, after, found := strings.Cut(text, end)
	if !found {
		return "", fmt.Errorf("%s: the end of the list of calls was not found", plansFile)
	}
	entry := fmt.Sprintf("\n\t\t{%q, \"\", 20, \"\", func(context.Context, *read.Queries) error {\n"+
		"\t\t\treturn errors.New(\"FILL IN: call it with the arguments that cost most, and bound the buffers\")\n\t\t}},", f.name)
	return before + entry + end + after, nil
}

// signature is the function with its types, broken if the rest of the line would not fit.
func (f function) signature(before, after string) string {
	var types []string
	for _, p := range f.params {
		types = append(types, p.kind)
	}
	list := strings.Join(types, ", ")
	whole := before + " accounts." + f.name + "(" + list + ")" + after
	if len(whole) <= maxColumns {
		return whole
	}
	return before + " accounts." + f.name + "(\n    " + list + ")" + after
}

func (f function) migration() string {
	var b strings.Builder
	if f.previous == "" {
		fmt.Fprintf(&b, "-- The function %s.\n", f.name)
	} else {
		fmt.Fprintf(&b, "-- %s beside %s.\n-- FILL IN: why there is another version.\n", f.name, f.previous)
	}
	b.WriteString("\n-- +goose Up\nSET LOCAL lock_timeout = '5s';\n\n")
	if f.result.columns != nil {
		fmt.Fprintf(&b, "CREATE TABLE accounts.%s (\n", f.result.contract)
		for _, column := range f.result.columns {
			comma := ","
			if strings.HasPrefix(column, "--") {
				comma = ""
			}
			fmt.Fprintf(&b, "    %s%s\n", column, comma)
		}
		fmt.Fprintf(&b, "    CONSTRAINT %[1]s_is_a_contract CHECK (false) NO INHERIT\n);\n"+
			"COMMENT ON TABLE accounts.%[1]s IS\n    'Contract: FILL IN: what a row is.';\n\n", f.result.contract)
	}
	fmt.Fprintf(&b, "-- +goose StatementBegin\nCREATE FUNCTION accounts.%s(", f.name)
	for i, p := range f.params {
		if i > 0 {
			b.WriteString(",")
		}
		fmt.Fprintf(&b, "\n    %s %s", p.name, p.kind)
	}
	if len(f.params) > 0 {
		b.WriteString("\n")
	}
	returns := f.result.scalar
	if f.result.contract != "" {
		returns = "SETOF accounts." + f.result.contract
	}
	fmt.Fprintf(&b, `)
RETURNS %s
LANGUAGE plpgsql
%s
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
%s
$$;
-- +goose StatementEnd
`, returns, f.attributes, f.body)
	b.WriteString(f.signature("ALTER FUNCTION", " OWNER TO accounts_owner;") + "\n")
	b.WriteString(f.signature("COMMENT ON FUNCTION", " IS") + "\n" + literal(f.comment) + ";\n")
	b.WriteString(f.signature("REVOKE ALL ON FUNCTION", " FROM PUBLIC;") + "\n")
	groups := " TO accounts_write;"
	if f.kind == kindRead {
		groups = " TO accounts_read, accounts_write;"
	}
	b.WriteString(f.signature("GRANT EXECUTE ON FUNCTION", groups) + "\n")
	b.WriteString("\n-- +goose Down\nSET LOCAL lock_timeout = '5s';\n" + f.signature("DROP FUNCTION", ";") + "\n")
	if f.result.columns != nil {
		fmt.Fprintf(&b, "DROP TABLE accounts.%s;\n", f.result.contract)
	}
	return b.String()
}

// literal is a SQL string in lines of its own, broken between words.
func literal(text string) string {
	var lines []string
	line := ""
	for word := range strings.SplitAfterSeq(strings.ReplaceAll(text, "'", "''"), " ") {
		if line != "" && len([]rune("    '"+line+word+"';")) > maxColumns {
			lines = append(lines, line)
			line = ""
		}
		line += word
	}
	return "    '" + strings.Join(append(lines, line), "'\n    '") + "'"
}

// query is the one call of the function.
func (f function) query() string {
	mode := ":one"
	switch {
	case f.many:
		mode = ":many"
	case f.result.scalar == "void":
		mode = ":exec"
	}
	from := "SELECT accounts."
	if f.result.contract != "" {
		from = "SELECT * FROM accounts."
	}
	var arguments []string
	for _, p := range f.params {
		name := strings.TrimPrefix(p.name, "p_")
		argument := "@" + name
		switch {
		case p.nullable:
			argument = "sqlc.narg('" + name + "')"
		case slices.Contains(reserved, name):
			argument = "sqlc.arg('" + name + "')"
		}
		if strings.HasSuffix(p.kind, "[]") {
			argument += "::" + p.kind
		}
		arguments = append(arguments, p.name+" => "+argument)
	}
	call := from + f.name + "(" + strings.Join(arguments, ", ") + ");"
	if len(call) > maxColumns || len(arguments) > positional {
		call = from + f.name + "(\n    " + strings.Join(arguments, ",\n    ") + "\n);"
	}
	return "-- name: " + camel(f.name) + " " + mode + "\n" + call + "\n"
}

// resourceWords name a file of queries besides the words of its own name.
var resourceWords = map[string]string{
	"member": "memberships", "group": "user_groups", "type": "contact_types", "row": "imports", "job": "imports",
	"outbox": "operations", "replication": "operations", "schema": "operations", "function": "operations",
}

// resourceFile is the file of queries that the noun of a function names: by its last word that names one.
func resourceFile(root, noun string) string {
	words := strings.Split(noun, "_")
	for _, word := range slices.Backward(words) {
		word = strings.TrimSuffix(word, "s")
		for _, kind := range []string{kindRead, kindWrite} {
			for _, name := range []string{word + "s", resourceWords[word]} {
				if _, err := os.Stat(filepath.Join(root, "db/queries", kind, name+".sql")); name != "" && err == nil {
					return name
				}
			}
		}
	}
	return strings.TrimSuffix(noun, "s") + "s"
}

// addQuery puts the query into the file of its resource: the one of the version before, the one that
// the noun names, or a new one.
func addQuery(root string, r request, f function) (output, error) {
	folder := "db/queries/" + f.kind
	text := f.query()
	m := namePattern.FindStringSubmatch(f.name)
	name := resourceFile(root, m[2])
	if f.previous != "" {
		file, old, err := previousQuery(filepath.Join(root, folder), f)
		if err != nil {
			return output{}, err
		}
		if file != "" {
			name = file
		}
		if old != "" && r.params == "" && r.returns == "" {
			text = old
		}
	}
	if r.file != "" {
		name = r.file
	}
	path := folder + "/" + name + ".sql"
	existing, err := os.ReadFile(filepath.Join(root, path))
	if os.IsNotExist(err) {
		return output{path: path, text: text}, nil
	}
	return output{path, strings.TrimRight(string(existing), "\n") + "\n\n" + text, true}, err
}

// previousQuery finds the query of the version before, and makes it one of this version.
func previousQuery(folder string, f function) (file, text string, err error) {
	files, err := filepath.Glob(filepath.Join(folder, "*.sql"))
	if err != nil {
		return "", "", err
	}
	expression := regexp.MustCompile(`(?m)^-- name: ` + camel(f.previous) + ` :\w+\n(?:[^-\n].*\n)+`)
	for _, path := range files {
		all, err := os.ReadFile(path)
		if err != nil {
			return "", "", err
		}
		if found := expression.FindString(string(all)); found != "" {
			found = strings.ReplaceAll(found, f.previous+"(", f.name+"(")
			return strings.TrimSuffix(filepath.Base(path), ".sql"),
				strings.ReplaceAll(found, camel(f.previous)+" ", camel(f.name)+" "), nil
		}
	}
	return "", "", nil
}

// test calls the wrapper as it is generated, and fails until it is written.
func (f function) test() string {
	var arguments []string
	for _, p := range f.params {
		value, known := values[p.kind]
		switch {
		case p.nullable, strings.HasSuffix(p.kind, "[]"), !known:
			value = "nil"
		}
		arguments = append(arguments, value)
	}
	if len(arguments) > positional {
		arguments = []string{f.kind + "." + camel(f.name) + "Params{}"}
	}
	call := fmt.Sprintf("a.%s.%s(%s)", f.kind, camel(f.name), strings.Join(append([]string{"t.Context()"}, arguments...), ", "))
	wrapper := f.kind + "." + camel(f.name)
	body := "\t_ = a." + wrapper + "\n\tt.Fatal(\"FILL IN: success, the miss, every error\")\n"
	if f.previous == "" {
		assign := "_, err := "
		if f.result.scalar == "void" {
			assign = "err := "
		}
		body = "\t" + assign + call + "\n\trequire.NoError(t, err)\n\tt.Fatal(\"FILL IN: success, the miss, every error\")\n"
	}
	own := ""
	if f.kind == kindWrite || strings.Contains(body, wrapper+"Params{") {
		own = "\t\"github.com/payment-services/accounts/internal/dbgen/" + f.kind + "\"\n"
	}
	var std, imports []string
	all := body + f.concurrencyTests()
	for word, path := range map[string]string{"json.": "encoding/json", "time.": "time", "errors.": "errors"} {
		if strings.Contains(all, word) {
			std = append(std, "\t\""+path+"\"\n")
		}
	}
	std = append(std, "\t\"testing\"\n")
	slices.Sort(std)
	for word, path := range map[string]string{"uuid.": "github.com/google/uuid", "pgx.": "github.com/jackc/pgx/v5",
		"require.": "github.com/stretchr/testify/require"} {
		if strings.Contains(all, word) {
			imports = append(imports, "\t\""+path+"\"\n")
		}
	}
	slices.Sort(imports)
	if own != "" {
		own = "\n" + own
	}
	head := "package db_test\n\nimport (\n" + strings.Join(std, "")
	if len(imports) > 0 {
		head += "\n" + strings.Join(imports, "")
	}
	return head + own + ")\n\nfunc Test" + camel(f.name) + "(t *testing.T) {\n\tt.Parallel()\n\ta := open(t)\n" +
		body + "}\n" + f.concurrencyTests()
}

// concurrencyTests are those that every write function has, and fail until they are written.
func (f function) concurrencyTests() string {
	if f.kind != kindWrite {
		return ""
	}
	name := camel(f.name)
	text := `
func Test` + name + `_TwoCallersAtOnce(t *testing.T) {
	t.Parallel()
	a := open(t)
	call := func(q *write.Queries) { _ = q.` + name + ` }
	// FILL IN: sideBySide instead, if the second call does not wait for the first.
	a.overlap(commit, call, call)
	t.Fatal("FILL IN: what both calls return, and what they leave")
}
`
	if slices.ContainsFunc(f.params, func(p parameter) bool { return p.kind == "uuid[]" }) {
		text += `
func Test` + name + `_LocksInKeyOrder(t *testing.T) {
	t.Parallel()
	a := open(t)
	ids := []uuid.UUID{a.createUser(nil).ID, a.createUser(nil).ID, a.createUser(nil).ID}
	a.inKeyOrder("users", false, ids, func(q *write.Queries, ids []uuid.UUID) error {
		_ = q.` + name + `
		return errors.New("FILL IN: call it for these ids, in this order")
	})
}
`
	}
	return text
}
