package cache

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/payment-services/accounts/internal/dbgen/read"
)

const (
	// How often Redis is tried while it is away.
	recoverInterval = 100 * time.Millisecond
	// How often this process attaches, as a backstop to the attachment of every new connection.
	attachInterval = time.Second
	// One attempt to come back, the draining of the outbox included, may take this long.
	recoverTimeout = 30 * time.Second
)

// breaker keeps reads away from Redis from its first error until this process has attached again and
// the outbox is drained: before that, an entry may be older than a write whose invalidation Redis
// missed.
type breaker struct {
	closed  atomic.Bool
	tripped chan struct{} // wakes the recovery
}

func newBreaker() *breaker {
	b := &breaker{tripped: make(chan struct{}, 1)}
	b.tripped <- struct{}{} // a new process has to attach first
	return b
}

func (b *breaker) open() bool { return !b.closed.Load() && guard("breaker") }

func (b *breaker) trip() bool {
	was := b.closed.Swap(false)
	select {
	case b.tripped <- struct{}{}:
	default:
	}
	return was
}

// noteRedis opens the breaker if err says that Redis is away or unfit. A caller whose own time is up
// and a full Redis that refuses to store say neither.
func (c *Cache) noteRedis(ctx context.Context, err error) {
	if err == nil || ctx.Err() != nil || errors.Is(err, redis.Nil) ||
		strings.Contains(err.Error(), "OOM ") { // go-redis has no typed error for it
		return
	}
	if c.breaker.trip() {
		c.log.WarnContext(ctx, "cache: redis is away, reads go to the database", "error", err)
	}
}

// recoverWhenOpen brings the cache back whenever it was tripped.
func (c *Cache) recoverWhenOpen(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.breaker.tripped:
		}
		for c.recover(ctx) != nil {
			select {
			case <-ctx.Done():
				return
			case <-time.After(recoverInterval):
			}
		}
	}
}

// recover attaches, waits until every outbox row that was there has been relayed, and closes the
// breaker. Rows are compared by age, so that new writes of others do not hold it up.
func (c *Cache) recover(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, recoverTimeout)
	defer cancel()
	started := time.Now()
	if _, err := c.source.sample(ctx); err != nil {
		return err
	}
	if err := c.attach(ctx); err != nil {
		return err
	}
	for guard("barrier") {
		relayed, err := c.relay(ctx, 0)
		if err != nil {
			return err
		}
		if relayed > 0 {
			continue
		}
		var oldest time.Duration
		if err := c.Primary(ctx, func(ctx context.Context, q read.Querier) error {
			status, err := q.GetCacheOutboxStatusV1(ctx)
			oldest = time.Duration(status.OldestAgeMs) * time.Millisecond
			return err
		}); err != nil {
			return err
		}
		if oldest < time.Since(started) {
			break
		}
		select { // another process's relay is at it
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(recoverInterval / 5):
		}
	}
	c.breaker.closed.Store(true)
	c.log.Info("cache: redis is in use")
	return nil
}

// follow samples the primary's position, attaches when its timeline changed, and attaches every
// second anyway.
func (c *Cache) follow(ctx context.Context) {
	tick := time.NewTicker(sampleInterval)
	defer tick.Stop()
	var attachedAt time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		changed, err := c.source.sample(ctx)
		if err != nil {
			c.log.DebugContext(ctx, "cache: the primary gave no position", "error", err)
		}
		if c.breaker.open() || !changed && time.Since(attachedAt) < attachInterval {
			continue
		}
		attachedAt = time.Now()
		c.noteRedis(ctx, c.attach(ctx))
	}
}
