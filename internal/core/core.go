// Package core wires the domain service: pools, router, cache, outbox, and the service on top of them.
// cmd/server, the tests and the benchmarks use the same wiring.
package core

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/payment-services/accounts/db"
	"github.com/payment-services/accounts/internal/accounts"
	"github.com/payment-services/accounts/internal/cache"
	"github.com/payment-services/accounts/internal/identifier"
	"github.com/payment-services/accounts/internal/outbox"
	"github.com/payment-services/accounts/internal/postgres"
	"github.com/payment-services/accounts/internal/routing"
)

// Config is the input of Open.
type Config struct {
	// Write and Read are the pools of the primary and of the read server.
	Write, Read postgres.Config
	// RedisURL is the address of the cache's Redis.
	RedisURL string
	// PhoneRegion is the region of phone numbers that have no country code, such as RU.
	PhoneRegion string
	// UserTTL is the time to live of cached users and identifiers, DictionaryTTL that of the dictionaries.
	UserTTL, DictionaryTTL time.Duration
	Logger                 *slog.Logger
	// Metrics is where metrics are registered; nil: nowhere.
	Metrics prometheus.Registerer
	// Now is the clock of the proofs of freshness; nil is time.Now.
	Now func() time.Time
}

// Core is a wired domain service and its parts.
type Core struct {
	Primary  *postgres.Primary
	Replica  *postgres.Replica
	Router   *routing.Router
	Cache    *cache.Cache
	Outbox   *outbox.Outbox
	Accounts *accounts.Service
}

// Open wires the service. It connects to nothing, so all servers may be down. The error joins one error
// for each invalid setting, which begins with the name of its environment variable.
func Open(cfg Config) (*Core, error) {
	c := &Core{}
	var problems []error
	add := func(variable string, err error) {
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", variable, err))
		}
	}
	parser, err := identifier.NewParser(cfg.PhoneRegion)
	add("DEFAULT_PHONE_REGION", err)
	c.Primary, err = postgres.OpenPrimary(cfg.Write)
	add("DATABASE_WRITE_URL", err)
	c.Replica, err = postgres.OpenReplica(cfg.Read)
	add("DATABASE_READ_URL", err)
	if problems == nil {
		c.Router = routing.New(c.Primary, c.Replica, cfg.Now)
		c.Cache, err = cache.New(cache.Config{URL: cfg.RedisURL, Router: c.Router, Logger: cfg.Logger, Metrics: cfg.Metrics})
		add("REDIS_URL", err)
	}
	if problems != nil {
		c.closePools()
		return nil, errors.Join(problems...)
	}
	c.Outbox = outbox.New(outbox.Config{Router: c.Router, Cache: c.Cache, Logger: cfg.Logger, Metrics: cfg.Metrics})
	version, err := db.LatestVersion()
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	readFunctions, writeFunctions := db.NeededFunctions()
	c.Accounts = accounts.New(accounts.Config{
		Router: c.Router, Cache: c.Cache, Outbox: c.Outbox, Parser: parser,
		UserTTL: cfg.UserTTL, DictionaryTTL: cfg.DictionaryTTL,
		SchemaVersion: version, ReadFunctions: readFunctions, WriteFunctions: writeFunctions,
	})
	return c, nil
}

// Run does the background work of the parts until ctx ends: it samples the primary's position, attaches the
// cache, relays the outbox.
func (c *Core) Run(ctx context.Context) {
	var all sync.WaitGroup
	all.Go(func() { c.Router.Run(ctx) })
	all.Go(func() { c.Cache.Run(ctx) })
	all.Go(func() { c.Outbox.Run(ctx) })
	all.Wait()
}

// Close closes all connections. Run must have returned.
func (c *Core) Close() error {
	c.closePools()
	return c.Cache.Close()
}

func (c *Core) closePools() {
	if c.Primary != nil {
		c.Primary.Close()
	}
	if c.Replica != nil {
		c.Replica.Close()
	}
}
