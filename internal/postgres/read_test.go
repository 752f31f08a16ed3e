package postgres

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/dbgen/read"
	"github.com/payment-services/accounts/internal/errcode"
	"github.com/payment-services/accounts/internal/pgtest"
)

func TestReadTellsItsPosition(t *testing.T) {
	t.Parallel()
	d := pgtest.Shared(t)
	primary, replica := openPrimary(t, d.WriteURL), openReplica(t, d.ReadURL)
	require.NoError(t, primary.Write(t.Context(), createGroup("one")))
	written, err := primary.Position(t.Context())
	require.NoError(t, err)
	require.NoError(t, d.WaitForReplay(t.Context()))

	var admitted Position
	var names []string
	at, err := replica.Read(t.Context(), func(p Position) error { admitted = p; return nil }, listGroups(&names))
	require.NoError(t, err)
	require.Equal(t, []string{"one"}, names)
	require.Equal(t, admitted, at)
	require.True(t, at.InRecovery)
	require.EqualValues(t, 1, at.Timeline)
	require.GreaterOrEqual(t, at.LSN, written.LSN)
	require.Equal(t, written.SystemIdentifier, at.SystemIdentifier)
	require.False(t, written.InRecovery)

	alone, err := replica.Position(t.Context())
	require.NoError(t, err)
	require.True(t, alone.InRecovery)

	at, err = primary.Read(t.Context(), listGroups(&names))
	require.NoError(t, err)
	require.Equal(t, []string{"one"}, names)
	require.False(t, at.InRecovery)
}

