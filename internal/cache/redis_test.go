package cache_test

import (
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/cache"
	"github.com/payment-services/accounts/internal/routing"
)

func TestSetupThatWouldNotBeExactIsRefused(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	p := newProcess(t, nowhere, nowhere, newRedis(t).URL)
	other := newProcess(t, nowhere, nowhere, newRedis(t).URL).Redis()
	same := p.Redis()
	for _, c := range []struct {
		policy string
		auth   *redis.Client
		reason string
	}{
		{"volatile-lfu", other, ""},
		{"volatile-lfu", same, "one Redis server that evicts"},
		{"noeviction", same, ""},
		{"allkeys-lru", other, "dirty markers"},
	} {
		require.NoError(t, same.ConfigSet(ctx, "maxmemory-policy", c.policy).Err())
		err := p.CheckSetup(ctx, c.auth)
		if c.reason == "" {
			require.NoError(t, err, c.policy)
		} else {
			require.ErrorContains(t, err, c.reason, c.policy)
		}
	}
	away := newProcess(t, nowhere, nowhere, "redis://127.0.0.1:1/1")
	require.NoError(t, away.CheckSetup(ctx, same), "who does not answer is not judged")
	require.NoError(t, same.ConfigSet(ctx, "maxmemory-policy", "volatile-lfu").Err())
	require.NoError(t, p.CheckSetup(ctx, away.Redis()))
}

// attended repeats a request until the cache was asked: a broken connection is a bypass, whose
// answer may be D old.
func (p *process) attended(t *testing.T, u user) cache.Result {
	t.Helper()
	for {
		if r := p.answer(t, u.id); r.Status != cache.Bypass {
			return r
		}
		require.NoError(t, p.Attach(t.Context()))
	}
}

func redisRestarted(t *testing.T, w *world) {
	r := newRedis(t)
	p := w.process(t, r.URL)
	u, other := w.user(t), w.user(t)
	p.answer(t, u.id)
	require.NoError(t, p.Redis().Save(t.Context()).Err())
	p.invalidate(p.setProfile(t, u.id, "new"))
	p.invalidate(p.setProfile(t, other.id, "new"))

	require.NoError(t, r.Kill())
	require.NoError(t, r.Start(t.Context())) // with the entry, without the markers
	require.False(t, p.BreakerOpen(), "nothing has told the process")
	require.Contains(t, string(p.attended(t, u).Body), "new")
	require.Contains(t, string(p.attended(t, other).Body), "new", "the marker is lost, so everything is dirty")
}

func redisFlushed(t *testing.T, w *world) {
	p := w.process(t, newRedis(t).URL)
	u := w.user(t)
	p.invalidate(p.setProfile(t, u.id, "new"))
	require.NoError(t, p.Redis().FlushDB(t.Context()).Err()) // the connections and the run_id stay
	r := p.answer(t, u.id)
	require.Contains(t, string(r.Body), "new")
	require.Equal(t, cache.Miss, r.Status)
	require.Equal(t, cache.Hit, p.answer(t, u.id).Status)

	require.NoError(t, p.Redis().FlushDB(t.Context()).Err())
	p.invalidate(p.setProfile(t, u.id, "newer"))
	require.False(t, p.BreakerOpen())
	require.Contains(t, string(p.answer(t, u.id).Body), "newer")

	require.NoError(t, p.Redis().FlushDB(t.Context()).Err())
	_, origin, err := p.service.UserContacts(t.Context(), u.id, false)
	require.NoError(t, err)
	require.Equal(t, routing.FromPrimary, origin.Server)
}

func redisFull(t *testing.T, w *world) {
	p := w.process(t, newRedis(t).URL)
	ctx := t.Context()
	u, other := w.user(t), w.user(t)
	p.answer(t, u.id)
	require.NoError(t, p.Redis().ConfigSet(ctx, "maxmemory-policy", "noeviction").Err())
	require.NoError(t, p.Redis().ConfigSet(ctx, "maxmemory", "1mb").Err())
	require.ErrorContains(t, p.Redis().Set(ctx, "more", "x", 0).Err(), "OOM")

	require.Equal(t, cache.Hit, p.answer(t, u.id).Status)
	require.Contains(t, string(p.answer(t, other.id).Body), "old")
	require.Equal(t, 1, p.Count("refusals", "error"), "it cannot be stored")
	p.invalidate(p.setProfile(t, u.id, "new"))
	require.Contains(t, string(p.answer(t, u.id).Body), "new")
	require.NoError(t, p.Attach(ctx))
	require.False(t, p.BreakerOpen(), "a full Redis is not away")
}

func breakerOpens(t *testing.T, w *world) {
	r := newRedis(t)
	p := w.process(t, r.URL)
	u := w.user(t)
	p.answer(t, u.id)
	require.NoError(t, r.Kill())
	got := p.answer(t, u.id)
	require.Equal(t, cache.Bypass, got.Status)
	require.Contains(t, string(got.Body), "old")
	require.True(t, p.BreakerOpen())
	require.NoError(t, r.Start(t.Context()))
	require.Equal(t, cache.Bypass, p.answer(t, u.id).Status, "not before it is attached")
	require.NoError(t, p.Attach(t.Context()))
	require.Equal(t, cache.Miss, p.answer(t, u.id).Status)
}
