// Package cache is an exact cache-aside over PostgreSQL in Redis: after a write is acknowledged, no
// later request is answered from older data, although misses are filled from a replica that may lag,
// several processes run, and Redis may lose keys. docs/caching.md explains the protocol, its hazards
// and its bounds; the four Lua scripts are its atomic steps.
//
//	cache.go    what callers use: Get, Read, Invalidate
//	source.go   which server a read goes to
//	flight.go   concurrent misses of one process
//	outbox.go   invalidations that Redis missed
//	breaker.go  Redis away and back again
//	scripts.go  the four scripts, typed
package cache

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"log/slog"
	randv2 "math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/payment-services/accounts/internal/dbgen/read"
	"github.com/payment-services/accounts/internal/pipeline"
	"github.com/payment-services/accounts/internal/postgres"
)

const (
	// A "not found" of an identifier is kept this long; the creation that ends it also removes it.
	negativeLife = 30 * time.Second
	// Entries that were made together shall not expire together: lives vary by this share.
	lifeJitter = 0.05
	// A load goes on for those who joined it, also when the client that began it is gone.
	loadTimeout = 5 * time.Second
	// A document loaded this long ago may still be stored: proofAge + seedLife < dirtyLife, so every
	// write that it lacks still has its dirty marker.
	seedLife = 2 * time.Second
	// One INVALIDATE takes at most this many keys: no Redis call shall take long.
	invalidateKeys = 200
	// What a write may wait for Redis, tried twice.
	invalidateTimeout = 50 * time.Millisecond
)

// waits are the pauses between looks at another process's lease: 100 ms in all.
var waits = [...]time.Duration{5 * time.Millisecond, 10 * time.Millisecond, 20 * time.Millisecond, 30 * time.Millisecond, 35 * time.Millisecond}

// Status says what the cache contributed to an answer.
type Status string

// The values of Status.
const (
	Hit    Status = "hit"
	Miss   Status = "miss"
	Bypass Status = "bypass" // not cached, or Redis is away
)

// Document is what an entry holds. Meta is a line of the caller's own that comes back even when the
// body does not (NotModified). Deps are the logical dependencies: what a rename would change in it.
type Document struct {
	Body []byte
	ETag string // without quotes and spaces
	Meta string
	Deps []string
}

// Load makes a document with read functions. Nothing there is pgx.ErrNoRows. It may be called more
// than once.
type Load func(context.Context, read.Querier) (Document, error)

// Config is what New needs.
type Config struct {
	URL     string // of the cache's Redis
	Primary *postgres.Primary
	Replica *postgres.Replica
	Logger  *slog.Logger
	Metrics prometheus.Registerer // nil: no metrics
}

// Cache is safe for concurrent use. Until Run has attached it, and whenever Redis is away, it passes
// reads on to the database.
type Cache struct {
	redis   *redis.Client
	batched redis.Scripter // over redis: READ and FILL of concurrent requests go together
	scripts scripts
	source  source
	flights flights
	breaker *breaker
	outbox  outbox
	metrics *metrics
	log     *slog.Logger

	invalidateTimeout time.Duration // a field for tests: a busy machine is no broken Redis

	tokenPrefix string // tells the leases of this process from those of others
	tokens      atomic.Uint64
}

// New returns a cache; Redis may be down.
func New(cfg Config) (*Cache, error) {
	c := &Cache{
		scripts:     newScripts(),
		source:      source{primary: cfg.Primary, replica: cfg.Replica},
		flights:     flights{byToken: map[string]*flight{}},
		breaker:     newBreaker(),
		outbox:      newOutbox(),
		log:         cfg.Logger,
		tokenPrefix: randomPrefix(),

		invalidateTimeout: invalidateTimeout,
	}
	c.metrics = newMetrics(cfg.Metrics, c)
	client, err := connect(cfg.URL, c.hello)
	if err != nil {
		return nil, err
	}
	c.redis, c.batched = client, pipeline.New(client, batchTimeout)
	return c, nil
}

