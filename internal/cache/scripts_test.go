package cache_test

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/cache"
	"github.com/payment-services/accounts/internal/routing"
)

const (
	system   = 4242
	timeline = 3
	nowhere  = "postgres://127.0.0.1:1/none"
	depA     = "g:a"
	depB     = "t:b"
)

// newScripts returns a process with a Redis of its own, attached as these tests want it, no database,
// and nothing dirty.
func newScripts(t *testing.T) (*process, string) {
	t.Helper()
	p := newProcess(t, nowhere, nowhere, newRedis(t).URL)
	runID, err := cache.RunID(t.Context(), p.Redis())
	require.NoError(t, err)
	require.NoError(t, p.Redis().FlushDB(t.Context()).Err()) // the new connection has attached
	answer, err := p.RunAttach(t.Context(), runID, system, timeline)
	require.NoError(t, err)
	require.Equal(t, "RAISED", answer)
	require.NoError(t, p.PassTime(t.Context(), afterMarkers))
	return p, runID
}

func someKey() cache.Key { return cache.UserKey(uuid.New()) }

// lease plants a lease and returns its seq.
func (p *process) lease(t *testing.T, key cache.Key, token string) int64 {
	t.Helper()
	reply, err := p.RunRead(t.Context(), key, token, cache.Format)
	require.NoError(t, err)
	require.Equal(t, "MISS", reply[0])
	return reply[1].(int64)
}

// filling is a fill that nothing speaks against.
func filling(token string, seq int64, deps ...string) cache.Filling {
	return cache.Filling{
		Token: token, Seq: seq, Server: routing.FromReplica, System: system, Timeline: timeline, TTL: ttl,
		Document: cache.Document{Body: []byte("body\nof two lines"), ETag: "tag", Meta: "meta", Deps: deps},
	}
}

func (p *process) fill(t *testing.T, key cache.Key, f cache.Filling) string {
	t.Helper()
	answer, err := p.RunFill(t.Context(), key, f)
	require.NoError(t, err)
	return answer
}

func (p *process) raise(t *testing.T, touched ...string) {
	t.Helper()
	answer, err := p.RunInvalidate(t.Context(), touched...)
	require.NoError(t, err)
	require.Equal(t, "OK", answer)
}

func TestRead(t *testing.T) {
	t.Parallel()
	p, _ := newScripts(t)
	ctx := t.Context()
	read := func(key cache.Key, tags ...string) []any {
		t.Helper()
		reply, err := p.RunRead(ctx, key, "reader", cache.Format, tags...)
		require.NoError(t, err)
		return reply
	}
	stored := func(deps ...string) cache.Key {
		t.Helper()
		key := someKey()
		require.Equal(t, "OK", p.fill(t, key, filling("t", p.lease(t, key, "t"), deps...)))
		return key
	}

	seq := func() int64 {
		t.Helper()
		n, err := p.Redis().HGet(ctx, cache.GenKey, "seq").Int64()
		require.NoError(t, err)
		return n
	}
	first := seq()
	key := stored(depA, depB)
	value := "V" + cache.Format + " " + strconv.FormatInt(first, 10) + " tag ga,tb\nmeta\nbody\nof two lines"
	require.Equal(t, []any{"HIT", value}, read(key))
	require.Equal(t, []any{"HIT", value}, read(key, "other"))
	require.Equal(t, []any{"NOT-MODIFIED", strings.TrimSuffix(value, "body\nof two lines")}, read(key, "other", "tag"))
	require.Equal(t, "NOT-MODIFIED", read(key, "*")[0])
	require.Equal(t, "NOT-MODIFIED", read(stored(), "tag")[0])

	require.Equal(t, []any{"MISS", first, int64(0)}, read(someKey()))
	leased := someKey()
	require.Equal(t, []any{"MISS", first, int64(0)}, read(leased))
	require.Equal(t, []any{"WAIT", "reader", first}, read(leased))

	written := stored()
	p.raise(t, string(written))
	require.Equal(t, []any{"MISS", first, int64(1)}, read(written), "dirty")
	require.NoError(t, p.PassTime(ctx, cache.DirtyTTL-time.Second))
	require.NoError(t, p.Redis().Del(ctx, written.Physical()).Err())
	require.Equal(t, []any{"MISS", first, int64(1)}, read(written), "dirty for M")
	require.NoError(t, p.PassTime(ctx, time.Second))
	require.NoError(t, p.Redis().Del(ctx, written.Physical()).Err())
	require.Equal(t, []any{"MISS", first, int64(0)}, read(written), "and no longer")

	other := stored("g:other")
	p.raise(t, depB)
	require.Equal(t, []any{"MISS", first + 1, int64(0)}, read(key), "one of its dependencies was raised")
	require.Equal(t, "HIT", read(other)[0])

	require.NoError(t, p.Redis().Set(ctx, key.Physical(), "Vother 9 tag -\n\nbody", ttl).Err())
	require.Equal(t, "MISS", read(key)[0], "another format")
	require.NoError(t, p.Redis().Set(ctx, key.Physical(), "V"+cache.Format+" no header", ttl).Err())
	require.Equal(t, "MISS", read(key)[0], "no entry at all")

	_, err := p.RunAttach(ctx, "another run", system, timeline)
	require.NoError(t, err)
	require.Equal(t, []any{"MISS", seq(), int64(1)}, read(other), "attached anew: dead, and dirty")

	require.NoError(t, p.Redis().Del(ctx, cache.GenKey).Err())
	require.Equal(t, []any{"UNATTACHED"}, read(someKey()))
}

