package cache_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/payment-services/accounts/internal/accounts"
	"github.com/payment-services/accounts/internal/cache"
	"github.com/payment-services/accounts/internal/errcode"
	"github.com/payment-services/accounts/internal/outbox"
	"github.com/payment-services/accounts/internal/pgtest"
)

// cut returns a process that reaches Redis through a proxy. It reads from the primary, so that what it
// reads past the cache is never old.
func cut(t *testing.T, db *pgtest.DB) (*process, *pgtest.Proxy) {
	t.Helper()
	proxy := pgtest.NewProxy(t, db.Redis().Address())
	url, err := proxy.URL(db.Redis().URL)
	require.NoError(t, err)
	return newProcess(t, db.WriteURL, db.PrimaryReadURL, url), proxy
}

// pending returns the number of rows in the outbox.
func (p *process) pending(t *testing.T) (n int64) {
	t.Helper()
	require.NoError(t, p.router.ReadPrimary(context.Background(), func(ctx context.Context, q readQuerier) error {
		status, err := q.GetCacheOutboxStatusV1(ctx)
		n = status.Pending
		return err
	}))
	return n
}

func TestWriteCutOffFromRedisWaitsForAnothersRelay(t *testing.T) {
	t.Parallel()
	db := pgtest.Shared(t)
	a, proxy := cut(t, db)
	b := newProcess(t, db.WriteURL, db.PrimaryReadURL, db.Redis().URL)
	id, _ := a.createUser(t, "+79160000000", "old")
	require.NoError(t, a.outbox.Recover(t.Context()))
	require.NoError(t, b.outbox.Recover(t.Context()))
	b.answer(t, id)

	proxy.Cut()
	made := a.setProfile(t, id, "new")
	acknowledged := make(chan struct{})
	go func() {
		defer close(acknowledged)
		a.Invalidate(t.Context(), made.touched, made.outbox)
	}()
	t.Cleanup(func() { <-acknowledged }) // also after a failure nothing is left behind
	eventually(t, "deferred", func() bool { return a.Count("deferred", "") == 1 })
	select {
	case <-acknowledged:
		require.FailNow(t, "the write was acknowledged while the other process could read what it replaced")
	case <-time.After(outbox.AwaitRelay / 5):
	}
	n, err := b.outbox.Relay(t.Context(), 0)
	require.NoError(t, err)
	require.Equal(t, 1, n)
	<-acknowledged
	require.Zero(t, a.pending(t))
	require.Contains(t, string(b.answer(t, id).Body), "new")
}

func TestProcessDiesBetweenCommitAndInvalidate(t *testing.T) {
	t.Parallel()
	db := pgtest.Shared(t)
	dies, lives := newProcess(t, db.WriteURL, db.ReadURL, db.Redis().URL), newProcess(t, db.WriteURL, db.ReadURL, db.Redis().URL)
	lives.run(t)
	id, created := dies.createUser(t, "+79160000000", "old")
	dies.invalidate(created)
	lives.answer(t, id)
	require.Equal(t, cache.Hit, lives.answer(t, id).Status)
	dies.setProfile(t, id, "new")
	eventually(t, "the survivor relays", func() bool { return lives.pending(t) == 0 })
	require.Contains(t, string(lives.answer(t, id).Body), "new")
}

func TestRedisKilledBetweenCommitAndInvalidate(t *testing.T) {
	t.Parallel()
	db := pgtest.Shared(t)
	a, b := newProcess(t, db.WriteURL, db.PrimaryReadURL, db.Redis().URL), newProcess(t, db.WriteURL, db.PrimaryReadURL, db.Redis().URL)
	a.run(t)
	b.run(t)
	id, created := a.createUser(t, "+79160000000", "old")
	a.Invalidate(t.Context(), created.touched, created.outbox)
	b.answer(t, id)
	require.NoError(t, b.Redis().Save(t.Context()).Err()) // it comes back with what it had
	made := a.setProfile(t, id, "new")
	require.NoError(t, db.Redis().Kill())
	started := time.Now()
	a.Invalidate(t.Context(), made.touched, made.outbox)
	require.Less(t, time.Since(started), 2*outbox.AwaitRelay+waitLimit/5, "a write does not wait for Redis for ever")
	for _, p := range []*process{a, b} {
		require.Contains(t, string(p.answer(t, id).Body), "new", "acknowledged, and Redis is away")
	}
	require.NoError(t, db.Redis().Start(t.Context()))
	for _, p := range []*process{a, b} {
		for p.BreakerOpen() || p.answer(t, id).Status == cache.Bypass {
			require.Contains(t, string(p.answer(t, id).Body), "new")
		}
		require.Contains(t, string(p.answer(t, id).Body), "new")
	}
	eventually(t, "relayed", func() bool { return a.pending(t) == 0 })
}

