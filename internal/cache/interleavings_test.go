package cache_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/cache"
	"github.com/payment-services/accounts/internal/dbgen/write"
	"github.com/payment-services/accounts/internal/pgtest"
	"github.com/payment-services/accounts/internal/postgres"
	"github.com/payment-services/accounts/internal/routing"
)

// TestInterleavings holds the orders of events in which a cache over a lagging replica goes wrong.
// They share a primary and a standby; each has its own users, processes and Redis.
func TestInterleavings(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for name, test := range map[string]func(*testing.T, *world){
		// here
		"a proven replica is asked and its answer kept":               provenReplica,
		"a write kills the entry":                                     writeKillsEntry,
		"a rename kills the entries of the members":                   renameKillsEntries,
		"another format is a miss and dies by the same invalidation":  twoFormats,
		"after a write a lagging replica is not asked":                laggingReplica,
		"a lag longer than the marker fails the proof":                lagLongerThanMarker,
		"an old sample proves nothing":                                oldSample,
		"uncached reads of a dirty user go to the primary":            uncachedReads,
		"uncached reads after a rename go to the primary":             uncachedReadsAfterRename,
		"a miss on the replica is asked again on the primary":         missOnReplica,
		"without the primary the replica answers and nothing is kept": primaryDown,
		"without the primary a miss is unknown":                       primaryDownMiss,
		"the primary's own reads are never answered by the replica":   primaryMeansPrimary,
		"a caller whose time is up does not open the breaker":         callersDeadline,
		"a caller may append to a body that it shares":                sharedBody,
		"another database cluster's entries are dead":                 anotherCluster,
		"a process on an old timeline neither writes nor fills":       oldTimeline,
		"a replica on another timeline is not asked":                  replicaOnAnotherTimeline,

		// leases_test.go
		"a fill after an invalidation is refused":                       fillAfterInvalidation,
		"a replica's answer that may not be stored is not given either": renameBeforeReplicaLoad,
		"a rename between lease and fill refuses the fill":              renameBetweenLeaseAndFill,
		"an attach between lease and fill refuses the fill":             attachBetweenLeaseAndFill,
		"a reader after a write does not join a load from before it":    joinerAfterWrite,
		"a reader after a rename does not join a load from before it":   joinerAfterRename,
		"concurrent misses of two processes fill once":                  oneFillPerGeneration,
		"a dead lease holder is bypassed by way of the primary":         leaseHolderDies,

		// identifiers_test.go
		"not found, then created, then found":                        createdAfterNotFound,
		"a creation between the load and the fill of a not found":    createdDuringNotFound,
		"a phone moves while its mapping is being read":              phoneMoves,
		"a write between the identifier's load and the user's read":  writeAfterSeed,
		"a rename between the identifier's load and the user's read": renameAfterSeed,
		"an identifier's load is kept for both keys":                 seedIsKept,

		// redis_test.go
		"Redis is restarted with old data":     redisRestarted,
		"Redis is flushed":                     redisFlushed,
		"Redis is full":                        redisFull,
		"the breaker opens on the first error": breakerOpens,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, w)
		})
	}
}

// world is a primary and a standby that has stopped replaying: what was there before is on both, what
// is written later is on the primary alone.
type world struct {
	*pgtest.Stack
	stopped postgres.Position // where the standby is
	users   chan user
}

// user is on both servers: the profile is {"v":"old"}, and it is the only member of its group.
type user struct {
	id        uuid.UUID
	phone     string
	group     uuid.UUID
	groupName string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	const users = 60
	w := &world{Stack: pgtest.Private(t), users: make(chan user, users)}
	p := newProcess(t, w.WriteURL, w.ReadURL, "redis://127.0.0.1:1/1")
	for i := range users {
		u := user{phone: fmt.Sprintf("+7916%07d", i), groupName: fmt.Sprintf("old %d", i)}
		p.commit(t, func(ctx context.Context, q write.Querier) (change, error) {
			row, err := q.CreateUserGroupV1(ctx, u.groupName, u.groupName)
			u.group = row.ID
			return change{}, err
		})
		u.id, _ = p.createUser(t, u.phone, "old", u.groupName)
		w.users <- u
	}
	require.NoError(t, w.WaitForReplay(t.Context()))
	require.NoError(t, w.Cluster.PauseReplay(t.Context()))
	var err error
	w.stopped, err = p.replica.Position(t.Context())
	require.NoError(t, err)
	return w
}