// Run keeps the cache going until ctx ends: it samples the primary, follows Redis, relays
// invalidations. It returns when all of that has stopped, with the last outbox rows deleted.
func (c *Cache) Run(ctx context.Context) {
	var all sync.WaitGroup
	all.Go(func() { c.follow(ctx) })
	all.Go(func() { c.recoverWhenOpen(ctx) })
	all.Go(func() { c.relayOutbox(ctx) })
	all.Go(func() { c.deleteDone(ctx) })
	all.Wait()
}

// Close closes the connections to Redis.
func (c *Cache) Close() error { return c.redis.Close() }

// Ping reports whether the cache is attached and in use.
func (c *Cache) Ping(ctx context.Context) error {
	if c.breaker.open() {
		return errors.New("redis is away, or invalidations are still owed")
	}
	return c.redis.Ping(ctx).Err()
}

// Want says what a Get is for.
type Want struct {
	// Life is the entry's time to live.
	Life time.Duration
	// Tags are the entity tags, without quotes, that the client has already; "*" is any.
	Tags []string
	// Negative allows a "not found" to be kept for 30 s. The key must be touched by every write
	// that ends it.
	Negative bool
	// Seed is a document of this key that another Get of this request loaded on the way.
	Seed *Seed
}

// Result is the outcome of a Get.
type Result struct {
	Document           // Body is nil if NotModified
	NotModified bool   // one of Want.Tags is the document's ETag
	Status      Status // hit, miss, bypass
	Source      Source // cache, replica, primary

	origin origin
	loaded time.Time
}

// Seed returns d, which the load of r read in passing, as a seed for another key; nil if r was not
// loaded or may not be kept.
func (r Result) Seed(d Document) *Seed {
	if r.loaded.IsZero() || r.origin.degraded {
		return nil
	}
	return &Seed{Document: d, origin: r.origin, loaded: r.loaded}
}

// Seed is a document that was loaded while another key was looked up.
type Seed struct {
	Document
	origin origin
	loaded time.Time
}

// Get returns the document of key from the cache, or loads and stores it. Nothing there is
// pgx.ErrNoRows, and then it is the primary that said so. Other errors are those of load, coded.
func (c *Cache) Get(ctx context.Context, key Key, want Want, load Load) (Result, error) {
	r, err := c.get(ctx, key, want, load)
	if err == nil && !r.NotModified && (slices.Contains(want.Tags, r.ETag) || slices.Contains(want.Tags, "*")) {
		r.NotModified, r.Body = true, nil // it was loaded, and is what the client has
	}
	return r, err
}

func (c *Cache) get(ctx context.Context, key Key, want Want, load Load) (Result, error) {
	if c.breaker.open() {
		return c.bypass(ctx, load)
	}
	name := key.physical()
	token := ""
	if guard("token") {
		token = c.tokenPrefix + strconv.FormatUint(c.tokens.Add(1), 36)
	}
	for i := 0; ; i++ {
		a, err := c.read(ctx, name, token, want.Tags)
		if err != nil {
			c.noteRedis(ctx, err)
			return c.bypass(ctx, load)
		}
		switch a.code {
		case readHit, readNotModified:
			c.metrics.requests.WithLabelValues("hit").Inc()
			return hit(a)
		case readMiss:
			c.metrics.requests.WithLabelValues("miss").Inc()
			return c.lead(ctx, name, lease{token: a.token, seq: a.seq, dirty: a.dirty}, want, load)
		case readWait:
			if f := c.flights.find(a.token, a.seq); f != nil {
				c.metrics.requests.WithLabelValues("joined").Inc()
				return f.wait(ctx)
			}
		}
		if i == len(waits) {
			break
		}
		select {
		case <-time.After(waits[i]):
		case <-ctx.Done():
			return Result{}, ctx.Err()
		}
	}
	// Its holder is slow or dead. Whoever holds no lease must not fill.
	c.metrics.requests.WithLabelValues("wait").Inc()
	return c.load(ctx, guard("wait-primary"), load)
}

