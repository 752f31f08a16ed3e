package postgres

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/dbgen/read"
	"github.com/payment-services/accounts/internal/dbgen/write"
	"github.com/payment-services/accounts/internal/pgtest"
)

// onEveryConnection fills the pool and runs fn on each of its connections.
func onEveryConnection(t *testing.T, p *pool, fn func(*pgx.Conn)) {
	t.Helper()
	var conns [poolSize]*pgxpool.Conn
	for i := range conns {
		conn, err := p.Acquire(t.Context())
		require.NoError(t, err)
		conns[i] = conn
	}
	for _, conn := range conns {
		fn(conn.Conn())
		conn.Release()
	}
}

// prepared returns the statements that pgx has prepared on a connection, by name.
func prepared(t *testing.T, conn *pgx.Conn) []string {
	t.Helper()
	rows, err := conn.Query(t.Context(), "SELECT name FROM pg_prepared_statements WHERE statement LIKE '%accounts.%'", pgx.QueryExecModeSimpleProtocol)
	require.NoError(t, err)
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	require.NotEmpty(t, names)
	return names
}

// Behind a pooler, and after DDL, the statements of the server's session are not those that pgx
// remembers. No request may notice it, and a write has its effect once.
func TestStaleStatementsAreReplaced(t *testing.T) {
	t.Parallel()
	run := func(conn *pgx.Conn, sql string) { // without the extended protocol, which would prepare it
		_, err := conn.PgConn().Exec(t.Context(), sql).ReadAll()
		require.NoError(t, err)
	}
	for name, fault := range map[string]func(t *testing.T, p *pool, super *pgx.Conn){
		"26000_after_DEALLOCATE_ALL": func(t *testing.T, p *pool, _ *pgx.Conn) {
			onEveryConnection(t, p, func(conn *pgx.Conn) { run(conn, "DEALLOCATE ALL") })
		},
		"42P05_after_PREPARE_of_the_same_name": func(t *testing.T, p *pool, _ *pgx.Conn) {
			var names []string
			onEveryConnection(t, p, func(conn *pgx.Conn) { names = prepared(t, conn) })
			p.Reset()
			onEveryConnection(t, p, func(conn *pgx.Conn) {
				for _, name := range names {
					run(conn, fmt.Sprintf("PREPARE %q AS SELECT 1", name))
				}
			})
		},
		"08P01_after_PREPARE_with_other_parameters": func(t *testing.T, p *pool, _ *pgx.Conn) {
			onEveryConnection(t, p, func(conn *pgx.Conn) {
				for _, name := range prepared(t, conn) {
					run(conn, fmt.Sprintf("DEALLOCATE %q; PREPARE %[1]q (text, text, text) AS SELECT $1, $2, $3", name))
				}
			})
		},
		"0A000_after_DDL": func(t *testing.T, _ *pool, super *pgx.Conn) {
			run(super, `
				DROP FUNCTION accounts.list_user_groups_v1();
				ALTER TABLE accounts.user_group_v1 ALTER COLUMN name TYPE varchar;
				CREATE FUNCTION accounts.list_user_groups_v1() RETURNS SETOF accounts.user_group_v1
				LANGUAGE sql STABLE SECURITY DEFINER AS
					'SELECT id, name::varchar, created_at, updated_at FROM accounts.user_groups ORDER BY name';
				GRANT EXECUTE ON FUNCTION accounts.list_user_groups_v1() TO accounts_read, accounts_write;
				DROP FUNCTION accounts.create_user_group_v1(text, text);
				ALTER TABLE accounts.user_group_write_v1 ALTER COLUMN name TYPE varchar;
				CREATE FUNCTION accounts.create_user_group_v1(p_name text, p_name_key text) RETURNS SETOF accounts.user_group_write_v1
				LANGUAGE sql SECURITY DEFINER AS
					'INSERT INTO accounts.user_groups (name, name_key) VALUES (p_name, p_name_key)
					 RETURNING id, name::varchar, created_at, updated_at, ''{}''::text[], 1::bigint';
				GRANT EXECUTE ON FUNCTION accounts.create_user_group_v1(text, text) TO accounts_write`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := pgtest.Shared(t)
			d.RemoveOracle("a write function is replaced by one that writes no outbox row")
			super := superuser(t, d)
			primary, replica := openPrimary(t, d.WriteURL), openReplica(t, d.PrimaryReadURL)
			list := listGroups(new([]string))

			warm := func(p *pool, use func(*pgx.Conn) error) {
				onEveryConnection(t, p, func(conn *pgx.Conn) { require.NoError(t, use(conn)) })
			}
			warm(replica.pool, func(conn *pgx.Conn) error {
				return list(t.Context(), read.New(conn))
			})
			n := 0
			warm(primary.pool, func(conn *pgx.Conn) error {
				n++
				return errors.Join(list(t.Context(), read.New(conn)), createGroup(fmt.Sprint("warm ", n))(t.Context(), write.New(conn)))
			})
			fault(t, replica.pool, super)
			if name != "0A000_after_DDL" {
				fault(t, primary.pool, super)
			}

			var names []string
			_, err := replica.Read(t.Context(), AdmitAny, listGroups(&names))
			require.NoError(t, err)
			require.Len(t, names, poolSize)
			require.NoError(t, primary.Write(t.Context(), createGroup("after")))
			require.Zero(t, primary.goneFor(time.Now()), "the primary is not gone")
			_, err = primary.Read(t.Context(), listGroups(&names))
			require.NoError(t, err)
			require.Len(t, names, poolSize+1, "the write had its effect once")
			for range 2 * poolSize {
				_, err = replica.Read(t.Context(), AdmitAny, listGroups(&names))
				require.NoError(t, err)
			}
		})
	}
}

// Behind PgBouncer in transaction mode, the connection string turns prepared statements off
// (docs/operations.md). Every statement of the service must work without them.
func TestCacheDescribe_PreparesNoStatements(t *testing.T) {
	t.Parallel()
	const mode = "&default_query_exec_mode=cache_describe"
	d := pgtest.Shared(t)
	primary, replica := openPrimary(t, d.WriteURL+mode), openReplica(t, d.PrimaryReadURL+mode)
	var names []string
	for i := range 2 * poolSize {
		require.NoError(t, primary.Write(t.Context(), createGroup(fmt.Sprint("group ", i))))
		user := newUser(t, primary)
		require.NoError(t, primary.Write(t.Context(), patch(user.ID, `{"a": 1}`)))
		_, err := replica.Read(t.Context(), AdmitAny, listGroups(&names))
		require.NoError(t, err)
		require.Len(t, names, i+1)
		require.NoError(t, primary.InTx(t.Context(), func(ctx context.Context, q write.Querier) error {
			_, err := q.ClaimCacheOutboxV1(ctx, 0, 10)
			return err
		}))
	}
	for _, p := range []*pool{primary.pool, replica.pool} {
		onEveryConnection(t, p, func(conn *pgx.Conn) {
			var n int
			require.NoError(t, conn.QueryRow(t.Context(), "SELECT count(*) FROM pg_prepared_statements WHERE name <> ''", pgx.QueryExecModeSimpleProtocol).Scan(&n))
			require.Zero(t, n)
		})
	}
}
