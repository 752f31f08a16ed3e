package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	partRequests = 3000
	// statsDelay is longer than an idle session of PostgreSQL keeps its counters to itself (10 s).
	statsDelay = 11 * time.Second
)

// part is something that happens for a PATCH: how often, and what it costs each time (microseconds;
// bytes for WAL).
type part struct {
	Name       string
	PerRequest float64
	Each       float64
}

// measureParts changes users one after the other and looks at who did what. Time inside a function is
// its own: what it calls is counted there.
func (b *bench) measureParts(ctx context.Context) ([]part, error) {
	before, err := b.counters(ctx)
	if err != nil {
		return nil, err
	}
	l := load{
		next:   func(uint64) request { return b.data.patch(b.service, pick(b.data.written)) },
		status: 200, connections: 1, most: partRequests, duration: time.Minute,
	}
	s, err := b.measure(ctx, leg{scenario: patched, server: b.service, load: l})
	if err != nil {
		return nil, err
	}
	if s.Failures > 0 {
		return nil, fmt.Errorf("%d of the PATCH requests failed: %s", s.Failures, s.Failure)
	}
	after, err := b.counters(ctx)
	if err != nil {
		return nil, err
	}
	parts := []part{
		{"the service's CPU", 1, s.ServerCPU},
		{"PostgreSQL's CPU, primary and standby", 1, s.Postgres},
		{"Redis's CPU, cache and revocation list", 1, s.Redis},
		{"the whole answer, p50", 1, s.P50 * 1e3},
	}
	var names []string
	for name := range after {
		names = append(names, name)
	}
	slices.Sort(names)
	requests := float64(s.Requests)
	for _, name := range names {
		calls := after[name].calls - before[name].calls
		// Samples of the position and other background work are less than this.
		const background = .02
		if calls/requests < background {
			continue
		}
		spent := after[name].spent - before[name].spent
		parts = append(parts, part{name, calls / requests, spent / calls})
	}
	return parts, nil
}

type counter struct{ calls, spent float64 }

// counters are those of PostgreSQL's functions and transactions and of Redis's commands.
func (b *bench) counters(ctx context.Context) (map[string]counter, error) {
	select { // sessions report what they did
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(statsDelay):
	}
	all := map[string]counter{}
	rows, err := b.super.Query(ctx, `
SELECT 'function ' || funcname, calls::float8, self_time * 1000 FROM pg_stat_user_functions
UNION ALL
SELECT 'bytes of WAL', pg_current_wal_lsn() - '0/0', 1
UNION ALL
SELECT 'transactions of the primary', xact_commit, 0 FROM pg_stat_database WHERE datname = current_database()`)
	if err != nil {
		return nil, err
	}
	for rows.Next() {
		var name string
		var c counter
		if err := rows.Scan(&name, &c.calls, &c.spent); err != nil {
			return nil, err
		}
		all[name] = c
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	if err := b.commands(ctx, all); err != nil {
		return nil, err
	}
	return all, nil
}

// commands adds the counters of both Redis servers; those of commands inside a script are part of it.
func (b *bench) commands(ctx context.Context, all map[string]counter) error {
	for i, name := range []string{"cache", "revocation list"} {
		client := b.redisCache
		if i == 1 {
			client = b.redisAuth
		}
		text, err := client.Info(ctx, "commandstats").Result()
		if err != nil {
			return err
		}
		for line := range strings.Lines(text) {
			command, rest, ok := strings.Cut(strings.TrimSpace(line), ":calls=")
			if !ok {
				continue
			}
			fields := strings.FieldsFunc(rest, func(r rune) bool { return r == ',' || r == '=' })
			calls, err := strconv.ParseFloat(fields[0], 64)
			if err != nil {
				return err
			}
			spent, err := strconv.ParseFloat(fields[2], 64)
			if err != nil {
				return err
			}
			command = strings.ToUpper(strings.TrimPrefix(command, "cmdstat_"))
			all["redis ("+name+") "+command] = counter{calls, spent}
		}
	}
	return nil
}
