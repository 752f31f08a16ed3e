package db_test

import (
	"context"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/pressly/goose/v3"
	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/db"
	"github.com/payment-services/accounts/internal/pgtest"
)

// migrateHelper is the variable that makes the test binary migrate the database that it names.
const migrateHelper = "ACCOUNTS_TEST_MIGRATE_URL"

// rows puts data into the tables, each as soon as what it needs is there: by SQL where a migration has
// made a table only, and through the functions from the migration on that makes them.
var rows = []struct{ needs, sql string }{
	{"accounts.users", `INSERT INTO accounts.users (id, profile) VALUES ('00000000-0000-7000-8000-0000000000a1', '{"a": [1, null]}')`},
	{"accounts.contact_types", `INSERT INTO accounts.contact_types (name, on_second) VALUES ('fax', 'allow')`},
	{"accounts.user_contacts", `INSERT INTO accounts.user_contacts (user_id, contact_type_id, value, normalized, single)
		SELECT '00000000-0000-7000-8000-0000000000a1', t.id, '+70000000001', '+70000000001', t.single
		  FROM accounts.contact_types AS t WHERE t.name IN ('phone', 'fax')`},
	{"accounts.user_groups", `INSERT INTO accounts.user_groups (id, name, name_key) VALUES ('00000000-0000-7000-8000-0000000000b1', 'by SQL', 'by sql')`},
	{"accounts.user_group_memberships", `INSERT INTO accounts.user_group_memberships (user_id, group_id)
		VALUES ('00000000-0000-7000-8000-0000000000a1', '00000000-0000-7000-8000-0000000000b1')`},
	{"accounts.cache_outbox", `INSERT INTO accounts.cache_outbox (keys, deps) VALUES ('{u:1}', '{}')`},
	{"accounts.import_jobs", `INSERT INTO accounts.import_jobs (on_conflict, dry_run, phase, finished_at) VALUES ('skip', true, 'done', now())`},
	{"accounts.create_user_group_v1(text,text)", `SELECT FROM accounts.create_user_group_v1('drivers', 'drivers')`},
	{"accounts.create_contact_type_v1(text,text)", `SELECT FROM accounts.create_contact_type_v1('telegram', 'allow')`},
	{"accounts.create_user_v1(boolean,jsonb,text[],text[],text[],text[])",
		`SELECT FROM accounts.create_user_v1(true, '{"b": 2}', '{phone}', '{+79991234567}', '{+79991234567}', '{by sql}')`},
	{"accounts.stage_import_rows_v1(uuid,integer[],text[],text[],text[],text[],integer[],text[],text[])", `
		SELECT FROM accounts.create_import_job_v1('merge', false, NULL, 10, 10) AS j
		 CROSS JOIN LATERAL accounts.stage_import_rows_v1(
		           j.id, '{1,2}', '{+79990000001,x}', '{+79990000001,NULL}', '{"",invalid_phone}', '{"",phone}', '{1}', '{by SQL}', '{by sql}')`},
}

// filler remembers which rows are there.
type filler struct{ done []bool }

func (f *filler) fill(t *testing.T, super *pgx.Conn) {
	t.Helper()
	if f.done == nil {
		f.done = make([]bool, len(rows))
	}
	for i, r := range rows {
		exists := "to_regclass($1) IS NOT NULL"
		if strings.Contains(r.needs, "(") {
			exists = "to_regprocedure($1) IS NOT NULL"
		}
		if !f.done[i] && value[bool](t, super, "SELECT "+exists, r.needs) {
			execute(t, super, r.sql)
			f.done[i] = true
		}
	}
	for _, table := range column[string](t, super, `SELECT c.oid::regclass::text FROM pg_class AS c
		 WHERE c.relnamespace = to_regnamespace('accounts') AND c.relkind = 'r' AND c.relname !~ '_v[1-9][0-9]*$'`) {
		require.True(t, value[bool](t, super, "SELECT EXISTS (SELECT FROM "+table+")"), "%s is empty: add it to rows", table)
	}
}

// dataDump is schema and data, without goose's own record of when it did what. Rows are sorted: a
// migration may write them anew.
func dataDump(t *testing.T, super string) string {
	t.Helper()
	lines := strings.Split(pgDump(t, super, "--exclude-table-data=public.goose_db_version*"), "\n")
	from := -1
	for i, line := range lines {
		switch {
		case strings.HasPrefix(line, "COPY "):
			from = i + 1
		case line == `\.`:
			slices.Sort(lines[from:i])
			from = -1
		}
	}
	require.Equal(t, -1, from)
	return strings.Join(lines, "\n")
}

var (
	timestamps = regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?\+\d\d`)
	positions  = regexp.MustCompile(`(?m)^SELECT pg_catalog\.setval\(.*$`) // a crash skips numbers
	generated  = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}`)
)

// sameTime hides when, and with which ids, a migration has made rows of its own.
func sameTime(dump string) string {
	return generated.ReplaceAllString(timestamps.ReplaceAllString(dump, "<time>"), "<id>")
}

