package db_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/dbgen/write"
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

func TestReaderCannotWrite(t *testing.T) {
	t.Parallel()
	a := open(t)
	for _, readOnlyOff := range []bool{false, true} {
		conn := connect(t, a.PrimaryReadURL)
		require.Equal(t, "on", value[string](t, conn, "SHOW default_transaction_read_only"))
		if readOnlyOff {
			execute(t, conn, "SET default_transaction_read_only = off")
			execute(t, conn, "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE")
		}
		q := write.New(conn)
		for _, call := range writeCalls {
			requireState(t, call(t.Context(), q), denied, "", "")
		}
	}
}

// writeCalls call every write function; TestEveryWriteFunctionIsCalled sees to it.
var writeCalls = map[string]func(context.Context, *write.Queries) error{
	"create_user_v1": func(ctx context.Context, q *write.Queries) error {
		_, err := q.CreateUserV1(ctx, newUser(nil))
		return err
	},
	"update_user_v1": func(ctx context.Context, q *write.Queries) error {
		_, err := q.UpdateUserV1(ctx, write.UpdateUserV1Params{})
		return err
	},
	"add_contact_v1": func(ctx context.Context, q *write.Queries) error {
		_, err := q.AddContactV1(ctx, write.AddContactV1Params{})
		return err
	},
	"update_contact_v1": func(ctx context.Context, q *write.Queries) error {
		_, err := q.UpdateContactV1(ctx, write.UpdateContactV1Params{})
		return err
	},
	"deactivate_contact_v1": func(ctx context.Context, q *write.Queries) error {
		_, err := q.DeactivateContactV1(ctx, uuid.Nil)
		return err
	},
	"create_contact_type_v1": func(ctx context.Context, q *write.Queries) error {
		_, err := q.CreateContactTypeV1(ctx, "fax", "allow")
		return err
	},
	"update_contact_type_v1": func(ctx context.Context, q *write.Queries) error {
		_, err := q.UpdateContactTypeV1(ctx, phoneType, nil, nil)
		return err
	},
	"create_user_group_v1": func(ctx context.Context, q *write.Queries) error {
		_, err := q.CreateUserGroupV1(ctx, "x")
		return err
	},
	"update_user_group_v1": func(ctx context.Context, q *write.Queries) error {
		_, err := q.UpdateUserGroupV1(ctx, uuid.Nil, nil)
		return err
	},
	"set_membership_v1": func(ctx context.Context, q *write.Queries) error {
		_, err := q.SetMembershipV1(ctx, uuid.Nil, uuid.Nil, true)
		return err
	},
	"set_memberships_v1": func(ctx context.Context, q *write.Queries) error {
		_, err := q.SetMembershipsV1(ctx, uuid.Nil, nil, true)
		return err
	},
	"claim_cache_outbox_v1": func(ctx context.Context, q *write.Queries) error {
		_, err := q.ClaimCacheOutboxV1(ctx, 0, 1)
		return err
	},
	"delete_cache_outbox_v1": func(ctx context.Context, q *write.Queries) error {
		return q.DeleteCacheOutboxV1(ctx, nil)
	},
}

func TestEveryWriteFunctionIsCalled(t *testing.T) {
	t.Parallel()
	a := open(t)
	names := column[string](t, a.super, `SELECT p.proname::text FROM pg_proc AS p
		WHERE p.pronamespace = 'accounts'::regnamespace AND has_function_privilege('accounts_write', p.oid, 'EXECUTE')
		  AND NOT has_function_privilege('accounts_read', p.oid, 'EXECUTE')`)
	for _, name := range names {
		require.Contains(t, writeCalls, name)
	}
	require.Len(t, writeCalls, len(names))
}

func TestHelpersAreGrantedToNobody(t *testing.T) {
	t.Parallel()
	a := open(t)
	writer, reader := connect(t, a.WriteURL), connect(t, a.PrimaryReadURL)
	for _, call := range []string{
		"accounts.generate_uuid_v1()",
		"accounts.merge_patch_v1('{}', '{}')",
		"accounts.record_change_v1('{}', '{}')",
		"accounts.lock_user_v1(NULL)",
		"accounts.raise_user_version_v1(NULL)",
		"accounts.lock_contact_v1(NULL)",
		"accounts.make_room_for_contact_v1(NULL, NULL, NULL, NULL)",
		"accounts.identifier_keys_v1(NULL, NULL)",
		"accounts.user_filter_v1(NULL, NULL, NULL)",
	} {
		for _, conn := range []*pgx.Conn{writer, reader} {
			_, err := conn.Exec(t.Context(), "SELECT "+call)
			requireState(t, err, denied, "", "")
		}
	}
	require.Len(t, column[string](t, a.super, `SELECT p.proname::text FROM pg_proc AS p
		WHERE p.pronamespace = 'accounts'::regnamespace AND NOT has_function_privilege('accounts_write', p.oid, 'EXECUTE')`), 9)
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
		"accounts_migrator login", "accounts_owner", "accounts_read", "accounts_reader login", "accounts_write", "accounts_writer login",
	}, column[string](t, a.super, `
		SELECT r.rolname || CASE WHEN r.rolcanlogin THEN ' login' ELSE '' END
		  FROM pg_roles AS r
		 WHERE r.rolname LIKE 'accounts%'
		   AND NOT (r.rolsuper OR r.rolcreaterole OR r.rolcreatedb OR r.rolreplication OR r.rolbypassrls)
		 ORDER BY 1`))
	require.Equal(t, []string{
		"accounts_migrator in accounts_owner", "accounts_owner in pg_read_all_stats",
		"accounts_reader in accounts_read", "accounts_writer in accounts_write",
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
