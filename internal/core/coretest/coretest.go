// Package coretest wires the domain service for tests, on the servers of package pgtest.
package coretest

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/core"
	"github.com/payment-services/accounts/internal/postgres"
)

const (
	// attachTimeout is the time in which a started core must have attached to Redis. Only a defect makes
	// it longer.
	attachTimeout = 20 * time.Second
	pollInterval  = 5 * time.Millisecond
	maxConns      = 8
)

// Config is the configuration of a core for tests: few connections, no log, long TTLs.
func Config(writeURL, readURL, redisURL string) core.Config {
	return core.Config{
		Write:    postgres.Config{URL: writeURL, MaxConns: maxConns},
		Read:     postgres.Config{URL: readURL, MaxConns: maxConns},
		RedisURL: redisURL, PhoneRegion: "RU", UserTTL: 10 * time.Minute, DictionaryTTL: 3 * time.Hour,
		Logger: slog.New(slog.DiscardHandler),
	}
}

// Open returns a core without background work. It is closed at the end of the test.
func Open(t testing.TB, cfg core.Config) *core.Core {
	t.Helper()
	c, err := core.Open(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() }) // some tests close its Redis connections themselves
	return c
}

// Start returns a core with its background work, after it has attached to Redis. Both end with the test.
func Start(t testing.TB, cfg core.Config) *core.Core {
	t.Helper()
	c := Open(t, cfg)
	Run(t, c)
	return c
}

// Run starts the background work of c, waits until c has attached to Redis, and returns a function that
// stops the work. The end of the test stops it too.
func Run(t testing.TB, c *core.Core) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { c.Run(ctx) })
	stop = func() {
		cancel()
		running.Wait()
	}
	t.Cleanup(stop)
	require.Eventually(t, func() bool { return !c.Cache.Bypassed() }, attachTimeout, pollInterval)
	return stop
}
