package db_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/pressly/goose/v3"
	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/db"
	"github.com/payment-services/accounts/internal/pgtest"
)

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// emptyDatabase is a database without anything on the shared servers; only the migrator's and the
// superuser's strings lead to it.
func emptyDatabase(t *testing.T) (d *pgtest.DB, migrate, super string) {
	t.Helper()
	d = pgtest.Shared(t)
	d.RemoveOracle("tests compare it with what the migrations make of the empty database")
	name := d.Name + "_empty"
	admin := connect(t, d.SuperURL)
	execute(t, admin, "CREATE DATABASE "+name+" TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C.UTF-8'")
	t.Cleanup(func() {
		_, err := admin.Exec(context.Background(), "DROP DATABASE "+name+" WITH (FORCE)")
		require.NoError(t, err)
	})
	to := func(text string) string {
		u, err := url.Parse(text)
		require.NoError(t, err)
		u.Path = "/" + name
		return u.String()
	}
	return d, to(d.MigrateURL), to(d.SuperURL)
}

func bootstrap(t *testing.T, super string) {
	t.Helper()
	require.NoError(t, db.Bootstrap(t.Context(), connect(t, super), db.Passwords{}))
}

// dump is the schema as pg_dump writes it.
func dump(t *testing.T, super string) string {
	t.Helper()
	return pgDump(t, super, "--schema-only")
}

func pgDump(t *testing.T, super string, options ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "pg_dump", append(options, "--dbname="+super)...).Output()
	require.NoError(t, err, "pg_dump of the PostgreSQL client programs is needed: run scripts/install-deps")
	lines := slices.DeleteFunc(strings.Split(string(out), "\n"), func(line string) bool {
		return strings.HasPrefix(line, `\restrict `) || strings.HasPrefix(line, `\unrestrict `) // a random key
	})
	return strings.Join(lines, "\n")
}

// The plain goose CLI makes what Migrate makes.
func TestGooseCommandLine(t *testing.T) {
	t.Parallel()
	pgtest.NeedServers(t)
	command := filepath.Join(t.TempDir(), "goose")
	build := exec.CommandContext(t.Context(), "go", "build", "-modfile=tools/go.mod", "-o", command,
		"-tags=no_clickhouse no_libsql no_mssql no_mysql no_sqlite3 no_vertica no_ydb", "github.com/pressly/goose/v3/cmd/goose")
	build.Dir = ".." // the build cache makes every build but the first one quick
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)

	d, migrate, super := emptyDatabase(t)
	bootstrap(t, super)
	run := func(args ...string) {
		goose := exec.CommandContext(t.Context(), command, append([]string{"-dir=migrations"}, args...)...)
		goose.Env = append(os.Environ(), "GOOSE_DRIVER=postgres", "GOOSE_DBSTRING="+migrate)
		out, err := goose.CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	run("up")
	want := dump(t, d.SuperURL)
	require.Equal(t, want, dump(t, super))
	run("down-to", "0")
	run("up")
	require.Equal(t, want, dump(t, super))
	require.NoError(t, db.Migrate(t.Context(), migrate, quiet), "there is nothing left to do")
}