func (w *world) user(t *testing.T) user {
	t.Helper()
	select {
	case u := <-w.users:
		return u
	default:
		require.FailNow(t, "newWorld makes too few users")
		panic("unreachable")
	}
}

// process returns an attached process for which nothing is dirty and the standby proves to be fresh,
// as it was a moment before replay stopped.
func (w *world) process(t *testing.T, redisURL string) *process {
	t.Helper()
	return w.attach(t, newProcess(t, w.WriteURL, w.ReadURL, redisURL))
}

func (w *world) attach(t *testing.T, p *process) *process {
	t.Helper()
	require.NoError(t, p.Attach(t.Context()))
	require.NoError(t, p.PassTime(t.Context(), afterMarkers))
	p.believe(w.stopped)
	return p
}

// pair returns two processes on one Redis.
func (w *world) pair(t *testing.T) (a, b *process) {
	t.Helper()
	r := newRedis(t)
	return w.process(t, r.URL), w.process(t, r.URL)
}

// unreachable is a position that the stopped standby cannot prove, so that loads go to the primary.
func unreachable(w *world) postgres.Position {
	pos := w.stopped
	pos.LSN *= 2
	return pos
}

// later is M and more after everything that was done: no marker is left, and the samples are of now.
func (p *process) later(t *testing.T) {
	t.Helper()
	require.NoError(t, p.PassTime(t.Context(), afterMarkers))
	require.NoError(t, p.Sample(t.Context()))
}

func provenReplica(t *testing.T, w *world) {
	a, b := w.pair(t)
	u := w.user(t)
	r := a.answer(t, u.id)
	require.Equal(t, routing.FromReplica, r.Server)
	require.Equal(t, cache.Miss, r.Status)
	for _, p := range []*process{a, b} {
		again := p.answer(t, u.id)
		require.Equal(t, cache.Hit, again.Status)
		require.Equal(t, r.Document.Body, again.Document.Body)
		require.Equal(t, r.ETag, again.ETag)
	}
}

func writeKillsEntry(t *testing.T, w *world) {
	a, b := w.pair(t)
	u := w.user(t)
	a.answer(t, u.id)
	b.invalidate(b.setProfile(t, u.id, "new"))
	r := a.answer(t, u.id)
	require.Contains(t, string(r.Body), "new")
	require.Equal(t, routing.FromPrimary, r.Server)
	require.Equal(t, cache.Hit, b.answer(t, u.id).Status, "what came from the primary is kept")
}

func renameKillsEntries(t *testing.T, w *world) {
	a, b := w.pair(t)
	u, other := w.user(t), w.user(t)
	a.answer(t, u.id)
	a.answer(t, other.id)
	name := "new " + u.groupName
	b.invalidate(b.renameGroup(t, u.group, name))
	require.Contains(t, string(a.answer(t, u.id).Body), name)
	require.Equal(t, cache.Hit, a.answer(t, other.id).Status, "a member of another group")
}

func twoFormats(t *testing.T, w *world) {
	p := w.process(t, newRedis(t).URL)
	ctx := t.Context()
	u := w.user(t)
	key := cache.UserKey(u.id)
	fillOther := func() { // as a process of the next release does
		reply, err := p.RunRead(ctx, key, "theirs", "2")
		require.NoError(t, err)
		require.Equal(t, "MISS", reply[0], "an entry of this format")
		answer, err := p.RunFill(ctx, key, cache.Filling{
			Token: "theirs", Format: "2", Seq: reply[1].(int64), Server: routing.FromPrimary, System: w.stopped.SystemIdentifier, Timeline: 1, TTL: ttl,
			Document: cache.Document{ETag: "theirs", Body: []byte("another layout")},
		})
		require.NoError(t, err)
		require.Equal(t, "OK", answer)
	}
	p.answer(t, u.id)
	fillOther()
	r := p.answer(t, u.id)
	require.Equal(t, cache.Miss, r.Status)
	require.Contains(t, string(r.Body), "old")

	fillOther()
	p.invalidate(p.setProfile(t, u.id, "new"))
	require.Empty(t, p.entry(t, key))
}

func laggingReplica(t *testing.T, w *world) {
	a, b := w.pair(t)
	u := w.user(t)
	b.invalidate(b.setProfile(t, u.id, "new"))
	r := a.answer(t, u.id)
	require.Contains(t, string(r.Body), "new")
	require.Equal(t, routing.FromPrimary, r.Server)
}

