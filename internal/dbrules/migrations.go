package dbrules

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

const (
	migrationName    = "migration-name"
	migrationOrder   = "migration-order"
	migrationFrozen  = "migration-frozen"
	migrationTimeout = "migration-lock-timeout"
	migrationLock    = "migration-lock"
	migrationRewrite = "migration-rewrite"
	migrationUp      = "migration-up"
	migrationDown    = "migration-down"
	contractFrozen   = "contract-frozen"
	contractRemoved  = "contract-removed"
	fillIn           = "fill-in"

	// longLockMark begins the comment that lets a long lock be.
	longLockMark = "-- long lock: "
)

var fileRules = []Rule{
	{migrationName, "goose takes the order of the files from their numbers, and files are read in that order",
		"name it <five digits>_<words>.sql: 00042_create_count_group_members.sql"},
	{migrationOrder, "goose refuses a number below one that a database has applied already, and two files of one number",
		"give the new file the next number after the newest one of main"},
	{migrationFrozen, "databases have applied this file; they would never see the change, and differ from new ones",
		"git restore it, and make the change in a new migration"},
	{migrationTimeout, "a DDL statement that waits for a lock makes every later statement on the table wait too, without limit",
		"let SET LOCAL lock_timeout = '5s'; be the first statement of Up and of Down (SET in a NO TRANSACTION migration)"},
	{migrationLock, "the service uses this table while the migration runs, and its requests would wait until the migration ends",
		"do it without a long lock: CREATE INDEX CONCURRENTLY in a separate NO TRANSACTION migration, NOT VALID and then " +
			"VALIDATE CONSTRAINT, a new column beside the old one, rows changed in batches (https://squawkhq.com/docs/rules); " +
			"where the table is known to be small, put above the statement -- squawk-ignore <squawk's rule>, or for the others " + longLockMark + "<reason>"},
	{migrationRewrite, "the table is copied row by row under a lock that keeps even readers out",
		"add a new column (a constant default costs nothing), fill it in batches, and drop the old one a release later"},
	{migrationUp, "a migration that fails stops the roll-out", "read PostgreSQL's message; the file is run in one transaction"},
	{migrationDown, "a release that must be taken back needs the database that it had before",
		"let Down restore exactly what stood before Up: the old text of a replaced function (git show main:db/functions/...), grants, comments"},
	{contractFrozen, "the release that runs now calls this function with these arguments and reads these columns, while the migration is rolled out",
		"leave this version as it was and make the next one beside it: make function NAME=..._v2"},
	{contractRemoved, "the release that runs now still has a query that calls this function",
		"first release a service without the query; when nothing calls the function (pg_stat_user_functions), drop it in the release after"},
	{fillIn, "make function left a place for you to fill in", "write what the mark asks for, and remove the mark"},
}

var (
	migrationNames = regexp.MustCompile(`^([0-9]{5})_[a-z0-9_]+\.sql$`)
	upMark         = regexp.MustCompile(`(?m)^-- \+goose Up\s*$`)
	// What make function leaves where a person has to write.
	mark = regexp.MustCompile(`FILL IN\b.*`)
)

// Migrations checks the files by themselves.
func Migrations(tree Tree) []Violation {
	var found []Violation
	numbers := map[string]string{}
	for _, m := range tree.migrations {
		report := func(rule string, line int, format string, args ...any) {
			found = append(found, Violation{rule, m.path, line, fmt.Sprintf(format, args...)})
		}
		name := migrationNames.FindStringSubmatch(path.Base(m.path))
		if name == nil {
			report(migrationName, 0, "the name is not <five digits>_<words>.sql")
		} else if other, twice := numbers[name[1]]; twice {
			report(migrationOrder, 0, "the number is that of %s", other)
		} else {
			numbers[name[1]] = path.Base(m.path)
		}
		if !m.both {
			report(migrationDown, 0, "there is no %q", downMark)
		}
		start := upMark.FindStringIndex(m.up)
		if start == nil {
			report(migrationUp, 0, "there is no %q", "-- +goose Up")
			continue
		}
		for _, at := range mark.FindAllStringIndex(m.up, -1) {
			report(fillIn, lineOf(m.up, at[0]), "%s", m.up[at[0]:at[1]])
		}
	}
	for _, file := range []string{"db/*_test.go", queriesFolder + "/*/*.sql"} {
		found = append(found, marks(tree.root, file)...)
	}
	return append(found, schemaRules(tree)...)
}

