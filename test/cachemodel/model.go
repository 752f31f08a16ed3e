// Package cachemodel is a model of the cache protocol (internal/cache, docs/caching.md) and an
// explorer of its interleavings. It needs no server: PostgreSQL, its standbys, Redis, the network and
// the processes are values of one program, and time is a number. So it forces what real parts do not:
// a step between any two others, a pause of any length, a failover in the middle of a fill.
//
// The state (model) is
//   - servers: a primary and two standbys, each with its own WAL, in which every record is the whole
//     database after it; timelines, promotions that lose a tail, an old primary that lives on (a
//     zombie), another cluster after an upgrade (postgres.go);
//   - Redis: entries, gen and dirty, changed by the four scripts only, and what a restart or FLUSHDB
//     makes of it (redis.go);
//   - two processes with readers, writers and the background work of cache.Run (process.go, write.go),
//     in the words of internal/cache;
//   - the writes that clients made, and what an answer must therefore contain (invariants.go).
//
// Everything that happens is done by tasks (explore.go). A task is ordinary code that reads like the
// code it models and calls pause in front of each of its atomic actions: one statement, one script,
// one look at a shared variable. At a pause any other task may go on. Who does is chosen by a seed, or
// by a depth-first search of all choices with a bounded number of preemptions. Faults are tasks too
// (scenario.go).
//
// Every guard of the protocol can be switched off by name; then the explorer must find violations,
// and with all guards on it must find none.
package cachemodel

import "fmt"

// The protocol's durations, in milliseconds; a test compares them with those of internal/cache.
const (
	leaseLife    = 3_000
	dirtyLife    = 15_000 // M
	proofAge     = 5_000  // D
	seedLife     = 2_000
	negativeLife = 30_000
	awaitRelay   = 1_000
	relayMinAge  = 500
	entryLife    = 600_000
	waits        = 2 // looks at another's lease before the primary is asked; the code has more
)

// key is a cached key: two users, one phone number, the dictionary of groups.
type key int

const (
	keyA key = iota
	keyB
	keyPhone
	keyGroups
	numKeys
)

// Further members of the dirty set. The dependency is the one group, which both users are in.
const (
	memberStar = int(numKeys) + iota
	memberDeps
	memberGroup
	numMembers
)

func (k key) String() string { return [...]string{"A", "B", "phone", "groups"}[k] }

func (k key) isUser() bool { return k <= keyB }

// model is the whole world.
type model struct {
	off    string // the guard that is switched off
	choose func(n int) int

	now     int64 // ms, the clock of Redis, the servers and the processes
	event   int   // counts actions: a finer clock, for "before" and "after"
	tasks   []*task
	current *task

	servers   []*server
	primary   *server // whom the cluster holds for the primary; it may be down
	fallback  bool    // HAProxy may send reads to the primary
	redis     redis
	saved     redis // what Redis finds after a restart, unless that is nothing
	processes []*process

	writes     []*write // in the order of their commits
	settled    int      // the event at which Redis learnt of the current timeline; unsettled if not yet
	promotedAt int64    // when the last promotion was
	forkAt     int      // how much WAL of the old timeline the last promotion kept
	zombies    bool     // an old primary went on after a promotion
	final      bool     // faults are over: everything must be exact

	violation  *violation
	newThenOld bool // an unacknowledged write was seen and then not: allowed, but not linearizable
	seen       [numKeys]struct{ write, answered int }
	tracing    bool
	trace      []string
}

// violation is what was not allowed to happen. kind is I1 (an answer older than an acknowledged
// write), lost (a value of a lost tail after the attach), miss (a 404 that the primary did not say),
// mixed (an answer by identifier that does not list it), stale (an acknowledged write of a process
// that knew better), I4 (an old answer after all faults healed), I5 (a second filling load) or dead (FILL
// stored what no READ accepts).
type violation struct{ kind, text string }

func (m *model) guard(name string) bool { return name != m.off }

