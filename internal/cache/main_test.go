package cache_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/accounts"
	"github.com/payment-services/accounts/internal/cache"
	"github.com/payment-services/accounts/internal/core"
	"github.com/payment-services/accounts/internal/core/coretest"
	"github.com/payment-services/accounts/internal/dbgen/read"
	"github.com/payment-services/accounts/internal/dbgen/write"
	"github.com/payment-services/accounts/internal/errcode"
	"github.com/payment-services/accounts/internal/localservers"
	"github.com/payment-services/accounts/internal/outbox"
	"github.com/payment-services/accounts/internal/pgtest"
	"github.com/payment-services/accounts/internal/postgres"
	"github.com/payment-services/accounts/internal/routing"
)

const (
	// waitLimit bounds each wait of these tests; only a defect makes one last so long.
	waitLimit = 10 * time.Second
	// afterMarkers is how much time must pass until nothing is dirty any more.
	afterMarkers = cache.DirtyTTL + time.Second
	ttl          = 10 * time.Minute
)

func TestMain(m *testing.M) {
	redis.SetLogger(quiet{}) // its texts are in the errors too
	pgtest.Main(m)
}

type quiet struct{}

func (quiet) Printf(context.Context, string, ...any) {}

// process is the wired service of one server process. It has no background work unless run is called.
type process struct {
	*cache.Cache
	core    *core.Core
	primary *postgres.Primary
	replica *postgres.Replica
	router  *routing.Router
	outbox  *outbox.Outbox
	service *accounts.Service
	metrics *prometheus.Registry
	clock   *clock
}

// clock is the clock of a process's proofs of freshness. Its time can be advanced.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }

func newProcess(t *testing.T, writeURL, readURL, redisURL string) *process {
	t.Helper()
	p := &process{metrics: prometheus.NewRegistry(), clock: &clock{}}
	cfg := coretest.Config(writeURL, readURL, redisURL)
	cfg.Metrics, cfg.Now = p.metrics, p.clock.now
	p.core = coretest.Open(t, cfg)
	p.Cache, p.primary, p.replica = p.core.Cache, p.core.Primary, p.core.Replica
	p.router, p.outbox, p.service = p.core.Router, p.core.Outbox, p.core.Accounts
	p.BePatient(waitLimit / 2)
	return p
}

// run starts the background work. The test's end, or stop, ends it.
func (p *process) run(t *testing.T) (stop func()) { return coretest.Run(t, p.core) }

// Attach does what a process does when it starts, without draining the outbox.
func (p *process) Attach(ctx context.Context) error {
	err := p.Sample(ctx)
	if err == nil {
		err = p.Cache.Attach(ctx)
		p.SetInUse(err == nil)
	}
	return err
}

func (p *process) Sample(ctx context.Context) error { return p.router.Sample(ctx) }

func (p *process) Stale() bool { return p.router.Stale() }

func (p *process) BreakerOpen() bool { return p.Bypassed() }

// believe makes position the only sample, requested now.
func (p *process) believe(position postgres.Position) {
	p.clock.ahead.Add(int64(routing.ProofAge + time.Millisecond))
	p.router.Observe(position, p.clock.now())
}

// PassTime makes the samples of this process and the markers in its Redis older by d.
func (p *process) PassTime(ctx context.Context, d time.Duration) error {
	p.clock.ahead.Add(int64(d))
	return p.AgeMarkers(ctx, d)
}

// Invalidate does what follows a commit.
func (p *process) Invalidate(ctx context.Context, touched []string, id *int64) {
	p.outbox.Invalidate(ctx, touched, id)
}

// Count returns a counter of the process: requests, loads or refusals with a label value, or deferred.
func (p *process) Count(counter, label string) (n int) {
	name := map[string]string{
		"requests": "accounts_cache_requests_total", "loads": "accounts_cache_loads_total",
		"refusals": "accounts_cache_fill_refusals_total", "deferred": "accounts_cache_deferred_invalidations_total",
	}[counter]
	// The collectors that query the primary may fail; the counters are gathered all the same.
	families, _ := p.metrics.Gather()
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			if family.GetName() == name && (label == "" || metric.GetLabel()[0].GetValue() == label) {
				n += int(metric.GetCounter().GetValue())
			}
		}
	}
	return n
}

// newRedis starts a cache server that ends with the test.
func newRedis(t *testing.T) *localservers.Redis {
	t.Helper()
	pgtest.NeedServers(t)
	r, err := localservers.NewRedis(localservers.RedisConfig{Kind: localservers.CacheRedis, Dir: t.TempDir()})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, r.Close()) })
	require.NoError(t, r.Start(t.Context()))
	return r
}

// change is a committed write that nothing has been told of yet.
type change struct {
	touched []string
	outbox  *int64
}

func (p *process) commit(t *testing.T, fn func(context.Context, write.Querier) (change, error)) change {
	t.Helper()
	var made change
	require.NoError(t, p.primary.Write(t.Context(), func(ctx context.Context, q write.Querier) (err error) {
		made, err = fn(ctx, q)
		return err
	}))
	return made
}

// setProfile commits the profile {"v":<value>}.
func (p *process) setProfile(t *testing.T, id uuid.UUID, value string) change {
	t.Helper()
	return p.commit(t, func(ctx context.Context, q write.Querier) (change, error) {
		row, err := q.UpdateUserV1(ctx, write.UpdateUserV1Params{UserID: id, ProfilePatch: profile(value)})
		return change{row.Touched, row.OutboxID}, err
	})
}