func marks(root, pattern string) (found []Violation) {
	files, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(pattern)))
	if err != nil {
		panic(err) // the patterns are above
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it was there a moment ago
		}
		for _, at := range mark.FindAllIndex(text, -1) {
			relative := strings.TrimPrefix(filepath.ToSlash(strings.TrimPrefix(file, filepath.Clean(root))), "/")
			found = append(found, Violation{fillIn, relative, lineOf(string(text), at[0]), string(text[at[0]:at[1]])})
		}
	}
	return found
}

// Released compares the migrations with those of the base.
func Released(ctx context.Context, tree Tree, base Base) ([]Violation, error) {
	old, err := base.files(ctx, migrationsFolder)
	if err != nil {
		return nil, err
	}
	var found []Violation
	current := map[string]string{}
	for _, m := range tree.migrations {
		current[m.path] = m.up
		if m.both {
			current[m.path] += downMark + m.down
		}
	}
	newest := ""
	for _, file := range slices.Sorted(maps.Keys(old)) {
		newest = max(newest, file)
		text, there := current[file]
		switch {
		case !there:
			found = append(found, Violation{migrationFrozen, file, 0, "a released migration is gone or has another name"})
		case text != old[file]:
			found = append(found, Violation{migrationFrozen, file, firstDifference(text, old[file]), "a released migration was edited"})
		}
	}
	for _, file := range slices.Sorted(maps.Keys(current)) {
		if _, released := old[file]; !released && file < newest {
			found = append(found, Violation{migrationOrder, file, 0,
				"a new migration stands before " + path.Base(newest) + ", which is released"})
		}
	}
	return found, nil
}

func firstDifference(a, b string) int {
	one, two := strings.Split(a, "\n"), strings.Split(b, "\n")
	for i := range min(len(one), len(two)) {
		if one[i] != two[i] {
			return i + 1
		}
	}
	return min(len(one), len(two))
}

// Contract compares the contract that the migrations make now with that of the base.
func Contract(ctx context.Context, tree Tree, base Base, now string) ([]Violation, error) {
	old, err := base.files(ctx, "db/contract.txt")
	if err != nil {
		return nil, err
	}
	queries, err := base.files(ctx, queriesFolder)
	if err != nil {
		return nil, err
	}
	called := map[string]string{}
	for _, file := range slices.Sorted(maps.Keys(queries)) {
		for _, q := range newQueries(path.Base(path.Dir(file)), path.Base(file), queries[file]) {
			called[q.function] = file
		}
	}
	var found []Violation
	current := contractEntries(now)
	for name, entry := range contractEntries(old["db/contract.txt"]) {
		is, there := current[name]
		names := []string{name}
		if m := returnsContract.FindStringSubmatch(entry); m != nil {
			names = append(names, m[1])
		}
		file, line := tree.lastNaming(names)
		switch {
		case there && is != entry:
			found = append(found, Violation{contractFrozen, file, line, fmt.Sprintf(
				"accounts.%s is released and has changed: %s", name, changed(entry, is))})
		case !there && called[name] != "":
			found = append(found, Violation{contractRemoved, file, line, fmt.Sprintf(
				"accounts.%s is gone or granted to no role, and %s of %s calls it", name, called[name], base.How)})
		}
	}
	return found, nil
}

var returnsContract = regexp.MustCompile(`RETURNS SETOF accounts\.(\w+)`)

// contractEntries cuts a contract into its functions, by name.
func contractEntries(text string) map[string]string {
	entries := map[string]string{}
	for entry := range strings.SplitSeq(text, "\n\n") {
		if name, _, ok := strings.Cut(strings.TrimPrefix(entry, "accounts."), "("); ok && strings.HasPrefix(entry, "accounts.") {
			entries[name] = strings.TrimSpace(entry)
		}
	}
	return entries
}

