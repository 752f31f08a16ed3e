// Package model is a model of the cache protocol (internal/cache, docs/caching.md) and an
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
package model

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
