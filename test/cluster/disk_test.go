//go:build cluster

package cluster

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The replica is away, and the primary writes more than a slot may hold back: the primary's disk
// does not fill, and the replica, which cannot catch up, is made anew by `make reinit`.
func TestSlotLimit(t *testing.T) {
	if *short {
		t.Log("left to the full form")
		return
	}
	_, before := steady(t, 1, 1)
	replica := other(before.Leader)
	configure := func(keep, slot string) {
		t.Helper()
		_, err := c.Exec(t.Context(), before.Leader, `patronictl edit-config --force --quiet -p wal_keep_size=`+keep+` -p max_slot_wal_keep_size=`+slot)
		require.NoError(t, err)
	}
	configure("32MB", "64MB")
	docker(t, "kill", replica)
	_, err := c.SQL(t.Context(), before.Leader, "CREATE TABLE public.filler AS SELECT repeat(md5(g::text), 30) AS t FROM generate_series(1, 300000) AS g")
	require.NoError(t, err)
	_, err = c.SQL(t.Context(), before.Leader, "CHECKPOINT")
	require.NoError(t, err)
	status, err := c.SQL(t.Context(), before.Leader, "SELECT string_agg(wal_status, ',') FROM pg_replication_slots")
	require.NoError(t, err)
	t.Logf("the slot's WAL is %s", status)
	require.Equal(t, "lost", status)
	docker(t, "start", replica)
	l, err := c.StartLoad(t.Context(), 2, 2)
	require.NoError(t, err)
	require.NoError(t, l.AwaitWrites(t.Context(), l.Now(), 50, 20*time.Second), "the primary goes on alone")
	if state, err := c.State(t.Context()); err == nil && !state.Healthy() {
		_, err := c.Exec(t.Context(), before.Leader, "patronictl reinit accounts "+replica+" --force")
		require.NoError(t, err)
	}
	require.NoError(t, c.Await(t.Context(), rejoin, "the replica was made anew", State.Healthy))
	_, r := finish(t, l, 0, false)
	require.Zero(t, r.Lost)
	configure("256MB", "1GB")
	_, err = c.SQL(t.Context(), before.Leader, "DROP TABLE public.filler")
	require.NoError(t, err)
}

// A full disk on either node. Patroni promises nothing here; no acknowledged write may be lost, and
// with the space the cluster comes back by itself.
func TestDiskFull(t *testing.T) {
	if *short {
		t.Log("left to the full form")
		return
	}
	another(t, "disk", "test/cluster/small-disks.yml")
	for _, whose := range []string{"replica", "primary"} {
		l, before := steady(t, 4, 4)
		node := before.Leader
		if whose == "replica" {
			node = other(node)
		}
		fault := l.Now()
		// What is left after this is less than one segment of WAL.
		_, err := c.Exec(t.Context(), node, `fallocate -l $(($(df --output=avail -B1 . | tail -n 1) - 2000000)) fill`)
		require.NoError(t, err)
		filled := 0
		for filled < 60 && l.Now() < fault+40*time.Second {
			// Make WAL until the node feels it; an error is what is waited for.
			state, err := c.State(t.Context())
			if err == nil && state.Leader != "" {
				_, _ = c.SQL(t.Context(), state.Leader, "SELECT pg_switch_wal()")
			}
			filled++
		}
		during, err := c.State(t.Context())
		require.NoError(t, err)
		t.Logf("the %s's disk is full: %+v", whose, during)
		_, err = c.Exec(t.Context(), node, "rm fill")
		require.NoError(t, err)
		require.NoError(t, c.Await(t.Context(), 3*rejoin, "a healthy cluster", State.Healthy))
		require.NoError(t, l.AwaitWrites(t.Context(), l.Now(), 50, 20*time.Second))
		after, err := c.State(t.Context())
		require.NoError(t, err)
		h, r := finish(t, l, fault, false)
		t.Logf("the %s's disk was full: %+v, %d reads failed, timeline %d -> %d", whose, r, len(h.Failed()), before.Timeline, after.Timeline)
		require.Zero(t, r.Lost)
		require.LessOrEqual(t, after.Timeline-before.Timeline, 1, "no flapping")
	}
}
