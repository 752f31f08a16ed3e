// Package outbox makes sure that every committed write is invalidated in the cache.
//
// A write function leaves a row in accounts.cache_outbox, in the write's own transaction, with the keys
// that the write touched. After the commit, the process invalidates these keys and deletes the row
// (Invalidate). If the process dies in between, or Redis does not work, the row stays, and the relay of
// any process does the invalidation. After an outage of Redis, the cache is used again only when the
// outbox is drained (Recover).
package outbox

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/payment-services/accounts/internal/cache"
	"github.com/payment-services/accounts/internal/dbgen/read"
	"github.com/payment-services/accounts/internal/dbgen/write"
	"github.com/payment-services/accounts/internal/mutation"
	"github.com/payment-services/accounts/internal/routing"
)

const (
	relayInterval = 250 * time.Millisecond
	// RelayMinAge is the age from which the relay handles a row. Younger rows are left to the process
	// that wrote them, which is about to invalidate them.
	RelayMinAge = 500 * time.Millisecond
	relayLimit  = 500
	// RelayKeys limits the keys of one relay transaction. Rows of bulk writes have thousands of keys;
	// without the limit, the transaction would reach its timeout and no row would be deleted.
	RelayKeys = 20_000

	// deleteInterval is the time for which finished rows are collected, to be deleted together, and
	// maxDone the number of rows that can wait for it.
	deleteInterval = 50 * time.Millisecond
	maxDone        = 4000

	// AwaitRelay is the time for which a write waits for the relay when Redis did not answer, and
	// awaitInterval the pause between two looks.
	AwaitRelay    = time.Second
	awaitInterval = 50 * time.Millisecond

	// recoverInterval is the pause between two attempts to use Redis again.
	recoverInterval = 100 * time.Millisecond
	// recoverTimeout limits one attempt, the draining of the outbox included.
	recoverTimeout = 30 * time.Second
)

// Config is the input of New.
type Config struct {
	Router  *routing.Router
	Cache   *cache.Cache
	Logger  *slog.Logger
	Metrics prometheus.Registerer // nil: no metrics
}

// Outbox is safe for concurrent use.
type Outbox struct {
	router   *routing.Router
	cache    *cache.Cache
	log      *slog.Logger
	deferred prometheus.Counter

	// done are the rows whose invalidation is done. A row that is not deleted, because the process dies
	// or the channel is full, is invalidated a second time by a relay, which is harmless.
	done chan int64
}

// New returns an Outbox.
func New(cfg Config) *Outbox {
	o := &Outbox{router: cfg.Router, cache: cfg.Cache, log: cfg.Logger, done: make(chan int64, maxDone)}
	o.deferred = registerMetrics(cfg.Metrics, o)
	return o
}

// Run relays, deletes finished rows and restores the cache after outages, until ctx ends. It returns when
// the last finished rows are deleted.
func (o *Outbox) Run(ctx context.Context) {
	var all sync.WaitGroup
	all.Go(func() { o.recoverWhenSuspended(ctx) })
	all.Go(func() { o.relayRegularly(ctx) })
	all.Go(func() { o.deleteDone(ctx) })
	all.Wait()
}

// Invalidate invalidates what a committed write touched. It returns when that is done in Redis; if Redis
// does not answer, when the relay of some process has done it, or after one second. id is the write's
// outbox row, or nil if it is not known: then the relay finds the row by itself.
func (o *Outbox) Invalidate(ctx context.Context, touched []string, id *int64) {
	if len(touched) == 0 {
		return
	}
	ctx = context.WithoutCancel(ctx) // the write is committed, even if its client has disconnected
	err := o.cache.Invalidate(ctx, touched)
	switch {
	case id == nil:
	case err == nil:
		o.markDone(*id)
	default:
		o.deferred.Inc()
		o.log.WarnContext(ctx, "the invalidation is left to the relay of the outbox", "error", err)
		if mutation.Point("await-relay") {
			o.awaitRelay(ctx, *id)
		}
	}
}

func (o *Outbox) markDone(id int64) {
	select {
	case o.done <- id:
	default:
	}
}

// deleteDone deletes finished rows until ctx ends, and then those that are left. It collects rows for
// deleteInterval, so that one DELETE serves many writes.
func (o *Outbox) deleteDone(ctx context.Context) {
	for ctx.Err() == nil {
		var ids []int64
		select {
		case <-ctx.Done():
		case id := <-o.done:
			ids = append(ids, id)
			select {
			case <-ctx.Done():
			case <-time.After(deleteInterval):
			}
		}
		for collecting := true; collecting; {
			select {
			case id := <-o.done:
				ids = append(ids, id)
			default:
				collecting = false
			}
		}
		o.deleteRows(ctx, ids)
	}
}

