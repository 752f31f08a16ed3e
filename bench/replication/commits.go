package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/payment-services/accounts/test/cluster"
)

const (
	commitClients = 8
	commitRound   = 5 * time.Second
)

// commit is one setting and what each round measured of it.
type commit struct {
	mode, level string
	p50, p99    []float64 // milliseconds
	rate        []float64 // per second
	ratio       []float64 // to the first setting of the same round
}

// measureCommits changes between the settings without a restart, round by round. The mode is told to
// PostgreSQL itself: Patroni's own way takes seconds, and a round must not.
func measureCommits(ctx context.Context, c *cluster.Cluster, rounds int) ([]commit, error) {
	if err := c.SetMode(ctx, "sync"); err != nil {
		return nil, err
	}
	settings := []commit{
		{mode: "async", level: "local"}, {mode: "sync", level: "remote_write"}, {mode: "sync", level: "on"}, {mode: "sync", level: "remote_apply"},
	}
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: commitClients}}
	var users []string
	for range commitClients {
		resp, text, err := c.Request(ctx, client, http.MethodPost, "/accounts/users", map[string]any{})
		if err != nil {
			return nil, err
		}
		var u struct{ ID string }
		if err := json.Unmarshal(text, &u); err != nil || resp.StatusCode != http.StatusCreated {
			return nil, fmt.Errorf("create a user: %d %w", resp.StatusCode, err)
		}
		users = append(users, u.ID)
	}
	for range rounds {
		for i := range settings {
			s := &settings[i]
			state, err := c.State(ctx)
			if err != nil {
				return nil, err
			}
			// New sessions have it; local commits wait for nobody, as without synchronous replication.
			if _, err := c.SQL(ctx, state.Leader, "ALTER ROLE accounts_writer SET synchronous_commit = "+s.level+
				"; SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'accounts_writer'"); err != nil {
				return nil, err
			}
			if _, _, err := patches(ctx, c, client, users, time.Second); err != nil { // the pools connect again
				return nil, err
			}
			took, lasted, err := patches(ctx, c, client, users, commitRound)
			if err != nil {
				return nil, err
			}
			slices.Sort(took)
			ms := func(q int) float64 { return float64(took[len(took)*q/100]) / float64(time.Millisecond) }
			s.p50, s.p99 = append(s.p50, ms(50)), append(s.p99, ms(99))
			s.rate = append(s.rate, float64(len(took))/lasted.Seconds())
			s.ratio = append(s.ratio, s.rate[len(s.rate)-1]/settings[0].rate[len(s.rate)-1])
		}
	}
	return settings, nil
}

// patches lets each client patch its user for some time.
func patches(ctx context.Context, c *cluster.Cluster, client *http.Client, users []string, limit time.Duration) ([]time.Duration, time.Duration, error) {
	var (
		mu      sync.Mutex
		all     []time.Duration
		failed  error
		working sync.WaitGroup
	)
	began := time.Now()
	for _, id := range users {
		working.Go(func() {
			var mine []time.Duration
			for n := 0; time.Since(began) < limit; n++ {
				sent := time.Now()
				resp, text, err := c.Request(ctx, client, http.MethodPatch, "/accounts/users/"+id, map[string]any{"profile": map[string]int{"n": n}})
				if err == nil && resp.StatusCode != http.StatusOK {
					err = fmt.Errorf("patch: %d %s", resp.StatusCode, text)
				}
				if err != nil {
					mu.Lock()
					failed = err
					mu.Unlock()
					return
				}
				mine = append(mine, time.Since(sent))
			}
			mu.Lock()
			all = append(all, mine...)
			mu.Unlock()
		})
	}
	working.Wait()
	return all, time.Since(began), failed
}
