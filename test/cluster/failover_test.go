//go:build cluster

package cluster

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// failover does one cause to the primary and checks what its clients saw.
func failover(t *testing.T, harm, undo func(State) error) Result {
	t.Helper()
	l, _ := steady(t, 4, 4)
	o, err := l.Failover(t.Context(), harm, undo)
	require.NoError(t, err)
	require.NoError(t, l.AwaitReplicaReads(t.Context(), rejoin-o.Rejoin))
	h, r := finish(t, l, o.Fault, false)
	r.Rejoin = o.Rejoin
	require.Empty(t, h.Failed(), "no read fails through the service")
	require.LessOrEqual(t, r.Read, atMost(readGap))
	return r
}

func repeat(t *testing.T, cause string, runs int, harm, undo func(State) error) series {
	t.Helper()
	var s series
	for range runs {
		r := failover(t, harm, undo)
		t.Logf("%s: %+v", cause, r)
		s = append(s, r)
	}
	s.report(t, cause)
	return s
}

func count(full int) int {
	if *short {
		return 1
	}
	return full
}

// atMost is a limit of time. The full form holds what was agreed; one run, on a machine that does other
// things too, fails only if it is far off.
func atMost(agreed time.Duration) time.Duration {
	if *short {
		return 2 * agreed
	}
	return agreed
}

func TestPrimaryContainerKilled(t *testing.T) {
	s := repeat(t, "container killed", count(*kills),
		func(s State) error { _, err := c.Docker(t.Context(), "kill", s.Leader); return err },
		func(s State) error { _, err := c.Docker(t.Context(), "start", s.Leader); return err })
	median, worst := s.writes()
	require.Less(t, worst, atMost(killWorst))
	if len(s) > 1 {
		require.LessOrEqual(t, median, killMedian)
	}
}

// A crash: in the synchronous modes the replica takes over, in the asynchronous one PostgreSQL may
// recover where it is.
func TestPrimaryPostgresKilled(t *testing.T) {
	var s series
	for range count(*times) {
		l, before := steady(t, 4, 4)
		fault := l.Now()
		_, err := c.Exec(t.Context(), before.Leader, "kill -9 $(head -n 1 data/postmaster.pid)")
		require.NoError(t, err)
		require.NoError(t, l.AwaitWrites(t.Context(), l.Now()+50*time.Millisecond, 20, 45*time.Second))
		require.NoError(t, c.Await(t.Context(), rejoin, "two nodes again", State.Healthy))
		back := l.Now() - fault
		require.NoError(t, l.AwaitReplicaReads(t.Context(), rejoin))
		h, r := finish(t, l, fault, false)
		r.Rejoin = back
		t.Logf("postgres killed: %+v", r)
		require.Empty(t, h.Failed())
		require.LessOrEqual(t, r.Read, atMost(readGap))
		s = append(s, r)
	}
	s.report(t, "postgres killed")
	_, worst := s.writes()
	limit := 12 * time.Second
	if *mode != "async" {
		limit = 6 * time.Second
	}
	require.Less(t, worst, atMost(limit))
}

func TestPrimaryFrozen(t *testing.T) {
	if *short {
		t.Log("left to the full form")
		return
	}
	s := repeat(t, "node frozen", *times,
		func(s State) error { _, err := c.Docker(t.Context(), "pause", s.Leader); return err },
		func(s State) error { _, err := c.Docker(t.Context(), "unpause", s.Leader); return err })
	_, worst := s.writes()
	require.Less(t, worst, atMost(killWorst))
}

// The primary loses etcd and the replica, while HAProxy, and so every client, still reaches it.
func TestPrimaryCutOff(t *testing.T) {
	if *short {
		t.Log("left to the full form")
		return
	}
	cut := func(s State) error {
		for _, peer := range append([]string{other(s.Leader)}, Stores...) {
			address := c.Address(peer)
			for _, rule := range [][]string{{"INPUT", "-s"}, {"OUTPUT", "-d"}} {
				if err := c.Netns(t.Context(), s.Leader, "iptables", "-A", rule[0], rule[1], address, "-j", "DROP"); err != nil {
					return err
				}
			}
		}
		return nil
	}
	s := repeat(t, "node cut off", *times, cut,
		func(s State) error { return c.Netns(t.Context(), s.Leader, "iptables", "-F") })
	_, worst := s.writes()
	require.Less(t, worst, atMost(killWorst))
}

// No HTTP client notices a planned switchover as a failure.
func TestSwitchover(t *testing.T) {
	var s series
	for range count(*times) {
		l, before := steady(t, 4, 4)
		fault := l.Now()
		_, err := c.Exec(t.Context(), before.Leader, "psql -X -q -d postgres -c CHECKPOINT && patronictl switchover --leader "+
			before.Leader+" --candidate "+other(before.Leader)+" --force")
		require.NoError(t, err)
		require.NoError(t, c.Await(t.Context(), rejoin, "the roles have changed", func(s State) bool {
			return s.Healthy() && s.Leader != before.Leader
		}))
		back := l.Now() - fault
		require.NoError(t, l.AwaitReplicaReads(t.Context(), rejoin))
		h, r := finish(t, l, fault, false)
		r.Rejoin = back
		t.Logf("switchover: %+v", r)
		require.Empty(t, h.Failed())
		require.Zero(t, r.Refused+r.Unknown, "writes wait inside the service")
		require.Zero(t, r.Lost)
		s = append(s, r)
	}
	s.report(t, "switchover")
	_, worst := s.writes()
	require.Less(t, worst, atMost(3*time.Second))
}

func TestReplicaKilled(t *testing.T) {
	var s series
	for range count(*times) {
		l, before := steady(t, 4, 4)
		fault := l.Now()
		replica := other(before.Leader)
		_, err := c.Docker(t.Context(), "kill", replica)
		require.NoError(t, err)
		require.NoError(t, l.AwaitWrites(t.Context(), fault+3*time.Second, 100, 30*time.Second))
		undone := l.Now()
		_, err = c.Docker(t.Context(), "start", replica)
		require.NoError(t, err)
		require.NoError(t, l.AwaitReplicaReads(t.Context(), rejoin))
		back := l.Now() - undone
		h, r := finish(t, l, fault, false)
		r.Rejoin = back
		t.Logf("replica killed: %+v", r)
		require.Empty(t, h.Failed(), "no read fails through the service")
		require.LessOrEqual(t, r.Read, atMost(readGap))
		require.Zero(t, r.Lost)
		s = append(s, r)
	}
	s.report(t, "replica killed")
}

func other(node string) string {
	if node == Nodes[0] {
		return Nodes[1]
	}
	return Nodes[0]
}
