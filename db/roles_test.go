package db_test

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/pgtest"
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

// harmless are the system functions that every role may execute although they are VOLATILE or have an
// effect, by name, with the reason. A name that is not here is an open question: revoke it in
// bootstrap.sql, or write the reason down.
var harmless = map[string]string{
	`clock_timestamp|timeofday|random|random_normal|setseed|gen_random_uuid|current_query`: "values of the session",
	`pg_sleep|pg_sleep_for|pg_sleep_until`:                                                 "like a session that is idle in a transaction (docs/operations.md)",
	`set_config`:                                                                           "like SET (docs/operations.md)",
	`pg_notify|pg_notification_queue_usage`:                                                "like NOTIFY (docs/operations.md)",
	`nextval|setval|currval|lastval|pg_sequence_last_value`:                                "need privileges on the sequence",
	`query_to_xml|query_to_xmlschema|query_to_xml_and_xmlschema|cursor_to_xml|cursor_to_xmlschema|ts_stat|ts_rewrite`:                                      "run SQL with the caller's privileges",
	`bernoulli|system|[a-z]+handler|heap_tableam_handler|amvalidate|plpgsql_.+|dsnowball_.+`:                                                               "of internal types, or for CREATE LANGUAGE and access methods",
	`pg_is_in_recovery|pg_(current|last)_wal_.+|pg_last_xact_replay_timestamp|pg_is_wal_replay_paused|pg_get_wal_replay_pause_state`:                       "positions in the WAL",
	`pg_control_.+|pg_get_wal_resource_managers|pg_jit_available|pg_collation_actual_version|pg_database_collation_actual_version`:                         "constants of the cluster",
	`pg_lock_status|pg_blocking_pids|pg_safe_snapshot_blocking_pids|pg_isolation_test_session_is_blocked|pg_prepared_xact`:                                 "who waits for whom, without data",
	`pg_stat_get_.+|pg_stat_clear_snapshot|pg_stat_force_next_flush`:                                                                                       "statistics: counts without data, queries of the own role",
	`pg_(database|tablespace|relation|table|indexes|total_relation)_size|pg_partition_(tree|ancestors)`:                                                    "sizes",
	`pg_xact_.+|txid_status|pg_last_committed_xact|pg_get_multixact_.+`:                                                                                    "state of transaction ids",
	`binary_upgrade_.+|pg_stop_making_pinned_objects|pg_nextoid|pg_import_system_collations`:                                                               "check for a superuser or binary upgrade themselves",
	`pg_rotate_logfile_old|pg_read_file_old|pg_extension_config_dump`:                                                                                      "check for a superuser or CREATE EXTENSION themselves",
	`pg_.*replication_slot.*|pg_logical_slot_.+|pg_sync_replication_slots`:                                                                                 "check for REPLICATION themselves",
	`gin_clean_pending_list|brin_(de)?summarize_.+|currtid2`:                                                                                               "check for the owner of the table themselves",
	`pg_get_publication_tables|pg_available_wal_summaries|pg_wal_summary_contents|pg_get_wal_summarizer_state|pg_basetype|pg_wait_for_backend_termination`: "read the state of the server",
}

func TestLogins_SystemFunctionsWithEffects(t *testing.T) {
	t.Parallel()
	a := open(t)
	a.RemoveOracle("production has no such functions")
	for _, login := range []string{"accounts_reader", "accounts_writer"} {
		for _, name := range column[string](t, a.super, `
			SELECT DISTINCT p.proname::text FROM pg_proc AS p
			 WHERE p.pronamespace <> 'accounts'::regnamespace
			   AND (p.provolatile = 'v' OR p.proname ~ '^(lo_|pg_(try_)?advisory|txid_current$|pg_current_xact_id$)')
			   AND p.prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype)
			   AND has_function_privilege($1, p.oid, 'EXECUTE')`, login) {
			known := false
			for pattern := range harmless {
				known = known || regexp.MustCompile("^("+pattern+")$").MatchString(name)
			}
			require.True(t, known, "%s may execute %s: revoke it in bootstrap.sql, or add it to harmless with a reason", login, name)
		}
	}
}

