package cache

import (
	"context"
	"errors"
	"time"

	"github.com/payment-services/accounts/internal/dbgen/read"
	"github.com/payment-services/accounts/internal/dbgen/write"
)

const (
	relayInterval = 250 * time.Millisecond
	// The relay leaves younger rows to the process that wrote them, which is about to invalidate.
	relayMinAge = 500 * time.Millisecond
	relayLimit  = 500
	// Rows of bulk writes hold thousands of keys. A relay that took all rows at once would exceed its
	// time limit each time, and would never delete any.
	relayKeys = 20_000

	// Rows whose invalidation is done are deleted together.
	deleteInterval = 50 * time.Millisecond
	deleteLimit    = 500

	// How long a write waits for a relay when Redis did not answer, and how often it looks.
	awaitRelay    = time.Second
	awaitInterval = 50 * time.Millisecond
)

// outbox collects the ids of rows whose invalidation is done, to delete them. An id that is lost,
// because the process dies or the queue is full, is invalidated once more by a relay: that is harmless.
type outbox struct{ done chan int64 }

func newOutbox() outbox { return outbox{done: make(chan int64, 8*deleteLimit)} }

func (o *outbox) markDone(id int64) {
	select {
	case o.done <- id:
	default:
	}
}

// deleteDone deletes rows in batches until ctx ends, then those that remain.
func (c *Cache) deleteDone(ctx context.Context) {
	var ids []int64
	flush := func() {
		if len(ids) == 0 {
			return
		}
		if err := c.source.primary.InTx(context.WithoutCancel(ctx), func(ctx context.Context, q write.Querier) error {
			return q.DeleteCacheOutboxV1(ctx, ids)
		}); err != nil {
			c.log.WarnContext(ctx, "outbox rows are left to the relay", "rows", len(ids), "error", err)
		}
		ids = ids[:0]
	}
	for {
		select {
		case <-ctx.Done():
			for {
				select {
				case id := <-c.outbox.done:
					ids = append(ids, id)
				default:
					flush()
					return
				}
			}
		case id := <-c.outbox.done:
			ids = append(ids, id)
		}
		// Wait for more ids after the first of a batch.
		timer := time.After(deleteInterval)
		for collecting := true; collecting && len(ids) < deleteLimit; {
			select {
			case id := <-c.outbox.done:
				ids = append(ids, id)
			case <-timer:
				collecting = false
			case <-ctx.Done():
				collecting = false
			}
		}
		flush()
	}
}

// relayOutbox invalidates what other processes committed and did not invalidate.
func (c *Cache) relayOutbox(ctx context.Context) {
	tick := time.NewTicker(relayInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if c.breaker.open() || !guard("relay") {
			continue // recovery calls relay too
		}
		for {
			n, err := c.relay(ctx, relayMinAge)
			if err != nil {
				c.log.WarnContext(ctx, "the outbox was not relayed", "error", err)
			}
			if n < relayLimit {
				break
			}
		}
	}
}

// relay invalidates and deletes one batch of outbox rows and returns how many. It holds the named lock
// of the outbox until the end of the transaction; zero may mean that another process holds it.
func (c *Cache) relay(ctx context.Context, minAge time.Duration) (int, error) {
	relayed := 0
	err := c.source.primary.InTx(ctx, func(ctx context.Context, q write.Querier) error {
		rows, err := q.ClaimCacheOutboxV1(ctx, int32(minAge.Milliseconds()), relayLimit)
		if err != nil || len(rows) == 0 {
			return err
		}
		var keys, deps []string
		var ids []int64
		for _, row := range rows {
			k, _ := split(row.Keys)
			_, d := split(row.Deps)
			keys, deps, ids = append(keys, k...), append(deps, d...), append(ids, row.ID)
			if len(keys) >= relayKeys {
				break
			}
		}
		if err := c.invalidateSoon(ctx, keys, deps); err != nil {
			return errors.New(err.Error()) // not wrapped: Redis's network error is not the primary's
		}
		relayed = len(ids)
		return q.DeleteCacheOutboxV1(ctx, ids)
	})
	return relayed, err
}

// awaitRelay returns when the outbox row was deleted, or after a second.
func (c *Cache) awaitRelay(ctx context.Context, id int64) {
	ctx, cancel := context.WithTimeout(ctx, awaitRelay)
	defer cancel()
	for pending := true; pending; {
		select {
		case <-ctx.Done():
			return
		case <-time.After(awaitInterval):
		}
		err := c.Primary(ctx, func(ctx context.Context, q read.Querier) (err error) {
			pending, err = q.IsCacheOutboxPendingV1(ctx, id)
			return err
		})
		if err != nil {
			return // the primary does not answer either; it has the row
		}
	}
}
