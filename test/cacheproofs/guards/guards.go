// Package guards lists the checks of the cache protocol ("guards"). The model and the mutation gate switch
// each of them off, and must then find a violation.
//
// A guard in the code is a call mutation.Point("name"), a line of a Lua script marked -- guard:name, or
// a Patch: a change of the source for a check that is no condition. A guard that is only in the model
// is a property of how the code is built.
package guards

// Guard is one check.
type Guard struct {
	Name string
	// Hazard is what goes wrong without the check.
	Hazard string
	// Code means that the mutation gate can switch it off in the code, Model that the model knows it.
	Code, Model bool
	// Patch is the change of the source that removes the check; nil if the code looks up the name.
	Patch *Patch
}

// Patch replaces Old, which occurs once in File, by New.
type Patch struct{ File, Old, New string }

// All are all guards.
var All = []Guard{
	{Name: "read-star", Code: true, Model: true, Hazard: "an entry from before an attachment is a hit"},
	{Name: "read-deps", Code: true, Model: true, Hazard: "an entry from before a rename is a hit"},
	{Name: "format", Code: true, Hazard: "an entry with the layout of another release is parsed"},
	{Name: "wait", Code: true, Model: true, Hazard: "every reader of a missing key loads and fills it"},
	{Name: "dirty", Code: true, Model: true, Hazard: "a lagging replica is read for a key that was just written"},

	{Name: "lease", Code: true, Model: true, Hazard: "FILL without the lease stores data that was loaded before a write"},
	{Name: "fill-star", Code: true, Model: true, Hazard: "a lease from before an attachment fills after it"},
	{Name: "fill-timeline", Code: true, Model: true, Hazard: "a load from an old primary fills after the promotion"},
	{Name: "fill-deps", Code: true, Model: true, Hazard: "a document that was rendered before a rename is stored after it"},
	{Name: "fill-dirty", Code: true, Model: true, Hazard: "a lagging replica's old group name is stored"},

	{Name: "unlink", Code: true, Model: true, Hazard: "INVALIDATE leaves the entries"},
	{Name: "mark-key", Code: true, Model: true, Hazard: "INVALIDATE leaves no dirty marker on the keys"},
	{Name: "raise", Code: true, Model: true, Hazard: "INVALIDATE leaves the counters of the dependencies unchanged"},
	{Name: "mark-dependency", Code: true, Model: true, Hazard: "INVALIDATE leaves no dirty marker on the dependencies"},

	{Name: "attach-run", Code: true, Model: true, Hazard: "ATTACH ignores that the Redis process changed"},
	{Name: "attach-cluster", Code: true, Model: true, Hazard: "ATTACH ignores that the timeline or the cluster changed"},
	{Name: "attach-star", Code: true, Model: true, Hazard: "entries of an older Redis or timeline stay valid"},
	{Name: "attach-dirty", Code: true, Model: true, Hazard: "dirty markers were lost with Redis, and a lagging replica is read"},
	{Name: "run-id", Code: true, Model: true, Hazard: "a Redis that was restarted with old data is read without an attachment"},
	{Name: "unattached", Code: true, Model: true, Hazard: "after FLUSHDB Redis is used without its dirty markers"},
	{Name: "stale", Code: true, Model: true, Hazard: "a process writes to a primary that was replaced"},

	{Name: "lsn", Code: true, Model: true, Hazard: "a replica that lags longer than the dirty marker is read"},
	{Name: "proof-age", Code: true, Model: true, Hazard: "an old position of the primary proves that a replica is fresh"},
	{Name: "proof-order", Code: true, Model: true, Hazard: "an old row comes with a replay position that was read after it",
		Patch: &Patch{File: "internal/routing/routing.go", Old: proofFirst, New: proofLast}},
	{Name: "replica-timeline", Code: true, Model: true, Hazard: "a standby of another timeline or cluster proves that it is fresh by an LSN that does not compare"},
	{Name: "miss-on-primary", Code: true, Model: true, Hazard: "a row that the standby has not replayed yet is a 404"},
	{Name: "degraded", Code: true, Model: true, Hazard: "an unproven document is stored because the primary was down"},
	{Name: "reload", Code: true, Model: true, Hazard: "a replica's document that FILL refused is returned"},
	{Name: "dirty-uncached", Code: true, Model: true, Hazard: "an uncached read does not see the client's own write"},
	{Name: "wait-primary", Code: true, Model: true, Hazard: "a reader that waited in vain for a lease reads a lagging replica"},

	{Name: "token", Code: true, Model: true, Hazard: "all leases are the same"},
	{Name: "join-seq", Code: true, Model: true, Hazard: "a reader after a rename joins a load from before it"},
	{Name: "prefetched-dirty", Code: true, Model: true, Hazard: "a prefetched document is stored although its key is dirty"},
	{Name: "prefetched-server", Code: true, Model: true, Hazard: "a prefetched document counts as loaded under the lease, and misses a rename"},
	{Name: "listed", Code: true, Model: true, Hazard: "the document need not list the identifier that was asked for",
		Patch: &Patch{
			File: "internal/accounts/users.go",
			Old:  `found(r.Meta, string(ident.Kind)+":"+ident.Canonical)`, New: `found(r.Meta, "")`,
		}},

	{Name: "relay", Code: true, Model: true, Hazard: "an invalidation that failed is never repeated"},
	{Name: "await-relay", Code: true, Hazard: "a write is acknowledged before it is invalidated"},
	{Name: "breaker", Code: true, Model: true, Hazard: "Redis is read although it missed invalidations"},
	{Name: "barrier", Code: true, Model: true, Hazard: "Redis is used again before the outbox is drained"},

	{Name: "join-token", Model: true, Hazard: "loads are joined by cache key"},
	{Name: "invalidate-before-ack", Model: true, Hazard: "a write is acknowledged first and invalidated then"},
	{Name: "outbox-in-transaction", Model: true, Hazard: "a process dies after its commit, and no row tells what to invalidate"},
	{Name: "fill-system", Model: true, Hazard: "a load from the cluster before an upgrade fills after it: both may be on timeline 1"},
	{Name: "degraded-miss", Model: true, Hazard: "a row that a replica does not have while the primary is down is a 404"},
	{Name: "negative-primary", Model: true, Hazard: "a replica's unproven 404 is stored"},
	{Name: "primary-only", Model: true, Hazard: "the recovery asks a replica whether the outbox is drained"},
	{Name: "outbox-id", Model: true, Hazard: "an outbox id is given out twice, on two timelines"},
}

const (
	proofFirst = `position, err := r.replica.Read(ctx, r.freshness.check, query)`
	proofLast  = `position, err := r.replica.Read(ctx, postgres.AdmitAny, query)
		if err == nil {
			if position, err = r.replica.Position(ctx); err == nil {
				err = r.freshness.check(position)
			}
		}`
)
