package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

const (
	kindRead  = "read"
	kindWrite = "write"

	// positional is sqlc's query_parameter_limit: more parameters come as a struct.
	positional = 3
	// plansFile has an entry for every read function.
	plansFile = "test/plans/plans_test.go"
	// maxColumns is the width of SQL in this project.
	maxColumns = 100
)

// request is what the command line says.
type request struct {
	name, kind, params, returns, columns, file string
}

// output is a file to be written.
type output struct {
	path    string
	text    string
	changed bool // it was there before
}

// parameter is one of a function.
type parameter struct {
	name, kind string
	nullable   bool
}

// result is what a function returns.
type result struct {
	contract string   // a table, empty: scalar
	columns  []string // of a contract that has to be made
	scalar   string
}

// function is all that the texts are made of.
type function struct {
	name, kind string
	params     []parameter
	result     result
	attributes string // volatility, PARALLEL, ROWS
	body       string // between the $$
	comment    string
	many       bool
	previous   string   // the version before, empty: there is none
	columns    []string // of the contract
}

var (
	namePattern     = regexp.MustCompile(`^([a-z]+)_([a-z]+(?:_[a-z]+)*)_v([1-9][0-9]*)$`)
	contractPattern = regexp.MustCompile(`^[a-z]+(_[a-z]+)*_v[1-9][0-9]*$`)
	paramPattern    = regexp.MustCompile(`^(p_[a-z][a-z0-9_]*) ([a-z][a-z0-9_ ]*(?:\[\])?)$`)
	columnPattern   = regexp.MustCompile(`^([a-z][a-z0-9_]*) ([a-z][a-z0-9_ ]*(?:\[\])?)(?: NOT NULL)?$`)
	createdTable    = regexp.MustCompile(`(?s)CREATE TABLE accounts\.(\w+) \(\n(.*?)\n\)`)
	numberPattern   = regexp.MustCompile(`^([0-9]{5})_`)
	renameLine      = regexp.MustCompile(`(?m)^ +accounts_\w+: \w+\n`)
)

// scaffold makes the texts, and writes nothing.
func scaffold(root string, r request) ([]output, error) {
	f, number, err := newFunction(root, r)
	if err != nil {
		return nil, err
	}
	migration := fmt.Sprintf("db/migrations/%05d_create_%s.sql", number, f.name)
	test := "db/" + f.name + "_test.go"
	for _, path := range []string{migration, test} {
		if _, err := os.Stat(filepath.Join(root, path)); err == nil {
			return nil, fmt.Errorf("%s exists", path)
		}
	}
	query, err := addQuery(root, r, f)
	if err != nil {
		return nil, err
	}
	files := []output{{path: migration, text: f.migration()}, query, {path: test, text: f.test()}}
	if f.kind == kindRead {
		text, err := os.ReadFile(filepath.Join(root, plansFile))
		if err != nil {
			return nil, err
		}
		planned, err := f.addPlan(string(text))
		if err != nil {
			return nil, err
		}
		files = append(files, output{plansFile, planned, true})
	}
	if f.result.columns != nil {
		text, err := os.ReadFile(filepath.Join(root, "sqlc.yaml"))
		if err != nil {
			return nil, err
		}
		renamed, err := addRename(string(text), f.result.contract)
		if err != nil {
			return nil, err
		}
		files = append(files, output{"sqlc.yaml", renamed, true})
	}
	return files, nil
}

