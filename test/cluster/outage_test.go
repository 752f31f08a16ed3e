//go:build cluster

package cluster

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// during runs harm, lets the clients go on for some time, runs undo, and returns what they saw.
func during(t *testing.T, harm func(State), lasting time.Duration, undo func(State)) (History, Result, State) {
	t.Helper()
	l, before := steady(t, 4, 4)
	fault := l.Now()
	harm(before)
	for l.Now() < fault+lasting {
		require.NoError(t, l.AwaitWrites(t.Context(), l.Now(), 1, 45*time.Second))
	}
	if undo != nil {
		undo(before)
	}
	require.NoError(t, c.Await(t.Context(), rejoin, "a healthy cluster", State.Healthy))
	require.NoError(t, l.AwaitReplicaReads(t.Context(), rejoin))
	h, r := finish(t, l, fault, false)
	after, err := c.State(t.Context())
	require.NoError(t, err)
	t.Logf("%+v; timeline %d -> %d", r, before.Timeline, after.Timeline)
	return h, r, after
}

func docker(t *testing.T, command string, services ...string) {
	t.Helper()
	for _, service := range services {
		_, err := c.Docker(t.Context(), command, service)
		require.NoError(t, err)
	}
}

// quiet is what clients see of a fault that they must not notice.
func quiet(t *testing.T, h History, r Result, before, after State) {
	t.Helper()
	require.Empty(t, h.Failed())
	require.Zero(t, r.Refused+r.Unknown+r.Lost)
	require.Equal(t, before.Timeline, after.Timeline, "there was no failover")
}

func TestOneStoreDown(t *testing.T) {
	out, err := c.Exec(t.Context(), Stores[0], "etcdctl --endpoints=etcd-1:2379,etcd-2:2379,etcd-3:2379 endpoint status")
	require.NoError(t, err)
	leader := ""
	for line := range strings.Lines(out) { // endpoint, id, version, size, is leader, ...
		if fields := strings.Split(line, ", "); fields[4] == "true" {
			leader, _, _ = strings.Cut(fields[0], ":")
		}
	}
	require.Contains(t, Stores, leader, "etcd's leader is the one whose loss is noticed most")
	var before State
	h, r, after := during(t, func(s State) { before = s; docker(t, "kill", leader) }, 12*time.Second, func(State) { docker(t, "start", leader) })
	quiet(t, h, r, before, after)
}

// Without etcd nobody can be elected; the primary goes on as long as it reaches the replica.
func TestAllStoresDown(t *testing.T) {
	for _, how := range []struct{ harm, undo string }{{"kill", "start"}, {"pause", "unpause"}} {
		var before State
		h, r, after := during(t, func(s State) { before = s; docker(t, how.harm, Stores...) }, 40*time.Second,
			func(State) { docker(t, how.undo, Stores...) })
		t.Logf("etcd: %s of all three", how.harm)
		quiet(t, h, r, before, after)
		if *short {
			return
		}
	}
}

// The primary alone is cut off from etcd: the failsafe again.
func TestPrimaryCutOffFromStores(t *testing.T) {
	if *short {
		t.Log("left to the full form")
		return
	}
	var before State
	h, r, after := during(t, func(s State) {
		before = s
		for _, store := range Stores {
			require.NoError(t, c.Netns(t.Context(), s.Leader, "iptables", "-A", "OUTPUT", "-d", c.Address(store), "-j", "DROP"))
		}
	}, 40*time.Second, func(s State) { require.NoError(t, c.Netns(t.Context(), s.Leader, "iptables", "-F")) })
	quiet(t, h, r, before, after)
}

// After HAProxy is back, the service is within two seconds; reads that are in the cache never stop.
func TestDatabaseProxyRestarted(t *testing.T) {
	l, _ := steady(t, 4, 4)
	fault := l.Now()
	docker(t, "restart -t 0", "haproxy")
	back := l.Now()
	require.NoError(t, l.AwaitWrites(t.Context(), back, 20, 20*time.Second))
	require.NoError(t, l.AwaitReplicaReads(t.Context(), 20*time.Second))
	h, r := finish(t, l, fault, false)
	for _, w := range h.Writes {
		if w.Outcome == Acked && w.Ended > back {
			t.Logf("HAProxy was away for %s; a write succeeded %s after; %d reads failed meanwhile; %+v", back-fault, w.Ended-back, len(h.Failed()), r)
			require.Less(t, w.Ended-back, atMost(2*time.Second))
			break
		}
	}
	require.Zero(t, r.Lost)
}

