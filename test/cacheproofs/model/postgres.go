package model

// content is what a row, an entry or an answer says of one key, by the writes that it contains.
type content struct {
	found  bool
	write  int  // the last write of this key in it; 0: none yet
	rename int  // users: the last rename of their group in it
	owner  key  // phone: whose it is
	active bool // users
	listed bool // users: the phone is theirs
}

// row is one row of cache_outbox.
type row struct {
	id, write int
	createdAt int64
}

// database is the state after one WAL record.
type database struct {
	users [2]struct {
		exists, active bool
		write          int
	}
	owned      bool // the phone belongs to somebody
	owner      key
	phoneWrite int
	rename     int
	outbox     []row // never changed in place
	nextID     int
}

func (d database) pending(id int) bool {
	for _, r := range d.outbox {
		if r.id == id {
			return true
		}
	}
	return false
}

// get is the read function of k: what a client may be answered.
func (d database) get(k key) content {
	switch k {
	case keyPhone:
		c := content{write: d.phoneWrite, owner: d.owner}
		c.found = d.owned && d.users[d.owner].active
		return c
	case keyGroups:
		return content{found: true, write: d.rename}
	}
	u := d.users[k]
	return content{
		found: u.exists, write: u.write, rename: d.rename,
		active: u.active, listed: u.active && d.owned && d.owner == k,
	}
}

// position is what get_replication_position_v1 returns.
type position struct {
	system, timeline, lsn int
	inRecovery            bool
}

// server is one PostgreSQL.
type server struct {
	name             string
	up               bool
	inRecovery       bool
	system, timeline int
	base             int        // the LSN at which wal begins
	wal              []database // each record is the state after it
	upstream         *server    // of a standby
	starts           int        // a restart breaks all connections
	relay            *task      // holds the lock cache_outbox of named_locks
	paused           bool       // pg_wal_replay_pause
}

func (s *server) state() database { return s.wal[len(s.wal)-1] }

func (s *server) lsn() int { return s.base + len(s.wal) }

func (s *server) position() position {
	return position{system: s.system, timeline: s.timeline, lsn: s.lsn(), inRecovery: s.inRecovery}
}

// commit appends one WAL record.
func (s *server) commit(d database) { s.wal = append(s.wal[:len(s.wal):len(s.wal)], d) }

// lags reports whether a standby has something to replay.
func (s *server) lags() bool {
	return s.up && s.inRecovery && !s.paused && s.upstream != nil && s.upstream.up && len(s.wal) < len(s.upstream.wal)
}

func (s *server) replay() {
	s.commit(s.upstream.wal[len(s.wal)])
	s.timeline = s.upstream.timeline
}

// zombie reports whether s is an old primary that lives on, or follows one.
func (m *model) zombie(s *server) bool {
	for s.inRecovery && s.upstream != nil && s.upstream.up {
		s = s.upstream
	}
	return s != m.primary && s.up && !s.inRecovery
}

// primaryOf is the server that a process's write URL leads to: an old connection stays where it is as
// long as it can. nil: nobody is there.
func (m *model) primaryOf(p *process) *server {
	if s := p.primary; s == nil || !s.up || s.inRecovery || s.starts != p.primaryStart {
		p.primary, p.primaryStart = m.primary, m.primary.starts
	}
	if !p.primary.up || p.primary.inRecovery {
		return nil
	}
	return p.primary
}

// readServer is the server that the read URL leads to: any standby, or with fallback the primary.
func (m *model) readServer() *server {
	var up []*server
	for _, s := range m.servers {
		if s.up && (s.inRecovery || s == m.primary && m.fallback && m.choose(8) == 0) {
			up = append(up, s)
		}
	}
	if len(up) == 0 {
		return nil
	}
	return up[m.choose(len(up))]
}

// promote makes a standby the primary. What the old one had more is lost. The old one dies, or goes on
// for those who are connected to it.
func (m *model) promote(s *server, zombie bool) {
	old := m.primary
	for _, w := range m.writes {
		if w.on == old && w.at > s.lsn() {
			w.lost = true
		}
	}
	if !zombie {
		old.crash()
	}
	m.zombies = m.zombies || zombie
	s.inRecovery, s.upstream, s.paused = false, nil, false
	s.timeline = old.timeline + 1
	m.primary = s
	m.settled, m.promotedAt = unsettled, m.now
	for _, w := range m.writes {
		if !w.lost {
			w.on = s
		}
	}
	m.tracef("promote %s at %d (old primary alive: %t)", s.name, s.lsn(), zombie)
}

// follow makes s a standby of the primary: rewound to the fork if it has too much, a new copy if it was
// of another cluster, else going on from where it is.
func (m *model) follow(s *server) {
	s.crash()
	s.up, s.inRecovery, s.upstream = true, true, m.primary
	keep := len(s.wal)
	if s.system != m.primary.system {
		s.system, s.base, keep = m.primary.system, m.primary.base, 1
	} else if s.timeline != m.primary.timeline {
		keep = min(keep, m.forkAt)
	}
	s.wal, s.timeline = m.primary.wal[:keep:keep], m.primary.timeline
	m.tracef("%s follows %s from %d", s.name, m.primary.name, s.lsn())
}

// upgrade replaces the cluster by another one with the same data, as pg_upgrade does: timeline 1
// again, a lower LSN; the old cluster may live on for those who are connected to it. Old standbys stay until somebody replaces them.
func (m *model) upgrade(zombie bool) {
	old := m.primary
	state := old.state()
	if !zombie {
		old.crash()
	}
	m.zombies = m.zombies || zombie
	n := &server{
		name: "N", up: true, system: old.system + 1, timeline: 1, wal: []database{state},
	}
	m.servers = append(m.servers, n)
	m.primary = n
	for _, w := range m.writes {
		if !w.lost {
			w.on, w.at = n, 0
		}
	}
	if zombie {
		m.settled = unsettled
	}
	m.tracef("upgrade to another cluster (old one alive: %t)", zombie)
}

func (s *server) crash() {
	s.up, s.relay = false, nil
	s.starts++
}
