package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"

	"github.com/payment-services/accounts/db"
	"github.com/payment-services/accounts/internal/dbrules"
	"github.com/payment-services/accounts/internal/localservers"
)

var errViolations = errors.New("rules are broken")

// checkCommand runs every rule of internal/dbrules on the SQL of the work tree, with the migrations applied
// to a PostgreSQL server that it starts and removes:
//
//	dbtool check -sqlc .tools/sqlc -squawk .tools/squawk
func checkCommand(ctx context.Context, args []string) error {
	cfg := dbrules.Config{}
	flags := flag.NewFlagSet("check", flag.ContinueOnError)
	flags.StringVar(&cfg.Root, "root", ".", "the project")
	flags.StringVar(&cfg.SQLC, "sqlc", ".tools/sqlc", "the program sqlc")
	flags.StringVar(&cfg.Squawk, "squawk", ".tools/squawk", "the program squawk; may be missing outside of CI")
	if err := parse(flags, "", "", args); err != nil {
		return err
	}
	if _, err := os.Stat(cfg.Squawk); err != nil {
		if os.Getenv("CI") != "" && runtime.GOARCH == "amd64" {
			return fmt.Errorf("CI requires squawk: make .tools/squawk: %w", err)
		}
		cfg.Squawk = ""
	}
	return check(ctx, cfg)
}

// docsCommand writes the page of the rules; with -check it compares the page and writes nothing.
func docsCommand(args []string) error {
	flags := flag.NewFlagSet("docs", flag.ContinueOnError)
	compare := flags.Bool("check", false, "write nothing; fail if the file is stale")
	if err := parse(flags, "FILE", "", args); err != nil {
		return err
	}
	return writeDocs(flags.Arg(0), *compare)
}

// writeDocs writes the page of the rules, or compares it.
func writeDocs(file string, compare bool) error {
	if !compare {
		return os.WriteFile(file, []byte(dbrules.Docs()), 0o644)
	}
	text, err := os.ReadFile(file)
	if err == nil && string(text) != dbrules.Docs() {
		err = fmt.Errorf("%s is stale: run make generate", file)
	}
	return err
}

func check(ctx context.Context, cfg dbrules.Config) (err error) {
	dir, err := os.MkdirTemp("", "dbtool-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := os.Chmod(dir, folderMode); err != nil {
		return err
	}
	go dbrules.Prepare()
	cluster, err := localservers.NewCluster(ctx, localservers.ClusterConfig{Dir: dir, Password: rand.Text()})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cluster.Close()) }()
	if err := cluster.Start(ctx); err != nil {
		return err
	}
	const database = "accounts"
	passwords := db.Passwords{Migrator: rand.Text(), Reader: rand.Text(), Writer: rand.Text()}
	if err := cluster.Bootstrap(ctx, database, passwords); err != nil {
		return err
	}
	urls := cluster.URLs(database, passwords)
	cfg.MigrateURL, cfg.SuperURL = urls.MigrateURL, urls.SuperURL
	report, err := dbrules.Check(ctx, cfg)
	if err != nil {
		return err
	}
	report.Write(os.Stdout)
	if len(report.Violations) > 0 {
		return errViolations
	}
	return nil
}
