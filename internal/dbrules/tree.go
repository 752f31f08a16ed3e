package dbrules

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
)

const (
	migrationsFolder = "db/migrations"
	queriesFolder    = "db/queries"
	sqlcFile         = "sqlc.yaml"

	downMark = "-- +goose Down"
	noTxMark = "-- +goose NO TRANSACTION"
)

// Tree is the SQL of the project as it lies in the work tree.
type Tree struct {
	root       string
	migrations []migration
	queries    []query
	sqlc       string // the text of sqlc.yaml
}

// migration is one file, cut at its Down. The Up part begins with the first line.
type migration struct {
	path string
	up   string
	down string
	both bool // it has a Down
}

func (m migration) noTransaction() bool { return strings.Contains(m.up, noTxMark) }

// query is one named query.
type query struct {
	path     string
	line     int
	kind     string // its folder
	command  string // one, many or exec
	name     string
	function string // the first of accounts that it calls
	text     string
}

var (
	queryMark  = regexp.MustCompile(`(?m)^--[ \t]*name:[ \t]*(\w+)[ \t]+:(\w+)[^\n]*\n`)
	calledName = regexp.MustCompile(`\baccounts\.(\w+)\s*\(`)
)

// ReadTree reads the files under the root of the project.
func ReadTree(root string) (Tree, error) {
	tree := Tree{root: root}
	files, err := filepath.Glob(filepath.Join(root, migrationsFolder, "*.sql"))
	if err != nil {
		return Tree{}, err
	}
	for _, file := range files { // Glob sorts
		text, err := os.ReadFile(file)
		if err != nil {
			return Tree{}, err
		}
		tree.migrations = append(tree.migrations, newMigration(filepath.Base(file), string(text)))
	}
	if len(files) == 0 {
		return Tree{}, fmt.Errorf("there are no migrations in %s", filepath.Join(root, migrationsFolder))
	}
	for _, kind := range []string{"read", "write"} {
		files, err := filepath.Glob(filepath.Join(root, queriesFolder, kind, "*.sql"))
		if err != nil {
			return Tree{}, err
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				return Tree{}, err
			}
			tree.queries = append(tree.queries, newQueries(kind, filepath.Base(file), string(text))...)
		}
	}
	text, err := os.ReadFile(filepath.Join(root, sqlcFile))
	tree.sqlc = string(text)
	return tree, err
}

func newMigration(name, text string) migration {
	m := migration{path: path.Join(migrationsFolder, name)}
	m.up, m.down, m.both = strings.Cut(text, downMark)
	return m
}

func newQueries(kind, name, text string) []query {
	var queries []query
	marks := queryMark.FindAllStringSubmatchIndex(text, -1)
	for i, m := range marks {
		end := len(text)
		if i+1 < len(marks) {
			end = marks[i+1][0]
		}
		q := query{
			path: path.Join(queriesFolder, kind, name), line: lineOf(text, m[0]), kind: kind,
			name: text[m[2]:m[3]], command: text[m[4]:m[5]], text: text[m[1]:end],
		}
		q.function = calledBy(q.text)
		queries = append(queries, q)
	}
	return queries
}

// calledBy is the first function of accounts that a query calls.
func calledBy(text string) (function string) {
	statements, err := parseSQL(text)
	if err != nil {
		if m := calledName.FindStringSubmatch(code(text)); m != nil {
			return m[1]
		}
		return ""
	}
	for _, s := range statements {
		walk(map[string]any{s.kind: map[string]any(s.node)}, func(kind string, n node) bool {
			if called := nameOf(n.names("funcname")); kind == "FuncCall" && function == "" && called.schema == "accounts" {
				function = called.object
			}
			return function == ""
		})
	}
	return function
}

// place finds where the migrations last create something, or else name it.
func (t Tree) place(name string) (file string, line int) {
	name = strings.TrimPrefix(name, "accounts.")
	if i := strings.IndexAny(name, "( "); i >= 0 {
		name = name[:i]
	}
	quoted := regexp.QuoteMeta(name)
	for _, pattern := range []string{`(?m)^\s*(CREATE\b.*|CONSTRAINT\s+)\b` + quoted + `\b`, `\b` + quoted + `\b`} {
		expression := regexp.MustCompile(pattern)
		for i := len(t.migrations) - 1; i >= 0; i-- {
			m := t.migrations[i]
			if found := expression.FindStringIndex(m.up); found != nil {
				return m.path, lineOf(m.up, found[0]+len(m.up[found[0]:found[1]])-len(name))
			}
		}
	}
	return migrationsFolder, 0
}

// lastNaming finds where the migrations last name one of some objects.
func (t Tree) lastNaming(names []string) (file string, line int) {
	expression := regexp.MustCompile(`\b(` + strings.Join(names, "|") + `)\b`)
	for i := len(t.migrations) - 1; i >= 0; i-- {
		m := t.migrations[i]
		if found := expression.FindStringIndex(m.up); found != nil {
			return m.path, lineOf(m.up, found[0])
		}
	}
	return migrationsFolder, 0
}

// up is the text of all Up parts.
func (t Tree) up() string {
	var all strings.Builder
	for _, m := range t.migrations {
		all.WriteString(m.up)
	}
	return all.String()
}

// code replaces comments and string literals by spaces, so that the rest is found at its place. Dollar-quoted
// bodies are code.
func code(sql string) string { return blanked(sql, true) }

// withoutCommentText replaces comments by spaces: the parser of PL/pgSQL does not accept a comment between
// the parts of a literal that continues on the next line, which PostgreSQL does.
func withoutCommentText(sql string) string { return blanked(sql, false) }

func blanked(sql string, literals bool) string {
	out := []byte(sql)
	blank := func(from, to int) {
		for i := from; i < to; i++ {
			if out[i] != '\n' {
				out[i] = ' '
			}
		}
	}
	for i := 0; i < len(sql); {
		end := len(sql)
		switch {
		case strings.HasPrefix(sql[i:], "--"):
			if n := strings.IndexByte(sql[i:], '\n'); n >= 0 {
				end = i + n
			}
		case strings.HasPrefix(sql[i:], "/*"):
			if n := strings.Index(sql[i:], "*/"); n >= 0 {
				end = i + n + len("*/")
			}
		case sql[i] == '\'': // '' ends one and begins the next
			if n := strings.IndexByte(sql[i+1:], '\''); n >= 0 {
				end = i + 1 + n + 1
			}
		default:
			i++
			continue
		}
		if sql[i] != '\'' || literals {
			blank(i, end)
		}
		i = end
	}
	return string(out)
}
