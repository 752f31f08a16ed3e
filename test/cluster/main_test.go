//go:build cluster

package cluster

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var (
	short = flag.Bool("short-form", false, "each cause once or not at all, in a few minutes")
	kills = flag.Int("kills", 10, "how often the primary's container is killed in each mode")
	times = flag.Int("times", 3, "how often every other cause is repeated")
	mode  = flag.String("mode", "async", "REPLICATION_MODE of the suite; sync-strict, sync or async")
	name  = flag.String("project", "accounts-test", "name of the compose project; another cluster of this name is removed")
	keep  = flag.Bool("keep", false, "leave the cluster running")
)

// The limits that were agreed.
const (
	answerLimit = 5 * time.Second
	readGap     = 1500 * time.Millisecond
	loopWait    = 10 * time.Second // the longest of the modes
	killMedian  = 20 * time.Second
	killWorst   = 30 * time.Second
)

// c is the one cluster of the suite; its tests run one after the other.
var c *Cluster

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(suite(m))
}

func suite(m *testing.M) int {
	ctx := context.Background()
	root, err := filepath.Abs("../..")
	if err != nil {
		panic(err)
	}
	dir, err := os.MkdirTemp("", "accounts-cluster")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	started := time.Now()
	c, err = Up(ctx, Config{Root: root, Dir: dir, Project: *name, Mode: *mode})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Printf("built and up in %s\n", time.Since(started).Round(time.Second))
	code := m.Run()
	if !*keep {
		if err := c.Down(ctx); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return code
}

// another makes c another cluster until the test ends, which the file changes.
func another(t *testing.T, project, file string) {
	t.Helper()
	mine := c
	own, err := Up(t.Context(), Config{
		Root: c.cfg.Root, Dir: t.TempDir(), Project: *name + "-" + project, Mode: *mode, Files: []string{file},
		Environment: []string{"NODE_IMAGE=" + *name + "-postgres"},
	})
	require.NoError(t, err)
	c = own
	t.Cleanup(func() {
		c = mine
		require.NoError(t, own.Down(context.WithoutCancel(t.Context())))
	})
}

// steady starts clients on a healthy cluster and waits until they are served from both pools.
func steady(t *testing.T, writers, readers int) (*Load, State) {
	t.Helper()
	require.NoError(t, c.Start(t.Context()))
	require.NoError(t, c.Await(t.Context(), rejoin, "a healthy cluster", State.Healthy))
	l, err := c.StartLoad(context.WithoutCancel(t.Context()), writers, readers)
	require.NoError(t, err)
	t.Cleanup(func() { l.Stop() })
	require.NoError(t, l.AwaitWrites(t.Context(), l.Now(), 50, 30*time.Second))
	require.NoError(t, l.AwaitReplicaReads(t.Context(), rejoin))
	// Everything above takes about the same time in each run, and Patroni's loop began with the last
	// one's end: without this the fault would always come in the same moment of it.
	time.Sleep(rand.N(loopWait))
	s, err := c.State(t.Context())
	require.NoError(t, err)
	return l, s
}

// finish ends the load and checks what holds after every fault.
func finish(t *testing.T, l *Load, fault time.Duration, broken bool) (History, Result) {
	t.Helper()
	h, r, err := l.Finish(t.Context(), fault)
	for _, w := range h.Writes {
		if w.Outcome != Acked {
			t.Logf("first not acknowledged: began %s after the fault, took %s: %d %s", w.Began-fault, w.Ended-w.Began, w.Status, w.Code)
			break
		}
	}
	for _, failed := range h.Failed() {
		t.Logf("a read failed: began %s after the fault, took %s: %d %s", failed.Began-fault, failed.Ended-failed.Began, failed.Status, failed.Code)
	}
	require.NoError(t, err)
	require.Empty(t, h.BadAnswers(answerLimit, broken))
	if *mode != "async" {
		require.Zero(t, r.Lost, "synchronous replication loses nothing")
		require.Empty(t, h.Stale())
	}
	return h, r
}

// series collects the runs of one cause.
type series []Result

func (s series) sorted(of func(Result) time.Duration) []time.Duration {
	all := make([]time.Duration, len(s))
	for i, r := range s {
		all[i] = of(r)
	}
	slices.Sort(all)
	return all
}

func (s series) writes() (median, worst time.Duration) {
	all := s.sorted(func(r Result) time.Duration { return r.Write })
	return all[len(all)/2], all[len(all)-1]
}

// report prints median, worst and mode: the most frequent whole second.
func (s series) report(t *testing.T, cause string) {
	t.Helper()
	median, worst := s.writes()
	count, most := map[time.Duration]int{}, time.Duration(0)
	var lost, unknown int
	for _, r := range s {
		second := r.Write.Round(time.Second)
		if count[second]++; count[second] > count[most] || count[second] == count[most] && second < most {
			most = second
		}
		lost, unknown = lost+r.Lost, unknown+r.Unknown
	}
	reads := s.sorted(func(r Result) time.Duration { return r.Read })
	back := s.sorted(func(r Result) time.Duration { return r.Rejoin })
	t.Logf("RESULT | %s | %s | %d runs | writes back: median %.1f s, worst %.1f s, mode %.0f s | longest read gap %.2f s | rejoin worst %.1f s | lost %d | unknown %d",
		*mode, cause, len(s), median.Seconds(), worst.Seconds(), most.Seconds(), reads[len(reads)-1].Seconds(), back[len(back)-1].Seconds(), lost, unknown)
}
