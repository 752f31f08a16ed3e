// Package cache is an exact cache-aside in Redis over PostgreSQL: after a write is acknowledged, no later
// request gets older data, although misses are filled from a replica that may lag, several processes
// run, and Redis may lose keys. It knows Redis and its protocol and decorates a loader; which database
// server a load uses is decided by internal/routing. docs/caching.md explains the protocol, its hazards
// and its bounds. The four Lua scripts are its atomic steps.
//
//	cache.go       what callers use: Get, Read, Invalidate
//	sharedload.go  concurrent misses of one process
//	breaker.go     what happens while Redis does not work
//	scripts.go     the four scripts, typed
//	redis.go       connections and their attachment
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
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/payment-services/accounts/internal/dbgen/read"
	"github.com/payment-services/accounts/internal/mutation"
	"github.com/payment-services/accounts/internal/pipeline"
	"github.com/payment-services/accounts/internal/routing"
)

const (
	// negativeTTL is the TTL of a "not found" entry of an identifier. The creation of a user with that
	// identifier removes the entry.
	negativeTTL = 30 * time.Second
	// ttlJitter is the share by which TTLs vary, so that entries which were stored together do not expire
	// together.
	ttlJitter = 0.05
	// loadTimeout limits a load. A load continues for the requests that joined it, also when the client
	// that began it has disconnected.
	loadTimeout = 5 * time.Second
	// prefetchedTTL is the age up to which a prefetched document may be stored. routing.ProofAge +
	// prefetchedTTL < DirtyTTL, so every write that the document lacks still has its dirty marker.
	prefetchedTTL = 2 * time.Second
	// maxInvalidatedKeys limits the keys of one INVALIDATE, so that no Redis command takes long.
	maxInvalidatedKeys = 200
	// invalidateTimeout limits one attempt of INVALIDATE; a write makes two.
	invalidateTimeout = 50 * time.Millisecond
)

// leaseWaits are the pauses between two looks at another process's lease: 100 ms in all.
var leaseWaits = [...]time.Duration{5 * time.Millisecond, 10 * time.Millisecond, 20 * time.Millisecond, 30 * time.Millisecond, 35 * time.Millisecond}

// FromCache is the routing.Server of an answer that came from Redis.
const FromCache routing.Server = "cache"

// Status tells how the cache took part in an answer.
type Status string

// The values of Status.
const (
	Hit    Status = "hit"
	Miss   Status = "miss"
	Bypass Status = "bypass" // not cached, or Redis does not work
)

// Document is the content of an entry.
type Document struct {
	Body []byte
	ETag string // without quotes and spaces
	// Meta is one line for the caller. It is returned also when the body is not (NotModified).
	Meta string
	// Deps are the logical dependencies: the groups and contact types whose renaming changes the body.
	Deps []string
}

// Load makes a document with read functions. If there is none, it returns pgx.ErrNoRows. It may be called
// more than once, on different servers.
type Load func(context.Context, read.Querier) (Document, error)

// Config is the input of New.
type Config struct {
	URL     string // of the cache's Redis
	Router  *routing.Router
	Logger  *slog.Logger
	Metrics prometheus.Registerer // nil: no metrics
}

// Cache is safe for concurrent use. Until it is attached, and while Redis does not work, reads go to the
// database.
type Cache struct {
	redis   *redis.Client
	batched redis.Scripter // over redis: concurrent READ and FILL commands share round trips
	scripts scripts
	router  *routing.Router
	loads   sharedLoads
	breaker *breaker
	metrics *metrics
	log     *slog.Logger

	invalidateTimeout time.Duration // longer in tests, which run on busy machines

	tokenPrefix string // distinguishes the leases of this process from those of others
	tokens      atomic.Uint64
}

// New returns a cache. Redis may be down.
func New(cfg Config) (*Cache, error) {
	c := &Cache{
		scripts:     newScripts(),
		router:      cfg.Router,
		loads:       sharedLoads{byToken: map[string]*sharedLoad{}},
		breaker:     newBreaker(),
		log:         cfg.Logger,
		tokenPrefix: randomPrefix(),

		invalidateTimeout: invalidateTimeout,
	}
	c.metrics = newMetrics(cfg.Metrics, c)
	client, err := connect(cfg.URL, c.attachNewConnection)
	if err != nil {
		return nil, err
	}
	c.redis, c.batched = client, pipeline.New(client, batchTimeout)
	return c, nil
}

// Run attaches regularly until ctx ends.
func (c *Cache) Run(ctx context.Context) { c.attachRegularly(ctx) }

// Close closes the connections to Redis.
func (c *Cache) Close() error { return c.redis.Close() }

// Ping returns nil if the cache is attached and in use.
func (c *Cache) Ping(ctx context.Context) error {
	if c.breaker.open() {
		return errors.New("redis does not work, or invalidations are pending")
	}
	return c.redis.Ping(ctx).Err()
}