// Read runs query, which is not cached, on the server that the protocol chooses: the primary while
// one of keys, or any dependency, was written less than M ago. Without keys, for lists over many
// users, the answer is at most D old. A miss is pgx.ErrNoRows and the primary's word.
func (c *Cache) Read(ctx context.Context, keys []Key, query Query) (Source, error) {
	o, err := c.source.read(ctx, len(keys) > 0 && c.Dirty(ctx, keys), query)
	if err == nil {
		c.metrics.loads.WithLabelValues(string(o.source)).Inc()
	}
	return o.source, err
}

// Primary runs query on the primary, for those who must not be answered from anything else: with the
// primary down it fails.
func (c *Cache) Primary(ctx context.Context, query Query) error {
	_, err := c.source.primary.Read(ctx, query)
	return err
}

// Replica runs query on the read server, however far that has replayed.
func (c *Cache) Replica(ctx context.Context, query Query) error {
	_, err := c.source.replica.Read(ctx, postgres.AdmitAny, query)
	return err
}

// ReplicaPosition returns the position of the read server.
func (c *Cache) ReplicaPosition(ctx context.Context) (postgres.Position, error) {
	return c.source.replica.Position(ctx)
}

// Stale reports whether Redis has heard of a newer timeline than this process's primary has: that
// primary was replaced and must not be written to.
func (c *Cache) Stale() bool { return c.source.stale.Load() }

// AwaitCurrent waits until this process is not Stale, at most for limit, and reports whether that is
// so: the process that hears of a promotion first tells the others through Redis, and they look for the
// new primary within sampleInterval.
func (c *Cache) AwaitCurrent(ctx context.Context, limit time.Duration) bool {
	for deadline := time.Now().Add(limit); c.Stale(); {
		if time.Now().After(deadline) {
			return false
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(staleInterval):
		}
	}
	return true
}

// Invalidate makes everything that was loaded before now of what a committed write touched
// worthless. It returns when that is done in Redis; when Redis cannot be reached, when some process's
// relay has done it, or after a second at most. outbox is the write's outbox row, nil if not known.
func (c *Cache) Invalidate(ctx context.Context, touched []string, outbox *int64) {
	if len(touched) == 0 {
		return
	}
	ctx = context.WithoutCancel(ctx) // the write is done; its client may be gone
	keys, deps := split(touched)
	err := c.invalidateSoon(ctx, keys, deps)
	if err != nil {
		err = c.invalidateSoon(ctx, keys, deps)
	}
	switch {
	case outbox == nil:
	case err == nil:
		c.outbox.markDone(*outbox)
	default:
		c.metrics.deferred.Inc()
		c.log.WarnContext(ctx, "invalidation deferred to the outbox's relay", "error", err)
		if guard("await-relay") {
			c.awaitRelay(ctx, *outbox)
		}
	}
}

func (c *Cache) invalidateSoon(ctx context.Context, keys, deps []string) error {
	for {
		n := min(len(keys), invalidateKeys)
		callCtx, cancel := context.WithTimeout(ctx, c.invalidateTimeout)
		err := c.invalidate(callCtx, keys[:n], deps)
		cancel()
		if err != nil {
			c.noteRedis(ctx, err)
			return err
		}
		if keys, deps = keys[n:], nil; len(keys) == 0 {
			return nil
		}
	}
}

// lease is the right to fill one key, given by READ.
type lease struct {
	token string
	seq   int64
	dirty bool
}

// lead loads and fills as the holder of the lease; others of this process may join.
func (c *Cache) lead(ctx context.Context, key string, l lease, want Want, load Load) (Result, error) {
	f := c.flights.start(l)
	defer c.flights.finish(l, f)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), loadTimeout)
	defer cancel()
	f.result, f.err = c.loadAndFill(ctx, key, l, want, load)
	f.result.Body = slices.Clip(f.result.Body) // shared: nobody's append may write behind it
	return f.result, f.err
}