func TestFill(t *testing.T) {
	t.Parallel()
	p, _ := newScripts(t)
	ctx := t.Context()

	key := someKey()
	f := filling("mine", p.lease(t, key, "mine"))
	require.Equal(t, "OK", p.fill(t, key, f))
	ttl, err := p.Redis().PTTL(ctx, key.Physical()).Result()
	require.NoError(t, err)
	require.InDelta(t, ttl.Milliseconds(), ttl.Milliseconds(), 5000)
	require.Equal(t, "lease", p.fill(t, key, f), "a value is no lease")
	require.NotEmpty(t, p.entry(t, key), "and stays")

	refused := func(reason string, f cache.Filling, key cache.Key) {
		t.Helper()
		require.Equal(t, reason, p.fill(t, key, f))
		require.Empty(t, p.entry(t, key), "a refusal gives the lease back")
	}
	next := func(deps ...string) (cache.Filling, cache.Key) {
		key := someKey()
		return filling("mine", p.lease(t, key, "mine"), deps...), key
	}

	f, key = next()
	f.Token = "other"
	require.Equal(t, "lease", p.fill(t, key, f))
	require.Equal(t, "Lmine", p.entry(t, key), "another's lease stays")

	f, key = next()
	f.TTL = 0
	refused("released", f, key)

	f, key = next()
	f.Timeline--
	refused("timeline", f, key)
	f, key = next()
	f.Timeline++
	refused("timeline", f, key)
	f, key = next()
	f.System++
	refused("timeline", f, key) // another cluster's timelines have the same numbers

	f, key = next(depA)
	p.raise(t, depA)
	f.Server = routing.FromPrimary
	refused("dependency", f, key)

	f, key = next(depB, depA)
	refused("dirty", f, key) // raised before the lease, so the replica may not have it
	f, key = next(depB, depA)
	f.Server = routing.FromPrimary
	require.Equal(t, "OK", p.fill(t, key, f))
	require.NoError(t, p.PassTime(ctx, cache.DirtyTTL))
	f, key = next(depB, depA)
	require.Equal(t, "OK", p.fill(t, key, f))

	f, key = next()
	p.raise(t, string(key))
	refused("lease", f, key)

	f, key = next()
	_, err = p.RunAttach(ctx, "another run", system, timeline)
	require.NoError(t, err)
	refused("star", f, key)

	f, key = next()
	require.NoError(t, p.Redis().Del(ctx, cache.GenKey).Err())
	refused("unattached", f, key)
}