// changed names the lines that only one of two entries has.
func changed(old, now string) string {
	one, two := strings.Split(old, "\n"), strings.Split(now, "\n")
	var parts []string
	for _, line := range one {
		if !slices.Contains(two, line) {
			parts = append(parts, "was "+strings.TrimSpace(line))
		}
	}
	for _, line := range two {
		if !slices.Contains(one, line) {
			parts = append(parts, "is "+strings.TrimSpace(line))
		}
	}
	if len(parts) == 0 {
		return "the order of its columns"
	}
	return strings.Join(parts, ", ")
}

// What squawk does not know: these lock a table for as long as it is large.
var longLocks = regexp.MustCompile(`(?im)^\s*(?:LOCK(?: TABLE)?|CLUSTER|VACUUM FULL|TRUNCATE(?: TABLE)?|REFRESH MATERIALIZED VIEW|` +
	`(?:UPDATE|DELETE FROM)(?: ONLY)?)\s+(accounts\.\w+)([^;]*)`)

// ownRules find what some of squawk's rules find, and know what the migration creates.
var ownRules = []string{downLosesData, migrationSyntax, migrationCascade, qualifiedNames, "column-type", "object-kind"}

// Locks finds what keeps others from a table that is in use. A table that the same migration creates is
// not.
func Locks(ctx context.Context, tree Tree, squawk string) ([]Violation, error) {
	var found []Violation
	dir, err := os.MkdirTemp("", "dbrules-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	byName := map[string]string{}
	files := map[bool][]string{}
	for _, m := range tree.migrations {
		file := filepath.Join(dir, path.Base(m.path))
		byName[file] = m.path
		files[m.noTransaction()] = append(files[m.noTransaction()], file)
		if err := os.WriteFile(file, []byte(m.up), 0o600); err != nil { // squawk does not know Down
			return nil, err
		}
		top := topLevel(code(m.up))
		for _, at := range longLocks.FindAllStringSubmatchIndex(top, -1) {
			table, rest, statement := top[at[2]:at[3]], top[at[4]:at[5]], strings.TrimSpace(top[at[0]:at[2]])
			created := regexp.MustCompile(`CREATE TABLE (IF NOT EXISTS )?` + regexp.QuoteMeta(table) + `\b`).MatchString(top)
			whole := !regexp.MustCompile(`(?i)\bWHERE\b`).MatchString(rest)
			lines := strings.Split(m.up, "\n")
			above := lines[max(lineOf(top, at[2])-2, 0)]
			if !created && whole && !strings.Contains(above, longLockMark) {
				found = append(found, Violation{migrationLock, m.path, lineOf(top, at[2]), statement + " takes all of " + table})
			}
		}
	}
	for noTransaction, list := range files {
		args := []string{"--config", filepath.Join(tree.root, "tools/squawk.toml"), "--reporter", "json"}
		if !noTransaction {
			args = append(args, "--assume-in-transaction")
		}
		out, err := exec.CommandContext(ctx, squawk, append(args, list...)...).Output()
		var faults []struct {
			File     string
			Line     int // from 0
			Message  string
			Help     string
			RuleName string `json:"rule_name"`
		}
		var exit *exec.ExitError // it found something
		if err != nil && !errors.As(err, &exit) {
			return nil, fmt.Errorf("squawk: %w", err)
		}
		if err := json.Unmarshal(out, &faults); err != nil {
			return nil, fmt.Errorf("squawk: %w: %s", err, out)
		}
		for _, f := range faults {
			file, known := byName[f.File]
			if !known {
				return nil, fmt.Errorf("squawk: %s: %s", f.File, f.Message)
			}
			rule, message := squawkNames[f.RuleName], strings.TrimSpace(f.RuleName+": "+f.Message)
			if rule == "" {
				rule, message = migrationLock, strings.TrimSpace(message+" "+f.Help)
			}
			if !slices.Contains(ownRules, rule) { // that our own rules find, with more knowledge
				found = append(found, Violation{rule, file, f.Line + 1, message})
			}
		}
	}
	return found, nil
}

// topLevel leaves the bodies of functions and of DO out, but not their lines.
func topLevel(text string) string {
	parts := strings.Split(text, "$$")
	for i := 1; i < len(parts); i += 2 {
		parts[i] = strings.Repeat("\n", strings.Count(parts[i], "\n"))
	}
	return strings.Join(parts, "$$")
}
