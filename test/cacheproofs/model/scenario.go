package model

import "math/rand/v2"

// newModel returns a world at rest: a primary P, standbys S and T that have everything, user A with
// the phone, no user B, and two attached processes.
func newModel(off string, choose func(int) int) *model {
	m := &model{off: off, choose: choose, now: 100_000}
	first := database{owned: true, owner: keyA}
	first.users[keyA].exists, first.users[keyA].active = true, true
	m.primary = &server{name: "P", up: true, system: 1, timeline: 1, base: 100, wal: []database{first}}
	m.servers = []*server{m.primary}
	for _, name := range []string{"S", "T"} {
		m.servers = append(m.servers, &server{
			name: name, up: true, inRecovery: true, system: 1, timeline: 1, base: 100,
			wal: []database{first}, upstream: m.primary,
		})
	}
	m.redis = redis{up: true, run: 1}
	for _, name := range []string{"p1", "p2"} {
		p := &process{m: m, name: name, closed: true, run: 1, flights: map[int]*flight{}, tokens: len(m.processes) * 1_000}
		p.known = m.primary.position()
		p.samples = []sample{{at: m.now, pos: p.known}}
		m.processes = append(m.processes, p)
	}
	m.attach(m.primary.position())
	m.redis.dirty = [numMembers]int64{}
	m.saved = m.redis
	return m
}

// background starts what cache.Run starts.
func (p *process) background() {
	p.m.spawn("follow", p, true, p.follow)
	p.m.spawn("recover", p, true, p.recover)
	p.m.spawn("relay", p, true, p.relayOutbox)
	p.m.spawn("delete", p, true, p.deleteDone)
}

// fault is something that happens to the world.
type fault struct {
	name   string
	happen func(m *model)
}

var faults = []fault{
	{"evict", func(m *model) { m.redis.entries[m.choose(int(numKeys))] = entry{} }},
	{"flushdb", func(m *model) { m.redis = redis{up: m.redis.up, run: m.redis.run}; m.tracef("FLUSHDB") }},
	{"save", func(m *model) { m.saved = m.redis }},
	{"restart with old data", func(m *model) { m.restart(true) }},
	{"restart empty", func(m *model) { m.restart(false) }},
	{"redis down or up", func(m *model) { m.redis.up = !m.redis.up; m.tracef("Redis up: %t", m.redis.up) }},
	{"cut or mend", func(m *model) { p := m.someProcess(); p.cut = !p.cut; m.tracef("%s cut: %t", p.name, p.cut) }},
	{"lose answers", func(m *model) { p := m.someProcess(); p.lose = !p.lose }},
	{"kill", func(m *model) {
		p := m.someProcess()
		p.dead = m.choose(2) == 0
		m.tracef("kill %s, for good: %t", p.name, p.dead)
		p.restart()
	}},
	{"primary down or up", func(m *model) {
		if m.primary.up {
			m.primary.crash()
		} else {
			m.primary.up = true
		}
		m.tracef("%s up: %t", m.primary.name, m.primary.up)
	}},
	{"promote", func(m *model) { m.failover(false) }},
	{"promote beside a zombie", func(m *model) { m.failover(true) }},
	{"fence", (*model).fence},
	{"upgrade", func(m *model) {
		if m.primary.system == 1 {
			m.upgrade(m.choose(2) == 0)
		}
	}},
	{"repair standbys", (*model).repair},
	{"pause replay", func(m *model) {
		s := m.servers[m.choose(len(m.servers))]
		s.paused = !s.paused
		m.tracef("%s paused: %t", s.name, s.paused)
	}},
}

func (m *model) someProcess() *process { return m.processes[m.choose(len(m.processes))] }

func (m *model) failover(zombie bool) {
	for _, s := range m.servers {
		if s.up && s.inRecovery && s.system == m.primary.system && s.timeline == m.primary.timeline {
			m.forkAt = len(s.wal)
			m.promote(s, zombie && m.primary.up)
			return
		}
	}
}