func lagLongerThanMarker(t *testing.T, w *world) {
	a, b := w.pair(t)
	u := w.user(t)
	b.invalidate(b.setProfile(t, u.id, "new"))
	a.later(t)
	r := a.answer(t, u.id)
	require.Contains(t, string(r.Body), "new")
	require.Equal(t, routing.FromPrimary, r.Server)
}

func oldSample(t *testing.T, w *world) {
	a, b := w.pair(t)
	u := w.user(t)
	b.invalidate(b.setProfile(t, u.id, "new"))
	require.NoError(t, a.PassTime(t.Context(), afterMarkers)) // and nothing was sampled meanwhile
	require.Contains(t, string(a.answer(t, u.id).Body), "new")
}

func uncachedReads(t *testing.T, w *world) {
	a, b := w.pair(t)
	u := w.user(t)
	contacts := func() (string, routing.Server) {
		list, origin, err := a.service.UserContacts(t.Context(), u.id, false)
		require.NoError(t, err)
		require.NotEmpty(t, list)
		return list[len(list)-1].Value, origin.Server
	}
	value, source := contacts()
	require.Equal(t, u.phone, value)
	require.Equal(t, routing.FromReplica, source)

	b.invalidate(b.commit(t, func(ctx context.Context, q write.Querier) (change, error) {
		row, err := q.AddContactV1(ctx, write.AddContactV1Params{
			UserID: u.id, Type: "second_login", Value: "login" + u.phone[1:] + "x", Normalized: "login" + u.phone[1:] + "x",
		})
		return change{row.Touched, row.OutboxID}, err
	}))
	value, source = contacts()
	require.Equal(t, "login"+u.phone[1:]+"x", value)
	require.Equal(t, routing.FromPrimary, source)
}

func uncachedReadsAfterRename(t *testing.T, w *world) {
	a, b := w.pair(t)
	u := w.user(t)
	name := "new " + u.groupName
	b.invalidate(b.renameGroup(t, u.group, name))
	list, origin, err := a.service.UserMemberships(t.Context(), u.id)
	require.NoError(t, err)
	require.Equal(t, name, list[0].GroupName)
	require.Equal(t, routing.FromPrimary, origin.Server)
}

func missOnReplica(t *testing.T, w *world) {
	a, b := w.pair(t)
	u := w.user(t)
	id, _ := b.createUser(t, "+7917"+u.phone[5:], "new") // its creator is about to invalidate
	r := a.answer(t, id)
	require.Contains(t, string(r.Body), "new")
	require.Equal(t, routing.FromPrimary, r.Server)

	_, err := a.get(&loader{id: uuid.New()})
	require.ErrorIs(t, err, errNoRows)
	require.Equal(t, 2, a.Count("loads", "primary"))
}

func primaryDown(t *testing.T, w *world) {
	r := newRedis(t)
	proxy := pgtest.NewProxy(t, w.Cluster.Primary.Address())
	writeURL, err := proxy.URL(w.WriteURL)
	require.NoError(t, err)
	a := w.attach(t, newProcess(t, writeURL, w.ReadURL, r.URL))
	b := w.process(t, r.URL)
	u := w.user(t)
	b.invalidate(b.setProfile(t, u.id, "new"))
	a.later(t)
	proxy.Cut()
	got := a.answer(t, u.id)
	require.Equal(t, routing.FromReplica, got.Server)
	require.Contains(t, string(got.Body), "old", "better than nothing")
	require.Empty(t, a.entry(t, cache.UserKey(u.id)), "neither an entry nor a lease is left")

	require.NoError(t, proxy.Heal())
	require.NoError(t, a.Sample(t.Context()))
	require.Contains(t, string(a.answer(t, u.id).Body), "new")
}

func primaryDownMiss(t *testing.T, w *world) {
	proxy := pgtest.NewProxy(t, w.Cluster.Primary.Address())
	writeURL, err := proxy.URL(w.WriteURL)
	require.NoError(t, err)
	a := w.attach(t, newProcess(t, writeURL, w.ReadURL, newRedis(t).URL))
	b := newProcess(t, w.WriteURL, w.ReadURL, "redis://127.0.0.1:1/1")
	id, _ := b.createUser(t, "+7918"+w.user(t).phone[5:], "new")
	proxy.Cut()
	_, err = a.get(&loader{id: id})
	requireUnavailable(t, err)
	_, err = a.service.UserByIdentifier(t.Context(), "+79180000000", nil)
	requireUnavailable(t, err)
	require.NotEmpty(t, a.answer(t, w.user(t).id).Body, "what the replica has is answered")
}

