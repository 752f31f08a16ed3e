// Command dbcatalog writes down what the migrations have made of the functions, so that a review sees
// a change of one as a change, and a break of the contract as a break:
//
//	dbcatalog db         writes db/functions/*.sql and db/contract.txt
//	dbcatalog -check db  writes nothing and fails if they are stale
//
// It asks a PostgreSQL of its own, started for the purpose, as tests do (internal/pgtest).
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/jackc/pgx/v5"

	"github.com/payment-services/accounts/db"
	"github.com/payment-services/accounts/internal/dbcatalog"
	"github.com/payment-services/accounts/internal/pgtest"
)

// folderMode lets the account that runs PostgreSQL pass, but not look around.
const folderMode = 0o711

func main() {
	check := flag.Bool("check", false, "write nothing; fail if the files are stale")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: dbcatalog [-check] DIRECTORY")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, flag.Arg(0), *check)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "dbcatalog:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, dir string, check bool) error {
	files, err := scratchCatalog(ctx)
	if err != nil {
		return err
	}
	if check {
		return files.Compare(dir)
	}
	return files.Write(dir)
}

// scratchCatalog migrates a new PostgreSQL, reads its catalog and leaves nothing behind.
func scratchCatalog(ctx context.Context) (files dbcatalog.Catalog, err error) {
	dir, err := os.MkdirTemp("", "dbcatalog-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := os.Chmod(dir, folderMode); err != nil {
		return nil, err
	}
	cluster, err := pgtest.NewCluster(ctx, pgtest.ClusterConfig{Dir: dir, Password: rand.Text()})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, cluster.Close()) }()
	if err := cluster.Start(ctx); err != nil {
		return nil, err
	}
	const database = "accounts"
	passwords := db.Passwords{Migrator: rand.Text(), Reader: rand.Text(), Writer: rand.Text()}
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	if err := cluster.Prepare(ctx, database, passwords, quiet); err != nil {
		return nil, err
	}
	conn, err := pgx.Connect(ctx, cluster.URLs(database, passwords).SuperURL)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	return dbcatalog.Read(ctx, conn)
}
