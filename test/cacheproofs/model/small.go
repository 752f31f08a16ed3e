package model

// small are the scenarios that are explored exhaustively, up to a number of preemptions. Each has a
// few clients around one hazard, and names the guards without which the search must find a violation.
var small = []struct {
	name        string
	preemptions int
	guards      []string
	build       func(*model)
}{
	{"write", 3, []string{"lease", "invalidate-before-ack", "dirty", "mark-key"}, func(m *model) {
		p, q := m.processes[0], m.processes[1]
		m.spawn("writer", q, false, func(t *task) { q.write(t, update, keyA) })
		for range 2 {
			m.spawn("reader", p, false, func(t *task) { p.user(t, keyA) })
		}
	}},
	{"write of a dirty key", 2, []string{"lease", "join-token", "unlink"}, func(m *model) {
		p, q := m.processes[0], m.processes[1]
		m.redis.dirty[keyA] = m.now + dirtyLife // so the primary is asked
		m.spawn("writer", q, false, func(t *task) { q.write(t, update, keyA) })
		for range 2 {
			m.spawn("reader", p, false, func(t *task) { p.user(t, keyA) })
		}
	}},
	{"lag", 2, []string{"lsn", "proof-order", "reload"}, func(m *model) {
		p, q := m.processes[0], m.processes[1]
		standby := m.servers[1]
		m.spawn("replay", nil, true, func(t *task) {
			t.until("replay", standby.lags)
			standby.replay()
		})
		w := m.spawn("writer", q, false, func(t *task) { q.write(t, update, keyA) })
		m.spawn("reader", p, false, func(t *task) {
			t.until("acknowledged", func() bool { return w.done })
			m.now += dirtyLife + 1
			p.sample(t)
			p.user(t, keyA)
		})
		m.spawn("renamer", q, false, func(t *task) { q.write(t, rename, keyA) })
	}},
	{"a process dies after its commit", 2, []string{"relay", "outbox-in-transaction"}, func(m *model) {
		p, q := m.processes[0], m.processes[1]
		m.cached(keyA)
		m.spawn("relay", q, true, q.relayOutbox)
		m.spawn("writer", p, false, func(t *task) {
			t.pause("COMMIT")
			m.commit(m.primary, update, keyA)
			m.sleep(t, "for the relay", 2*relayMinAge)
			t.pause("the relay is done")
			m.final = len(m.primary.state().outbox) == 0 || !m.guard("relay")
			q.user(t, keyA)
		})
	}},
	{"the primary is away", 2, []string{"degraded"}, func(m *model) {
		p, q := m.processes[0], m.processes[1]
		w := m.spawn("writer", p, false, func(t *task) { p.write(t, update, keyA) })
		m.spawn("fault", nil, false, func(t *task) {
			t.until("acknowledged", func() bool { return w.done })
			m.primary.crash()
			t.pause("the primary is back")
			m.primary.up = true
		})
		m.spawn("reader", q, false, func(t *task) {
			t.until("acknowledged", func() bool { return w.done })
			q.user(t, keyA)
			q.user(t, keyA)
		})
	}},
	{"rename", 2, []string{"join-seq", "read-deps", "fill-deps", "raise"}, func(m *model) {
		p := m.processes[0]
		m.redis.dirty[keyA] = m.now + dirtyLife // so the primary is asked
		m.spawn("reader", p, false, func(t *task) { p.user(t, keyA) })
		m.spawn("writer", p, false, func(t *task) { p.write(t, rename, keyA) })
		m.spawn("reader", p, false, func(t *task) { p.user(t, keyA); p.user(t, keyA) })
	}},
	{"seed", 2, []string{"prefetched-server", "prefetched-dirty"}, func(m *model) {
		p := m.processes[0]
		m.redis.dirty[keyPhone] = m.now + dirtyLife
		m.spawn("reader", p, false, func(t *task) { p.userByPhone(t); p.user(t, keyA) })
		m.spawn("renamer", p, false, func(t *task) { p.write(t, rename, keyA) })
		m.spawn("writer", p, false, func(t *task) { p.write(t, update, keyA) })
	}},
	{"redis comes back", 1, []string{"barrier", "breaker"}, func(m *model) {
		p, q := m.processes[0], m.processes[1]
		m.cached(keyA)
		m.redis.up = false
		m.spawn("recover", q, true, q.recover)
		w := m.spawn("writer", p, false, func(t *task) { p.write(t, update, keyA) })
		m.spawn("reader", q, false, func(t *task) {
			t.until("acknowledged", func() bool { return w.done })
			q.user(t, keyA)
			m.redis.up = true
			t.pause("Redis is up")
			q.user(t, keyA)
			q.user(t, keyA)
		})
	}},
	{"the primary dies in the barrier", 2, []string{"primary-only"}, func(m *model) {
		p, q := m.processes[0], m.processes[1]
		m.cached(keyA)
		m.redis.up = false
		w := m.spawn("writer", p, false, func(t *task) { p.write(t, update, keyA) })
		acknowledged := func() bool { return w.done }
		m.spawn("relay", p, false, func(t *task) {
			t.until("acknowledged", acknowledged)
			m.redis.up = true
			p.relay(t, 0)
		})
		m.spawn("fault", nil, false, func(t *task) {
			t.until("acknowledged", acknowledged)
			m.primary.crash()
		})
		m.spawn("reader", q, false, func(t *task) {
			t.until("acknowledged", acknowledged)
			q.trip()
			q.recover(t)
			q.user(t, keyA)
		})
	}},
	{"redis restarts", 2, []string{"run-id", "attach-run", "attach-star", "read-star", "attach-dirty"}, func(m *model) {
		p, q := m.processes[0], m.processes[1]
		w := m.spawn("writer", p, false, func(t *task) { p.write(t, update, keyA) })
		m.spawn("fault", nil, false, func(t *task) {
			if m.choose(2) == 0 {
				m.cached(keyA)
				m.saved = m.redis
			}
			t.until("acknowledged", func() bool { return w.done })
			m.restart(true)
		})
		m.spawn("reader", q, false, func(t *task) {
			t.until("acknowledged", func() bool { return w.done })
			q.user(t, keyA)
		})
	}},
	{"flushdb", 2, []string{"unattached", "dirty-uncached"}, func(m *model) {
		p, q := m.processes[0], m.processes[1]
		w := m.spawn("writer", p, false, func(t *task) { p.write(t, update, keyA) })
		m.spawn("fault", nil, false, func(t *task) {
			t.pause("FLUSHDB")
			m.redis = redis{up: true, run: m.redis.run}
		})
		m.spawn("reader", q, false, func(t *task) {
			t.until("acknowledged", func() bool { return w.done })
			q.memberships(t, keyA)
		})
	}},
	{"upgrade beside the old cluster", 2, []string{"fill-system"}, func(m *model) {
		p, q := m.processes[0], m.processes[1]
		m.primaryOf(q) // keeps its connection to the old one
		m.upgrade(true)
		p.primary = m.primary
		m.spawn("writer", p, false, func(t *task) {
			p.sample(t)
			p.ATTACH(t)
			m.now += dirtyLife + 1
			p.write(t, update, keyA)
			m.now += dirtyLife + 1
			p.user(t, keyA)
		})
		m.spawn("reader", q, false, func(t *task) { q.user(t, keyA) })
	}},
	{"an outbox id of a lost tail", 1, []string{"outbox-id"}, func(m *model) {
		p, q := m.processes[0], m.processes[1]
		p.dead, q.dead = false, false
		m.spawn("delete", p, true, p.deleteDone)
		first := m.spawn("first", p, false, func(t *task) { p.write(t, move, keyB) })
		m.spawn("second", q, false, func(t *task) {
			t.until("acknowledged", func() bool { return first.done })
			m.failover(false)
			q.sample(t)
			q.ATTACH(t)
			q.user(t, keyA)
			t.pause("COMMIT")
			m.commit(m.primary, update, keyA) // and dies
			t.pause("the relay of another")
			p.relay(t, 0)
			m.final = true
			q.user(t, keyA)
		})
	}},
}

// cached puts an entry of k into Redis, as it is now.
func (m *model) cached(k key) {
	m.redis.entries[k] = entry{seq: m.redis.gen.seq, content: m.primary.state().get(k), expiry: m.now + entryLife}
}
