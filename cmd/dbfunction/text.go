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
	"double precision": "0", "real": "0", "jsonb": "'{}'", "timestamptz": "'epoch'",
	"uuid": "'00000000-0000-0000-0000-000000000000'",
}

// values are arguments for a test in Go, by type; the zero value does for every other type.
var values = map[string]string{
	"uuid": "uuid.New()", "text": `"x"`, "boolean": "true", "smallint": "1", "integer": "1", "bigint": "1",
	"real": "1", "double precision": "1", "timestamptz": "time.Now()", "jsonb": "json.RawMessage(`{}`)",
}

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

// defaultBody runs as it is.
func (f function) defaultBody() string {
	hint := "    -- FILL IN: the query.\n"
	if f.kind == kindWrite {
		hint = `    -- FILL IN: the change, for a user:
    --     PERFORM accounts.lock_user_v1(p_user_id); -- first
    --     UPDATE ...
    --     PERFORM accounts.raise_user_version_v1(p_user_id);
    --     v_outbox_id := accounts.record_change_v1(ARRAY['u:' || p_user_id], '{}');
    -- and RETURN QUERY SELECT the new state, what was touched, v_outbox_id.
`
	}
	var end string
	switch {
	case f.result.contract != "": // a contract table is empty, and has the right shape
		end = "    RETURN QUERY\n    SELECT r.*\n      FROM accounts." + f.result.contract + " AS r;\n"
	case f.result.scalar == "void":
		end = "    RETURN;\n"
	default:
		end = "    RETURN " + zeros[f.result.scalar] + ";\n"
	}
	return "BEGIN\n" + hint + end + "END"
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

// addQuery puts the query into the file of its resource: the one of the version before, the one that
// the noun names, or a new one.
func addQuery(root string, r request, f function) (output, error) {
	folder := "db/queries/" + f.kind
	text := f.query()
	m := namePattern.FindStringSubmatch(f.name)
	name := m[2]
	if !strings.HasSuffix(name, "s") {
		name += "s"
	}
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

// test calls the wrapper as it is generated, and expects what the scaffold returns.
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
	var body string
	switch {
	case f.previous != "": // its body does something already
		body = "\t_ = a." + f.kind + "." + camel(f.name) + "\n"
	case f.result.scalar == "void":
		body = "\trequire.NoError(t, " + call + ")\n"
	case f.result.scalar != "":
		body = "\t_, err := " + call + "\n\trequire.NoError(t, err)\n"
	case f.many:
		body = "\tlist, err := " + call + "\n\trequire.NoError(t, err)\n\trequire.Empty(t, list)\n"
	default:
		body = "\t_, err := " + call + "\n\trequire.ErrorIs(t, err, pgx.ErrNoRows)\n"
	}
	var std, imports []string
	for word, path := range map[string]string{"json.": "encoding/json", "time.": "time"} {
		if strings.Contains(body, word) {
			std = append(std, "\t\""+path+"\"\n")
		}
	}
	std = append(std, "\t\"testing\"\n")
	slices.Sort(std)
	for word, path := range map[string]string{"uuid.": "github.com/google/uuid", "pgx.": "github.com/jackc/pgx/v5",
		"require.": "github.com/stretchr/testify/require"} {
		if strings.Contains(body, word) {
			imports = append(imports, "\t\""+path+"\"\n")
		}
	}
	slices.Sort(imports)
	own := ""
	if strings.Contains(body, f.kind+"."+camel(f.name)+"Params{") {
		own = "\n\t\"github.com/payment-services/accounts/internal/dbgen/" + f.kind + "\"\n"
	}
	head := "package db_test\n\nimport (\n" + strings.Join(std, "")
	if len(imports) > 0 {
		head += "\n" + strings.Join(imports, "")
	}
	return head + own + ")\n\nfunc Test" + camel(f.name) + "(t *testing.T) {\n\tt.Parallel()\n\ta := open(t)\n" +
		"\t// FILL IN: success, the miss, every error; two callers at once if it writes.\n" + body + "}\n"
}
