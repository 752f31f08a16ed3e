package dbrules

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
)

// RoundTrip runs every migration up, then those that the base does not have down and up again, and says
// whether the database is migrated in the end. After each step down the schema must be what it was
// before the step up. What is released cannot be changed; db/migrate_test.go takes all of it down.
func RoundTrip(ctx context.Context, tree Tree, base Base, migrateURL, superURL string) (found []Violation, migrated bool, err error) {
	released, err := base.files(ctx, migrationsFolder)
	if err != nil {
		return nil, false, err
	}
	config, err := pgx.ParseConfig(migrateURL)
	if err != nil {
		return nil, false, err
	}
	pool := stdlib.OpenDB(*config)
	defer func() { err = errors.Join(err, pool.Close()) }()
	provider, err := goose.NewProvider(goose.DialectPostgres, pool, os.DirFS(filepath.Join(tree.root, migrationsFolder)),
		goose.WithSlog(slog.New(slog.DiscardHandler)))
	if err != nil { // two files of one number, or no number
		return []Violation{{migrationUp, migrationsFolder, 0, err.Error()}}, false, nil
	}
	files := provider.ListSources()
	at := func(i int) string { return path.Join(migrationsFolder, path.Base(files[i].Path)) }
	first := len(files) // that is new
	for first > 0 && released[at(first-1)] == "" {
		first--
	}

	dumps := make([]string, len(files)+1)
	if _, err := provider.GetDBVersion(ctx); err != nil { // goose makes its table, which is in the dumps
		return nil, false, err
	}
	for i := range files {
		if i == first {
			if dumps[i], err = dump(ctx, superURL); err != nil {
				return nil, false, err
			}
		}
		before, err := heaps(ctx, pool)
		if err != nil {
			return nil, false, err
		}
		if _, err := provider.UpByOne(ctx); err != nil {
			return append(found, failed(tree, at(i), err)), false, nil
		}
		if i < first {
			continue
		}
		after, err := heaps(ctx, pool)
		if err != nil {
			return nil, false, err
		}
		for _, table := range slices.Sorted(maps.Keys(before)) {
			if heap, there := after[table]; there && heap != before[table] {
				found = append(found, Violation{migrationRewrite, at(i), 0, table + " was written anew"})
			}
		}
		if dumps[i+1], err = dump(ctx, superURL); err != nil {
			return nil, false, err
		}
	}
	different := false
	for i := len(files) - 1; i >= first; i-- {
		if _, err := provider.Down(ctx); err != nil {
			return append(found, Violation{migrationDown, at(i), 0, "Down: " + err.Error()}), false, nil
		}
		now, err := dump(ctx, superURL)
		if err != nil {
			return nil, false, err
		}
		if now != dumps[i] && !different { // the files before are not to blame
			different = true
			found = append(found, Violation{migrationDown, at(i), 0, "Up and Down leave a difference: " + difference(dumps[i], now)})
		}
	}
	for i := first; i < len(files); i++ {
		if _, err := provider.UpByOne(ctx); err != nil {
			return append(found, Violation{migrationDown, at(i), 0, "Up after Down: " + err.Error()}), false, nil
		}
	}
	if first == len(files) {
		return found, true, nil
	}
	now, err := dump(ctx, superURL)
	if err == nil && len(found) == 0 && now != dumps[len(files)] {
		found = append(found, Violation{migrationDown, migrationsFolder, 0,
			"up, down and up leave a difference: " + difference(dumps[len(files)], now)})
	}
	return found, true, err
}

var (
	quotedName = regexp.MustCompile(`"([^"]+)"`)
	plainName  = regexp.MustCompile(`^[\w.$"]{2,}`)
)

// failed finds the line of a migration at which PostgreSQL stopped.
func failed(tree Tree, file string, err error) Violation {
	v := Violation{migrationUp, file, 0, err.Error()}
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return v
	}
	v.Message = fmt.Sprintf("%s (SQLSTATE %s)", pgErr.Message, pgErr.Code)
	if pgErr.Hint != "" {
		v.Message += "; " + pgErr.Hint
	}
	if pgErr.Where != "" {
		v.Message += "; " + upTo(pgErr.Where, 200)
	}
	for _, m := range tree.migrations {
		if m.path != file {
			continue
		}
		// The error has a position in a statement, but not which one: it is the one with what the message
		// names at that position.
		p := m.parts()[0]
		for _, st := range p.list {
			text := p.text[st.offset:st.end]
			blank := code(text)
			text = text[len(blank)-len(strings.TrimLeft(blank, " \t\r\n;")):]
			characters := []rune(text)
			at := int(pgErr.Position) - 1
			if at < 0 || at >= len(characters) {
				continue
			}
			rest := string(characters[at:])
			word := plainName.FindString(rest)
			if quoted := quotedName.FindStringSubmatch(pgErr.Message); quoted != nil {
				word = quoted[1]
			}
			if word != "" && strings.HasPrefix(rest, word) && strings.Contains(pgErr.Message, word) {
				v.Line = p.line(st) + strings.Count(string(characters[:at]), "\n")
				break
			}
		}
	}
	return v
}

// heaps returns the file in which each table of the schema lies: a new one means that it was rewritten.
func heaps(ctx context.Context, pool *sql.DB) (map[string]int64, error) {
	rows, err := pool.QueryContext(ctx, `
		SELECT 'accounts.' || c.relname, pg_relation_filenode(c.oid)
		  FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
		 WHERE n.nspname = 'accounts' AND c.relkind = 'r'`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	files := map[string]int64{}
	for rows.Next() {
		var name string
		var node int64
		if err := rows.Scan(&name, &node); err != nil {
			return nil, err
		}
		files[name] = node
	}
	return files, rows.Err()
}

// dump is the schema as pg_dump writes it.
func dump(ctx context.Context, url string) (string, error) {
	out, err := exec.CommandContext(ctx, "pg_dump", "--schema-only", "--dbname="+url).Output()
	if err != nil {
		return "", fmt.Errorf("pg_dump of the PostgreSQL client programs is needed (scripts/install-deps): %w", err)
	}
	lines := slices.DeleteFunc(strings.Split(string(out), "\n"), func(line string) bool {
		return strings.HasPrefix(line, `\restrict `) || strings.HasPrefix(line, `\unrestrict `) // a random key
	})
	return strings.Join(lines, "\n"), nil
}

// difference shows the first lines that only one of two dumps has.
func difference(before, after string) string {
	const shown = 4
	one, two := strings.Split(before, "\n"), strings.Split(after, "\n")
	var parts []string
	for sign, sides := range map[string][2][]string{"lost": {one, two}, "left": {two, one}} {
		for _, line := range sides[0] {
			if text := strings.TrimSpace(line); len(parts) < shown && text != "" && text != "--" && !slices.Contains(sides[1], line) {
				parts = append(parts, fmt.Sprintf("%s %q", sign, text))
			}
		}
	}
	if len(parts) == 0 {
		return "the order of what pg_dump writes"
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}
