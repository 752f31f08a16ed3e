// Command dbcheck runs every rule of internal/dbrules on the SQL of the work tree (make check):
//
//	dbcheck -sqlc .tools/sqlc -squawk .tools/squawk
//
// With -docs it writes the rules as a page instead. It migrates a PostgreSQL of its own, started for the purpose, as tests do (internal/pgtest).
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/payment-services/accounts/db"
	"github.com/payment-services/accounts/internal/dbrules"
	"github.com/payment-services/accounts/internal/pgtest"
)

// folderMode lets the account that runs PostgreSQL pass, but not look around.
const folderMode = 0o711

var errViolations = errors.New("rules are broken")

func main() {
	cfg := dbrules.Config{}
	flag.StringVar(&cfg.Root, "root", ".", "the project")
	flag.StringVar(&cfg.SQLC, "sqlc", ".tools/sqlc", "the program sqlc")
	flag.StringVar(&cfg.Squawk, "squawk", ".tools/squawk", "the program squawk; may be missing outside of CI")
	docs := flag.String("docs", "", "write the rules to this file (docs/sql-rules.md), and check nothing")
	fresh := flag.Bool("fresh", false, "with -docs: compare the file instead of writing it")
	flag.Parse()
	if flag.NArg() != 0 {
		flag.Usage()
		os.Exit(2)
	}
	if *docs != "" {
		if err := writeDocs(*docs, *fresh); err != nil {
			fmt.Fprintln(os.Stderr, "dbcheck:", err)
			os.Exit(1)
		}
		return
	}
	if _, err := os.Stat(cfg.Squawk); err != nil {
		if os.Getenv("CI") != "" && runtime.GOARCH == "amd64" {
			fmt.Fprintln(os.Stderr, "dbcheck: CI must not go without squawk: make .tools/squawk:", err)
			os.Exit(1)
		}
		cfg.Squawk = ""
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, cfg)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "dbcheck:", err)
		os.Exit(1)
	}
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

func run(ctx context.Context, cfg dbrules.Config) (err error) {
	dir, err := os.MkdirTemp("", "dbcheck-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := os.Chmod(dir, folderMode); err != nil {
		return err
	}
	go dbrules.Prepare()
	cluster, err := pgtest.NewCluster(ctx, pgtest.ClusterConfig{Dir: dir, Password: rand.Text()})
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
