package accounts_test

import (
	"encoding/json"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/db"
)

var (
	codeBlock = regexp.MustCompile("(?ms)^```.*?^```$")
	codeSpan  = regexp.MustCompile("`[^`\n]+`")
	linkTo    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
)

// outline is what two languages of one document have in common.
type outline struct {
	headings []string // the marks alone: "##"
	code     []string // whole fenced blocks
	rows     []string // the code spans of each table row
	links    []string
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(text)
}

// readOutline returns the outline of a document. Links to the same document in the other language are
// left out.
func readOutline(t *testing.T, file string) outline {
	t.Helper()
	text := readFile(t, file)
	o := outline{code: codeBlock.FindAllString(text, -1)}
	prose := codeBlock.ReplaceAllString(text, "")
	for line := range strings.Lines(prose) {
		switch {
		case strings.HasPrefix(line, "#"):
			marks, _, _ := strings.Cut(line, " ")
			o.headings = append(o.headings, marks)
		case strings.HasPrefix(line, "|"):
			o.rows = append(o.rows, strings.Join(codeSpan.FindAllString(line, -1), " "))
		}
	}
	name, _, _ := strings.Cut(path.Base(file), ".")
	for _, link := range linkTo.FindAllStringSubmatch(prose, -1) {
		if link[1] != name+".md" && link[1] != name+".ru.md" {
			o.links = append(o.links, link[1])
		}
	}
	return o
}