func (c *Cache) loadAndFill(ctx context.Context, key string, l lease, want Want, load Load) (Result, error) {
	var r Result
	var err error
	if s := want.Seed; s != nil && time.Since(s.loaded) < seedLife && !(l.dirty && guard("seed-dirty")) {
		r = Result{Document: s.Document, Status: Miss, Source: s.origin.source, origin: s.origin, loaded: s.loaded}
		// It was loaded before the lease. What was written in between has left a marker, also on the
		// dependencies, which FILL looks at for what came from a replica.
		if guard("seed-source") {
			r.origin.source = FromReplica
		}
	} else {
		r, err = c.load(ctx, l.dirty, load)
	}
	life := jitter(want.Life)
	if errors.Is(err, pgx.ErrNoRows) && want.Negative && !r.origin.degraded {
		life = negativeLife
	} else if err != nil || r.origin.degraded && guard("degraded") {
		c.release(ctx, key, l)
		return r, err
	}
	if err != nil {
		r.Document = Document{ETag: "-"}
	}
	reason, fillErr := c.fill(ctx, key, l, r.Document, r.origin, life)
	c.noteRedis(ctx, fillErr)
	if fillErr != nil {
		reason = "error"
		// A full Redis refused FILL before it could give the lease back. Removing a key is always safe.
		c.noteRedis(ctx, c.redis.Unlink(ctx, key).Err())
	}
	if reason != "OK" {
		c.metrics.refusals.WithLabelValues(reason).Inc()
		if r.origin.source == FromReplica && guard("reload") {
			return c.load(ctx, true, load)
		}
	}
	return r, err
}

// load asks the database and fills nothing. Its error is the query's.
func (c *Cache) load(ctx context.Context, needPrimary bool, load Load) (Result, error) {
	r := Result{Status: Miss, loaded: time.Now()}
	var err error
	r.origin, err = c.source.read(ctx, needPrimary, func(ctx context.Context, q read.Querier) (err error) {
		r.Document, err = load(ctx, q)
		return err
	})
	r.Source = r.origin.source
	if r.Source != "" {
		c.metrics.loads.WithLabelValues(string(r.Source)).Inc()
	}
	return r, err
}

func (c *Cache) bypass(ctx context.Context, load Load) (Result, error) {
	c.metrics.requests.WithLabelValues("bypass").Inc()
	r, err := c.load(ctx, false, load)
	r.Status = Bypass
	return r, err
}

// Dirty reports whether one of keys, any dependency, or everything was written less than M ago. Asked
// after a read of a replica it tells whether what was found there may be old. If Redis does not
// tell, the proof of the replica must do.
func (c *Cache) Dirty(ctx context.Context, keys []Key) bool {
	if c.breaker.open() {
		return false
	}
	members := []string{"*", "deps"}
	for _, k := range keys {
		members = append(members, k.physical())
	}
	var run *redis.StringCmd
	var marks *redis.FloatSliceCmd
	var now *redis.TimeCmd
	ask := func() ([]any, error) {
		_, err := c.redis.TxPipelined(ctx, func(p redis.Pipeliner) error {
			run = p.HGet(ctx, genKey, "run")
			marks = p.ZMScore(ctx, dirtyKey, members...)
			now = p.Time(ctx)
			return nil
		})
		if errors.Is(run.Err(), redis.Nil) {
			return nil, errUnattached
		}
		return nil, err
	}
	if _, err := c.attached(ctx, ask); err != nil {
		c.noteRedis(ctx, err)
		return false
	}
	for _, expiry := range marks.Val() {
		if expiry > float64(now.Val().UnixMilli()) {
			return guard("dirty-uncached")
		}
	}
	return false
}

func hit(a readAnswer) (Result, error) {
	d, err := parseEntry(a.value)
	if err != nil {
		return Result{}, err
	}
	if d.ETag == "-" {
		return Result{Status: Hit, Source: FromCache}, pgx.ErrNoRows
	}
	r := Result{Document: d, Status: Hit, Source: FromCache, NotModified: a.code == readNotModified}
	if r.NotModified {
		r.Body = nil
	}
	return r, nil
}

func jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (1 + lifeJitter*(2*randv2.Float64()-1)))
}

func randomPrefix() string {
	var b [8]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:]) + "-"
}