// An old row and a caught-up position must never come together: the position is asked first, and the
// query has a snapshot of its own, taken after it.
func TestPositionIsOlderThanTheSnapshotOfTheQuery(t *testing.T) {
	t.Parallel()
	d := pgtest.Shared(t)
	primary, replica := openPrimary(t, d.WriteURL), openReplica(t, d.PrimaryReadURL)
	super := superuser(t, d)
	execute(t, super, `CREATE OR REPLACE FUNCTION accounts.get_replication_position_v1()
		RETURNS SETOF accounts.replication_position_v1 LANGUAGE plpgsql STABLE SECURITY DEFINER AS $$
		BEGIN
			RETURN QUERY SELECT 1::bigint, false, 1, pg_wal_lsn_diff(pg_current_wal_flush_lsn(), '0/0')::bigint;
			PERFORM pg_advisory_xact_lock_shared(1);
		END $$`)
	tx, err := superuser(t, d).Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "SELECT pg_advisory_xact_lock(1)")
	require.NoError(t, err)

	var names []string
	done := inBackground(func() error {
		_, err := replica.Read(t.Context(), AdmitAny, listGroups(&names))
		return err
	})
	require.Eventually(t, func() bool {
		var waits bool
		err := super.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM pg_stat_activity
			WHERE datname = current_database() AND usename = 'accounts_reader' AND wait_event = 'advisory')`).Scan(&waits)
		return err == nil && waits
	}, waitLimit, pollTick)
	require.NoError(t, primary.Write(t.Context(), createGroup("written meanwhile")))
	require.NoError(t, tx.Rollback(t.Context()))
	require.NoError(t, <-done)
	require.Equal(t, []string{"written meanwhile"}, names)
}

func TestReadIsRefusedByAdmit(t *testing.T) {
	t.Parallel()
	d := pgtest.Shared(t)
	replica := openReplica(t, d.ReadURL)
	refused := errors.New("too old")
	refuse := func(Position) error { return refused }
	for name, fn := range map[string]func(context.Context, read.Querier) error{
		"one row": func(ctx context.Context, q read.Querier) error {
			_, err := q.GetUserDetailV1(ctx, uuid.New())
			return err
		},
		"rows": func(ctx context.Context, q read.Querier) error {
			_, err := q.ListContactTypesV1(ctx)
			return err
		},
		"an error": func(ctx context.Context, q read.Querier) error {
			_, err := q.GetUserByIdentifierV1(ctx, "\x00")
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			var got error
			at, err := replica.Read(t.Context(), refuse, func(ctx context.Context, q read.Querier) error {
				got = fn(ctx, q)
				return got
			})
			require.Equal(t, refused, err)
			require.Equal(t, refused, got)
			require.True(t, at.InRecovery, "the refused position is told")
		})
	}
	require.Zero(t, replica.Stat().AcquiredConns())
	var types []read.ContactTypeV1
	_, err := replica.Read(t.Context(), AdmitAny, func(ctx context.Context, q read.Querier) (err error) {
		types, err = q.ListContactTypesV1(ctx)
		return err
	})
	require.NoError(t, err)
	require.Len(t, types, 3)
	require.EqualValues(t, 1, replica.Stat().NewConnsCount(), "a refusal costs no connection")
}

func TestReadErrors(t *testing.T) {
	t.Parallel()
	d := pgtest.Shared(t)
	replica := openReplica(t, d.ReadURL)
	own := errors.New("of fn")
	for name, tt := range map[string]struct {
		fn    func(context.Context, read.Querier) error
		check func(error)
	}{
		"no row is left as it is": {func(ctx context.Context, q read.Querier) error {
			_, err := q.GetUserDetailV1(ctx, uuid.New())
			return err
		}, func(err error) { require.Equal(t, pgx.ErrNoRows, err) }},
		"an error of fn is left as it is": {func(context.Context, read.Querier) error { return own },
			func(err error) { require.Equal(t, own, err) }},
		"an error of the query": {func(ctx context.Context, q read.Querier) error {
			_, err := q.GetUserByIdentifierV1(ctx, "a\x00b")
			return err
		}, func(err error) { requireCode(t, err, errcode.Validation) }},
		"an error of rows": {func(ctx context.Context, q read.Querier) error {
			_, err := q.ListUsersV1(ctx, read.ListUsersV1Params{PageLimit: -1})
			return err
		}, func(err error) {
			var pgErr *pgconn.PgError
			require.ErrorAs(t, err, &pgErr)
			require.Equal(t, errcode.Internal, errcode.Of(err))
		}},
		"more than one query": {func(ctx context.Context, q read.Querier) error {
			_, first := q.ListContactTypesV1(ctx)
			_, second := q.ListUserGroupsV1(ctx)
			_, third := q.GetSchemaVersionV1(ctx)
			return errors.Join(first, second, third)
		}, func(err error) { require.NoError(t, err) }},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := replica.Read(t.Context(), AdmitAny, tt.fn)
			tt.check(err)
			require.Zero(t, replica.Stat().AcquiredConns())
		})
	}
	require.EqualValues(t, 1, replica.Stat().NewConnsCount(), "none of them costs a connection")

	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := replica.Read(gone, AdmitAny, listGroups(new([]string)))
	require.ErrorIs(t, err, context.Canceled)
}

func TestReadLoginCannotWrite(t *testing.T) {
	t.Parallel()
	d := pgtest.Shared(t)
	replica := openReplica(t, d.PrimaryReadURL) // where HAProxy falls back to
	for _, statement := range []string{
		"SELECT accounts.create_user_group_v1('x', 'x')",
		"SET default_transaction_read_only = off; SELECT accounts.create_user_group_v1('x', 'x')",
		"INSERT INTO accounts.user_groups (name, name_key) VALUES ('x', 'x')",
		"BEGIN READ WRITE; DELETE FROM accounts.users",
	} {
		conn, err := replica.pool.Acquire(t.Context())
		require.NoError(t, err)
		_, err = conn.Conn().PgConn().Exec(t.Context(), statement).ReadAll()
		conn.Release()
		var pgErr *pgconn.PgError
		require.ErrorAs(t, err, &pgErr)
		require.Contains(t, []string{"42501", "25006"}, pgErr.Code)
	}
}

func TestSlowReadEndsInTime(t *testing.T) {
	t.Parallel()
	d := pgtest.Shared(t)
	replica := openReplica(t, d.PrimaryReadURL)
	execute(t, superuser(t, d), `CREATE OR REPLACE FUNCTION accounts.list_user_groups_v1()
		RETURNS SETOF accounts.user_group_v1 LANGUAGE plpgsql STABLE SECURITY DEFINER AS $$ BEGIN PERFORM pg_sleep(10); END $$`)
	started := time.Now()
	_, err := replica.Read(t.Context(), AdmitAny, listGroups(new([]string)))
	requireCode(t, err, errcode.Database)
	require.Less(t, time.Since(started), readTimeout+time.Second)
}

// The server is alive: its pool is kept, the read is not repeated, and the primary is not marked as gone.
func TestRead_StatementTimeoutKeepsThePool(t *testing.T) {
	t.Parallel()
	d := pgtest.Shared(t)
	super := superuser(t, d)
	execute(t, super, `CREATE OR REPLACE FUNCTION accounts.list_user_groups_v1()
		RETURNS SETOF accounts.user_group_v1 LANGUAGE plpgsql STABLE SECURITY DEFINER AS $$
		BEGIN
			RAISE WARNING 'called';
			PERFORM pg_sleep(10);
		END $$`)
	primary, replica := openPrimary(t, d.WriteURL), openReplica(t, d.PrimaryReadURL)
	for name, server := range map[string]struct {
		read func(func(context.Context, read.Querier) error) error
		new  func() int64
	}{
		"primary": {func(fn func(context.Context, read.Querier) error) error {
			_, err := primary.Read(t.Context(), fn)
			return err
		}, func() int64 { return primary.Stat().NewConnsCount() }},
		"replica": {func(fn func(context.Context, read.Querier) error) error {
			_, err := replica.Read(t.Context(), AdmitAny, fn)
			return err
		}, func() int64 { return replica.Stat().NewConnsCount() }},
	} {
		t.Run(name, func(t *testing.T) {
			calls := 0
			err := server.read(func(ctx context.Context, q read.Querier) error {
				calls++
				return listGroups(new([]string))(ctx, q)
			})
			requireCode(t, err, errcode.Database)
			require.True(t, StatementTimedOut(err))
			require.Equal(t, 1, calls)
			require.NoError(t, server.read(func(ctx context.Context, q read.Querier) error {
				_, err := q.ListContactTypesV1(ctx)
				return err
			}))
			require.EqualValues(t, 1, server.new(), "the connection is kept")
		})
	}
	require.Zero(t, primary.goneFor(time.Now()))
}

// The deadline of the caller tells nothing about the server.
func TestRead_CallersDeadlineKeepsThePool(t *testing.T) {
	t.Parallel()
	d := pgtest.Shared(t)
	execute(t, superuser(t, d), `CREATE OR REPLACE FUNCTION accounts.list_user_groups_v1()
		RETURNS SETOF accounts.user_group_v1 LANGUAGE plpgsql STABLE SECURITY DEFINER AS $$ BEGIN PERFORM pg_sleep(10); END $$`)
	replica := openReplica(t, d.PrimaryReadURL)
	// Two connections, of which the read uses one.
	var idle [2]*pgxpool.Conn
	for i := range idle {
		conn, err := replica.pool.Acquire(t.Context())
		require.NoError(t, err)
		idle[i] = conn
	}
	for _, conn := range idle {
		conn.Release()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := replica.Read(ctx, AdmitAny, listGroups(new([]string)))
	requireCode(t, err, errcode.Database)
	require.EqualValues(t, 1, replica.Stat().IdleConns(), "the other connection is kept")
}

// Each statement of a read has its own time, on the server as in the client.
func TestRead_EachStatementHasItsOwnLimit(t *testing.T) {
	t.Parallel()
	d := pgtest.Shared(t)
	execute(t, superuser(t, d), `CREATE OR REPLACE FUNCTION accounts.list_user_groups_v1()
		RETURNS SETOF accounts.user_group_v1 LANGUAGE plpgsql STABLE SECURITY DEFINER AS $$ BEGIN PERFORM pg_sleep(0.5); END $$`)
	replica := openReplica(t, d.PrimaryReadURL)
	_, err := replica.Read(t.Context(), AdmitAny, func(ctx context.Context, q read.Querier) error {
		for range 3 {
			if _, err := q.ListUserGroupsV1(ctx); err != nil {
				return err
			}
		}
		return nil
	})
	require.NoError(t, err)
}

// Connections that died in the pool never surface: neither after a clean restart nor after a crash.
func TestReadsSurviveARestart(t *testing.T) {
	t.Parallel()
	s := pgtest.Private(t)
	replica := openReplica(t, s.ReadURL)
	readAtOnce := func() error {
		var all sync.WaitGroup
		var together sync.WaitGroup // so that each has a connection of its own
		together.Add(poolSize)
		errs := make([]error, poolSize)
		for i := range errs {
			all.Go(func() {
				var once sync.Once
				_, errs[i] = replica.Read(t.Context(), AdmitAny, func(ctx context.Context, q read.Querier) error {
					once.Do(func() { together.Done(); together.Wait() })
					_, err := q.ListContactTypesV1(ctx)
					return err
				})
			})
		}
		all.Wait()
		return errors.Join(errs...)
	}
	for _, stop := range []func() error{s.Cluster.Standby.Stop, s.Cluster.Standby.Kill} {
		require.NoError(t, readAtOnce())
		require.EqualValues(t, poolSize, replica.Stat().IdleConns())
		require.NoError(t, stop())

		started := time.Now()
		_, err := replica.Position(t.Context())
		requireCode(t, err, errcode.Database)
		require.Less(t, time.Since(started), readTimeout+time.Second)

		startAgain(t, s.Cluster.Standby)
		require.NoError(t, readAtOnce())

		// And when nobody noticed that it was away.
		require.NoError(t, stop())
		startAgain(t, s.Cluster.Standby)
		require.NoError(t, readAtOnce())
	}
}

func TestConfigHidesThePassword(t *testing.T) {
	t.Parallel()
	_, err := OpenReplica(Config{URL: "postgres://u:hidden@127.0.0.1:port/x"})
	require.ErrorContains(t, err, "read server")
	require.NotContains(t, err.Error(), "hidden")
	_, err = OpenPrimary(Config{URL: "postgres://u:hidden@127.0.0.1:port/x"})
	require.ErrorContains(t, err, "primary")
	require.NotContains(t, err.Error(), "hidden")
}

// While the primary is known to be gone, its readers do not wait for it, but for one that looks.
func TestReadsOfAPrimaryThatIsGone(t *testing.T) {
	t.Parallel()
	p := openPrimary(t, pgtest.Shared(t).WriteURL)
	calls := 0
	read := func() error {
		_, err := p.Read(t.Context(), func(ctx context.Context, q read.Querier) error {
			calls++
			_, err := q.ListUserGroupsV1(ctx)
			return err
		})
		return err
	}
	p.goneSince.Store(time.Now().Add(-2 * readRetryBudget).UnixNano())
	p.probed.Store(time.Now().Add(time.Hour).UnixNano())
	requireCode(t, read(), errcode.Database)
	require.Zero(t, calls)
	p.probed.Store(0)
	require.NoError(t, read(), "this one looks")
	require.NoError(t, read(), "and it was back")
	require.Equal(t, 2, calls)
}
