package cache

import (
	"context"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/payment-services/accounts/internal/pipeline"
	"github.com/payment-services/accounts/internal/postgres"
	"github.com/payment-services/accounts/internal/routing"
)

// The tests of this package are in package cache_test, because they also use internal/accounts. This file
// exports what they need. They do not wait for time to pass: AgeMarkers makes markers older.

const (
	Format        = format
	LeaseTTL      = leaseTTL
	PrefetchedTTL = prefetchedTTL
	NegativeTTL   = negativeTTL

	GenKey   = genKey
	DirtyKey = dirtyKey
)

// Physical returns the Redis key.
func (k Key) Physical() string { return k.physical() }

// BePatient gives Redis as long as a busy machine may need: where a test wants it to be away, it is.
// Call it before the cache is used.
func (c *Cache) BePatient(patience time.Duration) {
	opts := c.redis.Options()
	opts.ReadTimeout, opts.WriteTimeout = patience, patience
	c.batched = pipeline.New(c.redis, patience)
	c.invalidateTimeout = patience
}

// SetInUse opens or closes the breaker without draining the outbox, which tests that share a database
// must leave to each other.
func (c *Cache) SetInUse(inUse bool) { c.breaker.closed.Store(inUse) }

// AgeMarkers makes the dirty markers in Redis older by d.
func (c *Cache) AgeMarkers(ctx context.Context, d time.Duration) error {
	members, err := c.redis.ZRange(ctx, dirtyKey, 0, -1).Result()
	for _, m := range members {
		if err == nil {
			err = c.redis.ZIncrBy(ctx, dirtyKey, -float64(d.Milliseconds()), m).Err()
		}
	}
	return err
}

// Redis returns the client, for looks at what is stored.
func (c *Cache) Redis() *redis.Client { return c.redis }

// OnScript makes step run around every script. name is READ, FILL, INVALIDATE or ATTACH, key the
// first key. Call it before the cache is used. A step that waits must hold up no other script, so
// they do not go together any more.
func (c *Cache) OnScript(step func(name, key string, next func() error) error) {
	c.batched = c.redis
	c.redis.AddHook(scriptHook{c, step})
}

type scriptHook struct {
	c    *Cache
	step func(name, key string, next func() error) error
}

func (h scriptHook) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h scriptHook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (h scriptHook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		args := cmd.Args()
		if cmd.Name() != "evalsha" {
			return next(ctx, cmd)
		}
		names := map[string]string{
			h.c.scripts.read.Hash(): "READ", h.c.scripts.fill.Hash(): "FILL",
			h.c.scripts.invalidate.Hash(): "INVALIDATE", h.c.scripts.attach.Hash(): "ATTACH",
		}
		return h.step(names[args[1].(string)], args[3].(string), func() error { return next(ctx, cmd) })
	}
}

// RunRead runs READ as a process of some format.
func (c *Cache) RunRead(ctx context.Context, key Key, token, format string, tags ...string) ([]any, error) {
	args := []any{token, leaseTTL.Milliseconds(), format}
	for _, tag := range tags {
		args = append(args, tag)
	}
	return c.scripts.read.Run(ctx, c.redis, []string{key.physical(), genKey, dirtyKey}, args...).Slice()
}

// Filling are the arguments of FILL.
type Filling struct {
	Token, Format string
	Seq           int64
	Server        routing.Server
	System        int64
	Timeline      int
	TTL           time.Duration
	Document
}

// RunFill runs FILL.
func (c *Cache) RunFill(ctx context.Context, key Key, f Filling) (string, error) {
	deps := physicalDeps(f.Deps)
	head := header(f.Seq, f.ETag, deps)
	if f.Format != "" {
		head = "V" + f.Format + head[len("V"+format):]
	}
	args := []any{f.Token, f.Seq, string(f.Server),
		routing.ClusterName(postgres.Position{SystemIdentifier: f.System, Timeline: int32(f.Timeline)}), head, f.TTL.Milliseconds(), f.Meta + "\n" + string(f.Body)}
	for _, dep := range deps {
		args = append(args, dep)
	}
	return c.scripts.fill.Run(ctx, c.redis, []string{key.physical(), genKey, dirtyKey}, args...).Text()
}

// RunInvalidate runs INVALIDATE.
func (c *Cache) RunInvalidate(ctx context.Context, touched ...string) (string, error) {
	keys, deps := split(touched)
	args := []any{DirtyTTL.Milliseconds()}
	for _, dep := range deps {
		args = append(args, dep)
	}
	return c.scripts.invalidate.Run(ctx, c.redis, slices.Concat([]string{genKey, dirtyKey}, keys), args...).Text()
}

// RunAttach runs ATTACH.
func (c *Cache) RunAttach(ctx context.Context, runID string, system int64, timeline int) (string, error) {
	return c.scripts.attach.Run(ctx, c.redis, []string{genKey, dirtyKey}, runID, system, timeline, DirtyTTL.Milliseconds()).Text()
}
