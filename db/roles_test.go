package db_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

const tablesQuery = `SELECT c.relname::text FROM pg_class AS c
	 WHERE c.relnamespace = 'accounts'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'f') ORDER BY 1`

func TestNoLoginHasAnyRightOnATable(t *testing.T) {
	t.Parallel()
	a := open(t)
	// What the catalog says of every relation, goose's own table included.
	require.Empty(t, column[string](t, a.super, `
		SELECT r.name || ' ' || p.name || ' ' || c.oid::regclass
		  FROM pg_class AS c
		 CROSS JOIN unnest(ARRAY['accounts_reader', 'accounts_writer', 'accounts_read', 'accounts_write']) AS r (name)
		 CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) AS p (name)
		 WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
		   AND (c.relnamespace = 'accounts'::regnamespace OR c.relname LIKE 'goose%')
		   AND has_table_privilege(r.name, c.oid, p.name)
		 UNION ALL
		SELECT r.name || ' column of ' || c.oid::regclass
		  FROM pg_class AS c
		 CROSS JOIN unnest(ARRAY['accounts_reader', 'accounts_writer']) AS r (name)
		 WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
		   AND (c.relnamespace = 'accounts'::regnamespace OR c.relname LIKE 'goose%')
		   AND has_any_column_privilege(r.name, c.oid, 'SELECT, INSERT, UPDATE, REFERENCES')
		 UNION ALL
		SELECT r.name || ' sequence ' || c.oid::regclass
		  FROM pg_class AS c
		 CROSS JOIN unnest(ARRAY['accounts_reader', 'accounts_writer']) AS r (name)
		 WHERE c.relkind = 'S'
		   AND (c.relnamespace = 'accounts'::regnamespace OR c.relname LIKE 'goose%')
		   AND has_sequence_privilege(r.name, c.oid, 'USAGE, SELECT, UPDATE')`))

	// And what happens to those who try.
	tables := column[string](t, a.super, tablesQuery)
	require.Contains(t, tables, "users")
	require.Contains(t, tables, "user_detail_v1")
	for _, url := range []string{a.WriteURL, a.PrimaryReadURL} {
		conn := connect(t, url)
		execute(t, conn, "SET default_transaction_read_only = off")
		for _, table := range tables {
			for _, attempt := range []string{
				"SELECT FROM accounts.%s", "INSERT INTO accounts.%s DEFAULT VALUES", "DELETE FROM accounts.%s", "TRUNCATE accounts.%s",
				"COPY accounts.%s TO STDOUT",
			} {
				_, err := conn.Exec(t.Context(), fmt.Sprintf(attempt, table))
				requireState(t, err, denied, "", "")
			}
		}
		for _, attempt := range []string{
			"UPDATE accounts.users SET is_active = false",
			"SELECT nextval('accounts.cache_outbox_id_seq')",
			"SELECT setval('accounts.cache_outbox_id_seq', 1)",
			"CREATE TABLE accounts.mine ()",
			"CREATE TABLE public.mine ()",
			"CREATE SCHEMA mine",
			"CREATE TEMPORARY TABLE mine ()",
			"CREATE FUNCTION accounts.mine() RETURNS void LANGUAGE sql AS ''",
			"SET ROLE accounts_owner",
			"SET ROLE accounts_migrator",
			"SET SESSION AUTHORIZATION accounts_owner",
		} {
			_, err := conn.Exec(t.Context(), attempt)
			requireState(t, err, denied, "", "")
		}
	}
}

// callsOf returns a call, with NULL for every argument, of each function that satisfies a condition.
func callsOf(t *testing.T, super *pgx.Conn, condition string) []string {
	t.Helper()
	return column[string](t, super, `
		SELECT format('SELECT FROM accounts.%I(%s)', p.proname,
		              (SELECT string_agg('NULL::' || format_type(a.type, NULL), ', ' ORDER BY a.n)
		                 FROM unnest(p.proargtypes) WITH ORDINALITY AS a (type, n)))
		  FROM pg_proc AS p
		 WHERE p.pronamespace = 'accounts'::regnamespace AND `+condition)
}

func TestReaderCannotWrite(t *testing.T) {
	t.Parallel()
	a := open(t)
	calls := callsOf(t, a.super, "p.provolatile = 'v' AND has_function_privilege('accounts_write', p.oid, 'EXECUTE')")
	require.Greater(t, len(calls), 10)
	for _, off := range []bool{false, true} {
		conn := connect(t, a.PrimaryReadURL)
		require.Equal(t, "on", value[string](t, conn, "SHOW default_transaction_read_only"))
		if off {
			execute(t, conn, "SET default_transaction_read_only = off")
			execute(t, conn, "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE")
		}
		for _, call := range calls {
			_, err := conn.Exec(t.Context(), call)
			requireState(t, err, denied, "", "")
		}
	}
}