func TestBreakerClosesOnlyAfterTheDrain(t *testing.T) {
	t.Parallel()
	db := pgtest.Shared(t)
	ctx := t.Context()
	p, proxy := cut(t, db)
	id, _ := p.createUser(t, "+79160000000", "old")
	attached := make(chan struct{}, 100)
	p.OnScript(func(name, _ string, next func() error) error {
		err := next()
		if name == "ATTACH" {
			attached <- struct{}{}
		}
		return err
	})
	require.NoError(t, p.outbox.Recover(ctx))
	p.answer(t, id)
	require.Equal(t, cache.Hit, p.answer(t, id).Status)

	proxy.Cut()
	made := p.setProfile(t, id, "new")
	started := time.Now()
	p.Invalidate(ctx, made.touched, made.outbox)
	require.GreaterOrEqual(t, time.Since(started), outbox.AwaitRelay, "another process might have relayed it")
	require.Less(t, time.Since(started), 2*outbox.AwaitRelay+waitLimit/5)
	require.EqualValues(t, 1, p.pending(t))

	require.NoError(t, proxy.Heal())
	r := p.answer(t, id)
	require.Equal(t, cache.Bypass, r.Status)
	require.Contains(t, string(r.Body), "new")

	// Another process's relay holds the rows.
	other, err := pgx.Connect(ctx, db.SuperURL)
	require.NoError(t, err)
	defer other.Close(context.Background())
	_, err = other.Exec(ctx, "BEGIN")
	require.NoError(t, err)
	_, err = other.Exec(ctx, "SELECT FROM accounts.named_locks WHERE name = 'cache_outbox' FOR UPDATE")
	require.NoError(t, err)
	for len(attached) > 0 {
		<-attached
	}
	recovered := async(t, func() (struct{}, error) { return struct{}{}, p.outbox.Recover(ctx) })
	<-attached
	r = p.answer(t, id)
	require.Contains(t, string(r.Body), "new")
	require.Equal(t, cache.Bypass, r.Status, "the row is still pending")
	_, err = other.Exec(ctx, "ROLLBACK")
	require.NoError(t, err)
	recovered()
	require.Zero(t, p.pending(t))
	r = p.answer(t, id)
	require.Contains(t, string(r.Body), "new")
	require.Equal(t, cache.Miss, r.Status)
}

func TestRelayTakesABoundedNumberOfKeys(t *testing.T) {
	t.Parallel()
	db := pgtest.Shared(t)
	p := newProcess(t, db.WriteURL, db.ReadURL, db.Redis().URL)
	require.NoError(t, p.outbox.Recover(t.Context()))
	const rows, keys = 11, 2000
	execute(t, db.UncheckedURL("rows without a change"), `INSERT INTO accounts.cache_outbox (keys, deps)
		SELECT array_agg('u:' || gen_random_uuid()), '{}' FROM generate_series(1, $1::int) AS r, generate_series(1, $2::int) GROUP BY r`, rows, keys)
	for _, want := range []int{outbox.RelayKeys / keys, 1, 0} {
		n, err := p.outbox.Relay(t.Context(), 0)
		require.NoError(t, err)
		require.Equal(t, want, n)
	}
	marked, err := p.Redis().ZCard(t.Context(), cache.DirtyKey).Result()
	require.NoError(t, err)
	require.EqualValues(t, rows*keys+1, marked, "every key, and everything since the attach")
}

func TestFailedRelayIsNotThePrimarysFault(t *testing.T) {
	t.Parallel()
	db := pgtest.Shared(t)
	p, proxy := cut(t, db)
	require.NoError(t, p.outbox.Recover(t.Context()))
	p.createUser(t, "+79160000000", "old")
	pool := prometheus.NewRegistry()
	p.primary.Register(pool)
	made := func() (n float64) {
		families, err := pool.Gather()
		require.NoError(t, err)
		for _, family := range families {
			if family.GetName() == "accounts_pool_new_connections_total" {
				n = family.GetMetric()[0].GetCounter().GetValue()
			}
		}
		return n
	}
	connections := made()
	require.NotZero(t, connections)
	proxy.Cut()
	_, err := p.outbox.Relay(t.Context(), 0)
	require.Error(t, err)
	require.Equal(t, errcode.Internal, errcode.Of(err), "not: the database is not available")
	require.EqualValues(t, 1, p.pending(t), "the row is kept")
	require.Equal(t, connections, made(), "the pool was thrown away")
}

// Not parallel: what other tests run would look like a leak.
func TestRunEndsWithEverythingDeletedAndNothingLeaked(t *testing.T) {
	db := pgtest.Shared(t)
	redisURL := db.Redis().URL
	before := goleak.IgnoreCurrent()
	p := newProcess(t, db.WriteURL, db.ReadURL, redisURL)
	stop := p.run(t)
	var last uuid.UUID
	for range 20 {
		id, _, err := p.service.CreateUser(t.Context(), accounts.NewUser{IsActive: true})
		require.NoError(t, err)
		last = id
	}
	require.Contains(t, string(p.answer(t, last).Body), "{}")
	stop()
	require.Zero(t, p.pending(t), "rows whose invalidation is done")
	require.NoError(t, p.Close())
	p.primary.Close()
	p.replica.Close()
	goleak.VerifyNone(t, before)
}
