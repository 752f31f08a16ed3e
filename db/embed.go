// Package db holds the database: what a superuser prepares once (bootstrap.sql), the goose
// migrations, and the two functions that apply them. The plain goose CLI runs the same files.
package db

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

// A second migrator waits for the first: it asks for the session lock every lockRetrySeconds, and
// lockRetries times, longer than any migration of a live database should take.
const (
	lockRetrySeconds = 1
	lockRetries      = 600
)

// ErrReadOnly says that the server to be migrated is a standby or read-only.
var ErrReadOnly = errors.New("the server is read-only: migrations run against the primary only; " +
	"point DATABASE_MIGRATE_URL at the primary (HAProxy's write port)")

//go:embed bootstrap.sql
var bootstrapSQL string

//go:embed migrations/*.sql
var migrations embed.FS

// Passwords are those of the three login roles. An empty one is left as it is.
type Passwords struct {
	Migrator, Reader, Writer string
}

// Migrations returns the migration files, named as goose names them.
func Migrations() fs.FS {
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		panic(err) // the folder is embedded above
	}
	return sub
}

// LatestVersion returns the number of the newest embedded migration: what this build needs.
func LatestVersion() (int64, error) {
	files, err := fs.Glob(Migrations(), "*.sql")
	if err != nil || len(files) == 0 {
		return 0, fmt.Errorf("no migrations are embedded: %w", err)
	}
	return goose.NumericComponent(files[len(files)-1]) // Glob sorts
}

// BootstrapSQL returns the text of bootstrap.sql.
func BootstrapSQL() string { return bootstrapSQL }

// Bootstrap runs bootstrap.sql on conn, which is a superuser's connection to the database that the
// service will use. It is idempotent, and concurrent calls wait for one another.
func Bootstrap(ctx context.Context, conn *pgx.Conn, p Passwords) error {
	// The server would write the parameters of set_config, the passwords, to its log. The owner of the
	// database may have set another role for all who connect.
	if _, err := conn.PgConn().Exec(ctx, "SET ROLE NONE; SET log_statement = none; SET log_min_duration_statement = -1; "+
		"SET log_min_duration_sample = -1; SET log_transaction_sample_rate = 0; SET log_parameter_max_length_on_error = 0").ReadAll(); err != nil {
		return fmt.Errorf("bootstrap: keep passwords out of the server's log: %w", err)
	}
	for name, password := range map[string]string{
		"migrator": p.Migrator, "reader": p.Reader, "writer": p.Writer,
	} {
		_, err := conn.Exec(ctx, "SELECT pg_catalog.set_config($1, $2, false)", "accounts."+name+"_password", password)
		if err != nil {
			return fmt.Errorf("bootstrap: set the password of accounts_%s: %w", name, err)
		}
	}
	// The simple protocol runs the whole file, as psql would. Its COMMIT is followed by the settings from
	// before this call.
	if _, err := conn.PgConn().Exec(ctx, bootstrapSQL+"\n"+
		"RESET accounts.migrator_password; RESET accounts.reader_password; RESET accounts.writer_password; "+
		"RESET log_statement; RESET log_min_duration_statement; RESET log_min_duration_sample; "+
		"RESET log_transaction_sample_rate; RESET log_parameter_max_length_on_error").ReadAll(); err != nil {
		return fmt.Errorf("bootstrap: %w", err)
	}
	return nil
}

// Migrate applies every pending migration to the primary at dsn, a login of accounts_migrator. Of
// two concurrent calls one applies and the other waits. A standby gives ErrReadOnly and is left
// untouched.
func Migrate(ctx context.Context, dsn string, log *slog.Logger) error {
	return WithProvider(ctx, dsn, log, func(p *goose.Provider) error {
		_, err := p.Up(ctx)
		return err
	})
}

// WithProvider opens dsn, checks that it is a writable server on which bootstrap.sql was run, and
// calls fn with goose's provider for the embedded migrations.
func WithProvider(ctx context.Context, dsn string, log *slog.Logger, fn func(*goose.Provider) error) (err error) {
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		return errors.New("migrate: DATABASE_MIGRATE_URL is no PostgreSQL connection string") // the cause quotes it
	}
	config.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { log.Info("notice", "message", n.Message) }
	pool := stdlib.OpenDB(*config)
	defer func() { err = errors.Join(err, pool.Close()) }()

	if err := checkServer(ctx, pool); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(lockRetrySeconds, lockRetries))
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	provider, err := goose.NewProvider(goose.DialectPostgres, pool, Migrations(),
		goose.WithSessionLocker(locker), goose.WithSlog(log), goose.WithVerbose(true))
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	if err := fn(provider); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	return nil
}

func checkServer(ctx context.Context, pool *sql.DB) error {
	var readOnly bool
	var user string
	err := pool.QueryRowContext(ctx,
		"SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean, current_user").
		Scan(&readOnly, &user)
	switch {
	case err != nil:
		return fmt.Errorf("connect: %w", err)
	case user != "accounts_owner": // first: a read login is read-only everywhere
		return fmt.Errorf("connected as %q, not as accounts_owner: use the login accounts_migrator, "+
			"and let a superuser run db/bootstrap.sql on this database first", user)
	case readOnly:
		return ErrReadOnly
	}
	return nil
}
