package model

// write is one write of a client, or the attempt of one.
type write struct {
	number   int
	keys     []key
	rename   bool
	on       *server // whose WAL has it
	timeline int     // of that server at that time
	at       int     // its LSN
	lost     bool    // with the tail of an old primary

	invalidated int // the event of its first INVALIDATE
	acked       int // the event; 0: not yet, or nobody knows its outcome
	ackedAt     int64
	deferred    bool // acknowledged although no INVALIDATE was seen to succeed
}

// kind is what a client wants to change.
type kind int

const (
	update kind = iota // of user A or B
	toggle             // deactivate or reactivate
	move               // the phone to that user, from whoever has it
	rename             // the group
	numKinds
)

// apply is the write function: the new state and the keys that it touches. A user is created by the
// first write of it.
func (k kind) apply(d database, u key, number int) (_ database, touched []key) {
	if k == rename {
		d.rename = number
		return d, []key{keyGroups}
	}
	touch := func(u key) {
		d.users[u].write = number
		touched = append(touched, u)
	}
	created := !d.users[u].exists
	if created {
		d.users[u].exists, d.users[u].active = true, true
	}
	touch(u)
	switch {
	case k == toggle && !created:
		d.users[u].active = !d.users[u].active
		if d.owned && d.owner == u {
			d.phoneWrite = number
			touched = append(touched, keyPhone)
		}
	case k == move:
		if d.owned && d.owner != u {
			touch(d.owner)
		}
		d.owned, d.owner, d.phoneWrite = true, u, number
		touched = append(touched, keyPhone)
	}
	return d, touched
}

// commit executes a write function with its outbox row on s.
func (m *model) commit(s *server, k kind, u key) (w *write, id int) {
	w = &write{number: len(m.writes) + 1, rename: k == rename, on: s, timeline: s.timeline, lost: s != m.primary}
	d, touched := k.apply(s.state(), u, w.number)
	w.keys = touched
	d.nextID++
	id = d.nextID
	if m.guard("outbox-id") {
		id = w.number
	}
	if m.guard("outbox-in-transaction") {
		d.outbox = append(d.outbox[:len(d.outbox):len(d.outbox)], row{id: id, write: w.number, createdAt: m.now})
	}
	s.commit(d)
	w.at = s.lsn()
	m.writes = append(m.writes, w)
	m.tracef("COMMIT write %d (kind %d of %s) on %s at %d, outbox %d", w.number, k, u, s.name, w.at, id)
	return w, id
}

// write is Service.write and Cache.Invalidate.
func (p *process) write(t *task, k kind, u key) {
	m := p.m
	if p.stale {
		return // 503
	}
	wasStale := p.wasStale
	t.pause("COMMIT")
	s := m.primaryOf(p)
	if s == nil {
		return // 503
	}
	w, id := m.commit(s, k, u)
	acknowledge := func() {
		t.pause("ack")
		w.acked, w.ackedAt = m.event, m.now
		m.tracef("write %d acknowledged, deferred %t", w.number, w.deferred)
		if wasStale && m.zombie(s) {
			m.violate("stale", "write %d was acknowledged by %s, which knew that its primary was replaced", w.number, p.name)
		}
	}
	if !m.guard("invalidate-before-ack") {
		acknowledge()
	}
	t.pause("the outcome arrives")
	unknown := s.starts != p.primaryStart || p.primary != s || !s.up
	done := p.INVALIDATE(t, w)
	if !done {
		done = p.INVALIDATE(t, w)
	}
	switch {
	case unknown:
		return // nobody acknowledges it, and the relay has its row
	case done:
		p.done = append(p.done, id)
	default:
		p.trip()
		w.deferred = true
		p.awaitRelay(t, id)
	}
	if w.acked == 0 {
		acknowledge()
	}
}

// awaitRelay returns when the outbox row is gone, or after a second.
func (p *process) awaitRelay(t *task, id int) {
	m := p.m
	end := m.now + awaitRelay
	for pending := true; pending && m.now < end; {
		m.sleep(t, "await the relay", 100)
		d, ok := p.onPrimary(t)
		if !ok {
			return
		}
		pending = d.pending(id)
	}
}