func primaryMeansPrimary(t *testing.T, w *world) {
	proxy := pgtest.NewProxy(t, w.Cluster.Primary.Address())
	writeURL, err := proxy.URL(w.WriteURL)
	require.NoError(t, err)
	a := w.attach(t, newProcess(t, writeURL, w.ReadURL, newRedis(t).URL))
	u := w.user(t)
	l := &loader{id: u.id}
	load := func(ctx context.Context, q readQuerier) error {
		_, err := l.load(ctx, q)
		return err
	}
	require.NoError(t, a.router.ReadPrimary(t.Context(), load))
	proxy.Cut()
	requireUnavailable(t, a.router.ReadPrimary(t.Context(), load))
}

func callersDeadline(t *testing.T, w *world) {
	p := w.process(t, newRedis(t).URL)
	ctx, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	l := &loader{id: w.user(t).id}
	_, err := p.Get(ctx, cache.UserKey(l.id), cache.GetOptions{TTL: ttl}, l.load)
	require.Error(t, err)
	require.False(t, p.BreakerOpen())
}

func sharedBody(t *testing.T, w *world) {
	p := w.process(t, newRedis(t).URL)
	l := &loader{id: w.user(t).id, after: newBarrier()}
	leader := async(t, func() (cache.Result, error) { return p.get(l) })
	l.after.await(t)
	joiner := async(t, func() (cache.Result, error) { return p.get(l) })
	eventually(t, "joined", func() bool { return p.Count("requests", "joined") == 1 })
	l.after.release()
	one, two := leader().Body, joiner().Body
	require.Equal(t, one, two)
	_ = append(one, "one"...)
	more := append(two, "two"...)
	_ = append(one, "one"...)
	require.Equal(t, "two", string(more[len(two):]))
}

func anotherCluster(t *testing.T, w *world) {
	r := newRedis(t)
	a := newProcess(t, w.WriteURL, w.ReadURL, r.URL)
	ctx := t.Context()
	u := w.user(t)
	key := cache.UserKey(u.id)
	// Before, the service worked with a cluster that had failed over eight times.
	runID, err := cache.RunID(ctx, a.Redis())
	require.NoError(t, err)
	_, err = a.RunAttach(ctx, runID, 1, 9)
	require.NoError(t, err)
	reply, err := a.RunRead(ctx, key, "before", cache.Format)
	require.NoError(t, err)
	answer, err := a.RunFill(ctx, key, cache.Filling{
		Token: "before", Seq: reply[1].(int64), Server: routing.FromPrimary, System: 1, Timeline: 9, TTL: ttl,
		Document: cache.Document{ETag: "before", Body: []byte("of another world")},
	})
	require.NoError(t, err)
	require.Equal(t, "OK", answer)

	require.NoError(t, a.Attach(ctx))
	require.False(t, a.Stale(), "timelines of different clusters do not compare")
	got := a.answer(t, u.id)
	require.Contains(t, string(got.Body), "old")
	require.Equal(t, cache.Miss, got.Status)
	require.Equal(t, routing.FromPrimary, got.Server, "everything is dirty for M")
}

func oldTimeline(t *testing.T, w *world) {
	p := w.process(t, newRedis(t).URL)
	ctx := t.Context()
	u := w.user(t)
	// Another process has seen the promotion that this one missed.
	runID, err := cache.RunID(ctx, p.Redis())
	require.NoError(t, err)
	answer, err := p.RunAttach(ctx, runID, w.stopped.SystemIdentifier, 2)
	require.NoError(t, err)
	require.Equal(t, "RAISED", answer)

	p.answer(t, u.id)
	require.Empty(t, p.entry(t, cache.UserKey(u.id)), "filled with what an old primary said")
	require.NotZero(t, p.Count("refusals", "timeline"))

	require.NoError(t, p.Attach(ctx))
	require.True(t, p.Stale())
	_, err = p.service.CreateGroup(ctx, "written on the old timeline "+u.groupName)
	requireUnavailable(t, err)
}

func replicaOnAnotherTimeline(t *testing.T, w *world) {
	p := w.process(t, newRedis(t).URL)
	u := w.user(t)
	elsewhere := w.stopped
	elsewhere.Timeline = 2
	p.believe(elsewhere) // the primary was promoted, the standby still follows the old one
	p.setProfile(t, u.id, "new")
	require.Contains(t, string(p.answer(t, u.id).Body), "new")
}
