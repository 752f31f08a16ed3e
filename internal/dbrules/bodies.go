package dbrules

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

const (
	plpgsqlCheck = "plpgsql-check"
	readWrites   = "read-writes"
	dynamicSQL   = "dynamic-sql"
)

var bodyRules = []Rule{
	{plpgsqlCheck, "PostgreSQL looks into a body only when it is called: a wrong column is found by a user",
		"correct what plpgsql_check says"},
	{readWrites, "PostgreSQL does not stop a STABLE function from calling one that writes: it works on the primary and fails on a replica, " +
		"and the cache is never told",
		"let it call STABLE functions only; if it must write, declare it VOLATILE and grant it to accounts_write alone"},
	{dynamicSQL, "text that becomes SQL is where an injection enters, and nothing checks it before it is run",
		"write plain SQL; or EXECUTE with format('%I', ...) for names and USING for values, with the reason " +
			"in a comment directly above: -- Dynamic because ..."},
}

// body is a function as far as its body goes.
type body struct {
	OID     uint32
	Name    string // without the schema
	Source  string
	Mutable bool     // VOLATILE
	Calls   []string // names of functions of accounts, as plpgsql_check sees them
}

// sideEffects are calls and texts that write without a table's name, or within dynamic SQL.
var sideEffects = regexp.MustCompile(`(?i)\b(nextval|setval|pg_notify|pg_(try_)?advisory_\w+|dblink\w*)\s*\(` +
	`|'\s*(INSERT\s+INTO|UPDATE|DELETE\s+FROM|MERGE\s+INTO|TRUNCATE)\s`)

// bodies checks what functions do.
func bodies(ctx context.Context, conn *pgx.Conn, tree Tree) ([]Violation, error) {
	if _, err := conn.Exec(ctx, "CREATE EXTENSION IF NOT EXISTS plpgsql_check SCHEMA public"); err != nil {
		return nil, fmt.Errorf("plpgsql_check is missing: run scripts/install-deps --check: %w", err)
	}
	found, broken, err := checked(ctx, conn, tree)
	if err != nil {
		return nil, err
	}
	// A body with an error has no list of what it calls.
	rows, err := conn.Query(ctx, `
		SELECT p.oid, p.proname::text AS name, p.prosrc AS source, p.provolatile = 'v' AS mutable,
		       ARRAY(SELECT d.name FROM public.plpgsql_show_dependency_tb(p.oid) AS d
		              WHERE p.oid <> ALL ($1) AND d.type = 'FUNCTION' AND d.schema = 'accounts') AS calls
		  FROM pg_proc AS p JOIN pg_language AS l ON l.oid = p.prolang
		 WHERE p.pronamespace = 'accounts'::regnamespace AND l.lanname = 'plpgsql'
		 ORDER BY p.proname`, broken)
	if err != nil {
		return nil, err
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByName[body])
	if err != nil {
		return nil, fmt.Errorf("read the bodies: %w", err)
	}
	byName := map[string]body{}
	for _, b := range list {
		// Dynamic SQL hides a call from plpgsql_check, but not from a search.
		for _, called := range calledName.FindAllStringSubmatch(b.Source, -1) {
			b.Calls = append(b.Calls, called[1])
		}
		byName[b.Name] = b
	}
	for _, b := range list {
		file, line := tree.place(b.Name)
		if !b.Mutable {
			if chain := pathToWriter(byName, b.Name, nil); chain != nil {
				found = append(found, Violation{readWrites, file, line,
					"accounts." + b.Name + " is not VOLATILE and calls one that is: " + strings.Join(chain, " -> ")})
			}
			if effect := sideEffects.FindString(withoutComments(b.Source)); effect != "" {
				found = append(found, Violation{readWrites, file, line,
					"accounts." + b.Name + " is not VOLATILE and has " + strings.TrimSpace(effect)})
			}
		}
		for _, fault := range dynamic(b.Source) {
			found = append(found, Violation{dynamicSQL, file, line, "accounts." + b.Name + ": " + fault})
		}
	}
	return found, nil
}