func TestHelpersAreGrantedToNobody(t *testing.T) {
	t.Parallel()
	a := open(t)
	calls := callsOf(t, a.super, `
		NOT EXISTS (SELECT FROM aclexplode(p.proacl) AS g WHERE g.grantee <> p.proowner)`)
	require.Contains(t, calls, "SELECT FROM accounts.lock_user_v1(NULL::uuid)")
	for _, url := range []string{a.WriteURL, a.PrimaryReadURL} {
		conn := connect(t, url)
		for _, call := range calls {
			_, err := conn.Exec(t.Context(), call)
			requireState(t, err, denied, "", "")
		}
	}
}

func TestNewFunctionsAreGrantedToNobody(t *testing.T) {
	t.Parallel()
	a := open(t)
	migrator := connect(t, a.MigrateURL)
	for _, schema := range []string{"accounts", "public"} {
		execute(t, migrator, "CREATE FUNCTION "+schema+".fresh() RETURNS integer LANGUAGE sql AS 'SELECT 1'")
		for _, url := range []string{a.WriteURL, a.PrimaryReadURL} {
			_, err := connect(t, url).Exec(t.Context(), "SELECT "+schema+".fresh()")
			requireState(t, err, denied, "", "")
		}
	}
}

func TestMigratorBecomesOwner(t *testing.T) {
	t.Parallel()
	a := open(t)
	migrator := connect(t, a.MigrateURL)
	require.Equal(t, "accounts_owner accounts_migrator", value[string](t, migrator, "SELECT current_user || ' ' || session_user"))

	// Owner and groups cannot log in, and no role of ours is more than it must be.
	require.Equal(t, []string{
		"accounts_migrator login", "accounts_owner", "accounts_read", "accounts_reader login", "accounts_stats", "accounts_write", "accounts_writer login",
	}, column[string](t, a.super, `
		SELECT r.rolname || CASE WHEN r.rolcanlogin THEN ' login' ELSE '' END
		  FROM pg_roles AS r
		 WHERE r.rolname LIKE 'accounts%'
		   AND NOT (r.rolsuper OR r.rolcreaterole OR r.rolcreatedb OR r.rolreplication OR r.rolbypassrls)
		 ORDER BY 1`))
	require.Equal(t, []string{
		"accounts_migrator in accounts_owner", "accounts_reader in accounts_read",
		"accounts_stats in pg_read_all_stats", "accounts_writer in accounts_write",
	}, column[string](t, a.super, `
		SELECT m.member::regrole || ' in ' || m.roleid::regrole
		  FROM pg_auth_members AS m
		 WHERE m.member::regrole::text LIKE 'accounts%' OR m.roleid::regrole::text LIKE 'accounts%'
		 ORDER BY 1`))
	config, err := pgx.ParseConfig(a.SuperURL)
	require.NoError(t, err)
	config.User = "accounts_owner"
	_, err = pgx.ConnectConfig(t.Context(), config)
	require.Error(t, err)

	// Everything is the owner's.
	require.Empty(t, column[string](t, a.super, `
		SELECT c.oid::regclass::text FROM pg_class AS c
		 WHERE c.relnamespace = 'accounts'::regnamespace AND c.relowner <> 'accounts_owner'::regrole
		 UNION ALL
		SELECT n.nspname FROM pg_namespace AS n WHERE n.nspname = 'accounts' AND n.nspowner <> 'accounts_owner'::regrole
		 UNION ALL
		SELECT d.datname FROM pg_database AS d WHERE d.datname = current_database() AND d.datdba <> 'accounts_owner'::regrole`))
}

func TestStrangersCannotConnect(t *testing.T) {
	t.Parallel()
	a := open(t)
	role := "stranger_" + strings.ReplaceAll(uuid.NewString(), "-", "")
	execute(t, a.super, "CREATE ROLE "+role+" LOGIN PASSWORD 'x'")
	t.Cleanup(func() { _, _ = a.super.Exec(context.Background(), "DROP ROLE "+role) })
	config, err := pgx.ParseConfig(a.SuperURL)
	require.NoError(t, err)
	config.User, config.Password = role, "x"
	_, err = pgx.ConnectConfig(t.Context(), config)
	requireState(t, err, denied, "", "")
}
