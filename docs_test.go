package accounts_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// outline is what two languages of one document have in common.
type outline struct {
	headings []string // the marks alone: "##"
	code     []string // fenced blocks, whole
	rows     []string // of each table row, what stands in backticks
	links    []string
}

func readOutline(t *testing.T, path string) outline {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	var o outline
	code := regexp.MustCompile("(?ms)^```.*?^```$")
	o.code = code.FindAllString(string(text), -1)
	prose := code.ReplaceAllString(string(text), "")
	quoted := regexp.MustCompile("`[^`]+`")
	for line := range strings.Lines(prose) {
		switch {
		case strings.HasPrefix(line, "#"):
			marks, _, _ := strings.Cut(line, " ")
			o.headings = append(o.headings, marks)
		case strings.HasPrefix(line, "|"):
			o.rows = append(o.rows, strings.Join(quoted.FindAllString(line, -1), " "))
		}
	}
	for _, link := range regexp.MustCompile(`\]\(([^)]+)\)`).FindAllStringSubmatch(prose, -1) {
		if !strings.HasPrefix(link[1], "operations.") { // each names the other
			o.links = append(o.links, link[1])
		}
	}
	return o
}

func TestOperationsSaysTheSameInBothLanguages(t *testing.T) {
	t.Parallel()
	english, russian := readOutline(t, "docs/operations.md"), readOutline(t, "docs/operations.ru.md")
	require.NotEmpty(t, english.code)
	require.NotEmpty(t, english.rows)
	require.Equal(t, english, russian)
}

// A target that the document names exists.
func TestOperationsNamesTargetsThatExist(t *testing.T) {
	t.Parallel()
	makefile, err := os.ReadFile("Makefile")
	require.NoError(t, err)
	text, err := os.ReadFile("docs/operations.md")
	require.NoError(t, err)
	named := regexp.MustCompile("(?m)(?:^|`)make (?:-s )?([a-z-]+)").FindAllStringSubmatch(string(text), -1)
	require.NotEmpty(t, named)
	for _, name := range named {
		require.Contains(t, string(makefile), "\n"+name[1]+":", name[1])
	}
}
