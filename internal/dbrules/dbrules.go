// Package dbrules holds what must be true of the SQL: of the migrations, of the functions that they
// make, and of the queries that call them. cmd/dbcheck (make check) runs all of it; tests run parts.
//
// What an existing tool finds is left to it: plpgsql_check reads bodies, squawk locks, sqlc vet queries
// (the rules in sqlc.yaml), pg_dump compares schemas, git knows what is released, and PostgreSQL's
// catalog the rest.
package dbrules

import (
	"cmp"
	"context"
	"fmt"
	"io"
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

	found, migrated, err := RoundTrip(ctx, tree, report.Base, cfg.MigrateURL, cfg.SuperURL)
	if err != nil {
		return Report{}, err
	}
	report.Violations = append(report.Violations, found...)
	if !migrated {
		report.Notes = append(report.Notes, "functions and queries were NOT checked: the migrations do not run")
		return report.sorted(), nil
	}
	conn, err := pgx.Connect(ctx, cfg.SuperURL)
	if err != nil {
		return Report{}, fmt.Errorf("connect: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if found, err = Catalog(ctx, conn, tree); err != nil {
		return Report{}, err
	}
	report.Violations = append(report.Violations, found...)
	if found, err = Queries(ctx, conn, tree, cfg.SQLC); err != nil {
		return Report{}, err
	}
	report.Violations = append(report.Violations, found...)
	files, err := dbcatalog.Read(ctx, conn)
	if err != nil {
		// Two functions of one name; the catalog rules have said so.
		report.Notes = append(report.Notes, "the contract was NOT compared: "+err.Error())
		return report.sorted(), nil
	}
	if found, err = Contract(ctx, tree, report.Base, files[dbcatalog.ContractFile]); err != nil {
		return Report{}, err
	}
	report.Violations = append(report.Violations, found...)
	// What sqlc does not understand it cannot generate, and has been said.
	if !slices.ContainsFunc(report.Violations, func(v Violation) bool { return v.Rule == queryInvalid }) {
		if found, err = Generated(ctx, tree, files, cfg.SQLC); err != nil {
			return Report{}, err
		}
		report.Violations = append(report.Violations, found...)
	}
	return report.sorted(), nil
}

func (r Report) sorted() Report {
	slices.SortFunc(r.Violations, func(a, b Violation) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Rule, b.Rule),
			cmp.Compare(a.Message, b.Message))
	})
	r.Violations = slices.Compact(r.Violations)
	return r
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
	all := slices.Concat(fileRules, bodyRules, queryRules)
	for _, r := range catalogRules {
		all = append(all, r.Rule)
	}
	return all
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
