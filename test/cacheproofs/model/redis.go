package model

// redis is what Redis holds. It is a plain value, so that a copy is a snapshot.
type redis struct {
	up      bool
	run     int // run_id
	gen     gen
	entries [numKeys]entry
	dirty   [numMembers]int64 // expiries
}

// gen is the hash of the generation. attached is false while there is no run in it.
type gen struct {
	attached         bool
	run              int
	system, timeline int
	seq, star, group int
}

// entry is a lease (token) or a value.
type entry struct {
	token   int // 0: a value
	seq     int
	content content
	expiry  int64 // 0: there is no entry
}

type readCode int

const (
	readHit readCode = iota
	readWait
	readMiss
	readUnattached
)

type readAnswer struct {
	code    readCode
	content content
	token   int
	seq     int
	dirty   bool
}

func (m *model) entry(k key) *entry {
	e := &m.redis.entries[k]
	if e.expiry <= m.now {
		*e = entry{}
	}
	return e
}

func (m *model) isDirty(member int) bool { return m.redis.dirty[member] > m.now }

func (m *model) valid(k key, e *entry) bool {
	return (e.seq >= m.redis.gen.star || !m.guard("read-star")) &&
		(!k.isUser() || !e.content.found || e.seq >= m.redis.gen.group || !m.guard("read-deps"))
}

func (m *model) read(k key, token int) readAnswer {
	g := &m.redis.gen
	if !g.attached && m.guard("unattached") {
		return readAnswer{code: readUnattached}
	}
	e := m.entry(k)
	if e.token != 0 && m.guard("wait") {
		return readAnswer{code: readWait, token: e.token, seq: g.seq}
	}
	if e.token != 0 && e.token != token {
		m.violate("I5", "a second load of %s may fill, in one generation", k)
	}
	if e.expiry != 0 && m.valid(k, e) {
		return readAnswer{code: readHit, content: e.content}
	}
	*e = entry{token: token, expiry: m.now + leaseLife}
	dirty := (m.isDirty(int(k)) || m.isDirty(memberStar)) && m.guard("dirty")
	return readAnswer{code: readMiss, token: token, seq: g.seq, dirty: dirty}
}

// fill returns "OK" or why it refused. life 0 gives the lease back.
func (m *model) fill(k key, l lease, c content, o origin, life int64) string {
	g, e := &m.redis.gen, m.entry(k)
	if e.token != l.token && m.guard("lease") {
		return "lease"
	}
	refuse := func(reason string) string {
		*e = entry{}
		return reason
	}
	deps := k.isUser() && c.found
	switch {
	case life == 0:
		return refuse("released")
	case !g.attached && m.guard("unattached"):
		return refuse("unattached")
	case g.star > l.seq && m.guard("fill-star"):
		return refuse("star")
	case g.timeline != o.timeline && m.guard("fill-timeline"), g.system != o.system && m.guard("fill-system"):
		return refuse("timeline")
	case deps && g.group > l.seq && m.guard("fill-deps"):
		return refuse("dependency")
	case deps && o.source == fromReplica && m.isDirty(memberGroup) && m.guard("fill-dirty"):
		return refuse("dirty")
	}
	if e.expiry != 0 && e.token == 0 && m.valid(k, e) {
		m.violate("I5", "a second load filled %s in one generation", k)
	}
	if g.star > l.seq || deps && g.group > l.seq {
		m.violate("dead", "FILL says OK to a %s that no READ will accept", k)
	}
	*e = entry{seq: l.seq, content: c, expiry: m.now + life}
	return "OK"
}

// invalidate reports whether Redis was attached. The writes are those that are invalidated now.
func (m *model) invalidate(writes ...*write) bool {
	g := &m.redis.gen
	if !g.attached && m.guard("unattached") {
		return false
	}
	for _, w := range writes {
		for _, k := range w.keys {
			if m.guard("mark-key") {
				m.redis.dirty[k] = m.now + dirtyLife
			}
			if m.guard("unlink") {
				m.redis.entries[k] = entry{}
			}
		}
		if w.rename {
			g.seq++
			if m.guard("raise") {
				g.group = g.seq
			}
			if m.guard("mark-dependency") {
				m.redis.dirty[memberGroup], m.redis.dirty[memberDeps] = m.now+dirtyLife, m.now+dirtyLife
			}
		}
		if w.invalidated == 0 {
			w.invalidated = m.event
		}
		m.tracef("INVALIDATE of write %d, seq %d", w.number, g.seq)
	}
	return true
}

// attach reports whether the timeline is STALE.
func (m *model) attach(at position) (stale bool) {
	g := &m.redis.gen
	raise := (!g.attached || g.run != m.redis.run) && m.guard("attach-run")
	if at.timeline != 0 || g.timeline == 0 {
		if at.system != g.system || at.timeline > g.timeline {
			raise = raise || m.guard("attach-cluster")
			g.system, g.timeline = at.system, at.timeline
			switch current := g.system == m.primary.system && g.timeline == m.primary.timeline; {
			case !current:
				m.settled = unsettled
			case m.settled == unsettled:
				m.settled = m.event
			}
		} else if at.timeline < g.timeline {
			stale = true
		}
	}
	if raise {
		g.seq++
		g.attached, g.run = true, m.redis.run
		if m.guard("attach-star") {
			g.star = g.seq
		}
		if m.guard("attach-dirty") {
			m.redis.dirty[memberStar] = m.now + dirtyLife
		}
		m.tracef("ATTACH timeline %d raises * to %d", at.timeline, g.seq)
	}
	return stale
}

// restart ends the Redis process and starts another one, with the last snapshot or with nothing.
func (m *model) restart(old bool) {
	run := m.redis.run + 1
	m.redis = redis{}
	if old {
		m.redis = m.saved
	}
	m.redis.up, m.redis.run = true, run
	m.tracef("Redis restarts, old data: %t", old)
}
