package cache_test

import (
	"context"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/cache"
	"github.com/payment-services/accounts/internal/pgtest"
	"github.com/payment-services/accounts/internal/routing"
)

// What the primary had acknowledged and not yet sent is lost with it. The new primary's world is the
// one that counts, also while the old one is still up.
func TestPromotionLosesTheTail(t *testing.T) {
	t.Parallel()
	s := pgtest.Private(t)
	ctx := t.Context()
	r := newRedis(t)
	onStandby := func(url string) string {
		return strings.Replace(url, s.Cluster.Primary.Address(), s.Cluster.Standby.Address(), 1)
	}
	old := newProcess(t, s.WriteURL, s.PrimaryReadURL, r.URL)
	follows := newProcess(t, s.FailoverWriteURL, s.FailoverReadURL, r.URL)
	id, _ := old.createUser(t, "+79160000000", "old")
	require.NoError(t, s.WaitForReplay(ctx))

	// An idle primary: its position does not move, and the standby has reached it.
	require.NoError(t, follows.Attach(ctx))
	follows.later(t)
	require.NoError(t, s.WaitForReplay(ctx)) // of what the server itself may have written
	require.Equal(t, routing.FromReplica, follows.answer(t, id).Server)

	// The standby receives nothing any more.
	execute(t, onStandby(s.SuperURL), "ALTER SYSTEM SET primary_conninfo = ''")
	execute(t, onStandby(s.SuperURL), "SELECT pg_reload_conf()")
	eventually(t, "the standby is cut off", func() bool {
		pos, err := follows.replica.Position(ctx)
		return err == nil && pos.Timeline == 0
	})
	require.NoError(t, old.Attach(ctx))
	old.invalidate(old.setProfile(t, id, "lost"))
	require.Contains(t, string(follows.answer(t, id).Body), "lost")
	require.Equal(t, cache.Hit, follows.answer(t, id).Status)
	unproven := follows.Count("loads", "primary")
	follows.later(t)
	require.NoError(t, follows.Redis().Del(ctx, cache.UserKey(id).Physical()).Err())
	require.Contains(t, string(follows.answer(t, id).Body), "lost", "a standby on an unknown timeline proves nothing")
	require.Equal(t, unproven+1, follows.Count("loads", "primary"))

	require.NoError(t, s.Cluster.Promote(ctx))
	promoted := newProcess(t, onStandby(s.WriteURL), s.PrimaryReadURL, r.URL) // its replica is the old primary
	require.NoError(t, promoted.Attach(ctx))
	got := promoted.answer(t, id)
	require.Contains(t, string(got.Body), "old", "the entry of the lost write is dead")
	promoted.later(t)
	require.NoError(t, promoted.Redis().Del(ctx, cache.UserKey(id).Physical()).Err())
	require.Contains(t, string(promoted.answer(t, id).Body), "old", "the old primary is no replica of the new one")

	// The old primary still answers. What it says is not kept, and it is not written to.
	require.NoError(t, old.Redis().Del(ctx, cache.UserKey(id).Physical()).Err())
	old.answer(t, id)
	require.Empty(t, old.entry(t, cache.UserKey(id)))
	require.NoError(t, old.Attach(ctx))
	require.True(t, old.Stale())
	_, err := old.service.CreateGroup(ctx, "on the old timeline")
	requireUnavailable(t, err)
	require.Contains(t, string(promoted.answer(t, id).Body), "old")

	// Who follows finds the new primary as soon as the old one is gone.
	require.NoError(t, s.Cluster.Primary.Kill())
	eventually(t, "the new primary is found", func() bool { return follows.Attach(ctx) == nil })
	require.False(t, follows.Stale())
	require.Contains(t, string(follows.answer(t, id).Body), "old")
	follows.invalidate(follows.setProfile(t, id, "new"))
	require.Contains(t, string(promoted.answer(t, id).Body), "new")
}

// The document's snapshot is taken, then the standby catches up, and then somebody asks how far it is:
// the old row would come with a good proof. A lock that the standby has replayed opens that gap.
func TestProofIsReadBeforeTheDocument(t *testing.T) {
	t.Parallel()
	s := pgtest.Private(t)
	ctx := t.Context()
	p := newProcess(t, s.WriteURL, s.ReadURL, newRedis(t).URL)
	id, _ := p.createUser(t, "+79160000000", "old")
	require.NoError(t, s.WaitForReplay(ctx))
	require.NoError(t, p.Attach(ctx))

	writer, err := pgx.Connect(ctx, s.UncheckedURL("writes a document without a function, under a lock of the table"))
	require.NoError(t, err)
	defer writer.Close(context.Background())
	for _, sql := range []string{
		"BEGIN", "LOCK TABLE accounts.users IN ACCESS EXCLUSIVE MODE",
		`UPDATE accounts.users SET profile = '{"v":"new"}'`,
	} {
		_, err = writer.Exec(ctx, sql)
		require.NoError(t, err)
	}
	execute(t, s.SuperURL, "SELECT pg_logical_emit_message(true, '', '')") // a commit flushes the WAL up to it
	standby, err := pgx.Connect(ctx, s.ReadURL)
	require.NoError(t, err)
	defer standby.Close(context.Background())
	locks := func(granted bool) (n int) {
		err := standby.QueryRow(ctx, "SELECT count(*) FROM pg_locks WHERE relation = 'accounts.users'::regclass AND granted = $1", granted).Scan(&n)
		require.NoError(t, err)
		return n
	}
	eventually(t, "the standby has replayed the lock", func() bool { return locks(true) > 0 })
	require.NoError(t, s.Cluster.PauseReplay(ctx))
	_, err = writer.Exec(ctx, "COMMIT")
	require.NoError(t, err)
	p.Invalidate(ctx, []string{string(cache.UserKey(id))}, nil)
	p.later(t)

	reader := async(t, func() (cache.Result, error) { return p.get(&loader{id: id}) })
	eventually(t, "the document waits for the lock", func() bool { return locks(false) > 0 })
	require.NoError(t, s.Cluster.ResumeReplay(ctx))
	require.Contains(t, string(reader().Body), "new")
	require.NotContains(t, p.entry(t, cache.UserKey(id)), "old")
}