// markdown returns the Markdown files of the repository.
func markdown(t *testing.T) []string {
	t.Helper()
	var files []string
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/decisions/*.md", ".github/*.md"} {
		found, err := filepath.Glob(pattern)
		require.NoError(t, err)
		files = append(files, found...)
	}
	require.Contains(t, files, "docs/decisions/README.md")
	return files
}

func TestDocs_BothLanguagesHaveTheSameOutline(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"README", "docs/operations"} {
		t.Run(path.Base(name), func(t *testing.T) {
			t.Parallel()
			english, russian := readOutline(t, name+".md"), readOutline(t, name+".ru.md")
			require.NotEmpty(t, english.code)
			require.NotEmpty(t, english.rows)
			require.Equal(t, english, russian)
		})
	}
}

// commands returns the shell commands of a document: its code spans, and the lines of its code blocks,
// each cut at && and ;.
func commands(text string) (found []string) {
	lines := codeSpan.FindAllString(codeBlock.ReplaceAllString(text, ""), -1)
	for _, block := range codeBlock.FindAllString(text, -1) {
		lines = append(lines, strings.Split(block, "\n")...)
	}
	for _, line := range lines {
		line = strings.TrimPrefix(strings.Trim(line, "`"), "$ ")
		for _, command := range regexp.MustCompile(`&&|;`).Split(line, -1) {
			found = append(found, strings.TrimSpace(command))
		}
	}
	return found
}

func TestDocs_TargetsOfMakeExist(t *testing.T) {
	t.Parallel()
	var targets []string
	for _, match := range regexp.MustCompile(`(?m)^([a-z-]+):`).FindAllStringSubmatch(readFile(t, "Makefile"), -1) {
		targets = append(targets, match[1])
	}
	named := 0
	for _, file := range markdown(t) {
		for _, command := range commands(readFile(t, file)) {
			words := strings.Fields(command)
			if len(words) < 2 || words[0] != "make" {
				continue
			}
			for _, word := range words[1:] {
				if strings.Contains(word, "=") || word[0] == '#' {
					break // variables follow the targets
				}
				if strings.HasPrefix(word, "-") {
					continue
				}
				named++
				require.Contains(t, targets, word, "%s: %s", file, command)
			}
		}
	}
	require.Greater(t, named, 50)
}

func TestDocs_ServerCommandsExist(t *testing.T) {
	t.Parallel()
	_, usage, _ := strings.Cut(readFile(t, "cmd/server/main.go"), "const usage = `")
	usage, _, _ = strings.Cut(usage, "`")
	var known []string
	for _, match := range regexp.MustCompile(`(?m)^  ([a-z]+) `).FindAllStringSubmatch(usage, -1) {
		known = append(known, match[1])
	}
	var named []string
	for _, file := range markdown(t) {
		for _, command := range commands(readFile(t, file)) {
			words := strings.Fields(command)
			for len(words) > 0 && strings.Contains(words[0], "=") {
				words = words[1:]
			}
			if len(words) > 1 && words[0] == "server" {
				named = append(named, words[1])
				require.Contains(t, known, words[1], "%s: %s", file, command)
			}
		}
	}
	for _, name := range []string{"migrate", "import", "functions", "token"} {
		require.Contains(t, named, name)
	}
}

// A file of docker compose that a document names exists, and so does each service.
func TestDocs_ContainersExist(t *testing.T) {
	t.Parallel()
	var services []string
	files, err := filepath.Glob("docker-compose*.yml")
	require.NoError(t, err)
	for _, file := range files {
		for _, match := range regexp.MustCompile(`(?m)^  ([a-z0-9-]+):`).FindAllStringSubmatch(readFile(t, file), -1) {
			services = append(services, match[1])
		}
	}
	named := 0
	for _, file := range markdown(t) {
		for _, command := range commands(readFile(t, file)) {
			if !strings.Contains(command, "docker compose ") {
				continue
			}
			for _, file := range regexp.MustCompile(`-f ([a-z.-]+\.yml)`).FindAllStringSubmatch(command, -1) {
				require.Contains(t, files, file[1], command)
			}
			for _, container := range regexp.MustCompile(`\b(?:pg-node|etcd|accounts|redis)-[a-z0-9]+\b`).FindAllString(command, -1) {
				named++
				require.Contains(t, services, container, command)
			}
		}
	}
	require.Greater(t, named, 15)
}

// anchor returns the anchor that GitHub gives a heading.
func anchor(heading string) string {
	kept := strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case strings.ContainsRune("`*.,:;()?!/'\"→=", r):
			return -1
		}
		return r
	}, strings.ToLower(strings.TrimSpace(strings.TrimLeft(heading, "#"))))
	return kept
}

func TestDocs_LinksLeadToFilesAndHeadings(t *testing.T) {
	t.Parallel()
	checked := 0
	for _, file := range markdown(t) {
		for _, link := range linkTo.FindAllStringSubmatch(codeBlock.ReplaceAllString(readFile(t, file), ""), -1) {
			target, err := url.Parse(link[1])
			require.NoError(t, err, file)
			if target.IsAbs() {
				continue
			}
			checked++
			to := file
			if target.Path != "" {
				to = filepath.Join(filepath.Dir(file), target.Path)
			}
			_, err = os.Stat(to)
			require.NoError(t, err, "%s links to %s", file, link[1])
			if target.Fragment == "" {
				continue
			}
			var anchors []string
			for line := range strings.Lines(codeBlock.ReplaceAllString(readFile(t, to), "")) {
				if strings.HasPrefix(line, "#") {
					anchors = append(anchors, anchor(line))
				}
			}
			require.Contains(t, anchors, target.Fragment, "%s links to %s", file, link[1])
		}
	}
	require.Greater(t, checked, 150)
}

// Paths in code spans, such as `internal/cache` and `db/roles_test.go`, exist too.
func TestDocs_PathsExist(t *testing.T) {
	t.Parallel()
	tracked, err := exec.Command("git", "ls-files").Output()
	if err != nil {
		t.Skip("the folder has no git")
	}
	made := []string{"bin/server", "testdata/fuzz"}
	exists := func(name string) bool {
		_, err := os.Stat(name)
		return err == nil || slices.Contains(made, name) || strings.Contains("\n"+string(tracked), "/"+name+"\n")
	}
	inTree := regexp.MustCompile("^`((?:internal|cmd|db|docs|deploy|test|tools|scripts|bench|examples)/[a-z0-9_./-]*[a-z0-9])/?`$")
	checked := 0
	for _, file := range markdown(t) {
		if file == "CONTRIBUTING.md" || file == "CHANGELOG.md" {
			continue // files of the walk-through; of the past
		}
		for _, span := range codeSpan.FindAllString(codeBlock.ReplaceAllString(readFile(t, file), ""), -1) {
			if match := inTree.FindStringSubmatch(span); match != nil {
				checked++
				require.True(t, exists(match[1]), "%s names %s", file, match[1])
			}
		}
	}
	require.Greater(t, checked, 20)
}

func TestDocs_ReadmeListsEveryVariable(t *testing.T) {
	t.Parallel()
	var known []string
	for _, match := range regexp.MustCompile(`env:"([A-Z_]+)[",]`).FindAllStringSubmatch(readFile(t, "cmd/server/config.go"), -1) {
		known = append(known, match[1])
	}
	_, section, _ := strings.Cut(readFile(t, "README.md"), "\n## Configuration\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var listed []string
	for line := range strings.Lines(section) {
		if first, _, _ := strings.Cut(strings.TrimPrefix(line, "| "), " |"); strings.HasPrefix(line, "| `") {
			for _, span := range codeSpan.FindAllString(first, -1) {
				listed = append(listed, strings.Trim(span, "`"))
			}
		}
	}
	require.Greater(t, len(known), 25)
	require.ElementsMatch(t, known, listed)
}

func TestDocs_ReadmeListsEveryDefault(t *testing.T) {
	t.Parallel()
	text := readFile(t, "README.md")
	for _, match := range regexp.MustCompile(`env:"([A-Z_]+)" envDefault:"([^"]+)"`).FindAllStringSubmatch(readFile(t, "cmd/server/config.go"), -1) {
		row := regexp.MustCompile("(?m)^\\| .*`" + match[1] + "`.* \\|.*$").FindString(text)
		columns := strings.Split(row, " | ")
		require.Len(t, columns, 3, match[1])
		require.Contains(t, columns[1], match[2], match[1])
	}
}

// The table of routes in README abbreviates: … stands for any rest, and {id} for any parameter.
func TestDocs_ReadmeListsEveryRoute(t *testing.T) {
	t.Parallel()
	var document struct{ Paths map[string]map[string]any }
	require.NoError(t, json.Unmarshal([]byte(readFile(t, "test/openapi/openapi.json")), &document))
	parameter := regexp.MustCompile(`\{[a-z_]+\}`)
	_, section, _ := strings.Cut(readFile(t, "README.md"), "\n## The API\n")
	section, _, _ = strings.Cut(section, "\n## ")
	exact, prefixes := []string{"/docs"}, []string{}
	for line := range strings.Lines(section) {
		first, _, _ := strings.Cut(strings.TrimPrefix(line, "| "), " |")
		last := ""
		for _, span := range codeSpan.FindAllString(first, -1) {
			if !strings.HasPrefix(line, "| `") || !strings.Contains(span, "/") {
				continue
			}
			fields := strings.Fields(strings.Trim(span, "`"))
			name, _, _ := strings.Cut(parameter.ReplaceAllString(fields[len(fields)-1], "{}"), "?")
			if rest, found := strings.CutPrefix(name, "…"); found {
				name = last + strings.TrimPrefix(rest, "/bulk") // …/bulk/upload follows /accounts/users/bulk
			}
			if last = name; strings.HasSuffix(name, "…") {
				prefixes = append(prefixes, strings.TrimSuffix(name, "…"))
			} else {
				exact = append(exact, name)
			}
		}
	}
	paths := []string{"/docs"}
	for name := range document.Paths {
		name = parameter.ReplaceAllString(name, "{}")
		paths = append(paths, name)
		listed := slices.Contains(exact, name) || slices.ContainsFunc(prefixes, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
		require.True(t, listed, "README does not list %s", name)
	}
	for _, name := range exact {
		require.Contains(t, paths, name)
	}
	for _, prefix := range prefixes {
		require.True(t, slices.ContainsFunc(paths, func(name string) bool { return strings.HasPrefix(name, prefix) }), prefix)
	}
}

// What operations.md shows as printed by this project is what the code prints.
func TestDocs_OperationsShowsRealOutput(t *testing.T) {
	t.Parallel()
	blocks := strings.Join(codeBlock.FindAllString(readFile(t, "docs/operations.md"), -1), "\n")
	require.Contains(t, blocks, "\nserver: migrate: "+db.ErrReadOnly.Error()+"\n")
	script := readFile(t, "scripts/cluster")
	for _, line := range []string{
		"There is no list of members. The nodes say of themselves:", "HAProxy sends", "Readiness", "both nodes are new",
	} {
		require.Contains(t, blocks, "\n"+line+"\n")
		require.Contains(t, script, "echo '"+line+"'")
	}
	require.Regexp(t, `\npg-node-[12] is the primary, pg-node-[12] its replica\n`, blocks)
	require.Contains(t, script, `echo "$to is the primary, $from its replica"`)
	require.Regexp(t, `\npg-node-[12] is a fresh copy of pg-node-[12]\n`, blocks)
	require.Contains(t, script, `echo "$node is a fresh copy of $from"`)
	require.Contains(t, blocks, "\nconfigure: replication is sync\n")
	require.Contains(t, readFile(t, "deploy/patroni/configure"), "replication is ")
}

func TestDocs_MetricsExist(t *testing.T) {
	t.Parallel()
	var code strings.Builder
	for _, pattern := range []string{"internal/*/*.go", "cmd/server/*.go"} {
		files, err := filepath.Glob(pattern)
		require.NoError(t, err)
		for _, file := range files {
			if !strings.HasSuffix(file, "_test.go") {
				code.WriteString(readFile(t, file))
			}
		}
	}
	named := 0
	for _, file := range markdown(t) {
		for _, match := range regexp.MustCompile(`\baccounts_(?:http|cache|pool)_[a-z_]*[a-z]\b`).FindAllString(readFile(t, file), -1) {
			named++
			name := regexp.MustCompile(`_(?:count|sum|bucket)$`).ReplaceAllString(match, "")
			whole := strings.Contains(code.String(), `"`+name+`"`)
			require.True(t, whole || strings.Contains(code.String(), `"`+strings.TrimPrefix(name, "accounts_pool_")+`"`), "%s: %s", file, match)
		}
	}
	require.Greater(t, named, 10)
}

// Words that made sentences of this project hard to understand.
func TestDocs_PlainEnglish(t *testing.T) {
	t.Parallel()
	banned := regexp.MustCompile(`(?i)\b(nobody|for ever|forever|anew|shall|owed|whoever|whosoever|thereof|hence|lest|meanwhile|dearer|goes? on (?:as|until))\b`)
	for _, file := range markdown(t) {
		if strings.HasSuffix(file, ".ru.md") || file == "docs/sql-rules.md" { // generated from internal/dbrules
			continue
		}
		prose := codeSpan.ReplaceAllString(codeBlock.ReplaceAllString(readFile(t, file), ""), "")
		require.Empty(t, banned.FindAllString(prose, -1), file)
	}
}

func TestDecisions_AreNumberedDatedAndListed(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("docs/decisions/[0-9]*.md")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	index := readFile(t, "docs/decisions/README.md")
	head := regexp.MustCompile(`^# ([0-9]+)\. (.+)\n\nDate: (20[0-9]{2}-[0-9]{2}-[0-9]{2})\. Status: (accepted|replaced by [0-9]+)\.\n\n`)
	for i, file := range files {
		match := head.FindStringSubmatch(readFile(t, file))
		require.NotNil(t, match, "%s: want a title, then \"Date: ... Status: ...\"", file)
		number := strings.TrimLeft(path.Base(file)[:4], "0")
		require.Equal(t, number, match[1], file)
		require.Equal(t, i+1, atoi(t, number), "a number is missing or used twice at %s", file)
		require.Contains(t, index, "| "+number+" | ["+match[2]+"]("+path.Base(file)+") | "+match[3]+" | "+match[4]+" |")
	}
}

func atoi(t *testing.T, text string) int {
	t.Helper()
	n, err := strconv.Atoi(text)
	require.NoError(t, err)
	return n
}
