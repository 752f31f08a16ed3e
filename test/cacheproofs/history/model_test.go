package history

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
)

// The bounds that docs/caching.md promises, and nothing more.
const (
	// A replica has proved to hold what was committed this long ago (D). With Redis away nothing else
	// keeps its answers fresh.
	proofAge = 5 * time.Second
	// A write whose process cannot reach Redis is hidden from others this long at most: a relay takes
	// rows after 500 ms and looks every 250 ms.
	relayBound = time.Second
	// What a promotion lost may still be seen for this long.
	lostVisible = 2 * time.Second
)

// never is the return of an operation whose outcome is unknown: it may take effect at any time.
const never = time.Duration(math.MaxInt64)

// freshness is what a read promises about writes of others.
type freshness int

const (
	// strict: what the primary says now, such as the answer of every write.
	strict freshness = iota
	// cached: a write may be missed until it is acknowledged. It is committed first and invalidates
	// then, so another process may show it before this one forgets the older entry.
	cached
	// lagging: a replica without Redis to say what is dirty.
	lagging
	// uncertain: the primary was away, or seemed to be. Anything that was true once, also what the
	// promotion lost.
	uncertain
)

// version is one state of a register.
type version[S comparable] struct {
	state  S
	acked  time.Duration // when the write that made it was acknowledged
	hidden time.Duration // until when cached reads may miss it
}

// register is a resource and its past: reads that may miss the last writes are held against that.
type register[S comparable] struct {
	versions []version[S] // oldest first, the last is current
	lost     []S          // by the promotion
}

func newRegister[S comparable](initial S) register[S] {
	return register[S]{versions: []version[S]{{state: initial}}}
}

func (r register[S]) current() S { return r.versions[len(r.versions)-1].state }

// write returns the register after a write.
func (r register[S]) write(state S, e *event) register[S] {
	next := version[S]{state: state, acked: e.Return, hidden: e.Hidden}
	return register[S]{versions: append(slices.Clip(r.versions), next), lost: r.lost}
}

// read reports whether a read that began at call may see a state that match accepts.
func (r register[S]) read(call time.Duration, f freshness, match func(S) bool) (index int, ok bool) {
	return r.readOf(call, f, match, func(S, S) bool { return true })
}

// readOf is read for what not every write touches: only those that do must be missed.
func (r register[S]) readOf(call time.Duration, f freshness, match func(S) bool, touches func(before, after S) bool) (index int, ok bool) {
	for i := len(r.versions) - 1; i >= 0; i-- {
		v := r.versions[i]
		if match(v.state) {
			return i, true
		}
		// An older state can be seen only if this write may be missed.
		switch {
		case i > 0 && !touches(r.versions[i-1].state, v.state):
		case f == strict,
			f == cached && v.hidden <= call,
			f == lagging && max(v.hidden, v.acked+proofAge) <= call:
			return 0, false
		}
	}
	return -1, f == uncertain && slices.ContainsFunc(r.lost, match)
}

// failover goes back to the state that the new primary has.
func (r register[S]) failover(match func(S) bool) (register[S], bool) {
	for i := len(r.versions) - 1; i >= 0; i-- {
		if match(r.versions[i].state) {
			lost := slices.Clip(r.lost)
			for _, v := range r.versions[i+1:] {
				lost = append(lost, v.state)
			}
			return register[S]{versions: slices.Clip(r.versions[:i+1]), lost: lost}, true
		}
	}
	return r, false
}

func (r register[S]) equal(other register[S]) bool {
	return slices.Equal(r.versions, other.versions) && slices.Equal(r.lost, other.lost)
}

// user is what a document shows of a user. PhoneID is "?" as long as nobody has seen what an addition
// of unknown outcome made.
type user struct {
	Version, N            int64
	Phone, PhoneID, Login string
	Member                bool // of the pair's group
}

const unseen = "?"

// same reports whether a document that shows seen is one of u.
func (u user) same(seen user) bool {
	if u.PhoneID == unseen {
		u.PhoneID = seen.PhoneID
	}
	return u == seen
}

// has reports whether the user is found by an identifier.
func (u user) has(identifier string) bool { return u.Phone == identifier || u.Login == identifier }

// view is what one event means for one register.
type view struct {
	*event
	role role
	seen user   // observe, failover
	name string // observe, failover: of a group
}

// role says how an event concerns a register.
type role string

