package cache_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/cache"
	"github.com/payment-services/accounts/internal/routing"
)

func fillAfterInvalidation(t *testing.T, w *world) {
	for _, source := range []routing.Server{routing.FromReplica, routing.FromPrimary} {
		a, b := w.pair(t)
		u := w.user(t)
		if source == routing.FromPrimary {
			a.believe(unreachable(w))
		}
		l := &loader{id: u.id, after: newBarrier()}
		reader := async(t, func() (cache.Result, error) { return a.get(l) })
		l.after.await(t)
		b.invalidate(b.setProfile(t, u.id, "new"))
		l.after.release()
		reader()
		require.NotContains(t, a.entry(t, cache.UserKey(u.id)), "old", "loaded from the %s before the write", source)
		require.Contains(t, string(b.answer(t, u.id).Body), "new")
		require.Equal(t, 1, a.Count("refusals", "lease"))
	}
}

// A rename leaves the user's key alone, so the load goes to the replica, which lacks it.
func renameBeforeReplicaLoad(t *testing.T, w *world) {
	a, b := w.pair(t)
	u := w.user(t)
	name := "new " + u.groupName
	b.invalidate(b.renameGroup(t, u.group, name))
	r := a.answer(t, u.id)
	require.Contains(t, string(r.Body), name)
	require.Equal(t, routing.FromPrimary, r.Server)
	require.Equal(t, 1, a.Count("refusals", "dirty"))
	require.Empty(t, a.entry(t, cache.UserKey(u.id)))
}

func renameBetweenLeaseAndFill(t *testing.T, w *world) {
	a, b := w.pair(t)
	u := w.user(t)
	name := "new " + u.groupName
	a.believe(unreachable(w)) // so the load is the primary's, whose answers need no reload
	l := &loader{id: u.id, after: newBarrier()}
	reader := async(t, func() (cache.Result, error) { return a.get(l) })
	l.after.await(t)
	b.invalidate(b.renameGroup(t, u.group, name))
	l.after.release()
	reader()
	require.Empty(t, a.entry(t, cache.UserKey(u.id)))
	require.Equal(t, 1, a.Count("refusals", "dependency"))
	require.Contains(t, string(b.answer(t, u.id).Body), name)
}

func attachBetweenLeaseAndFill(t *testing.T, w *world) {
	a, b := w.pair(t)
	u := w.user(t)
	l := &loader{id: u.id, after: newBarrier()}
	reader := async(t, func() (cache.Result, error) { return a.get(l) })
	l.after.await(t)
	runID, err := cache.RunID(t.Context(), b.Redis())
	require.NoError(t, err)
	_, err = b.RunAttach(t.Context(), runID, 1, 1) // another cluster; the timeline is called the same
	require.NoError(t, err)
	l.after.release()
	reader()
	require.Empty(t, a.entry(t, cache.UserKey(u.id)))
	require.Equal(t, 1, a.Count("refusals", "star"))
}

func joinerAfterWrite(t *testing.T, w *world) {
	a, b := w.pair(t)
	u := w.user(t)
	before := &loader{id: u.id, after: newBarrier()}
	leader := async(t, func() (cache.Result, error) { return a.get(before) })
	before.after.await(t)
	b.invalidate(b.setProfile(t, u.id, "new"))

	// The other process now holds the lease. In the first one, the old load is still under way.
	other := &loader{id: u.id, after: newBarrier()}
	otherLeader := async(t, func() (cache.Result, error) { return b.get(other) })
	other.after.await(t)
	late := &loader{id: u.id}
	reader := async(t, func() (cache.Result, error) { return a.get(late) })
	eventually(t, "the reader has seen the lease", func() bool {
		return late.calls.Load() > 0 || a.Count("requests", "joined") > 0
	})
	before.after.release()
	r := reader()
	other.after.release()
	leader()
	otherLeader()
	require.Contains(t, string(r.Body), "new")
	require.Contains(t, string(a.answer(t, u.id).Body), "new")
}

func joinerAfterRename(t *testing.T, w *world) {
	a, b := w.pair(t)
	u := w.user(t)
	name := "new " + u.groupName
	a.believe(unreachable(w))
	before := &loader{id: u.id, after: newBarrier()}
	leader := async(t, func() (cache.Result, error) { return a.get(before) })
	before.after.await(t)
	b.invalidate(b.renameGroup(t, u.group, name)) // the lease stays: nobody knows who has the group

	late := &loader{id: u.id}
	reader := async(t, func() (cache.Result, error) { return a.get(late) })
	eventually(t, "the reader has seen the lease", func() bool {
		return late.calls.Load() > 0 || a.Count("requests", "joined") > 0
	})
	before.after.release()
	leader()
	require.Contains(t, string(reader().Body), name)
}

func oneFillPerGeneration(t *testing.T, w *world) {
	a, b := w.pair(t)
	u := w.user(t)
	for generation, value := range []string{"first", "second"} {
		a.invalidate(a.setProfile(t, u.id, value))
		l := &loader{id: u.id}
		var readers []func() cache.Result
		for i := range 50 {
			p := []*process{a, b}[i%2]
			readers = append(readers, async(t, func() (cache.Result, error) { return p.get(l) }))
		}
		for _, reader := range readers {
			require.Contains(t, string(reader().Body), value)
		}
		require.Equal(t, generation+1, a.Count("requests", "miss")+b.Count("requests", "miss"), "leases given")
	}
}

func leaseHolderDies(t *testing.T, w *world) {
	a, b := w.pair(t)
	u := w.user(t)
	key := cache.UserKey(u.id)
	b.invalidate(b.setProfile(t, u.id, "new"))
	_, err := b.RunRead(t.Context(), key, "dead", cache.Format)
	require.NoError(t, err)
	ttl, err := b.Redis().PTTL(t.Context(), key.Physical()).Result()
	require.NoError(t, err)
	require.LessOrEqual(t, ttl, cache.LeaseTTL)
	require.Greater(t, ttl, cache.LeaseTTL/2)

	r := a.answer(t, u.id)
	require.Contains(t, string(r.Body), "new", "the replica has it not yet")
	require.Equal(t, routing.FromPrimary, r.Server)
	require.Equal(t, "Ldead", a.entry(t, key), "who holds no lease fills nothing")
	require.Equal(t, 1, a.Count("requests", "wait"))

	require.NoError(t, a.Redis().PExpire(t.Context(), key.Physical(), 0).Err()) // three seconds later
	require.Equal(t, cache.Miss, a.answer(t, u.id).Status)
	require.Equal(t, cache.Hit, a.answer(t, u.id).Status)
}