func newFunction(root string, r request) (f function, number int, err error) {
	m := namePattern.FindStringSubmatch(r.name)
	if m == nil {
		return f, 0, fmt.Errorf("NAME=%s is not <verb>_<noun>_v<N>, in small letters", r.name)
	}
	verb, noun := m[1], m[2]
	version, err := strconv.Atoi(m[3])
	if err != nil {
		return f, 0, err
	}
	contracts, number, err := migrations(root)
	if err != nil {
		return f, 0, err
	}
	f = function{name: r.name, kind: r.kind}
	if _, err := os.Stat(filepath.Join(root, functionFile(r.name))); err == nil {
		return f, 0, fmt.Errorf("%s exists: NAME=%s_%s_v%d makes its next version", r.name, verb, noun, version+1)
	}
	if version > 1 {
		f.previous = fmt.Sprintf("%s_%s_v%d", verb, noun, version-1)
		text, err := os.ReadFile(filepath.Join(root, functionFile(f.previous)))
		if err != nil {
			return f, 0, fmt.Errorf("%s follows %s: %w", r.name, f.previous, err)
		}
		if err := f.copyOf(string(text)); err != nil {
			return f, 0, fmt.Errorf("%s: %w", functionFile(f.previous), err)
		}
		if r.kind != "" && r.kind != f.kind {
			return f, 0, fmt.Errorf("KIND=%s, but %s is a %s", r.kind, f.previous, f.kind)
		}
	}
	if f.kind != kindRead && f.kind != kindWrite {
		return f, 0, fmt.Errorf("KIND=%s: say read or write", r.kind)
	}
	if r.params != "" {
		if f.params, err = parseParams(r.params); err != nil {
			return f, 0, err
		}
	}
	if f.previous == "" || r.returns != "" {
		if f.result, err = chooseResult(r, f.kind, noun, contracts); err != nil {
			return f, 0, err
		}
	}
	if f.previous == "" {
		if f.result.contract != "" {
			f.columns = columnNames(f.result.columns)
			if f.result.columns == nil {
				f.columns = contracts[f.result.contract]
			}
		}
		f.many = slices.Contains([]string{"list", "lookup", "bulk", "claim", "find", "search"}, verb) && f.result.contract != ""
		pages := f.kind == kindRead && slices.Contains([]string{"list", "find", "search"}, verb) && f.many
		if pages && !slices.ContainsFunc(f.params, func(p parameter) bool { return p.name == limitParameter }) {
			f.params = append([]parameter{{name: limitParameter, kind: "integer"}}, f.params...)
		}
		f.attributes = f.defaultAttributes()
		f.body = f.defaultBody()
		f.comment = "FILL IN: what it returns, and on a miss; its errors; what it locks; whether it may be repeated."
	}
	return f, number, nil
}

func functionFile(name string) string { return "db/functions/" + name + ".sql" }

// migrations returns the columns of the contract tables that exist, and the next number.
func migrations(root string) (contracts map[string][]string, next int, err error) {
	contracts = map[string][]string{}
	files, err := filepath.Glob(filepath.Join(root, "db/migrations/*.sql"))
	if err != nil {
		return nil, 0, err
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, 0, err
		}
		for _, m := range createdTable.FindAllStringSubmatch(string(text), -1) {
			if contractPattern.MatchString(m[1]) {
				contracts[m[1]] = columnNames(strings.Split(m[2], "\n"))
			}
		}
		if m := numberPattern.FindStringSubmatch(filepath.Base(file)); m != nil {
			number, err := strconv.Atoi(m[1])
			if err != nil {
				return nil, 0, err
			}
			next = max(next, number)
		}
	}
	if next == 0 {
		return nil, 0, fmt.Errorf("there are no migrations under %s", root)
	}
	return contracts, next + 1, nil
}

func parseParams(text string) ([]parameter, error) {
	var params []parameter
	for part := range strings.SplitSeq(text, ",") {
		words := strings.Join(strings.Fields(part), " ")
		kind, nullable := strings.CutSuffix(words, " NULL")
		m := paramPattern.FindStringSubmatch(kind)
		if m == nil {
			return nil, fmt.Errorf("PARAMS: %q is not p_<name> <type>, nor p_<name> <type> NULL", words)
		}
		if err := knownType(m[2]); err != nil {
			return nil, fmt.Errorf("PARAMS: %s: %w", m[1], err)
		}
		params = append(params, parameter{m[1], m[2], nullable})
	}
	return params, nil
}

// knownType refuses a type for which the generated Go would not have an exact type, or which the rules do
// not allow.
func knownType(name string) error {
	base := strings.TrimSuffix(name, "[]")
	if _, known := values[base]; known {
		return nil
	}
	if better := otherSpellings[base]; better != "" {
		return fmt.Errorf("write the type %s as %s", base, better)
	}
	return fmt.Errorf("the type %s is not one of %s, nor an array of one", base, strings.Join(slices.Sorted(maps.Keys(values)), ", "))
}

// columnNames returns the first word of each line that declares a column.
func columnNames(lines []string) (names []string) {
	for _, line := range lines {
		words := strings.Fields(line)
		if len(words) > 1 && words[0] != "CONSTRAINT" && !strings.HasPrefix(words[0], "--") {
			names = append(names, words[0])
		}
	}
	return names
}