// GetOptions are the options of Get.
type GetOptions struct {
	// TTL is the entry's time to live.
	TTL time.Duration
	// Tags are the entity tags, without quotes, that the client has; "*" matches any.
	Tags []string
	// Negative allows to store a "not found" for 30 s. Every write that ends it must touch the key.
	Negative bool
	// Prefetched is a document of this key that another Get of the same request has loaded.
	Prefetched *Prefetched
}

// Result is the outcome of Get.
type Result struct {
	Document                   // Body is nil if NotModified
	NotModified bool           // one of GetOptions.Tags is the document's ETag
	Status      Status         // hit, miss, bypass
	Server      routing.Server // cache, replica, primary

	provenance routing.Provenance
	loaded     time.Time
}

// Prefetch returns d, which the load of r has read too, for a Get of another key. It returns nil if r was
// not loaded or must not be stored.
func (r Result) Prefetch(d Document) *Prefetched {
	if r.loaded.IsZero() || r.provenance.Unproven {
		return nil
	}
	return &Prefetched{Document: d, provenance: r.provenance, loaded: r.loaded}
}

// Prefetched is a document that was loaded by a Get of another key.
type Prefetched struct {
	Document
	provenance routing.Provenance
	loaded     time.Time
}

// Get returns the document of key from the cache, or loads and stores it. If there is none, the error is
// pgx.ErrNoRows, and the primary has confirmed it. Other errors are those of load, coded.
func (c *Cache) Get(ctx context.Context, key Key, opts GetOptions, load Load) (Result, error) {
	r, err := c.get(ctx, key, opts, load)
	if err == nil && !r.NotModified && (slices.Contains(opts.Tags, r.ETag) || slices.Contains(opts.Tags, "*")) {
		r.NotModified, r.Body = true, nil // the client has the document that was just loaded
	}
	return r, err
}

func (c *Cache) get(ctx context.Context, key Key, opts GetOptions, load Load) (Result, error) {
	if c.breaker.open() {
		return c.bypass(ctx, load)
	}
	name := key.physical()
	token := ""
	if mutation.Point("token") {
		token = c.tokenPrefix + strconv.FormatUint(c.tokens.Add(1), 36)
	}
	for i := 0; ; i++ {
		reply, err := c.read(ctx, name, token, opts.Tags)
		if err != nil {
			c.recordRedisError(ctx, err)
			return c.bypass(ctx, load)
		}
		switch reply.code {
		case readHit, readNotModified:
			c.metrics.requests.WithLabelValues("hit").Inc()
			return hit(reply)
		case readMiss:
			c.metrics.requests.WithLabelValues("miss").Inc()
			return c.loadAsLeaseHolder(ctx, name, lease{token: reply.token, seq: reply.seq, dirty: reply.dirty}, opts, load)
		case readWait:
			if shared := c.loads.find(reply.token, reply.seq); shared != nil {
				c.metrics.requests.WithLabelValues("joined").Inc()
				return shared.wait(ctx)
			}
		}
		if i == len(leaseWaits) {
			break
		}
		select {
		case <-time.After(leaseWaits[i]):
		case <-ctx.Done():
			return Result{}, ctx.Err()
		}
	}
	// The lease holder is slow or dead. This request holds no lease and must not fill.
	c.metrics.requests.WithLabelValues("wait").Inc()
	return c.load(ctx, mutation.Point("wait-primary"), load)
}

// Read runs query, which is not cached. It uses the primary while one of keys, or any dependency, is
// dirty (written less than DirtyTTL ago). Without keys, for lists over many users, the answer is at most
// routing.ProofAge old. If there is no row, the error is pgx.ErrNoRows, and the primary has confirmed it.
func (c *Cache) Read(ctx context.Context, keys []Key, query routing.Query) (routing.Server, error) {
	provenance, err := c.router.Read(ctx, len(keys) > 0 && c.Dirty(ctx, keys), query)
	if err == nil {
		c.metrics.loads.WithLabelValues(string(provenance.Server)).Inc()
	}
	return provenance.Server, err
}

// Invalidate marks everything that a committed write touched as dirty and removes the entries, so that
// nothing that was loaded before is stored or served. If Redis does not answer within 50 ms, it tries
// once more. An error means that the invalidation is pending: the outbox's relay must do it.
func (c *Cache) Invalidate(ctx context.Context, touched []string) error {
	keys, deps := split(touched)
	err := c.invalidateWithTimeout(ctx, keys, deps)
	if err != nil {
		err = c.invalidateWithTimeout(ctx, keys, deps)
	}
	return err
}

func (c *Cache) invalidateWithTimeout(ctx context.Context, keys, deps []string) error {
	for {
		n := min(len(keys), maxInvalidatedKeys)
		callCtx, cancel := context.WithTimeout(ctx, c.invalidateTimeout)
		err := c.invalidate(callCtx, keys[:n], deps)
		cancel()
		if err != nil {
			c.recordRedisError(ctx, err)
			return err
		}
		if keys, deps = keys[n:], nil; len(keys) == 0 {
			return nil
		}
	}
}

