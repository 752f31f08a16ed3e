package main

// guard is one check of the cache protocol that a mutant lacks.
type guard struct {
	name   string
	hazard string
	patch  *patch // nil: the name is looked up by the code itself (internal/cache/guard_mutation.go)
}

// patch is the mutant of a check that is no condition in internal/cache, made in a copy of the file.
type patch struct{ file, old, new string }

// guards lists every guard of the protocol and what goes wrong without it.
var guards = []guard{
	{name: "read-star", hazard: "entries of before an attach are served"},
	{name: "read-deps", hazard: "entries show a group's old name"},
	{name: "format", hazard: "an entry of another release's layout is taken apart"},
	{name: "wait", hazard: "every reader of a missing key loads and fills it"},
	{name: "dirty", hazard: "a replica that lags is asked for what was just written"},

	{name: "lease", hazard: "what was loaded before a write is stored after it"},
	{name: "fill-star", hazard: "what was loaded before an attach is stored after it"},
	{name: "fill-timeline", hazard: "what an old primary says is stored"},
	{name: "fill-deps", hazard: "what was loaded before a rename is stored after it"},
	{name: "fill-dirty", hazard: "a lagging replica's old group name is stored"},

	{name: "unlink", hazard: "entries outlive the write"},
	{name: "mark-key", hazard: "nobody knows that the user was just written"},
	{name: "raise", hazard: "entries outlive a rename"},
	{name: "mark-dependency", hazard: "nobody knows that the group was just renamed"},

	{name: "attach-run", hazard: "a restarted Redis serves what it had saved"},
	{name: "attach-cluster", hazard: "writes that a failover lost are served"},
	{name: "attach-star", hazard: "an attach leaves older entries alive"},
	{name: "attach-dirty", hazard: "markers that Redis lost are not made up for"},
	{name: "run-id", hazard: "a restarted Redis is not noticed before it is read"},
	{name: "unattached", hazard: "a flushed Redis is used as if it had its markers"},
	{name: "stale", hazard: "a primary that was replaced is written to"},

	{name: "lsn", hazard: "a replica that lags longer than the marker is asked"},
	{name: "proof-age", hazard: "a position of long ago proves a replica to be fresh"},
	{name: "proof-first", hazard: "an old row comes with a position that was read after it",
		patch: &patch{file: "internal/cache/source.go", old: proofFirst, new: proofLast}},
	{name: "replica-timeline", hazard: "a server of another timeline counts as a replica"},
	{name: "miss-on-primary", hazard: "what the replica does not have yet is a 404"},
	{name: "degraded", hazard: "an unproven answer is kept because the primary was down"},
	{name: "reload", hazard: "an answer that may not be stored is given all the same"},
	{name: "dirty-uncached", hazard: "uncached reads do not see the caller's own write"},
	{name: "wait-primary", hazard: "who waited in vain asks a replica that lags"},

	{name: "token", hazard: "readers join a load that began before a write"},
	{name: "flight-seq", hazard: "readers join a load that began before a rename"},
	{name: "seed-dirty", hazard: "a user read by identifier is stored although it was written since"},
	{name: "seed-source", hazard: "a user read by identifier is stored although a group was renamed since"},
	{name: "listed", hazard: "an identifier names its former owner",
		patch: &patch{
			file: "internal/accounts/users.go",
			old:  `found(r.Meta, string(ident.Kind)+":"+ident.Canonical)`, new: `found(r.Meta, "")`,
		}},

	{name: "relay", hazard: "a process that dies after its commit leaves old entries for ever"},
	{name: "await-relay", hazard: "a write is acknowledged before Redis knows of it"},
	{name: "breaker", hazard: "Redis is read although it missed invalidations"},
	{name: "barrier", hazard: "Redis is used again before the outbox is drained"},
}

const (
	proofFirst = `pos, err := s.replica.Read(ctx, s.admit, query)`
	proofLast  = `pos, err := s.replica.Read(ctx, postgres.AdmitAny, query)
		if err == nil {
			if pos, err = s.replica.Position(ctx); err == nil {
				err = s.admit(pos)
			}
		}`
)
