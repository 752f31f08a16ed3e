// Package dbrules holds what must be true of the SQL: of the migrations, of the functions that they
// make, and of the queries that call them. dbtool check (make check) runs all of it; tests run parts.
//
// What an existing tool finds is left to it: plpgsql_check reads bodies, squawk locks, sqlc vet queries
// (the rules in sqlc.yaml), PostgreSQL's own grammar (libpg_query) parses statements, pg_dump compares schemas, git knows what is released, and PostgreSQL's
// catalog the rest.
package dbrules

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/payment-services/accounts/internal/dbcatalog"
)

// Rule is one thing that must be true.
type Rule struct {
	Name string
	Why  string
	Fix  string
}

// Violation is a place where a rule is broken.
type Violation struct {
	Rule    string
	File    string // relative to the root of the project
	Line    int    // 0: the file as a whole
	Message string
}

// Config says what is checked, and with what.
type Config struct {
	Root       string // of the project
	MigrateURL string // of an empty database on which bootstrap.sql was run
	SuperURL   string // of the same
	SQLC       string // the program; see the Makefile
	Squawk     string // likewise; empty: its rules are left out
}

// Report is what Check found.
type Report struct {
	Violations []Violation
	Base       Base     // what the migrations and the contract were compared with
	Notes      []string // what could not be checked
}

// Check runs every rule. It fills the database, and leaves it so.
func Check(ctx context.Context, cfg Config) (Report, error) {
	tree, err := ReadTree(cfg.Root)
	if err != nil {
		return Report{}, err
	}
	report := Report{}
	if report.Base, err = FindBase(ctx, cfg.Root); err != nil {
		return Report{}, err
	}
	if report.Base.Commit == "" {
		report.Notes = append(report.Notes, "released migrations and signatures were NOT compared: "+report.Base.How)
	}
	released, err := Released(ctx, tree, report.Base)
	if err != nil {
		return Report{}, err
	}
	report.Violations = slices.Concat(Migrations(tree), released)
	if cfg.Squawk == "" {
		report.Notes = append(report.Notes, "locks of migrations were NOT checked: squawk is missing, which npm installs on x86_64")
	} else if found, err := Locks(ctx, tree, cfg.Squawk); err != nil {
		return Report{}, err
	} else {
		report.Violations = append(report.Violations, found...)
	}

	conn, err := pgx.Connect(ctx, cfg.SuperURL)
	if err != nil {
		return Report{}, fmt.Errorf("connect: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	before, err := ReadOutside(ctx, conn)
	if err != nil {
		return Report{}, err
	}
	migrated := false
	if !report.has(migrationSyntax) { // they do not run, and the reason is known
		var found []Violation
		if found, migrated, err = RoundTrip(ctx, tree, report.Base, cfg.MigrateURL, cfg.SuperURL); err != nil {
			return Report{}, err
		}
		report.Violations = append(report.Violations, found...)
	}
	if !migrated {
		report.Notes = append(report.Notes, "the migrations do not run: the catalog, the contract and what is generated were NOT checked")
		report.Violations = append(report.Violations, Static(tree)...)
		return report.sorted(), nil
	}
	after, err := ReadOutside(ctx, conn)
	if err != nil {
		return Report{}, err
	}
	report.Violations = append(report.Violations, before.Changed(after, tree)...)
	found, err := Catalog(ctx, conn, tree)
	if err != nil {
		return Report{}, err
	}
	report.Violations = append(report.Violations, found...)
	routines, err := readRoutines(ctx, conn, tree)
	if err != nil {
		return Report{}, err
	}
	report.Violations = append(report.Violations, unqueried(tree, routines)...)
	if found, err = Lost(ctx, tree, report.Base); err != nil {
		return Report{}, err
	}
	report.Violations = append(report.Violations, found...)
	if found, err = Queries(ctx, conn, tree, cfg.SQLC); err != nil {
		return Report{}, err
	}
	report.Violations = append(report.Violations, found...)
	files, err := dbcatalog.Read(ctx, conn)
	if err != nil {
		if !report.has("function-overloaded") && !report.has("no-procedures") {
			report.Violations = append(report.Violations, Violation{generated, "db", 0, "the contract cannot be compared: " + err.Error()})
		}
		return report.sorted(), nil
	}
	if found, err = Contract(ctx, tree, report.Base, files[dbcatalog.ContractFile]); err != nil {
		return Report{}, err
	}
	report.Violations = append(report.Violations, found...)
	// What sqlc does not understand it cannot generate, and that is reported.
	if !report.has(queryInvalid) {
		if found, err = Generated(ctx, tree, files, cfg.SQLC); err != nil {
			return Report{}, err
		}
		report.Violations = append(report.Violations, found...)
	}
	return report.sorted(), nil
}

// Static checks the functions as the text of the migrations creates them, without a database.
func Static(tree Tree) []Violation {
	routines := staticRoutines(tree)
	return slices.Concat(statementRules(routines, nil), callGraph(routines), touchedRules(routines), effects(routines), unqueried(tree, routines))
}

func (r Report) has(rule string) bool {
	return slices.ContainsFunc(r.Violations, func(v Violation) bool { return v.Rule == rule })
}

// consequences are rules that a violation of another rule at the same function breaks as well: one cause is
// reported once.
var consequences = map[string][]string{
	"helper-granted":         {functionQuery, "function-result", writeRecords, writeVersion, writeLocks, "write-stable", "read-grants", "read-volatile"},
	"function-public":        {"function-grantee"},
	"function-language":      {plpgsqlCheck},
	"function-result":        {selectStar},
	"no-procedures":          {"function-version", "function-comment", "function-result", outsideSchema, functionQuery},
	"read-volatile":          {functionQuery},
	writeDecidable:           {writeRecords, writeVersion, writeLocks},
	queryNamedArguments:      {queryArgument},
	"no-triggers":            {"function-result", "function-comment", "function-version", helperUsed, "function-security-definer", plpgsqlCheck},
	"function-overloaded":    {functionQuery, "contract-frozen"},
	contractFrozen:           {generated},
	"constraint-using-index": {"constraint-not-valid"},
	contractRemoved:          {generated, queryInvalid},
}

func (r Report) sorted() Report {
	slices.SortFunc(r.Violations, func(a, b Violation) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Rule, b.Rule),
			cmp.Compare(a.Message, b.Message))
	})
	r.Violations = withoutConsequences(r.Violations)
	return r
}