// lease is the right to fill one key. READ gives it.
type lease struct {
	token string
	seq   int64
	dirty bool
}

// loadAsLeaseHolder loads and fills. Other requests of this process may join the load.
func (c *Cache) loadAsLeaseHolder(ctx context.Context, key string, l lease, opts GetOptions, load Load) (Result, error) {
	shared := c.loads.start(l)
	defer c.loads.finish(l, shared)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), loadTimeout)
	defer cancel()
	shared.result, shared.err = c.loadAndFill(ctx, key, l, opts, load)
	shared.result.Body = slices.Clip(shared.result.Body) // shared: an append must not write into it
	return shared.result, shared.err
}

func (c *Cache) loadAndFill(ctx context.Context, key string, l lease, opts GetOptions, load Load) (Result, error) {
	r, err := c.loadOrPrefetched(ctx, l, opts.Prefetched, load)
	ttl := jitter(opts.TTL)
	if errors.Is(err, pgx.ErrNoRows) && opts.Negative && !r.provenance.Unproven {
		ttl = negativeTTL
	} else if err != nil || r.provenance.Unproven && mutation.Point("degraded") {
		c.release(ctx, key, l)
		return r, err
	}
	if err != nil {
		r.Document = Document{ETag: notFoundTag}
	}
	reason, fillErr := c.fill(ctx, key, l, r.Document, r.provenance, ttl)
	c.recordRedisError(ctx, fillErr)
	if fillErr != nil {
		reason = "error"
		// A full Redis refused FILL before FILL could release the lease. Removing a key is always safe.
		c.recordRedisError(ctx, c.redis.Unlink(ctx, key).Err())
	}
	if reason != "OK" {
		c.metrics.refusals.WithLabelValues(reason).Inc()
		if r.provenance.Server == routing.FromReplica && mutation.Point("reload") {
			return c.load(ctx, true, load)
		}
	}
	return r, err
}

// loadOrPrefetched returns the prefetched document if it may be stored, and loads otherwise.
func (c *Cache) loadOrPrefetched(ctx context.Context, l lease, p *Prefetched, load Load) (Result, error) {
	if p == nil || time.Since(p.loaded) >= prefetchedTTL || l.dirty && mutation.Point("prefetched-dirty") {
		return c.load(ctx, l.dirty, load)
	}
	r := Result{Document: p.Document, Status: Miss, Server: p.provenance.Server, provenance: p.provenance, loaded: p.loaded}
	// The document was loaded before this lease was given. Writes since then left dirty markers. FILL
	// checks the dirty markers of dependencies only for documents that come from a replica, so this one
	// counts as coming from a replica.
	if mutation.Point("prefetched-server") {
		r.provenance.Server = routing.FromReplica
	}
	return r, nil
}

// load reads from the database and does not fill. The error is the query's.
func (c *Cache) load(ctx context.Context, onPrimary bool, load Load) (Result, error) {
	r := Result{Status: Miss, loaded: time.Now()}
	var err error
	r.provenance, err = c.router.Read(ctx, onPrimary, func(ctx context.Context, q read.Querier) (err error) {
		r.Document, err = load(ctx, q)
		return err
	})
	r.Server = r.provenance.Server
	if r.Server != "" {
		c.metrics.loads.WithLabelValues(string(r.Server)).Inc()
	}
	return r, err
}

func (c *Cache) bypass(ctx context.Context, load Load) (Result, error) {
	c.metrics.requests.WithLabelValues("bypass").Inc()
	r, err := c.load(ctx, false, load)
	r.Status = Bypass
	return r, err
}

// Dirty reports whether one of keys, any dependency, or everything was written less than DirtyTTL ago.
// Called after a read of a replica, it tells whether that data may be old. If Redis does not answer, it
// returns false, and the proof of the replica alone bounds the age of the data.
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
	request := func() ([]any, error) {
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
	if _, err := c.attached(ctx, request); err != nil {
		c.recordRedisError(ctx, err)
		return false
	}
	for _, expiry := range marks.Val() {
		if expiry > float64(now.Val().UnixMilli()) {
			return mutation.Point("dirty-uncached")
		}
	}
	return false
}

func hit(reply readReply) (Result, error) {
	d, err := parseEntry(reply.value)
	if err != nil {
		return Result{}, err
	}
	if d.ETag == notFoundTag {
		return Result{Status: Hit, Server: FromCache}, pgx.ErrNoRows
	}
	r := Result{Document: d, Status: Hit, Server: FromCache, NotModified: reply.code == readNotModified}
	if r.NotModified {
		r.Body = nil
	}
	return r, nil
}

func jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (1 + ttlJitter*(2*randv2.Float64()-1)))
}

func randomPrefix() string {
	var b [8]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:]) + "-"
}
