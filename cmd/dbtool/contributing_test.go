package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/dbcatalog"
	"github.com/payment-services/accounts/internal/dbrules"
	"github.com/payment-services/accounts/internal/pgtest"
)

// walkthrough are the fenced blocks of the section "Add a function, end to end" of CONTRIBUTING.md, by
// language, in order.
func walkthrough(t *testing.T) map[string][]string {
	t.Helper()
	_, section, found := strings.Cut(read(t, root, "CONTRIBUTING.md"), "## Add a function, end to end\n")
	require.True(t, found)
	section, _, _ = strings.Cut(section, "\n## ")
	blocks := map[string][]string{}
	for _, m := range regexp.MustCompile("(?ms)^```(\\w*)\n(.*?)^```$").FindAllStringSubmatch(section, -1) {
		blocks[m[1]] = append(blocks[m[1]], m[2])
	}
	return blocks
}

// transcript is one command of a block, and the output that the page shows.
type transcript struct{ command, output string }

func transcripts(block string) (list []transcript) {
	for line := range strings.Lines(block) {
		if command, found := strings.CutPrefix(line, "$ "); found {
			list = append(list, transcript{command: strings.TrimSpace(command)})
		} else if len(list) > 0 {
			list[len(list)-1].output += line
		}
	}
	return list
}

// replace puts a text in the place of another one, which must be there once.
func replace(t *testing.T, dir, file, old, text string) {
	t.Helper()
	before := read(t, dir, file)
	require.Equal(t, 1, strings.Count(before, old), "%s contains this once:\n%s", file, old)
	require.NoError(t, os.WriteFile(filepath.Join(dir, file), []byte(strings.Replace(before, old, text, 1)), 0o600))
}

// What CONTRIBUTING.md shows is what its commands print, in a clone of the project. Of the tools only
// go, make and git are run as the page says: make generate and make check start PostgreSQL servers of
// their own, which these tests have already.
func TestContributing_WalkThrough(t *testing.T) {
	t.Parallel()
	pgtest.NeedServers(t)
	blocks := walkthrough(t)
	shell, sql, golang := blocks[""], blocks["sql"], blocks["go"]
	require.Len(t, shell, 4, "the scaffold, generate, and twice check")
	require.GreaterOrEqual(t, len(golang), 2)
	require.Len(t, sql, 2)

	dir := copyModule(t)
	for _, name := range []string{"Makefile", ".gitignore"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(read(t, root, name)), 0o600))
	}
	git := func(args ...string) string {
		return command(t, dir, "git", append([]string{"-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "init.defaultBranch=main"}, args...)...)
	}
	git("init", "-q")
	git("add", "-A")
	git("commit", "-qm", "main")
	git("checkout", "-qb", "work")

	// 1. The scaffold.
	scaffolded := transcripts(shell[0])
	require.Len(t, scaffolded, 1)
	require.Equal(t, scaffolded[0].output, command(t, dir, "bash", "-c", scaffolded[0].command))
	migration := regexp.MustCompile(`db/migrations/\S+`).FindString(scaffolded[0].output)
	marked, written := strings.Split(sql[0], "...\n"), strings.Split(sql[1], "...\n")
	require.Len(t, marked, 2)
	require.Len(t, written, 2)
	replace(t, dir, migration, marked[0], "AS $$\n"+written[0]+"$$;\n")
	_, comment, _ := strings.Cut(marked[1], "\n")

	test := regexp.MustCompile(`db/\w+_test\.go`).FindString(scaffolded[0].output)
	_, body, _ := strings.Cut(read(t, dir, test), "func Test")
	replace(t, dir, test, "func Test"+body, golang[0])
	plans := read(t, dir, plansFile)
	entry := plans[strings.Index(plans, `		{"count_group_members_v1"`):]
	entry, _, _ = strings.Cut(entry, "\n\t}\n}\n\nfunc full(")
	replace(t, dir, plansFile, entry+"\n", golang[1])
	sqlc := tool(t, "sqlc")
	command(t, dir, sqlc, "generate")
	command(t, dir, "go", "vet", "./db", "./test/plans")

	// 3. Check, with the comment that was left, and without.
	cfg := dbrules.Config{Root: dir, SQLC: sqlc}
	if _, err := exec.LookPath("npm"); err == nil && runtime.GOARCH == "amd64" {
		cfg.Squawk = tool(t, "squawk")
	}
	check := func() (out, super string) {
		cfg.MigrateURL, cfg.SuperURL = empty(t)
		report, err := dbrules.Check(t.Context(), cfg)
		require.NoError(t, err)
		if cfg.Squawk == "" { // what this machine cannot check is not part of the page
			report.Notes = slices.DeleteFunc(report.Notes, func(note string) bool { return strings.Contains(note, "squawk") })
		}
		report.Violations = slices.DeleteFunc(report.Violations, func(v dbrules.Violation) bool {
			return v.Rule == "generated" && v.File == "db" // make generate follows
		})
		var text bytes.Buffer
		report.Write(&text)
		return regexp.MustCompile(`[0-9a-f]{12} \(`).ReplaceAllString(text.String(), "<commit> ("), cfg.SuperURL
	}
	page := func(block int) []transcript {
		return transcripts(regexp.MustCompile(`[0-9a-f]{12} \(`).ReplaceAllString(shell[block], "<commit> ("))
	}
	out, _ := check()
	require.Equal(t, "make check", page(2)[0].command)
	require.Equal(t, page(2)[0].output, out)
	replace(t, dir, migration, comment, written[1])

	// 2. Generate.
	out, super := check()
	require.Equal(t, "make check", page(3)[0].command)
	require.Equal(t, page(3)[0].output, out)
	conn, err := pgx.Connect(t.Context(), super)
	require.NoError(t, err)
	files, err := dbcatalog.Read(t.Context(), conn)
	require.NoError(t, err)
	require.NoError(t, conn.Close(t.Context()))
	require.NoError(t, files.Write(filepath.Join(dir, "db")))
	generated := transcripts(shell[1])
	require.Len(t, generated, 2)
	recipe := regexp.MustCompile(`(?m)^generate:.*\n((?:\t.*\n)+)`).FindStringSubmatch(read(t, dir, "Makefile"))
	require.NotNil(t, recipe)
	want := strings.NewReplacer("\t", "", "$(tools)", ".tools").Replace(recipe[1]) + git("status", "--short")
	require.Equal(t, "make generate && git status --short", generated[0].command)
	require.Equal(t, want, generated[0].output)
	require.Equal(t, generated[1].output, command(t, dir, "bash", "-c", generated[1].command))

	// The test of the page passes.
	ran := page(3)[1]
	seconds := regexp.MustCompile(`[0-9.]+s\n`)
	require.Equal(t, seconds.ReplaceAllString(ran.output, "<time>"),
		seconds.ReplaceAllString(command(t, dir, "bash", "-c", ran.command), "<time>"))
}