const (
	act      role = "acts"     // the request was made of this user or group
	observe  role = "observes" // it showed its state
	lacks    role = "lacks"    // it showed that the user does not have event.Text
	holds    role = "holds"    // it showed that the user has event.Text
	failover role = "failover"
)

func userModel(initial user) porcupine.Model {
	return porcupine.Model{
		Init:  func() any { return newRegister(initial) },
		Equal: func(a, b any) bool { return a.(register[user]).equal(b.(register[user])) },
		Step: func(state, input, _ any) (bool, any) {
			ok, next := stepUser(state.(register[user]), input.(view))
			return ok, next
		},
		DescribeOperation: func(input, _ any) string { return input.(view).String() },
		DescribeState: func(state any) string {
			r := state.(register[user])
			return fmt.Sprintf("%+v (%d lost)", r.current(), len(r.lost))
		},
	}
}

func stepUser(r register[user], v view) (bool, register[user]) {
	switch v.role {
	case observe:
		i, ok := r.read(v.Call, v.Freshness, func(u user) bool { return u.same(v.seen) })
		if ok && i >= 0 && r.versions[i].state.PhoneID == unseen {
			r.versions = slices.Clone(r.versions)
			for j := range r.versions { // the same contact in the states around it
				if s := &r.versions[j].state; s.PhoneID == unseen && s.Phone == v.seen.Phone {
					s.PhoneID = v.seen.PhoneID
				}
			}
		}
		return ok, r
	case lacks:
		// The entry of an identifier is touched only by the writes that give it or take it away.
		_, ok := r.readOf(v.Call, v.Freshness,
			func(u user) bool { return !u.has(v.Text) },
			func(before, after user) bool { return before.has(v.Text) != after.has(v.Text) })
		return ok, r
	case holds:
		return r.current().has(v.Text), r
	case failover:
		next, ok := r.failover(func(u user) bool { return u.same(v.seen) })
		return ok, next
	default:
		return stepWrite(r, v.event)
	}
}

// stepWrite applies a write to its user. One of unknown outcome is always possible, and does what it
// would have done.
func stepWrite(r register[user], e *event) (bool, register[user]) {
	before := r.current()
	after := before
	after.Version++
	possible, changes := true, true // whether the answer fits, and whether anything is changed
	switch e.Kind {
	case patch:
		after.N = e.N
		if e.Version != 0 {
			changes = before.Version == e.Version
			possible = changes == (e.Status == 200)
		}
		if e.Status == 200 {
			possible = possible && after.same(e.Doc.state())
		}
	case addLogin:
		after.Login = e.Text
	case addPhone:
		after.Phone, after.PhoneID = e.Text, e.Contact
		changes = before.Phone == ""
		switch {
		case e.Status == 201:
			possible = changes
		case e.Problem == contactTypeConflict:
			possible = !changes
		case e.Problem == identifierTaken:
			possible, changes = changes, false
		}
	case dropPhone:
		after.Phone, after.PhoneID = "", ""
		changes = before.PhoneID == e.Contact
		possible = !changes || e.Status != 404
	case setMember:
		after.Member = e.Member
		changes = before.Member != e.Member
	}
	if e.unknown() {
		possible = true
	}
	if !possible || !changes {
		return possible, r
	}
	return true, r.write(after, e)
}

func groupModel(initial string) porcupine.Model {
	return porcupine.Model{
		Init:  func() any { return newRegister(initial) },
		Equal: func(a, b any) bool { return a.(register[string]).equal(b.(register[string])) },
		Step: func(state, input, _ any) (bool, any) {
			ok, next := stepGroup(state.(register[string]), input.(view))
			return ok, next
		},
		DescribeOperation: func(input, _ any) string { return input.(view).String() },
		DescribeState:     func(state any) string { return state.(register[string]).current() },
	}
}

func stepGroup(r register[string], v view) (bool, register[string]) {
	named := func(name string) bool { return name == v.name }
	switch v.role {
	case observe:
		_, ok := r.read(v.Call, v.Freshness, named)
		return ok, r
	case failover:
		next, ok := r.failover(named)
		return ok, next
	default:
		return true, r.write(v.Text, v.event)
	}
}

func (v view) String() string {
	text := fmt.Sprintf("%s: %s", v.role, v.event)
	switch {
	case v.name != "":
		text += " = " + v.name
	case v.seen != user{}:
		text += fmt.Sprintf(" = %+v", v.seen)
	}
	return text
}