// Redis is gone, frozen, or empty: slower, never wrong, and nothing fails.
func TestCacheDown(t *testing.T) {
	for _, how := range []struct{ harm, undo string }{{"kill", "start"}, {"pause", "unpause"}, {"restart -t 0", ""}} {
		var before State
		h, r, after := during(t, func(s State) { before = s; docker(t, how.harm, "redis-cache") }, 8*time.Second, func(State) {
			if how.undo != "" {
				docker(t, how.undo, "redis-cache")
			}
		})
		t.Logf("redis-cache: %s", how.harm)
		quiet(t, h, r, before, after)
		require.Empty(t, h.Stale())
	}
}

func TestCacheFlushed(t *testing.T) {
	var before State
	h, r, after := during(t, func(s State) {
		before = s
		_, err := c.Exec(t.Context(), "redis-cache", `REDISCLI_AUTH="$REDIS_PASSWORD" redis-cli flushall`)
		require.NoError(t, err)
	}, 3*time.Second, nil)
	quiet(t, h, r, before, after)
	require.Empty(t, h.Stale())
}

// The revocation list is gone: the process's own copy decides.
func TestRevocationListDown(t *testing.T) {
	var before State
	h, r, after := during(t, func(s State) { before = s; docker(t, "kill", "redis-auth") }, 8*time.Second, func(State) { docker(t, "start", "redis-auth") })
	quiet(t, h, r, before, after)
}

// A process of the service is killed in mid-write: its clients do not know what became of their
// writes, and nothing is there by half (Load.Final looks).
func TestServiceKilled(t *testing.T) {
	l, _ := steady(t, 16, 4)
	fault := l.Now()
	docker(t, "kill", Services[0])
	require.NoError(t, l.AwaitWrites(t.Context(), fault+2*time.Second, 100, 20*time.Second))
	docker(t, "start", Services[0])
	require.NoError(t, c.Start(t.Context()))
	h, r := finish(t, l, fault, true)
	t.Logf("%+v", r)
	require.Zero(t, r.Lost)
	require.Empty(t, h.Failed(), "the edge asks the other process")
	require.LessOrEqual(t, r.Unknown, 16, "only what was in flight")
}

// A new version, one process after the other: no client notices.
func TestRollingRestart(t *testing.T) {
	l, _ := steady(t, 8, 8)
	fault := l.Now()
	for range 2 {
		for _, service := range Services {
			_, err := c.Compose(t.Context(), "up", "--detach", "--no-deps", "--force-recreate", "--wait", service)
			require.NoError(t, err)
			// Until the edge has found it again: then the next may go.
			require.NoError(t, Eventually(t.Context(), 20*time.Second, func() error {
				out, err := c.Exec(t.Context(), "edge", "curl -s http://localhost:8404/metrics")
				if err == nil && !strings.Contains(out, fmt.Sprintf(`haproxy_server_status{proxy="accounts",server="%s",state="UP"} 1`, service)) {
					err = fmt.Errorf("the edge does not see %s", service)
				}
				return err
			}))
		}
	}
	h, r := finish(t, l, fault, false)
	t.Logf("%d writes, %d reads: %+v", len(h.Writes), len(h.Reads), r)
	require.Empty(t, h.Failed())
	require.Zero(t, r.Refused+r.Unknown+r.Lost)
}

// docker stop: Patroni hands the lock over before it ends.
func TestPrimaryStopped(t *testing.T) {
	s := repeat(t, "node stopped", 1,
		func(s State) error { _, err := c.Docker(t.Context(), "stop -t 60", s.Leader); return err },
		func(s State) error { _, err := c.Docker(t.Context(), "start", s.Leader); return err })
	_, worst := s.writes()
	require.Less(t, worst, atMost(6*time.Second))
}

// Hundreds of clients meet the new primary at once.
func TestConnectionStorm(t *testing.T) {
	if *short {
		t.Log("left to the full form")
		return
	}
	l, before := steady(t, 150, 150)
	fault := l.Now()
	docker(t, "kill", before.Leader)
	require.NoError(t, l.AwaitWrites(t.Context(), l.Now()+100*time.Millisecond, 500, 60*time.Second))
	docker(t, "start", before.Leader)
	require.NoError(t, c.Await(t.Context(), rejoin, "a healthy cluster", State.Healthy))
	// Three hundred clients in one process on the servers' own processors measure themselves, too.
	h, r, err := l.Finish(t.Context(), fault)
	require.NoError(t, err)
	require.Empty(t, h.BadAnswers(answerLimit+time.Second, false))
	t.Logf("%d writes, %d reads: %+v", len(h.Writes), len(h.Reads), r)
	require.Less(t, r.Write, atMost(killWorst))
	for _, failed := range h.Failed() {
		require.Equal(t, http.StatusServiceUnavailable, failed.Status)
	}
}

