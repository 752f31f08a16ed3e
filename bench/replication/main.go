// Command replication compares the ways to replicate, on the real cluster (make bench-replication):
// what a killed primary costs under load, what becomes of writes without the replica, and what a
// commit costs. It writes the measured part of docs/replication.md and a timeline of one failover.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/payment-services/accounts/test/cluster"
)

const (
	writers, readers = 8, 4
	// settle is how long clients run before each fault and each measurement.
	settle = 3 * time.Second
	// A kill comes at any moment of Patroni's loop, which is as long as this or shorter.
	loopWait = 10 * time.Second
	// alone is how long the cluster is without its replica.
	alone = 15 * time.Second
)

// strict is the mode in which two nodes are needed for a write.
const strict = "sync-strict"

var modes = []string{"async", "sync", strict}

// modeResult is what was measured of one mode.
type modeResult struct {
	kills []cluster.Result
	stall time.Duration // the longest time without a write after the replica was killed
	wrote int           // writes acknowledged in the last third of the time without it
}

func main() {
	root := flag.String("root", ".", "the project's folder")
	kills := flag.Int("kills", 5, "how often the primary is killed in each mode")
	rounds := flag.Int("rounds", 5, "rounds of the commit measurement; 0 draws the timeline and writes no table")
	only := flag.String("modes", strings.Join(modes, ","), "the modes to measure")
	flag.Parse()
	modes = strings.Split(*only, ",")
	if err := measure(*root, *kills, *rounds); err != nil {
		log.Fatal(err)
	}
}

func measure(root string, kills, rounds int) (err error) {
	ctx := context.Background()
	root, err = filepath.Abs(root)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "accounts-replication")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	c, err := cluster.Up(ctx, cluster.Config{Root: root, Dir: dir, Project: "accounts-bench", Mode: "async"})
	if err != nil {
		return err
	}
	defer func() {
		if downErr := c.Down(ctx); err == nil {
			err = downErr
		}
	}()

	results := map[string]*modeResult{}
	var timeline *recording
	for _, mode := range modes {
		if err := c.SetMode(ctx, mode); err != nil {
			return err
		}
		r := &modeResult{}
		results[mode] = r
		for i := range kills {
			one, rec, err := kill(ctx, c, mode)
			if err != nil {
				return fmt.Errorf("%s, kill %d: %w", mode, i+1, err)
			}
			log.Printf("%s, kill %d of %d: %+v", mode, i+1, kills, one)
			r.kills = append(r.kills, one)
			if timeline == nil && mode != strict {
				timeline = rec
			}
		}
		if rounds == 0 {
			continue
		}
		if err := r.withoutReplica(ctx, c); err != nil {
			return fmt.Errorf("%s, without the replica: %w", mode, err)
		}
		log.Printf("%s, without the replica: no write for %s, then %d in %s", mode, r.stall, r.wrote, alone/3)
	}
	if timeline != nil {
		if err := os.WriteFile(filepath.Join(root, "docs", "failover.svg"), []byte(timeline.svg()), 0o644); err != nil {
			return err
		}
	}
	if rounds == 0 {
		return nil
	}
	commits, err := measureCommits(ctx, c, rounds)
	if err != nil {
		return err
	}
	return write(filepath.Join(root, "docs", "replication.md"), results, commits, kills, rounds)
}

// kill kills the primary's container under load and waits until all is well again. In the strict mode
// the new primary takes no write before the killed node is back, so that is started at the promotion.
func kill(ctx context.Context, c *cluster.Cluster, mode string) (cluster.Result, *recording, error) {
	if err := c.Await(ctx, time.Minute, "a healthy cluster", cluster.State.Healthy); err != nil {
		return cluster.Result{}, nil, err
	}
	l, err := c.StartLoad(ctx, writers, readers)
	if err != nil {
		return cluster.Result{}, nil, err
	}
	defer l.Stop()
	if err := l.AwaitReplicaReads(ctx, time.Minute); err != nil {
		return cluster.Result{}, nil, err
	}
	time.Sleep(settle + rand.N(loopWait))
	var started time.Duration
	start := func(s cluster.State) error {
		started = l.Now()
		_, err := c.Docker(ctx, "start", s.Leader)
		return err
	}
	harm := func(s cluster.State) error { _, err := c.Docker(ctx, "kill", s.Leader); return err }
	undo := start
	if mode == strict {
		harm = func(s cluster.State) error {
			if _, err := c.Docker(ctx, "kill", s.Leader); err != nil {
				return err
			}
			if err := c.Await(ctx, time.Minute, "a promotion", func(now cluster.State) bool { return now.Timeline > s.Timeline }); err != nil {
				return err
			}
			return start(s)
		}
		undo = func(cluster.State) error { return nil }
	}
	o, err := l.Failover(ctx, harm, undo)
	if err != nil {
		return cluster.Result{}, nil, err
	}
	o.Rejoin += o.Undone - started
	o.Undone = started
	if err := l.AwaitReplicaReads(ctx, time.Minute); err != nil {
		return cluster.Result{}, nil, err
	}
	time.Sleep(settle)
	h, r, err := l.Finish(ctx, o.Fault)
	r.Rejoin = o.Rejoin
	return r, &recording{history: h, outage: o}, err
}

