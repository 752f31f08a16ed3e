package model

type sourceName int

const (
	fromCache sourceName = iota
	fromReplica
	fromPrimary
)

// origin is what is known about a load. zombie is known to the model only.
type origin struct {
	source           sourceName
	system, timeline int
	degraded         bool
	zombie           bool
}

type lease struct {
	token, seq int
	dirty      bool
}

type sample struct {
	at  int64
	pos position
}

type flight struct {
	key    key
	seq    int
	done   bool
	result result
}

// process is one server process. Killing it makes a new one in its place.
type process struct {
	m     *model
	name  string
	dead  bool // killed, and nobody starts it again before all faults are over
	lives int  // tasks of an earlier life end at their next pause

	cut  bool // off from Redis
	lose bool // some answers of Redis do not arrive
	run  int  // the Redis process that its connections lead to; 0: none

	closed       bool // breaker
	tripped      bool
	recovering   int // the event at which the last recovery that succeeded began
	known        position
	samples      []sample
	stale        bool
	wasStale     bool // the same, whatever the guard does
	flights      map[int]*flight
	done         []int // outbox rows to delete
	primary      *server
	primaryStart int
	tokens       int
}

func (p *process) restart() {
	lives := p.lives + 1
	*p = process{m: p.m, name: p.name, lives: lives, dead: p.dead, cut: p.cut, lose: p.lose, tripped: true, flights: map[int]*flight{}, tokens: p.tokens}
}

// result is what a Get returns. failed is a 503.
type result struct {
	content content
	failed  bool
	bypass  bool
	loaded  int64 // 0: a hit
	origin
}

type seed struct {
	content content
	origin  origin
	loaded  int64
}

func (r result) seed(c content) *seed {
	if r.loaded == 0 || r.degraded {
		return nil
	}
	return &seed{content: c, origin: r.origin, loaded: r.loaded}
}

// load is what a Get loads: it may take more from the database than it returns.
type load func(database) content

// get is Cache.Get.
func (p *process) get(t *task, k key, s *seed, load load) result {
	m := p.m
	if p.open() {
		return p.bypass(t, load)
	}
	if !m.guard("join-token") {
		for _, f := range p.flights {
			if f.key == k {
				t.until("join by key", func() bool { return f.done })
				return f.result
			}
		}
	}
	p.tokens++
	token := p.tokens
	if !m.guard("token") {
		token = 1
	}
	for i := 0; ; i++ {
		a, ok := p.READ(t, k, token)
		if !ok {
			p.trip()
			return p.bypass(t, load)
		}
		switch a.code {
		case readHit:
			m.tracef("hit %s: %+v", k, a.content)
			return result{content: a.content}
		case readMiss:
			m.tracef("miss %s, seq %d, dirty %t", k, a.seq, a.dirty)
			return p.lead(t, k, lease{token: a.token, seq: a.seq, dirty: a.dirty}, s, load)
		case readWait:
			if f := p.flights[a.token]; f != nil && (f.seq == a.seq || !m.guard("join-seq")) {
				t.until("join", func() bool { return f.done })
				return f.result
			}
		}
		if i == waits {
			return p.load(t, m.guard("wait-primary"), load)
		}
		t.pause("wait")
	}
}

func (p *process) lead(t *task, k key, l lease, s *seed, load load) result {
	f := &flight{key: k, seq: l.seq}
	p.flights[l.token] = f
	f.result = p.loadAndFill(t, k, l, s, load)
	delete(p.flights, l.token)
	f.done = true
	return f.result
}

func (p *process) loadAndFill(t *task, k key, l lease, s *seed, load load) result {
	m := p.m
	var r result
	if s != nil && (!l.dirty || !m.guard("prefetched-dirty")) && m.now-s.loaded < seedLife {
		r = result{content: s.content, origin: s.origin, loaded: s.loaded}
		if m.guard("prefetched-server") {
			r.source = fromReplica
		}
	} else {
		r = p.load(t, l.dirty, load)
	}
	life := int64(entryLife)
	switch {
	case r.failed, r.degraded && m.guard("degraded"), !r.content.found && k != keyPhone:
		if !p.FILL(t, k, l, r, 0, nil) {
			p.trip()
		}
		return r
	case !r.content.found:
		life = negativeLife
	}
	reason := "error"
	if !p.FILL(t, k, l, r, life, &reason) {
		p.trip()
	}
	if reason != "OK" && r.source == fromReplica && m.guard("reload") {
		return p.load(t, true, load)
	}
	return r
}

// load is Cache.load.
func (p *process) load(t *task, needPrimary bool, load load) result {
	loaded := p.m.now
	r := p.query(t, needPrimary, load)
	r.loaded = max(loaded, 1)
	return r
}

func (p *process) bypass(t *task, load load) result {
	r := p.load(t, false, load)
	r.bypass = true
	return r
}

// query is source.read.
func (p *process) query(t *task, needPrimary bool, load load) result {
	m := p.m
	if s := m.readServer(); !needPrimary && s != nil {
		if r, ok := p.onReplica(t, s, p.admit, load); ok {
			if r.content.found || r.source == fromPrimary || !m.guard("miss-on-primary") {
				return r
			}
		} else if !r.content.found && r.source == fromReplica && !m.guard("negative-primary") {
			return r
		}
	}
	t.pause("primary: document")
	if s := m.primaryOf(p); s != nil {
		r := result{content: load(s.state())}
		r.origin = origin{source: fromPrimary, system: s.system, timeline: s.timeline, zombie: m.zombie(s)}
		m.tracef("on %s: %+v", s.name, r.content)
		return r
	}
	s := m.readServer()
	if s == nil {
		return result{failed: true}
	}
	r, ok := p.onReplica(t, s, func(position) bool { return true }, load)
	if !ok || !r.content.found && r.source == fromReplica && m.guard("degraded-miss") {
		return result{failed: true}
	}
	r.degraded = true
	return r
}

