package db_test

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/dbgen/read"
	"github.com/payment-services/accounts/internal/dbgen/write"
	"github.com/payment-services/accounts/internal/pgtest"
)

func TestGenerateUUID(t *testing.T) {
	t.Parallel()
	a := open(t)
	before := value[int64](t, a.super, "SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint")
	ids := column[uuid.UUID](t, a.super, "SELECT accounts.generate_uuid_v1() FROM generate_series(1, 2000)")
	after := value[int64](t, a.super, "SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint")

	last := before
	seen := map[uuid.UUID]bool{}
	for _, id := range ids {
		require.EqualValues(t, 7, id.Version())
		require.Equal(t, uuid.RFC4122, id.Variant())
		sec, nsec := id.Time().UnixTime()
		ms := sec*1000 + nsec/int64(time.Millisecond)
		require.GreaterOrEqual(t, ms, last)
		last = ms
		seen[id] = true
	}
	require.LessOrEqual(t, last, after)
	require.Len(t, seen, len(ids))
	require.True(t, slices.IsSortedFunc(ids, func(a, b uuid.UUID) int { return bytes.Compare(a[:6], b[:6]) }))
}

func TestCacheOutbox(t *testing.T) {
	t.Parallel()
	a := open(t)
	status, err := a.read.GetCacheOutboxStatusV1(t.Context())
	require.NoError(t, err)
	require.Equal(t, read.CacheOutboxStatusV1{}, status)

	g := a.createGroup("one")
	second, err := a.write.UpdateUserGroupV1(t.Context(), write.UpdateUserGroupV1Params{GroupID: g.ID, Name: ptr("two"), NameKey: ptr("two")})
	require.NoError(t, err)
	third := a.createGroup("three")
	execute(t, a.super, "UPDATE accounts.cache_outbox SET created_at = created_at - interval '1 minute' WHERE id <> $1", *third.OutboxID)

	status, err = a.read.GetCacheOutboxStatusV1(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 3, status.Pending)
	require.InDelta(t, time.Minute.Milliseconds(), status.OldestAgeMs, float64(10*time.Second.Milliseconds()))

	ids := func(entries []write.CacheOutboxEntryV1) (ids []int64) {
		for _, e := range entries {
			ids = append(ids, e.ID)
		}
		return ids
	}
	claim := func(minAge time.Duration, limit int32) []write.CacheOutboxEntryV1 {
		entries, err := a.write.ClaimCacheOutboxV1(t.Context(), int32(minAge.Milliseconds()), limit)
		require.NoError(t, err)
		return entries
	}
	pending := func(id int64) bool {
		is, err := a.read.IsCacheOutboxPendingV1(t.Context(), id)
		require.NoError(t, err)
		return is
	}
	old := claim(30*time.Second, 10)
	require.Equal(t, []int64{*g.OutboxID, *second.OutboxID}, ids(old), "by id, and only what is old enough")
	require.Equal(t, []string{"d:user_groups"}, old[1].Keys)
	require.Equal(t, []string{"g:" + g.ID.String()}, old[1].Deps)
	require.Equal(t, []string{}, old[0].Deps)
	require.Equal(t, []int64{*g.OutboxID}, ids(claim(30*time.Second, 1)))
	require.Empty(t, claim(time.Hour, 10))
	require.Len(t, claim(0, 10), 3)

	require.True(t, pending(*g.OutboxID))
	require.NoError(t, a.write.DeleteCacheOutboxV1(t.Context(), []int64{*g.OutboxID, *second.OutboxID, 1 << 40}))
	require.False(t, pending(*g.OutboxID))
	require.True(t, pending(*third.OutboxID))
	require.NoError(t, a.write.DeleteCacheOutboxV1(t.Context(), []int64{*g.OutboxID}))
	require.NoError(t, a.write.DeleteCacheOutboxV1(t.Context(), nil))
	require.Equal(t, []int64{*third.OutboxID}, ids(claim(0, 10)))
}