func (m *model) violate(kind, format string, args ...any) {
	if m.violation == nil {
		m.violation = &violation{kind: kind, text: fmt.Sprintf(format, args...)}
	}
}

// tracef notes what happened, for the person who reads the schedule of a violation.
func (m *model) tracef(format string, args ...any) {
	if m.tracing {
		who := ""
		if m.current != nil {
			who = m.current.name
		}
		m.trace = append(m.trace, fmt.Sprintf("%4d %7.2fs %-12s %s", m.event, float64(m.now)/1000, who, fmt.Sprintf(format, args...)))
	}
}

// elsewhere are guards of internal/cache that this model has no notion of: there is one format only,
// and it does not matter here how long a deferred write waits.
var elsewhere = []string{"format", "await-relay"}

// guards are all guards. Those of internal/cache have its names; a test compares them.
var guards = []struct{ name, hazard string }{
	{"lease", "FILL of one who lost the lease stores what was loaded before a write"},
	{"dirty", "a replica that lags is asked for a key written a moment ago"},
	{"lsn", "a replica that lags longer than M is asked"},
	{"replica-timeline", "a standby of another timeline or cluster proves itself by an LSN that does not compare"},
	{"miss-on-primary", "a row that a standby does not have yet is a 404"},
	{"dirty-uncached", "an uncached read asks a replica that lags"},
	{"reload", "what a replica said is answered although FILL refused it"},
	{"token", "all leases are one"},
	{"flight-seq", "a joiner that came after a rename is handed what was loaded before"},
	{"fill-star", "a lease from before an attach fills after it"},
	{"fill-timeline", "a load from an old primary fills after the promotion"},
	{"fill-deps", "a document rendered before a rename is stored after it"},
	{"fill-dirty", "a replica that lags gives a name from before a rename"},
	{"read-star", "an entry from before an attach is a hit"},
	{"read-deps", "an entry from before a rename is a hit"},
	{"attach-star", "entries of an older Redis or timeline stay valid"},
	{"attach-dirty", "markers were lost with Redis, and a replica that lags is asked"},
	{"unattached", "FLUSHDB takes the markers and nobody notices"},
	{"run-id", "Redis came back with old data and nobody notices"},
	{"stale", "a process on an old primary goes on writing"},
	{"barrier", "Redis comes back before the invalidations that it missed"},
	{"breaker", "reads go on in a Redis that missed invalidations"},
	{"seed-source", "a seed counts as loaded under the lease"},
	{"seed-dirty", "a seed is used although its key is dirty"},
	{"wait", "every reader of a missing key loads and may fill"},
	{"mark-key", "INVALIDATE leaves no marker on the keys"},
	{"unlink", "INVALIDATE leaves the entries"},
	{"raise", "INVALIDATE leaves the dependencies' counters"},
	{"mark-dependency", "INVALIDATE leaves no marker on the dependencies"},
	{"attach-run", "ATTACH does not mind another Redis process"},
	{"attach-cluster", "ATTACH does not mind another timeline or cluster"},
	{"relay", "an invalidation that failed is never repeated"},
	// The rest are no switches of the code: they are how it is built.
	{"proof-order", "the position is read after the document"},
	{"proof-age", "a replica proves that it has replayed a position of long ago"},
	{"flight-token", "loads are joined by cache key"},
	{"invalidate-before-ack", "a write is acknowledged first and invalidated then"},
	{"outbox-in-transaction", "a process dies after its commit and nobody knows what to invalidate"},
	{"fill-system", "a load from the cluster before an upgrade fills after it: both may be on timeline 1"},
	{"degraded", "what a replica said without proof, the primary being down, is stored"},
	{"degraded-miss", "a row that a replica does not have, the primary being down, is a 404"},
	{"negative-primary", "a 404 that a replica said without proof is stored"},
	{"listed", "the document need not list the identifier that was asked for"},
	{"wait-primary", "one who waited in vain for another's lease asks the replica"},
	{"primary-only", "the barrier asks a replica whether the outbox is drained"},
	{"outbox-id", "an outbox id is given twice, on two timelines"},
}