func TestInvalidate(t *testing.T) {
	t.Parallel()
	p, _ := newScripts(t)
	ctx := t.Context()
	marks := func() map[string]time.Duration { // what is left of them
		now, err := p.Redis().Time(ctx).Result()
		require.NoError(t, err)
		all, err := p.Redis().ZRangeWithScores(ctx, cache.DirtyKey, 0, -1).Result()
		require.NoError(t, err)
		left := map[string]time.Duration{}
		for _, z := range all {
			left[z.Member.(string)] = time.UnixMilli(int64(z.Score)).Sub(now)
		}
		return left
	}
	value, leased, other := someKey(), someKey(), someKey()
	for _, key := range []cache.Key{value, other} {
		require.Equal(t, "OK", p.fill(t, key, filling("t", p.lease(t, key, "t"))))
	}
	p.lease(t, leased, "t")
	p.raise(t, string(value), string(leased))
	require.Empty(t, p.entry(t, value))
	require.Empty(t, p.entry(t, leased))
	require.NotEmpty(t, p.entry(t, other))
	left := marks()
	require.Len(t, left, 2, "the marker of the attach is over and was removed")
	require.InDelta(t, cache.DirtyTTL.Seconds(), left[value.Physical()].Seconds(), 3)
	require.InDelta(t, cache.DirtyTTL.Seconds(), left[leased.Physical()].Seconds(), 3)
	gen := p.Redis().HGetAll(ctx, cache.GenKey).Val()
	attached := gen["*"]
	require.Equal(t, attached, gen["seq"], "keys alone raise nothing")

	p.raise(t, depA, depB, string(other))
	before, err := strconv.Atoi(attached)
	require.NoError(t, err)
	next := strconv.Itoa(before + 1)
	gen = p.Redis().HGetAll(ctx, cache.GenKey).Val()
	require.Equal(t, next, gen["seq"], "one write, one step")
	require.Equal(t, next, gen["ga"])
	require.Equal(t, next, gen["tb"])
	require.Equal(t, attached, gen["*"])
	for _, member := range []string{"ga", "tb", "deps", other.Physical()} {
		require.Contains(t, marks(), member)
	}

	require.NoError(t, p.Redis().Del(ctx, cache.GenKey).Err())
	answer, err := p.RunInvalidate(ctx, string(value))
	require.NoError(t, err)
	require.Equal(t, "UNATTACHED", answer)
}

func TestAttach(t *testing.T) {
	t.Parallel()
	p, runID := newScripts(t)
	ctx := t.Context()
	attach := func(run string, system int64, timeline int) string {
		t.Helper()
		answer, err := p.RunAttach(ctx, run, system, timeline)
		require.NoError(t, err)
		return answer
	}
	star := func() int64 {
		t.Helper()
		n, err := p.Redis().HGet(ctx, cache.GenKey, "*").Int64()
		require.NoError(t, err)
		return n
	}
	var last int64
	raised := func(why ...any) {
		t.Helper()
		now := star()
		require.Greater(t, now, last, why...)
		last = now
	}
	raised()
	require.Equal(t, "OK", attach(runID, system, timeline))
	require.Equal(t, "OK", attach(runID, 0, 0), "a process that has not seen its primary")
	require.Equal(t, last, star())

	require.Equal(t, "STALE", attach(runID, system, timeline-1))
	require.Equal(t, last, star())
	require.Equal(t, "RAISED", attach(runID, system, timeline+1))
	raised()
	require.Equal(t, "RAISED", attach(runID, system+1, 1), "timelines of another cluster start anew")
	raised()
	require.Equal(t, "OK", attach(runID, system+1, 1))
	require.Equal(t, "RAISED", attach("another run", system+1, 1))
	raised()
	require.Equal(t, "STALE", attach("a third run", system+1, -1))
	raised("Redis has lost its memory, whoever says so")

	require.NoError(t, p.Redis().FlushDB(ctx).Err())
	require.Equal(t, "RAISED", attach(runID, 0, 0))
	require.Equal(t, "RAISED", attach(runID, system, timeline), "now the primary is known")
	dirty, err := p.Redis().ZScore(ctx, cache.DirtyKey, "*").Result()
	require.NoError(t, err)
	require.InDelta(t, time.Now().Add(cache.DirtyTTL).UnixMilli(), dirty, 3000)

	key := someKey()
	require.Equal(t, "OK", p.fill(t, key, filling("t", p.lease(t, key, "t"))))
	require.NoError(t, p.Redis().Del(ctx, cache.GenKey).Err())
	require.Equal(t, "RAISED", attach(runID, system, timeline))
	p.lease(t, key, "t") // a miss: counting did not begin anew while entries live on
}