// A relay without work must not write WAL: it runs four times a second in every process.
func TestClaimCacheOutbox_WritesNothingWithoutRows(t *testing.T) {
	t.Parallel()
	a := open(t)
	tx, err := a.conn.Begin(t.Context())
	require.NoError(t, err)
	rows, err := write.New(tx).ClaimCacheOutboxV1(t.Context(), 0, 10)
	require.NoError(t, err)
	require.Empty(t, rows)
	require.Nil(t, value[*string](t, tx.Conn(), "SELECT pg_current_xact_id_if_assigned()::text"))
	require.NoError(t, tx.Rollback(t.Context()))
}

func TestNamedLocks(t *testing.T) {
	t.Parallel()
	a := open(t)
	try := func(conn *pgx.Conn, name string) (got bool, err error) {
		err = conn.QueryRow(t.Context(), "SELECT accounts.try_named_lock_v1($1)", name).Scan(&got)
		return got, err
	}
	holder, other := connect(t, a.MigrateURL), connect(t, a.MigrateURL)
	for name, end := range map[string]string{"commit": "COMMIT", "rollback": "ROLLBACK", "lost connection": ""} {
		execute(t, holder, "BEGIN")
		got, err := try(holder, "cache_outbox")
		require.NoError(t, err)
		require.True(t, got, name)
		got, err = try(holder, "cache_outbox")
		require.NoError(t, err)
		require.True(t, got, "again in the same transaction")
		got, err = try(other, "cache_outbox")
		require.NoError(t, err)
		require.False(t, got, name)
		got, err = try(other, "user_groups")
		require.NoError(t, err)
		require.True(t, got, "another name is another lock")
		if end == "" {
			require.NoError(t, holder.Close(t.Context()))
			holder = connect(t, a.MigrateURL)
		} else {
			execute(t, holder, end)
		}
		require.Eventually(t, func() bool {
			got, err := try(other, "cache_outbox")
			return err == nil && got
		}, waitLimit, pollTick, name)
	}
	for _, call := range []string{"SELECT accounts.try_named_lock_v1('unknown')", "SELECT accounts.take_named_lock_v1('unknown')"} {
		_, err := other.Exec(t.Context(), call)
		requireState(t, err, "P0004", "", "")
	}
	// No login reaches the row or the helpers.
	for _, url := range []string{a.WriteURL, a.PrimaryReadURL} {
		conn := connect(t, url)
		execute(t, conn, "SET default_transaction_read_only = off")
		for _, attempt := range []string{
			"SELECT FROM accounts.named_locks FOR UPDATE", "DO $$ BEGIN LOCK TABLE accounts.named_locks; END $$",
			"SELECT accounts.try_named_lock_v1('cache_outbox')", "SELECT accounts.take_named_lock_v1('cache_outbox')",
		} {
			_, err := conn.Exec(t.Context(), attempt)
			requireState(t, err, denied, "", "")
		}
	}
}

func TestOneRelayAtATime(t *testing.T) {
	t.Parallel()
	a := open(t)
	a.createGroup("one")
	var mine, theirs []write.CacheOutboxEntryV1
	var mineErr, theirsErr error
	a.sideBySide(
		func(q *write.Queries) { mine, mineErr = q.ClaimCacheOutboxV1(t.Context(), 0, 10) },
		func(q *write.Queries) { theirs, theirsErr = q.ClaimCacheOutboxV1(t.Context(), 0, 10) })
	require.NoError(t, mineErr)
	require.Len(t, mine, 1)
	require.NoError(t, theirsErr)
	require.Empty(t, theirs, "another relay works: nothing, at once")

	theirs, err := a.write.ClaimCacheOutboxV1(t.Context(), 0, 10)
	require.NoError(t, err)
	require.Equal(t, mine, theirs)
}

