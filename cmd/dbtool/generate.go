package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"

	"github.com/jackc/pgx/v5"

	"github.com/payment-services/accounts/db"
	"github.com/payment-services/accounts/internal/dbcatalog"
	"github.com/payment-services/accounts/internal/localservers"
)

// generateCommand writes what the migrations define, so that a review shows each change of a function and
// of the contract:
//
//	dbtool generate db         writes db/functions/*.sql and db/contract.txt
//	dbtool generate -check db  writes nothing and fails if they are stale
//
// It reads them from a PostgreSQL server that it starts and removes.
func generateCommand(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("generate", flag.ContinueOnError)
	check := flags.Bool("check", false, "write nothing; fail if the files are stale")
	if err := parse(flags, "DIRECTORY", "", args); err != nil {
		return err
	}
	files, err := scratchCatalog(ctx)
	if err != nil {
		return err
	}
	if *check {
		return files.Compare(flags.Arg(0))
	}
	return files.Write(flags.Arg(0))
}

// scratchCatalog starts a new PostgreSQL server, applies the migrations, reads its catalog and removes it.
func scratchCatalog(ctx context.Context) (files dbcatalog.Catalog, err error) {
	dir, err := os.MkdirTemp("", "dbtool-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := os.Chmod(dir, folderMode); err != nil {
		return nil, err
	}
	cluster, err := localservers.NewCluster(ctx, localservers.ClusterConfig{Dir: dir, Password: rand.Text()})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, cluster.Close()) }()
	if err := cluster.Start(ctx); err != nil {
		return nil, err
	}
	const database = "accounts"
	passwords := db.Passwords{Migrator: rand.Text(), Reader: rand.Text(), Writer: rand.Text()}
	if err := cluster.Prepare(ctx, database, passwords, slog.New(slog.DiscardHandler)); err != nil {
		return nil, err
	}
	conn, err := pgx.Connect(ctx, cluster.URLs(database, passwords).SuperURL)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	return dbcatalog.Read(ctx, conn)
}
