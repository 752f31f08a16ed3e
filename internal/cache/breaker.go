package cache

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/payment-services/accounts/internal/mutation"
)

// attachInterval is the pause between two attachments. Every new connection attaches too; the interval
// covers a Redis that changed behind an open connection.
const attachInterval = time.Second

// breaker keeps reads away from Redis, from its first error until Resume. Before Resume, the outbox must
// be drained: until then an entry may be older than a write whose invalidation Redis missed.
type breaker struct {
	closed  atomic.Bool
	tripped chan struct{} // capacity 1
}

func newBreaker() *breaker {
	b := &breaker{tripped: make(chan struct{}, 1)}
	b.tripped <- struct{}{} // a new process has to attach first
	return b
}

func (b *breaker) open() bool { return !b.closed.Load() && mutation.Point("breaker") }

// trip opens the breaker and reports whether it was closed.
func (b *breaker) trip() bool {
	was := b.closed.Swap(false)
	select {
	case b.tripped <- struct{}{}:
	default:
	}
	return was
}

// Suspended delivers a value when reads stop using Redis: at the start, and after an error of Redis. Its
// one receiver calls Attach, drains the outbox, and calls Resume (internal/outbox does).
func (c *Cache) Suspended() <-chan struct{} { return c.breaker.tripped }

// Bypassed reports whether reads go to the database and do not use Redis.
func (c *Cache) Bypassed() bool { return c.breaker.open() }

// Resume makes reads use Redis again. Every invalidation that was committed before the call must have
// been done.
func (c *Cache) Resume() {
	c.breaker.closed.Store(true)
	c.log.Info("cache: redis is in use")
}

// recordRedisError opens the breaker if err shows that Redis does not work. An error that comes from the
// caller's own deadline, and a full Redis that refuses to store, do not open it.
func (c *Cache) recordRedisError(ctx context.Context, err error) {
	if err == nil || ctx.Err() != nil || errors.Is(err, redis.Nil) ||
		strings.Contains(err.Error(), "OOM ") { // go-redis has no type for this error
		return
	}
	if c.breaker.trip() {
		c.log.WarnContext(ctx, "cache: redis does not work, reads go to the database", "error", err)
	}
}

// attachRegularly attaches every second, and at once when the primary's timeline changed.
func (c *Cache) attachRegularly(ctx context.Context) {
	tick := time.NewTicker(attachInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.router.Changed():
		case <-tick.C:
		}
		if !c.breaker.open() {
			c.recordRedisError(ctx, c.Attach(ctx))
		}
	}
}
