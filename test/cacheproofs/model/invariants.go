package model

const unsettled = 1 << 60

// request is what was true when a client asked.
type request struct {
	event      int
	at         int64
	closed     bool // the breaker of the process, and when it began to recover the last time
	recovering int
}

func (p *process) request() request {
	return request{event: p.m.event, at: p.m.now, closed: p.closed, recovering: p.recovering}
}

// check compares an answer about k with the writes that were acknowledged before it was asked for.
// What is allowed is what docs/caching.md lists as not closed, and no more.
func (p *process) check(q request, k key, r result, boundD bool) {
	m := p.m
	if r.failed {
		return
	}
	if r.degraded { // the primary was down: whatever a standby has, but its "no" is not known to be true
		if !r.content.found && r.source == fromReplica {
			m.violate("miss", "%s: 404 for %s while the primary was down", p.name, k)
		}
		return
	}
	if r.zombie || m.zombies && q.event < m.settled { // a split brain of PostgreSQL, until it is settled
		return
	}
	boundD = boundD || r.bypass && r.source == fromReplica
	for _, w := range m.writes {
		if w.lost || (w.acked == 0 || w.acked > q.event) && !m.final {
			continue
		}
		var has int
		switch {
		case w.touches(k):
			has = r.content.write
		case w.rename && k.isUser() && r.content.found:
			has = r.content.rename
		default:
			continue
		}
		if m.contains(has, w) {
			continue
		}
		if boundD && r.content.found && w.ackedAt >= q.at-proofAge {
			continue // Redis away, or a list: at most D old
		}
		if boundD && !r.content.found {
			m.violate("miss", "%s: 404 for %s, which write %d made", p.name, k, w.number)
		}
		if w.deferred && !m.final && p.tolerates(q, w) && (w.invalidated == 0 || w.invalidated >= q.event) {
			continue // its invalidation was still owed
		}
		kind := "I1"
		if m.final {
			kind = "I4"
		}
		m.violate(kind, "%s answers %s with write %d (rename %d), without write %d", p.name, k, r.content.write, r.content.rename, w.number)
	}
	m.checkLost(p, q, k, r, boundD)
	m.noteOrder(q, k, r)
}

// tolerates reports whether a deferred invalidation may be owed to a request: its process has not
// noticed that Redis was away, or came back before the write was acknowledged.
func (p *process) tolerates(q request, w *write) bool {
	if !q.closed {
		return p.closed && w.acked > p.recovering
	}
	return w.acked > q.recovering
}

// checkLost: the value of a write that a promotion lost may be seen until Redis learns of the new
// timeline; what needs no Redis, D longer.
func (m *model) checkLost(p *process, q request, k key, r result, boundD bool) {
	for _, n := range [...]int{r.content.write, r.content.rename} {
		if n == 0 || !m.writes[n-1].lost || q.event < m.settled || boundD && q.at <= m.promotedAt+proofAge {
			continue
		}
		m.violate("lost", "%s answers %s with write %d, which was lost, after the attach", p.name, k, n)
	}
}

// noteOrder notices when a client sees an unacknowledged write and a later client does not.
func (m *model) noteOrder(q request, k key, r result) {
	seen := &m.seen[k]
	if n := r.content.write; n >= seen.write {
		if n > seen.write {
			seen.write, seen.answered = n, m.event
		}
	} else if seen.answered < q.event && !m.writes[seen.write-1].lost {
		m.newThenOld = true
	}
}

// contains reports whether a state whose last write of a key is number has w, a write of that key
// that was not lost.
func (m *model) contains(number int, w *write) bool {
	if number < w.number {
		return false
	}
	last := m.writes[number-1]
	return !last.lost || w.number < m.fork(last)
}

// fork is the number of the first write that was lost together with w.
func (m *model) fork(w *write) int {
	for _, x := range m.writes {
		if x.lost && x.on == w.on && x.timeline == w.timeline {
			return x.number
		}
	}
	return w.number
}

func (w *write) touches(k key) bool {
	for _, x := range w.keys {
		if x == k {
			return true
		}
	}
	return false
}

// user asks for a user by id.
func (p *process) user(t *task, u key) {
	q := p.request()
	p.check(q, u, p.document(t, u, nil), false)
}

func (p *process) document(t *task, u key, s *seed) result {
	return p.get(t, u, s, func(d database) content { return d.get(u) })
}

// groups asks for the dictionary.
func (p *process) groups(t *task) {
	q := p.request()
	p.check(q, keyGroups, p.get(t, keyGroups, nil, func(d database) content { return d.get(keyGroups) }), false)
}

// userByPhone is Service.userByMapping: from the phone to the user to the document.
func (p *process) userByPhone(t *task) {
	m := p.m
	q := p.request()
	var passing *content
	mapping := p.get(t, keyPhone, nil, func(d database) content {
		c := d.get(keyPhone)
		if c.found {
			u := d.get(c.owner)
			passing = &u
		}
		return c
	})
	if mapping.failed {
		return
	}
	if !mapping.content.found {
		p.check(q, keyPhone, mapping, false)
		return
	}
	owner := mapping.content.owner
	var s *seed
	if passing != nil {
		s = mapping.seed(*passing)
	}
	r := p.document(t, owner, s)
	if r.failed {
		return
	}
	if !m.guard("listed") || r.content.found && r.content.listed {
		if !r.content.listed {
			m.violate("mixed", "%s: the phone is answered with %s, whose document does not have it", p.name, owner)
		}
		p.check(q, owner, r, false)
		return
	}
	t.pause("primary: by identifier")
	if on := m.primaryOf(p); on != nil {
		r := result{content: on.state().get(keyPhone)}
		r.origin = origin{source: fromPrimary, zombie: m.zombie(on)}
		p.check(q, keyPhone, r, false)
	}
}

// memberships asks for something uncached of one user.
func (p *process) memberships(t *task, u key) {
	q := p.request()
	p.check(q, u, p.readUncached(t, u, func(d database) content { return d.get(u) }), false)
}

// list asks for a list over many users.
func (p *process) list(t *task) {
	q := p.request()
	var at database
	r := p.readUncached(t, numKeys, func(d database) content {
		at = d
		return content{found: true}
	})
	for _, u := range [...]key{keyA, keyB} {
		r.content = at.get(u)
		r.content.found = true // a list does not say that somebody is not there
		p.check(q, u, r, true)
	}
}