func (r *modeResult) withoutReplica(ctx context.Context, c *cluster.Cluster) error {
	if err := c.Await(ctx, time.Minute, "a healthy cluster", cluster.State.Healthy); err != nil {
		return err
	}
	state, err := c.State(ctx)
	if err != nil {
		return err
	}
	l, err := c.StartLoad(ctx, writers, readers)
	if err != nil {
		return err
	}
	defer l.Stop()
	time.Sleep(settle)
	from := l.Now()
	if _, err := c.Docker(ctx, "kill", state.Standbys[0]); err != nil {
		return err
	}
	time.Sleep(alone)
	until := l.Now()
	if _, err := c.Docker(ctx, "start", state.Standbys[0]); err != nil {
		return err
	}
	h := l.History().Between(from, until)
	r.stall = h.WriteGap(from, until)
	r.wrote = h.Between(until-alone/3, until).Count(cluster.Acked)
	return c.Await(ctx, time.Minute, "the replica is back", cluster.State.Healthy)
}

func write(path string, results map[string]*modeResult, commits []commit, kills, rounds int) error {
	const begin, end = "<!-- measured: make bench-replication -->\n", "<!-- end of what was measured -->"
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	head, rest, ok := strings.Cut(string(text), begin)
	_, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		return fmt.Errorf("%s has no place for what was measured", path)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\n%d kills of the primary's container in each mode, under %d writers and %d readers through the edge; "+
		"afterwards %s without the replica.\n\n", kills, writers, readers, alone)
	b.WriteString("| | acknowledged writes lost | writes again after: median (worst) | outcome unknown | reads failed | longest read gap | back as a replica, worst | replica gone: longest write stall | writes/s without it |\n|---|---|---|---|---|---|---|---|---|\n")
	for _, mode := range modes {
		r := results[mode]
		var lost, unknown, failed int
		var gaps []time.Duration
		var read, back time.Duration
		for _, k := range r.kills {
			lost, unknown, failed = lost+k.Lost, unknown+k.Unknown, failed+k.Failed
			gaps = append(gaps, k.Write)
			read, back = max(read, k.Read), max(back, k.Rejoin)
		}
		slices.Sort(gaps)
		fmt.Fprintf(&b, "| %s | %d | %.1f s (%.1f s) | %d | %d | %.2f s | %.1f s | %.1f s | %.0f |\n", mode, lost,
			gaps[len(gaps)/2].Seconds(), gaps[len(gaps)-1].Seconds(), unknown, failed, read.Seconds(), back.Seconds(),
			r.stall.Seconds(), float64(r.wrote)/(alone/3).Seconds())
	}
	fmt.Fprintf(&b, "\nWhat a commit costs: PATCH through the edge, %d clients without a pause, the settings in turn, "+
		"%d rounds of %s each; medians (min to max) of the rounds.\n\n", commitClients, rounds, commitRound)
	b.WriteString("| replication | `synchronous_commit` | p50 | p99 | writes/s | ratio of writes/s to async |\n|---|---|---|---|---|---|\n")
	for _, m := range commits {
		fmt.Fprintf(&b, "| %s | %s | %s ms | %s ms | %s | %s |\n", m.mode, m.level, spread(m.p50, "%.1f"), spread(m.p99, "%.1f"), spread(m.rate, "%.0f"), spread(m.ratio, "%.2f"))
	}
	b.WriteString("\n")
	return os.WriteFile(path, []byte(head+begin+b.String()+end+tail), 0o644)
}

// spread is the median with min and max.
func spread(values []float64, format string) string {
	slices.Sort(values)
	return fmt.Sprintf(format+" ("+format+" to "+format+")", values[len(values)/2], values[0], values[len(values)-1])
}