// What a session of a login may not do on the primary, whatever it switches off first.
func TestLogins_CannotHarmThePrimary(t *testing.T) {
	t.Parallel()
	a := open(t)
	for _, url := range []string{a.WriteURL, a.PrimaryReadURL} {
		conn := connect(t, url)
		execute(t, conn, "SET default_transaction_read_only = off") // docs/operations.md: this cannot be revoked
		execute(t, conn, "SET statement_timeout = 0")
		for _, attempt := range []string{
			"SELECT lo_create(0)", "SELECT lo_creat(-1)", "SELECT lo_from_bytea(0, 'x')", "SELECT lo_put(1, 0, 'x')", "SELECT lo_get(1)",
			"SELECT lo_open(1, 131072)", "SELECT lowrite(0, 'x')", "SELECT loread(0, 1)", "SELECT lo_unlink(1)", "SELECT lo_import('/etc/passwd')",
			"SELECT pg_logical_emit_message(false, 'a', 'b')", "SELECT pg_logical_emit_message(true, 'a', 'b'::bytea)",
			"SELECT pg_try_advisory_lock(1)", "SELECT pg_try_advisory_xact_lock(1)", "SELECT pg_advisory_lock(1, 2)",
			"SELECT pg_advisory_xact_lock_shared(1)", "SELECT pg_advisory_unlock_all()",
			"SELECT pg_try_advisory_xact_lock(hashtextextended('accounts.cache_outbox', 0))",
			"SELECT txid_current()", "SELECT pg_current_xact_id()", "SELECT pg_export_snapshot()",
			"SELECT pg_terminate_backend(pg_backend_pid())", "SELECT pg_cancel_backend(1)",
			"SELECT pg_create_physical_replication_slot('x')", "SELECT pg_switch_wal()", "SELECT pg_reload_conf()", "SELECT pg_stat_reset()",
			"SELECT pg_read_file('/etc/passwd')", "COPY (SELECT 1) TO PROGRAM 'true'", "COPY (SELECT 1) TO '/tmp/x'",
			"CREATE TEMPORARY TABLE mine ()", "CREATE SCHEMA mine", "CREATE TABLE public.mine ()", "CREATE EXTENSION hstore",
			"CREATE PUBLICATION mine", "CREATE ROLE mine", "ALTER ROLE accounts_migrator PASSWORD 'x'", "ALTER ROLE accounts_owner LOGIN",
			"GRANT accounts_owner TO accounts_reader", "GRANT accounts_write TO accounts_reader",
			"ALTER DATABASE " + a.Name + " SET search_path = public", "ALTER SYSTEM SET work_mem = '1GB'", "CHECKPOINT",
			"VACUUM accounts.users", "ANALYZE accounts.users", "DO $$ BEGIN LOCK TABLE accounts.users IN ACCESS SHARE MODE; END $$",
		} {
			_, err := conn.Exec(t.Context(), attempt)
			if attempt == "VACUUM accounts.users" || attempt == "ANALYZE accounts.users" {
				require.NoError(t, err, "a warning, and nothing is done")
				continue
			}
			requireState(t, err, denied, "", "")
		}
	}
}

// What cannot be revoked; docs/operations.md tells what limits it. A change of PostgreSQL here is news.
func TestLogins_WhatCannotBeRevoked(t *testing.T) {
	t.Parallel()
	s := pgtest.Private(t) // roles belong to the whole server
	tx, err := connect(t, s.PrimaryReadURL).Begin(t.Context())
	require.NoError(t, err)
	for _, allowed := range []string{
		"SET statement_timeout = 0", "SET default_transaction_read_only = off", "SELECT pg_sleep(0)", "SELECT pg_notify('a', 'b')", "LISTEN a",
		"SET TRANSACTION READ WRITE", "ALTER ROLE accounts_reader SET work_mem = '1MB'", "ALTER ROLE accounts_reader PASSWORD 'x'",
	} {
		_, err := tx.Exec(t.Context(), allowed)
		if allowed == "SET TRANSACTION READ WRITE" {
			requireState(t, err, "25001", "", "") // after the first statement; a new transaction may
			require.NoError(t, tx.Rollback(t.Context()))
			tx, err = connect(t, s.PrimaryReadURL).BeginTx(t.Context(), pgx.TxOptions{AccessMode: pgx.ReadWrite})
			require.NoError(t, err)
			continue
		}
		require.NoError(t, err, allowed)
	}
	require.NoError(t, tx.Rollback(t.Context()))
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