func (o *Outbox) deleteRows(ctx context.Context, ids []int64) {
	if len(ids) == 0 {
		return
	}
	err := o.router.InTx(context.WithoutCancel(ctx), func(ctx context.Context, q write.Querier) error {
		return q.DeleteCacheOutboxV1(ctx, ids)
	})
	if err != nil {
		o.log.WarnContext(ctx, "finished outbox rows were not deleted; the relay will delete them", "rows", len(ids), "error", err)
	}
}

// relayRegularly invalidates rows that other processes, or this one, left behind.
func (o *Outbox) relayRegularly(ctx context.Context) {
	tick := time.NewTicker(relayInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if o.cache.Bypassed() || !mutation.Point("relay") {
			continue // Recover relays by itself.
		}
		for {
			n, err := o.Relay(ctx, RelayMinAge)
			if err != nil {
				o.log.WarnContext(ctx, "the outbox was not relayed", "error", err)
			}
			if n < relayLimit {
				break
			}
		}
	}
}

// Relay invalidates and deletes one batch of outbox rows that are older than minAge, and returns their
// number. It holds the named lock of the outbox until the end of the transaction, so one process relays
// at a time; zero may mean that another process does.
func (o *Outbox) Relay(ctx context.Context, minAge time.Duration) (int, error) {
	relayed := 0
	err := o.router.InTx(ctx, func(ctx context.Context, q write.Querier) error {
		rows, err := q.ClaimCacheOutboxV1(ctx, int32(minAge.Milliseconds()), relayLimit)
		if err != nil || len(rows) == 0 {
			return err
		}
		var touched []string
		var ids []int64
		for _, row := range rows {
			touched, ids = append(append(touched, row.Keys...), row.Deps...), append(ids, row.ID)
			if len(touched) >= RelayKeys {
				break
			}
		}
		if err := o.cache.Invalidate(ctx, touched); err != nil {
			return errors.New(err.Error()) // not wrapped: a network error of Redis is not one of the primary
		}
		relayed = len(ids)
		return q.DeleteCacheOutboxV1(ctx, ids)
	})
	return relayed, err
}

// awaitRelay returns when the outbox row is deleted, or after AwaitRelay.
func (o *Outbox) awaitRelay(ctx context.Context, id int64) {
	ctx, cancel := context.WithTimeout(ctx, AwaitRelay)
	defer cancel()
	for pending := true; pending; {
		select {
		case <-ctx.Done():
			return
		case <-time.After(awaitInterval):
		}
		err := o.router.ReadPrimary(ctx, func(ctx context.Context, q read.Querier) (err error) {
			pending, err = q.IsCacheOutboxPendingV1(ctx, id)
			return err
		})
		if err != nil {
			return // the primary is down too; the row is stored in it
		}
	}
}

// recoverWhenSuspended calls Recover after every suspension of the cache until it succeeds.
func (o *Outbox) recoverWhenSuspended(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-o.cache.Suspended():
		}
		for o.Recover(ctx) != nil {
			select {
			case <-ctx.Done():
				return
			case <-time.After(recoverInterval):
			}
		}
	}
}

// Recover attaches the cache, waits until every outbox row that existed at the start has been relayed, and
// lets reads use the cache again. Rows are compared by age, so new writes of other processes do not
// delay it.
func (o *Outbox) Recover(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, recoverTimeout)
	defer cancel()
	started := time.Now()
	if err := o.router.Sample(ctx); err != nil {
		return err
	}
	if err := o.cache.Attach(ctx); err != nil {
		return err
	}
	if mutation.Point("barrier") {
		if err := o.drain(ctx, started); err != nil {
			return err
		}
	}
	o.cache.Resume()
	return nil
}

// drain relays until no outbox row is older than started.
func (o *Outbox) drain(ctx context.Context, started time.Time) error {
	for {
		relayed, err := o.Relay(ctx, 0)
		if err != nil {
			return err
		}
		if relayed > 0 {
			continue
		}
		status, err := o.status(ctx)
		if err != nil {
			return err
		}
		if time.Duration(status.OldestAgeMs)*time.Millisecond < time.Since(started) {
			return nil
		}
		select { // the relay of another process is at work
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(recoverInterval / 5):
		}
	}
}

// status returns the number of rows and the age of the oldest.
func (o *Outbox) status(ctx context.Context) (status read.CacheOutboxStatusV1, err error) {
	err = o.router.ReadPrimary(ctx, func(ctx context.Context, q read.Querier) (err error) {
		status, err = q.GetCacheOutboxStatusV1(ctx)
		return err
	})
	return status, err
}
