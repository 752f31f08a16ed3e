package cache

import (
	"context"
	"slices"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/redis/go-redis/v9"

	"github.com/payment-services/accounts/internal/pipeline"
	"github.com/payment-services/accounts/internal/postgres"
)

// What the tests of this package, which are outside it because they also use internal/accounts, see
// of its inside. Time is not waited for: PassTime makes everything that is measured older.

const (
	Format       = format
	ProofAge     = proofAge
	DirtyLife    = dirtyLife
	LeaseLife    = leaseLife
	SeedLife     = seedLife
	NegativeLife = negativeLife
	AwaitRelay   = awaitRelay
	RelayMinAge  = relayMinAge
	RelayKeys    = relayKeys

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

// Attach is what a process does when it starts, without the draining of the outbox, which tests that
// share a database must leave to each other.
func (c *Cache) Attach(ctx context.Context) error {
	if _, err := c.source.sample(ctx); err != nil {
		return err
	}
	err := c.attach(ctx)
	c.breaker.closed.Store(err == nil)
	return err
}

// Recover is one attempt of the recovery.
func (c *Cache) Recover(ctx context.Context) error { return c.recover(ctx) }

// Sample asks the primary for its position.
func (c *Cache) Sample(ctx context.Context) error {
	_, err := c.source.sample(ctx)
	return err
}

// Believe makes pos, of this moment, the only sample.
func (c *Cache) Believe(pos postgres.Position) {
	c.source.mu.Lock()
	defer c.source.mu.Unlock()
	c.source.samples = []sample{{at: time.Now(), pos: pos}}
}

// PassTime makes the samples of this process and the markers in its Redis older by d.
func (c *Cache) PassTime(ctx context.Context, d time.Duration) error {
	c.source.mu.Lock()
	defer c.source.mu.Unlock()
	for i := range c.source.samples {
		c.source.samples[i].at = c.source.samples[i].at.Add(-d)
	}
	members, err := c.redis.ZRange(ctx, dirtyKey, 0, -1).Result()
	for _, m := range members {
		if err == nil {
			err = c.redis.ZIncrBy(ctx, dirtyKey, -float64(d.Milliseconds()), m).Err()
		}
	}
	return err
}

// BreakerOpen reports whether reads bypass Redis.
func (c *Cache) BreakerOpen() bool { return !c.breaker.closed.Load() }

// Relay is one run of the outbox's relay.
func (c *Cache) Relay(ctx context.Context, minAge time.Duration) (int, error) {
	return c.relay(ctx, minAge)
}

// Count returns the sum of one of the counters: requests, loads or refusals with a label, or deferred.
func (c *Cache) Count(counter, label string) int {
	var m dto.Metric
	var err error
	switch counter {
	case "requests":
		err = c.metrics.requests.WithLabelValues(label).Write(&m)
	case "loads":
		err = c.metrics.loads.WithLabelValues(label).Write(&m)
	case "refusals":
		err = c.metrics.refusals.WithLabelValues(label).Write(&m)
	case "deferred":
		err = c.metrics.deferred.Write(&m)
	}
	if err != nil {
		panic(err)
	}
	return int(m.GetCounter().GetValue())
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
	args := []any{token, leaseLife.Milliseconds(), format}
	for _, tag := range tags {
		args = append(args, tag)
	}
	return c.scripts.read.Run(ctx, c.redis, []string{key.physical(), genKey, dirtyKey}, args...).Slice()
}

// Filling are the arguments of FILL.
type Filling struct {
	Token, Format string
	Seq           int64
	Source        Source
	System        int64
	Timeline      int
	Life          time.Duration
	Document
}

// RunFill runs FILL.
func (c *Cache) RunFill(ctx context.Context, key Key, f Filling) (string, error) {
	deps := physicalDeps(f.Deps)
	head := header(f.Seq, f.ETag, deps)
	if f.Format != "" {
		head = "V" + f.Format + head[len("V"+format):]
	}
	args := []any{f.Token, f.Seq, string(f.Source),
		clusterName(postgres.Position{SystemIdentifier: f.System, Timeline: int32(f.Timeline)}), head, f.Life.Milliseconds(), f.Meta + "\n" + string(f.Body)}
	for _, dep := range deps {
		args = append(args, dep)
	}
	return c.scripts.fill.Run(ctx, c.redis, []string{key.physical(), genKey, dirtyKey}, args...).Text()
}

// RunInvalidate runs INVALIDATE.
func (c *Cache) RunInvalidate(ctx context.Context, touched ...string) (string, error) {
	keys, deps := split(touched)
	args := []any{dirtyLife.Milliseconds()}
	for _, dep := range deps {
		args = append(args, dep)
	}
	return c.scripts.invalidate.Run(ctx, c.redis, slices.Concat([]string{genKey, dirtyKey}, keys), args...).Text()
}

// RunAttach runs ATTACH.
func (c *Cache) RunAttach(ctx context.Context, runID string, system int64, timeline int) (string, error) {
	return c.scripts.attach.Run(ctx, c.redis, []string{genKey, dirtyKey}, runID, system, timeline, dirtyLife.Milliseconds()).Text()
}

// Follow makes pos what this process knows of its primary.
func (c *Cache) Follow(pos postgres.Position) { c.source.known.Store(&pos) }