func TestTwoMigratorsAtOnce(t *testing.T) {
	t.Parallel()
	_, migrate, super := emptyDatabase(t)
	bootstrap(t, super)
	// The first migration needs this lock, so the first migrator stays in the middle of its work.
	watcher := connect(t, super) // within a transaction pg_stat_activity would not change
	tx, err := connect(t, super).Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "LOCK TABLE pg_catalog.pg_default_acl IN SHARE MODE")
	require.NoError(t, err)

	applied := make(chan int, 2)
	migrator := func() {
		err := db.WithProvider(t.Context(), migrate, quiet, func(p *goose.Provider) error {
			results, err := p.Up(t.Context())
			applied <- len(results)
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	sessions := func(condition string, n int) {
		require.Eventually(t, func() bool {
			var got int
			err := watcher.QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_activity
				 WHERE datname = current_database() AND usename = 'accounts_migrator' AND `+condition).Scan(&got)
			return err == nil && got == n
		}, waitLimit, pollTick, condition)
	}
	go migrator()
	sessions("wait_event_type = 'Lock'", 1)
	go migrator()
	sessions("query LIKE '%pg_try_advisory_lock%' AND state = 'idle'", 1)
	require.NoError(t, tx.Rollback(t.Context()))
	counts := []int{<-applied, <-applied}
	slices.Sort(counts)
	require.Equal(t, []int{0, len(migrationFiles(t))}, counts)
}

func TestMigrateRefusesAStandby(t *testing.T) {
	t.Parallel()
	d, migrate, super := emptyDatabase(t)
	bootstrap(t, super)
	require.NoError(t, d.WaitForReplay(t.Context()))
	standby, err := url.Parse(d.ReadURL)
	require.NoError(t, err)
	onStandby, err := url.Parse(migrate)
	require.NoError(t, err)
	onStandby.Host = standby.Host

	before := dump(t, super)
	require.ErrorIs(t, db.Migrate(t.Context(), onStandby.String(), quiet), db.ErrReadOnly)
	require.Equal(t, before, dump(t, super))
	require.NoError(t, db.Migrate(t.Context(), migrate, quiet))
}

func TestMigrateExplainsAWrongLogin(t *testing.T) {
	t.Parallel()
	d, unprepared, _ := emptyDatabase(t)
	for name, dsn := range map[string]string{
		"accounts_writer": d.WriteURL, "accounts_reader": d.PrimaryReadURL, "postgres": d.SuperURL,
		"accounts_migrator": unprepared, // bootstrap.sql was not run on this database
	} {
		err := db.Migrate(t.Context(), dsn, quiet)
		require.ErrorContains(t, err, `connected as "`+name+`", not as accounts_owner`)
		require.ErrorContains(t, err, "db/bootstrap.sql")
	}
	secret := "hidden"
	err := db.Migrate(t.Context(), "postgres://u:"+secret+"@127.0.0.1:port/x", quiet)
	require.ErrorContains(t, err, "DATABASE_MIGRATE_URL")
	require.NotContains(t, err.Error(), secret)
}

// The plain goose CLI is told the same by the first migration itself.
func TestFirstMigrationExplainsAnUnpreparedDatabase(t *testing.T) {
	t.Parallel()
	_, _, super := emptyDatabase(t)
	conn := connect(t, super)
	text, err := os.ReadFile(filepath.Join("migrations", migrationFiles(t)[0]))
	require.NoError(t, err)
	up, _, _ := bytes.Cut(text, []byte("-- +goose Down"))
	_, err = conn.PgConn().Exec(t.Context(), string(up)).ReadAll()
	require.ErrorContains(t, err, "this database is not prepared (missing roles: none, current user: postgres)")
}

func TestBootstrapTwiceAndTwoAtOnce(t *testing.T) {
	t.Parallel()
	d, migrate, super := emptyDatabase(t)
	_, _, other := emptyDatabase(t)
	const calls = 6
	done := make(chan error, calls)
	for i := range calls {
		conn := connect(t, []string{super, other}[i%2])
		go func() { done <- db.Bootstrap(context.Background(), conn, db.Passwords{}) }()
	}
	for range calls {
		require.NoError(t, <-done)
	}
	require.NoError(t, db.Migrate(t.Context(), migrate, quiet))
	want := dump(t, d.SuperURL)
	require.Equal(t, want, dump(t, super))
	bootstrap(t, super)
	require.Equal(t, want, dump(t, super), "after the migrations it changes nothing either")
}

func TestBootstrapSetsPasswords(t *testing.T) {
	t.Parallel()
	s := pgtest.Private(t) // roles belong to the whole server
	conn := connect(t, s.SuperURL)
	const odd = `it's "odd" \ $1 äöü`
	require.NoError(t, db.Bootstrap(t.Context(), conn, db.Passwords{Reader: odd}))
	config, err := pgx.ParseConfig(s.PrimaryReadURL)
	require.NoError(t, err)
	config.Password = odd
	reader, err := pgx.ConnectConfig(t.Context(), config)
	require.NoError(t, err)
	require.NoError(t, reader.Close(t.Context()))
	connect(t, s.WriteURL) // as it was
	_, err = pgx.Connect(t.Context(), s.PrimaryReadURL)
	requireState(t, err, "28P01", "", "")
}

func TestBootstrapRefusesAnotherEncoding(t *testing.T) {
	t.Parallel()
	d, _, super := emptyDatabase(t)
	admin := connect(t, d.SuperURL)
	name := d.Name + "_latin"
	execute(t, admin, "CREATE DATABASE "+name+" TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'")
	t.Cleanup(func() { _, _ = admin.Exec(context.Background(), "DROP DATABASE "+name+" WITH (FORCE)") })
	u, err := url.Parse(super)
	require.NoError(t, err)
	u.Path = "/" + name
	conn := connect(t, u.String())
	require.ErrorContains(t, db.Bootstrap(t.Context(), conn, db.Passwords{}), "is not UTF8")
}