// checked runs plpgsql_check, and returns the functions in which it found errors too.
func checked(ctx context.Context, conn *pgx.Conn, tree Tree) (found []Violation, broken []uint32, err error) {
	rows, err := conn.Query(ctx, `
		SELECT p.oid, p.proname::text, coalesce(c.lineno, 0), c.level, coalesce(c.sqlstate, ''), c.message, coalesce(c.detail, '')
		  FROM pg_proc AS p JOIN pg_language AS l ON l.oid = p.prolang
		 CROSS JOIN LATERAL public.plpgsql_check_function_tb(
		           p.oid, fatal_errors => false, extra_warnings => true, security_warnings => true) AS c
		 WHERE p.pronamespace = 'accounts'::regnamespace AND l.lanname = 'plpgsql' AND p.prorettype <> 'trigger'::regtype
		   AND coalesce(c.detail, '') NOT LIKE 'cast "text" value to %' -- a literal, cast once
		 ORDER BY 2, 3`)
	if err != nil {
		return nil, nil, err
	}
	broken = []uint32{}
	var oid uint32
	var name, level, state, message, detail string
	var row int
	_, err = pgx.ForEachRow(rows, []any{&oid, &name, &row, &level, &state, &message, &detail}, func() error {
		if level == "error" {
			broken = append(broken, oid)
		}
		rule := plpgsqlCheck
		if state == "0A000" && strings.Contains(message, "not allowed in a non volatile function") {
			rule = readWrites
		}
		where := "accounts." + name
		if row > 0 {
			where += fmt.Sprintf(", line %d of the body", row)
		}
		file, line := tree.place(name)
		found = append(found, Violation{rule, file, line, strings.TrimSpace(
			fmt.Sprintf("%s: %s: %s %s", where, level, strings.TrimSuffix(message, "."), detail))})
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("plpgsql_check: %w", err)
	}
	return found, broken, nil
}

// pathToWriter is the way from a function to a VOLATILE one that it calls, nil if there is none.
func pathToWriter(functions map[string]body, from string, way []string) []string {
	way = append(slices.Clone(way), from)
	for _, called := range functions[from].Calls {
		if functions[called].Mutable {
			return append(way, called)
		}
		if !slices.Contains(way, called) {
			if found := pathToWriter(functions, called, way); found != nil {
				return found
			}
		}
	}
	return nil
}

var (
	executeWord = regexp.MustCompile(`(?i)\bEXECUTE\b`)
	usingWord   = regexp.MustCompile(`(?i)\bUSING\b`)
	formatName  = regexp.MustCompile(`(?is)\bformat\s*\(\s*'[^']*%(\d+\$)?[IL]`)
)

// dynamic finds each EXECUTE of a body that lacks its reason, or the quoting.
func dynamic(source string) (faults []string) {
	plain := code(source)
	lines := strings.Split(source, "\n")
	for _, at := range executeWord.FindAllStringIndex(plain, -1) {
		line := lineOf(source, at[0])
		end := len(plain)
		if n := strings.IndexByte(plain[at[0]:], ';'); n >= 0 {
			end = at[0] + n
		}
		if !usingWord.MatchString(plain[at[0]:end]) && !formatName.MatchString(source[at[0]:end]) {
			faults = append(faults, fmt.Sprintf("EXECUTE in line %d of the body has neither USING nor format('%%I')", line))
		}
		reason := ""
		for i := line - 2; i >= 0 && strings.HasPrefix(strings.TrimSpace(lines[i]), "--"); i-- {
			reason = lines[i] + "\n" + reason
		}
		if !strings.Contains(reason, "Dynamic") {
			faults = append(faults, fmt.Sprintf("EXECUTE in line %d of the body has no reason above it", line))
		}
	}
	return faults
}

func withoutComments(source string) string {
	return regexp.MustCompile(`(?s)--[^\n]*|/\*.*?\*/`).ReplaceAllString(source, "")
}