func (p *process) renameGroup(t *testing.T, id uuid.UUID, name string) change {
	t.Helper()
	return p.commit(t, func(ctx context.Context, q write.Querier) (change, error) {
		row, err := q.UpdateUserGroupV1(ctx, write.UpdateUserGroupV1Params{GroupID: id, Name: &name, NameKey: &name})
		return change{row.Touched, row.OutboxID}, err
	})
}

func (p *process) createUser(t *testing.T, phone, value string, groups ...string) (uuid.UUID, change) {
	t.Helper()
	var id uuid.UUID
	return id, p.commit(t, func(ctx context.Context, q write.Querier) (change, error) {
		row, err := q.CreateUserV1(ctx, write.CreateUserV1Params{
			IsActive: true, Profile: profile(value), GroupKeys: append([]string{}, groups...),
			ContactTypes: []string{"phone"}, ContactValues: []string{phone}, ContactNormalized: []string{phone},
		})
		id = row.ID
		return change{row.Touched, row.OutboxID}, err
	})
}

// invalidate does what follows a commit.
func (p *process) invalidate(c change) { p.Invalidate(context.Background(), c.touched, nil) }

func profile(value string) json.RawMessage { return json.RawMessage(fmt.Sprintf(`{"v":%q}`, value)) }

// loader is the load of one user: the profile's value and the groups. It stops after its query.
type loader struct {
	id    uuid.UUID
	after *barrier
	calls atomic.Int32
}

func (l *loader) load(ctx context.Context, q read.Querier) (cache.Document, error) {
	l.calls.Add(1)
	u, err := q.GetUserDetailV1(ctx, l.id)
	if err != nil {
		return cache.Document{}, err // perhaps only the replica's: it is asked again elsewhere
	}
	l.after.arrive()
	return document(u), nil
}

func document(u read.UserDetailV1) cache.Document {
	return cache.Document{
		// With room behind it, as what comes out of a bytes.Buffer has.
		Body: fmt.Appendf(make([]byte, 0, 4096), "%s %s", u.Profile, u.Groups), ETag: strconv.FormatInt(u.Version, 10),
		Deps: u.Dependencies,
	}
}

// get is a request for the loader's user.
func (p *process) get(l *loader) (cache.Result, error) {
	return p.Get(context.Background(), cache.UserKey(l.id), cache.GetOptions{TTL: ttl}, l.load)
}

// answer is get for a user that must be there.
func (p *process) answer(t *testing.T, id uuid.UUID) cache.Result {
	t.Helper()
	r, err := p.get(&loader{id: id})
	require.NoError(t, err)
	return r
}

// entry returns what Redis holds for a key: a value, a lease, or nothing.
func (p *process) entry(t *testing.T, key cache.Key) string {
	t.Helper()
	text, err := p.Redis().Get(t.Context(), key.Physical()).Result()
	if err == redis.Nil {
		return ""
	}
	require.NoError(t, err)
	return text
}

// barrier stops the first who arrives until it is released. A nil barrier stops nobody.
type barrier struct {
	once     sync.Once
	arrived  chan struct{}
	released chan struct{}
}

func newBarrier() *barrier {
	return &barrier{arrived: make(chan struct{}), released: make(chan struct{})}
}

func (b *barrier) arrive() {
	if b == nil {
		return
	}
	b.once.Do(func() {
		close(b.arrived)
		select {
		case <-b.released:
		case <-time.After(waitLimit): // the test has failed already
		}
	})
}

// await returns when somebody stands at the barrier.
func (b *barrier) await(t *testing.T) {
	t.Helper()
	select {
	case <-b.arrived:
	case <-time.After(waitLimit):
		require.FailNow(t, "nobody arrived at the barrier")
	}
}

func (b *barrier) release() { close(b.released) }

// async starts fn; the returned function waits for its result.
func async[T any](t *testing.T, fn func() (T, error)) (wait func() T) {
	t.Helper()
	type outcome struct {
		value T
		err   error
	}
	done := make(chan outcome, 1)
	go func() {
		v, err := fn()
		done <- outcome{v, err}
	}()
	return func() T {
		t.Helper()
		select {
		case o := <-done:
			require.NoError(t, o.err)
			return o.value
		case <-time.After(waitLimit):
			require.FailNow(t, "no answer")
			panic("unreachable")
		}
	}
}

// eventually waits for what can only be asked for.
func eventually(t *testing.T, what string, yes func() bool) {
	t.Helper()
	for deadline := time.Now().Add(waitLimit); !yes(); time.Sleep(2 * time.Millisecond) {
		require.True(t, time.Now().Before(deadline), "not within %s: %s", waitLimit, what)
	}
}

// execute runs one statement as the superuser.
func execute(t *testing.T, url, sql string, args ...any) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer conn.Close(context.Background())
	_, err = conn.Exec(t.Context(), sql, args...)
	require.NoError(t, err)
}

// readQuerier is what a query gets.
type readQuerier = read.Querier

var errNoRows = pgx.ErrNoRows

// requireUnavailable is for answers that say: try again later.
func requireUnavailable(t *testing.T, err error) {
	t.Helper()
	var coded *errcode.Error
	require.ErrorAs(t, err, &coded)
	require.Equal(t, errcode.Database, coded.Code)
	require.NotZero(t, coded.RetryAfter)
}