// onReplica is Replica.Read: the position in a statement of its own, then the document. When it is
// refused, what would have been answered is returned with false.
func (p *process) onReplica(t *task, s *server, admit func(position) bool, load load) (result, bool) {
	m := p.m
	start := s.starts
	var pos position
	var c content
	var zombie bool
	statements := []func(){
		func() { t.pause("replica: position"); pos = s.position() },
		func() { t.pause("replica: document"); c, zombie = load(s.state()), m.zombie(s) },
	}
	if !m.guard("proof-order") {
		statements[0], statements[1] = statements[1], statements[0]
	}
	for _, execute := range statements {
		execute()
		if !s.up || s.starts != start {
			return result{}, false
		}
	}
	r := result{content: c}
	r.origin = origin{source: fromPrimary, system: pos.system, timeline: pos.timeline, zombie: zombie}
	if pos.inRecovery {
		r.source = fromReplica
	}
	ok := admit(pos)
	m.tracef("on %s: %+v, admitted %t", s.name, c, ok)
	return r, ok
}

// admit is source.admit.
func (p *process) admit(pos position) bool {
	m := p.m
	if (pos.timeline == 0 || pos.timeline != p.known.timeline || pos.system != p.known.system) && m.guard("replica-timeline") {
		return false
	}
	if !pos.inRecovery || !m.guard("lsn") {
		return true
	}
	for _, sample := range p.samples {
		if (m.now-sample.at <= proofAge || !m.guard("proof-age")) && pos.lsn >= sample.pos.lsn {
			return true
		}
	}
	return false
}

// sample is source.sample. It reports false if the primary did not answer.
func (p *process) sample(t *task) bool {
	m := p.m
	at := m.now
	t.pause("sample")
	s := m.primaryOf(p)
	if s == nil {
		return false
	}
	pos := s.position()
	t.pause("keep the sample")
	if pos.timeline != p.known.timeline || pos.system != p.known.system {
		p.samples = nil
	}
	p.known = pos
	var kept []sample
	for _, s := range p.samples {
		if at-s.at <= proofAge || !m.guard("proof-age") {
			kept = append(kept, s)
		}
	}
	p.samples = append(kept, sample{at: at, pos: pos})
	return true
}

// readUncached is Cache.Read of one user, or of a list if k is numKeys.
func (p *process) readUncached(t *task, k key, load load) result {
	dirty, bypass := false, false
	if k != numKeys {
		dirty, bypass = p.dirty(t, k)
	}
	r := p.query(t, dirty, load)
	r.bypass = bypass
	return r
}

// dirty is Cache.dirty; unknown means that Redis did not tell.
func (p *process) dirty(t *task, k key) (dirty, unknown bool) {
	m := p.m
	if p.open() {
		return false, true
	}
	ok := p.attached(t, "dirty?", func() bool {
		if !m.redis.gen.attached && m.guard("unattached") {
			return false
		}
		dirty = m.guard("dirty-uncached") && (m.isDirty(int(k)) || m.isDirty(memberStar) || m.isDirty(memberDeps))
		return true
	})
	if !ok {
		p.trip()
	}
	return dirty, !ok
}

// Scripts over the network.

// READ reports false when Redis is away.
func (p *process) READ(t *task, k key, token int) (a readAnswer, ok bool) {
	ok = p.attached(t, "READ", func() bool {
		a = p.m.read(k, token)
		return a.code != readUnattached
	})
	return a, ok
}

// FILL reports false when Redis is away.
func (p *process) FILL(t *task, k key, l lease, r result, life int64, reason *string) bool {
	return p.command(t, "FILL", func() {
		answer := p.m.fill(k, l, r.content, r.origin, life)
		p.m.tracef("FILL %s: %s", k, answer)
		if reason != nil {
			*reason = answer
		}
	})
}

// INVALIDATE reports false when Redis is away.
func (p *process) INVALIDATE(t *task, writes ...*write) bool {
	return p.attached(t, "INVALIDATE", func() bool { return p.m.invalidate(writes...) })
}

// ATTACH reports false when Redis is away.
func (p *process) ATTACH(t *task) bool {
	return p.command(t, "ATTACH", p.attachNow)
}

func (p *process) attachNow() {
	p.wasStale = p.m.attach(p.known)
	p.stale = p.wasStale && p.m.guard("stale")
}

// attached runs a script, and once more after ATTACH if Redis has lost its generation.
func (p *process) attached(t *task, name string, script func() bool) bool {
	attached := false
	if !p.command(t, name, func() { attached = script() }) {
		return false
	}
	if !attached {
		if !p.ATTACH(t) || !p.command(t, name, func() { attached = script() }) {
			return false
		}
	}
	return attached
}

// command runs one script. It reports false if the script was not run, or its answer was lost.
func (p *process) command(t *task, name string, script func()) bool {
	m := p.m
	for {
		t.pause(name)
		switch {
		case !m.redis.up || p.cut:
			p.run = 0
			return false
		case p.run == m.redis.run:
			script()
			return !p.lose || m.choose(4) != 0
		case p.run != 0 && m.choose(2) == 0: // the old connection breaks under the command
			p.run = 0
			return false
		}
		p.run = m.redis.run // a new connection says hello first
		if m.guard("run-id") {
			p.attachNow()
		}
	}
}

// open is breaker.open.
func (p *process) open() bool { return !p.closed && p.m.guard("breaker") }

func (p *process) trip() { p.closed, p.tripped = false, true }