// fence ends the old primaries.
func (m *model) fence() {
	for _, s := range m.servers {
		if s.up && !s.inRecovery && s != m.primary {
			s.crash()
			m.tracef("%s fenced", s.name)
		}
	}
}

// repair makes every server but the primary a standby of it.
func (m *model) repair() {
	if !m.primary.up {
		return
	}
	for _, s := range m.servers {
		if s != m.primary && (!s.up || s.upstream != m.primary) {
			m.follow(s)
		}
	}
}

// chaos fills a schedule with clients and faults. Each schedule takes part of both only, so that rare
// combinations come up.
func (m *model) chaos(r *rand.Rand) {
	m.fallback = true
	for _, p := range m.processes {
		p.background()
	}
	weight := func(t *task) { t.weight = 1 << r.IntN(5) }

	var some []fault
	for range r.IntN(5) {
		some = append(some, faults[r.IntN(len(faults))])
	}
	if len(some) > 0 {
		m.spawn("fault", nil, true, func(t *task) {
			t.pause("fault")
			f := some[r.IntN(len(some))]
			m.tracef("%s", f.name)
			f.happen(m)
		})
	}
	m.spawn("clock", nil, true, func(t *task) {
		t.pause("clock")
		m.now += [...]int64{10, 100, 100, 300, 1_000, 2_900, 4_000, 15_001}[r.IntN(8)]
	})
	for _, s := range m.servers[1:] {
		m.spawn("replay", nil, true, func(t *task) {
			t.until("replay", s.lags)
			if s.lags() {
				s.replay()
			}
		})
	}
	for _, t := range m.tasks {
		weight(t)
	}

	kinds, first := 1+r.IntN(int(numKinds)), r.IntN(int(numKinds))
	asks, ask := 1+r.IntN(8), r.IntN(8)
	users := 1 + r.IntN(2)
	for range 2 + r.IntN(2) {
		p := m.processes[r.IntN(len(m.processes))]
		weight(m.spawn("writer", p, false, func(t *task) {
			for range 1 + r.IntN(3) {
				p.write(t, kind((first+r.IntN(kinds))%int(numKinds)), key(r.IntN(users)))
			}
		}))
	}
	for range 3 + r.IntN(3) {
		p := m.processes[r.IntN(len(m.processes))]
		weight(m.spawn("reader", p, false, func(t *task) {
			for range 2 + r.IntN(4) {
				switch (ask + r.IntN(asks)) % 8 {
				case 0:
					p.memberships(t, key(r.IntN(users)))
				case 1:
					p.list(t)
				case 2:
					p.groups(t)
				case 3, 4, 5:
					p.user(t, key(r.IntN(users)))
				default:
					p.userByPhone(t)
				}
			}
		}))
	}
}

// heal ends all faults, lets the outbox drain, and asks every process for everything once more.
func (m *model) heal() {
	if m.violation != nil {
		return
	}
	m.tracef("heal")
	for _, t := range m.tasks {
		if t.name == "fault" || t.name == "clock" {
			t.done = true
		}
	}
	m.fence()
	m.redis.up, m.primary.up = true, true
	m.repair()
	for _, s := range m.servers {
		s.paused = false
	}
	for _, p := range m.processes {
		p.cut, p.lose = false, false
	}
	if m.processes[0].dead && m.processes[1].dead {
		m.processes[0].dead = false
	}
	healed := m.now
	m.spawn("last", nil, false, func(t *task) {
		t.until("healed", func() bool {
			owed := len(m.primary.state().outbox) > 0 && m.now < healed+5_000
			for _, p := range m.alive() {
				owed = owed || p.open() || p.known.system != m.primary.system || p.known.timeline != m.primary.timeline
			}
			return !owed && m.now > healed+1_000
		})
		m.final = true
		for _, p := range m.alive() {
			p.user(t, keyA)
			p.user(t, keyB)
			p.groups(t)
			p.userByPhone(t)
		}
	})
}

func (m *model) alive() []*process {
	var alive []*process
	for _, p := range m.processes {
		if !p.dead {
			alive = append(alive, p)
		}
	}
	return alive
}