// Every migration is applied, taken back and applied again with rows in every table: taking it back
// restores every row and the schema, and the second time makes what the first did. Then the whole
// chain is taken back on data.
func TestEachMigrationUpDownUpOnData(t *testing.T) {
	t.Parallel()
	d, migrate, super := emptyDatabase(t)
	bootstrap(t, super)
	conn := connect(t, super)
	count := len(migrationFiles(t))
	f := new(filler)
	schemas := make([]string, count+1)
	err := db.WithProvider(t.Context(), migrate, quiet, func(p *goose.Provider) error {
		_, err := p.GetDBVersion(t.Context()) // makes goose's table
		require.NoError(t, err)
		schemas[0] = dump(t, super)
		for i := range count {
			before := dataDump(t, super)
			_, err := p.UpByOne(t.Context())
			require.NoError(t, err)
			once := sameTime(dataDump(t, super))
			_, err = p.Down(t.Context())
			require.NoError(t, err)
			require.Equal(t, before, dataDump(t, super), "down from %d", i+1)
			_, err = p.UpByOne(t.Context())
			require.NoError(t, err)
			require.Equal(t, once, sameTime(dataDump(t, super)), "up to %d again", i+1)
			f.fill(t, conn)
			schemas[i+1] = dump(t, super)
		}
		require.NotContains(t, f.done, false, "each of rows had its turn")
		require.Equal(t, dump(t, d.SuperURL), schemas[count])
		for i := count - 1; i >= 0; i-- {
			_, err := p.Down(t.Context())
			require.NoError(t, err)
			require.Equal(t, schemas[i], dump(t, super), "down to %d", i)
		}
		return nil
	})
	require.NoError(t, err)
	require.NotContains(t, schemas[0], "CREATE SCHEMA accounts;")
	require.NotContains(t, schemas[0], "DEFAULT PRIVILEGES")
	require.NoError(t, db.Migrate(t.Context(), migrate, quiet))
	require.Equal(t, schemas[count], dump(t, super))
	new(filler).fill(t, conn)
}

// A migrator that dies in the middle of a migration, by any means, leaves what stood before it, and the
// next one ends where it would have ended.
func TestInterruptedMigration(t *testing.T) {
	t.Parallel()
	const half = 6
	for name, interrupt := range map[string]func(s *pgtest.Stack, super *pgx.Conn, migrator *exec.Cmd, backend int){
		"the process is killed": func(_ *pgtest.Stack, _ *pgx.Conn, migrator *exec.Cmd, _ int) {
			require.NoError(t, migrator.Process.Kill())
		},
		"the session is terminated": func(_ *pgtest.Stack, super *pgx.Conn, _ *exec.Cmd, backend int) {
			execute(t, super, "SELECT pg_terminate_backend($1)", backend)
		},
		"the server is killed": func(s *pgtest.Stack, _ *pgx.Conn, _ *exec.Cmd, _ int) {
			require.NoError(t, s.Cluster.Primary.Kill())
			require.NoError(t, s.Cluster.Primary.Start(context.Background()))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := pgtest.Private(t)
			s.RemoveOracle("the whole schema is compared")
			want := dump(t, s.SuperURL)
			require.NoError(t, db.WithProvider(t.Context(), s.MigrateURL, quiet, func(p *goose.Provider) error {
				_, err := p.DownTo(t.Context(), half)
				return err
			}))
			super := connect(t, s.SuperURL)
			new(filler).fill(t, super)
			before := positions.ReplaceAllString(dataDump(t, s.SuperURL), "")

			// Every COMMENT writes here, so the migrator stays behind its first function.
			blocker := connect(t, s.SuperURL)
			tx, err := blocker.Begin(t.Context())
			require.NoError(t, err)
			_, err = tx.Exec(t.Context(), "LOCK TABLE pg_catalog.pg_description IN SHARE MODE")
			require.NoError(t, err)
			migrator := exec.Command(os.Args[0])
			migrator.Env = append(os.Environ(), migrateHelper+"="+s.MigrateURL)
			require.NoError(t, migrator.Start())
			var backend int
			require.Eventually(t, func() bool {
				return super.QueryRow(t.Context(), `SELECT pid FROM pg_stat_activity
					 WHERE usename = 'accounts_migrator' AND wait_event_type = 'Lock' AND query LIKE '%COMMENT ON%'`).Scan(&backend) == nil
			}, waitLimit, pollTick)
			interrupt(s, super, migrator, backend)
			require.Error(t, migrator.Wait())
			_ = tx.Rollback(t.Context()) // the server may be another one by now

			super = connect(t, s.SuperURL)
			require.Eventually(t, func() bool {
				return value[int](t, super, "SELECT count(*) FROM pg_stat_activity WHERE usename = 'accounts_migrator'") == 0
			}, waitLimit, pollTick, "its session ends")
			require.Equal(t, before, positions.ReplaceAllString(dataDump(t, s.SuperURL), ""))
			require.NoError(t, db.Migrate(t.Context(), s.MigrateURL, quiet))
			require.Equal(t, want, dump(t, s.SuperURL))
		})
	}
}