// A node that crawls and a network that loses packets: no flapping, which is more than one failover.
func TestSlowNodeAndLossyNetwork(t *testing.T) {
	if *short {
		t.Log("left to the full form")
		return
	}
	for _, fault := range []struct {
		name       string
		harm, undo func(State) error
	}{
		{"5 % of a processor",
			func(s State) error { _, err := c.Docker(t.Context(), "update --cpus 0.05", s.Leader); return err },
			func(s State) error { _, err := c.Docker(t.Context(), "update --cpus 2", s.Leader); return err }},
		{"every fifth packet lost",
			func(s State) error {
				return c.Netns(t.Context(), s.Leader, "iptables", "-A", "INPUT", "-m", "statistic", "--mode", "random", "--probability", "0.2", "-j", "DROP")
			},
			func(s State) error { return c.Netns(t.Context(), s.Leader, "iptables", "-F") }},
	} {
		l, before := steady(t, 4, 4)
		at := l.Now()
		require.NoError(t, fault.harm(before))
		select {
		case <-t.Context().Done():
		case <-time.After(40 * time.Second): // the fault lasts; there is nothing to wait for
		}
		require.NoError(t, fault.undo(before))
		require.NoError(t, c.Await(t.Context(), 2*rejoin, "a healthy cluster", State.Healthy))
		require.NoError(t, l.AwaitWrites(t.Context(), l.Now(), 50, 30*time.Second))
		until := l.Now()
		final, err := l.Final(t.Context())
		require.NoError(t, err)
		h := l.Stop().Between(0, until)
		after, err := c.State(t.Context())
		require.NoError(t, err)
		lost := h.Lost(final)
		t.Logf("%s: write gap %s, read gap %s, %d reads failed, %d writes refused, %d unknown, %d lost, timeline %d -> %d", fault.name,
			h.WriteGap(at, until), h.ReadGap(at, until), len(h.Failed()), h.Count(Refused), h.Count(Unknown), len(lost), before.Timeline, after.Timeline)
		require.LessOrEqual(t, after.Timeline-before.Timeline, 1, "no flapping")
		if *mode != "async" {
			require.Empty(t, lost)
		}
		promoted, err := c.Promoted(t.Context())
		require.NoError(t, err)
		require.NoError(t, h.TwoPrimaries(lost, l.At(promoted)))
	}
}

// A frozen primary wakes up and believes for a moment that it still is one. Who reaches it directly,
// which the networks and pg_hba prevent for everyone but the nodes, may be told in asynchronous mode
// that a write was done; in the synchronous modes never.
func TestFrozenPrimaryWakes(t *testing.T) {
	if *short {
		t.Log("left to the full form")
		return
	}
	l, before := steady(t, 4, 4)
	fault := l.Now()
	docker(t, "pause", before.Leader)
	require.NoError(t, l.AwaitWrites(t.Context(), l.Now()+100*time.Millisecond, 50, 45*time.Second))
	var direct sync.WaitGroup
	var acknowledged string
	direct.Go(func() {
		acknowledged, _ = c.Exec(context.WithoutCancel(t.Context()), other(before.Leader), fmt.Sprintf(
			`export PGPASSWORD=%s PGCONNECT_TIMEOUT=2; n=0; i=0
			 while [ $i -lt 100 ]; do i=$((i+1))
			   psql -X -q -t -h %s -U accounts_writer -d accounts -c "SET statement_timeout = '2s'; SELECT g.id FROM (SELECT 'direct ' || now() || ' $i' AS name) AS n, accounts.create_user_group_v1(n.name, lower(n.name)) AS g" >/dev/null 2>&1 && n=$((n+1))
			 done; echo $n`, c.Secret("ACCOUNTS_WRITER_PASSWORD"), c.Address(before.Leader)))
	})
	docker(t, "unpause", before.Leader)
	require.NoError(t, c.Await(t.Context(), rejoin, "the former primary is a replica", State.Healthy))
	direct.Wait()
	_, r := finish(t, l, fault, false)
	t.Logf("a direct client was acknowledged %s writes; %+v", strings.TrimSpace(acknowledged), r)
	require.NotEmpty(t, strings.TrimSpace(acknowledged))
	if *mode != "async" {
		require.Equal(t, "0", strings.TrimSpace(acknowledged))
	}
}

// The node loses its whole network, and gets it back.
func TestPrimaryDisconnected(t *testing.T) {
	if *short {
		t.Log("left to the full form")
		return
	}
	network := c.cfg.Project + "_nodes"
	repeat(t, "node disconnected", 1,
		func(s State) error {
			_, err := c.Docker(t.Context(), "network disconnect "+network, s.Leader)
			return err
		},
		func(s State) error {
			_, err := c.Docker(t.Context(), "network connect --ip "+c.Address(s.Leader)+" --alias "+s.Leader+" "+network, s.Leader)
			return err
		})
}