// A writer that deletes its own row does not wait for the relay that deletes it too, nor deadlocks.
func TestDeletionSkipsLockedOutboxRows(t *testing.T) {
	t.Parallel()
	a := open(t)
	one, two := a.createGroup("one"), a.createGroup("two")
	var left []int64
	var firstErr, secondErr error
	a.sideBySide(
		func(q *write.Queries) { firstErr = q.DeleteCacheOutboxV1(t.Context(), []int64{*one.OutboxID}) },
		func(q *write.Queries) {
			secondErr = q.DeleteCacheOutboxV1(t.Context(), []int64{*two.OutboxID, *one.OutboxID})
			left = column[int64](t, a.super, "SELECT id FROM accounts.cache_outbox")
		})
	require.NoError(t, firstErr)
	require.NoError(t, secondErr)
	require.Equal(t, []int64{*one.OutboxID}, left)
	require.Zero(t, a.count("cache_outbox"))
}

// The row belongs to the write: a write that is undone owes nothing.
func TestOutboxRowIsPartOfTheWrite(t *testing.T) {
	t.Parallel()
	a := open(t)
	tx, err := a.conn.Begin(t.Context())
	require.NoError(t, err)
	_, err = writerIn(tx).CreateUserGroupV1(t.Context(), "one", "one")
	require.NoError(t, err)
	require.NoError(t, tx.Rollback(t.Context()))
	require.Zero(t, a.count("cache_outbox"))
}

func TestReplicationPosition(t *testing.T) {
	t.Parallel()
	a := open(t)
	standby := read.New(connect(t, a.ReadURL))
	a.createGroup("one")
	primary, err := a.read.GetReplicationPositionV1(t.Context())
	require.NoError(t, err)
	require.NoError(t, a.WaitForReplay(t.Context()))
	follower, err := standby.GetReplicationPositionV1(t.Context())
	require.NoError(t, err)

	require.Equal(t, value[int64](t, a.super, "SELECT system_identifier FROM pg_control_system()"), primary.SystemIdentifier)
	require.Equal(t, primary.SystemIdentifier, follower.SystemIdentifier)
	require.False(t, primary.InRecovery)
	require.True(t, follower.InRecovery)
	require.EqualValues(t, 1, *primary.Timeline)
	require.EqualValues(t, 1, *follower.Timeline)
	require.Positive(t, *primary.Lsn)
	require.GreaterOrEqual(t, *follower.Lsn, *primary.Lsn)
	groups, err := standby.ListUserGroupsV1(t.Context())
	require.NoError(t, err)
	require.Len(t, groups, 1, "a standby at the primary's position has what was committed before it")
}

func TestReplicationPositionAcrossAPromotion(t *testing.T) {
	t.Parallel()
	s := pgtest.Private(t)
	require.NoError(t, s.WaitForReplay(t.Context()))
	standby := connect(t, s.ReadURL)
	require.NoError(t, s.Cluster.Primary.Kill())
	require.Eventually(t, func() bool {
		at, err := read.New(standby).GetReplicationPositionV1(t.Context())
		return err == nil && at.InRecovery && at.Timeline == nil && at.Lsn != nil
	}, waitLimit, pollTick, "without a WAL receiver the timeline is not known")

	before, err := read.New(standby).GetReplicationPositionV1(t.Context())
	require.NoError(t, err)
	require.NoError(t, s.Cluster.Promote(t.Context()))
	after, err := read.New(standby).GetReplicationPositionV1(t.Context())
	require.NoError(t, err)
	require.False(t, after.InRecovery)
	require.EqualValues(t, 2, *after.Timeline, "at once, not after the next checkpoint")
	require.GreaterOrEqual(t, *after.Lsn, *before.Lsn)
	require.Equal(t, before.SystemIdentifier, after.SystemIdentifier)
}

func TestSchemaVersion(t *testing.T) {
	t.Parallel()
	a := open(t)
	got, err := a.read.GetSchemaVersionV1(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, len(migrationFiles(t)), got)
}