// onPrimary is Cache.Primary.
func (p *process) onPrimary(t *task) (d database, ok bool) {
	m := p.m
	if m.guard("primary-only") {
		t.pause("primary: outbox")
		s := m.primaryOf(p)
		if s == nil {
			return database{}, false
		}
		return s.state(), true
	}
	r := p.query(t, true, func(at database) content {
		d = at
		return content{found: true}
	})
	return d, !r.failed
}

// deleteDone is one round of Cache.deleteDone.
func (p *process) deleteDone(t *task) {
	t.until("rows to delete", func() bool { return len(p.done) > 0 })
	ids := p.done
	p.done = nil
	t.pause("delete outbox rows")
	if s := p.m.primaryOf(p); s != nil {
		s.delete(ids)
	}
}

func (s *server) delete(ids []int) {
	d := s.state()
	var kept []row
	for _, r := range d.outbox {
		if !contains(ids, r.id) {
			kept = append(kept, r)
		}
	}
	if len(kept) < len(d.outbox) {
		d.outbox = kept
		s.commit(d)
	}
}

func contains(ids []int, id int) bool {
	for _, i := range ids {
		if i == id {
			return true
		}
	}
	return false
}

// relay is Cache.relay: how many rows it relayed, and false when it failed.
func (p *process) relay(t *task, minAge int64) (int, bool) {
	m := p.m
	t.pause("claim outbox rows")
	s := m.primaryOf(p)
	if s == nil {
		return 0, false
	}
	if s.relay != nil && !s.relay.over() {
		return 0, true
	}
	start := s.starts
	s.relay = t
	defer func() {
		if s.relay == t {
			s.relay = nil
		}
	}()
	var ids []int
	var writes []*write
	for _, r := range s.state().outbox {
		if r.createdAt <= m.now-minAge {
			ids = append(ids, r.id)
			writes = append(writes, m.writes[r.write-1])
		}
	}
	if len(ids) == 0 {
		return 0, true
	}
	if !p.INVALIDATE(t, writes...) {
		p.trip()
		return 0, false
	}
	t.pause("delete relayed rows")
	if !s.up || s.starts != start {
		return 0, false
	}
	s.delete(ids)
	return len(ids), true
}

// relayOutbox is one round of Cache.relayOutbox.
func (p *process) relayOutbox(t *task) {
	m := p.m
	t.until("relay", func() bool {
		s := m.primaryOf(p)
		if p.open() || !m.guard("relay") || s == nil {
			return false
		}
		o := s.state().outbox
		return len(o) > 0 && o[0].createdAt <= m.now-relayMinAge
	})
	p.relay(t, relayMinAge)
}

// recover is one attempt of Cache.recover.
func (p *process) recover(t *task) {
	m := p.m
	t.until("recover", func() bool { return p.tripped })
	p.tripped = false
	if !p.comeBack(t) {
		p.tripped = true
		m.sleep(t, "recover later", 100)
	}
}

func (p *process) comeBack(t *task) bool {
	m := p.m
	started, event := m.now, m.event
	if !p.sample(t) || !p.ATTACH(t) {
		return false
	}
	for m.guard("barrier") {
		relayed, ok := p.relay(t, 0)
		if !ok {
			return false
		}
		if relayed > 0 {
			continue
		}
		d, ok := p.onPrimary(t)
		if !ok {
			return false
		}
		if len(d.outbox) == 0 || d.outbox[0].createdAt > started {
			break
		}
		m.sleep(t, "another relay is at it", 20)
	}
	t.pause("close the breaker")
	p.closed, p.recovering = true, event
	m.tracef("breaker of %s closed", p.name)
	return true
}

// follow is one round of Cache.follow.
func (p *process) follow(t *task) {
	m := p.m
	m.sleep(t, "follow", 500)
	p.sample(t)
	if !p.open() && !p.ATTACH(t) {
		p.trip()
	}
}

func (m *model) sleep(t *task, why string, ms int64) {
	end := m.now + ms
	t.until(why, func() bool { return m.now >= end })
}