// withoutConsequences leaves out what another violation causes, and what is reported twice.
func withoutConsequences(all []Violation) []Violation {
	seen := map[string]bool{}
	lined := map[string]bool{} // by rule and file
	for _, v := range all {
		lined[v.Rule+v.File] = lined[v.Rule+v.File] || v.Line > 0
	}
	return slices.DeleteFunc(all, func(v Violation) bool {
		place := fmt.Sprint(v.Rule, v.File, v.Line, subject(v.Message))
		if v.Line == 0 {
			place += v.Message
			if v.Rule == migrationRewrite && lined[v.Rule+v.File] {
				return true
			}
		}
		if seen[place] {
			return true
		}
		seen[place] = true
		return slices.ContainsFunc(all, func(cause Violation) bool {
			return slices.Contains(consequences[cause.Rule], v.Rule) && (v.Rule == generated || subject(cause.Message) == subject(v.Message) ||
				cause.File == v.File && cause.Line == v.Line && v.Line > 0)
		})
	})
}

var subjectName = regexp.MustCompile(`(?:accounts|contract)\.\w+`)

// subject is the function or table that a message is about.
func subject(message string) string {
	if found := subjectName.FindString(message); found != "" {
		return found
	}
	return message
}

// Write prints the report for a person.
func (r Report) Write(w io.Writer) {
	for _, v := range r.Violations {
		place := v.File
		if v.Line > 0 {
			place = fmt.Sprintf("%s:%d", v.File, v.Line)
		}
		rule := find(v.Rule)
		fmt.Fprintf(w, "%s: %s\n    rule: %s\n    why:  %s\n    fix:  %s\n\n", place, v.Message, rule.Name, rule.Why, rule.Fix)
	}
	for _, note := range r.Notes {
		fmt.Fprintf(w, "WARNING: %s\n", note)
	}
	if r.Base.Commit != "" {
		fmt.Fprintf(w, "released is what %s has\n", r.Base.How)
	}
	plural := "s"
	if len(r.Violations) == 1 {
		plural = ""
	}
	fmt.Fprintf(w, "%d rules, %d violation%s\n", len(All()), len(r.Violations), plural)
}

// All returns every rule.
func All() []Rule {
	return slices.Concat(fileRules, schemaRuleList, squawkRules, bodyRules, flowRules, statementRuleList, objectRules, queryRules, catalogRuleList())
}

func find(name string) Rule {
	all := All()
	if i := slices.IndexFunc(all, func(r Rule) bool { return r.Name == name }); i >= 0 {
		return all[i]
	}
	panic("there is no rule " + name)
}

// lineOf is the number of the line that holds a byte of a text.
func lineOf(text string, offset int) int { return 1 + strings.Count(text[:offset], "\n") }