// chooseResult takes the contract that RETURNS or the name of the function names, or makes one.
func chooseResult(r request, kind, noun string, contracts map[string][]string) (result, error) {
	wanted := strings.TrimPrefix(strings.TrimPrefix(r.returns, "SETOF "), "accounts.")
	if _, known := zeros[wanted]; known {
		return result{scalar: wanted}, nil
	}
	if wanted == "" {
		wanted = noun + "_v1"
		if kind == kindWrite {
			wanted = noun + "_write_v1"
		}
	}
	if _, exists := contracts[wanted]; exists {
		if r.columns != "" {
			return result{}, fmt.Errorf("COLUMNS: the contract %s exists; name another one in RETURNS", wanted)
		}
		return result{contract: wanted}, nil
	}
	if !contractPattern.MatchString(wanted) {
		return result{}, fmt.Errorf("RETURNS=%s is neither a contract <noun>_v<N>, nor void, nor a scalar type that Go gets exactly", r.returns)
	}
	columns := []string{"-- FILL IN: the columns of a row; what is never NULL is NOT NULL", "id uuid NOT NULL", "name text NOT NULL"}
	if r.columns != "" {
		columns = nil
		for column := range strings.SplitSeq(r.columns, ",") {
			m := columnPattern.FindStringSubmatch(strings.Join(strings.Fields(column), " "))
			if m == nil {
				return result{}, fmt.Errorf("COLUMNS: %q is not <name> <type>, nor <name> <type> NOT NULL", strings.TrimSpace(column))
			}
			if err := knownType(m[2]); err != nil {
				return result{}, fmt.Errorf("COLUMNS: %s: %w", m[1], err)
			}
			columns = append(columns, m[0])
		}
	}
	if kind == kindWrite {
		columns = append(columns, "touched text[] NOT NULL", "outbox_id bigint")
	}
	return result{contract: wanted, columns: columns}, nil
}

var (
	definition = regexp.MustCompile(`(?s)FUNCTION accounts\.\w+\((.*?)\)\n RETURNS (.*?)\n LANGUAGE plpgsql\n(?: (.*?)\n)? SET search_path.*?` +
		`AS \$function\$\n?(.*?)\n?\$function\$;.*?IS\n(.*?);\n\n`)
	oneRow      = regexp.MustCompile(`ROWS 1\b`)
	literalLine = regexp.MustCompile(`(?m)^\s*'(.*)'$`)
)

// copyOf takes over what dbtool generate wrote of the version before.
func (f *function) copyOf(text string) error {
	m := definition.FindStringSubmatch(text)
	if m == nil {
		return fmt.Errorf("it has not the form that make generate writes")
	}
	short := strings.NewReplacer("timestamp with time zone", "timestamptz")
	if m[1] != "" {
		for part := range strings.SplitSeq(m[1], ", ") {
			name, kind, _ := strings.Cut(part, " ")
			f.params = append(f.params, parameter{name: name, kind: short.Replace(kind)})
		}
	}
	returns, set := strings.CutPrefix(m[2], "SETOF accounts.")
	if set {
		f.result = result{contract: returns}
	} else {
		f.result = result{scalar: short.Replace(m[2])}
	}
	f.attributes = strings.Join(strings.Fields(strings.Replace(m[3], "SECURITY DEFINER", "", 1)), " ")
	f.kind = kindRead
	if !strings.Contains(f.attributes, "STABLE") {
		f.kind = kindWrite
		f.attributes = strings.TrimSpace("VOLATILE " + f.attributes)
	}
	f.many = set && !oneRow.MatchString(f.attributes)
	f.body = m[4]
	var comment strings.Builder
	for _, line := range literalLine.FindAllStringSubmatch(m[5], -1) {
		comment.WriteString(line[1])
	}
	f.comment = strings.ReplaceAll(comment.String(), "''", "'")
	return nil
}

func addRename(text, contract string) (string, error) {
	lines := renameLine.FindAllStringIndex(text, -1)
	if lines == nil {
		return "", fmt.Errorf("sqlc.yaml has no rename")
	}
	last := lines[len(lines)-1]
	indent := text[last[0] : last[0]+strings.Index(text[last[0]:], "accounts_")]
	return text[:last[1]] + indent + "accounts_" + contract + ": " + camel(contract) + "\n" + text[last[1]:], nil
}

// camel is a name in Go's case, as sqlc writes it.
func camel(name string) string {
	var b strings.Builder
	for word := range strings.SplitSeq(name, "_") {
		if word == "id" {
			b.WriteString("ID")
		} else if word != "" {
			b.WriteString(strings.ToUpper(word[:1]) + word[1:])
		}
	}
	return b.String()
}
