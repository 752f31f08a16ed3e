package model

import (
	"errors"
	"iter"
	"math/rand/v2"
)

var errKilled = errors.New("the task's process was killed, or the schedule is over")

// task is one thread of the model: a client's requests, a background loop, a fault. It is a
// coroutine; exactly one runs at a time.
type task struct {
	m      *model
	name   string
	p      *process // nil: the world
	life   int      // of p
	daemon bool     // the schedule does not wait for it
	weight int      // how often a random schedule picks it
	next   func() (struct{}, bool)
	stop   func()
	yield  func(struct{}) bool
	ready  func() bool // nil: now
	done   bool
}

// spawn starts a task. A daemon repeats body, and its process's death only interrupts it.
func (m *model) spawn(name string, p *process, daemon bool, body func(*task)) *task {
	t := &task{m: m, name: name, p: p, daemon: daemon, weight: 1}
	if p != nil {
		t.name, t.life = p.name+"."+name, p.lives
	}
	t.next, t.stop = iter.Pull(func(yield func(struct{}) bool) {
		t.yield = yield
		for again := true; again && !t.done; again = daemon {
			t.attempt(body)
		}
		t.done = true
	})
	m.tasks = append(m.tasks, t)
	return t
}

func (t *task) attempt(body func(*task)) {
	defer func() {
		if r := recover(); r != nil && r != errKilled {
			panic(r)
		}
		if t.p != nil {
			t.life = t.p.lives
		}
	}()
	body(t)
}

// pause lets others go on. The action after it is atomic.
func (t *task) pause(what string) { t.until(what, nil) }

// until pauses until ready.
func (t *task) until(what string, ready func() bool) {
	t.ready = ready
	if !t.yield(struct{}{}) {
		t.done = true
		panic(errKilled)
	}
	t.ready = nil
	t.m.event++
	if t.p != nil && t.life != t.p.lives {
		panic(errKilled)
	}
	t.m.tracef("%s", what)
}

func (t *task) over() bool { return t.done || t.killed() }

func (t *task) killed() bool { return t.p != nil && t.life != t.p.lives }

func (t *task) runnable() bool {
	return !t.done && (t.p == nil || !t.p.dead || !t.daemon) && (t.ready == nil || t.killed() || t.ready())
}

// run runs the tasks until those that are no daemons are over, or something is violated. pick chooses
// one of those that can go on.
func (m *model) run(pick func(ready []*task) *task) {
	var ready []*task
	for m.violation == nil {
		ready = ready[:0]
		waiting := false
		for _, t := range m.tasks {
			waiting = waiting || !t.done && !t.daemon
			if t.runnable() {
				ready = append(ready, t)
			}
		}
		if !waiting {
			return
		}
		if len(ready) == 0 {
			m.now += 50 // everybody waits for the clock
			continue
		}
		m.current = pick(ready)
		m.current.next()
	}
}

// end unwinds all tasks.
func (m *model) end() {
	for _, t := range m.tasks {
		t.stop()
	}
}

// random runs one schedule that a seed determines, faults and all.
func random(seed uint64, off string, tracing bool) *model {
	r := rand.New(rand.NewPCG(seed, 0))
	m := newModel(off, r.IntN)
	m.tracing = tracing
	defer m.end()
	m.chaos(r)
	pick := func(ready []*task) *task {
		sum := 0
		for _, t := range ready {
			sum += t.weight
		}
		n := r.IntN(sum)
		for _, t := range ready {
			if n -= t.weight; n < 0 {
				return t
			}
		}
		panic("unreachable")
	}
	m.run(pick)
	m.heal()
	m.run(pick)
	return m
}

// exhaustive runs every schedule of a small scenario that has at most preemptions switches away from
// a task that could go on, and every outcome of every other choice. It stops at the first violation
// or after most schedules and returns how many it ran.
func exhaustive(off string, preemptions, most int, tracing bool, scenario func(*model)) (*model, int) {
	var path, width []int // the choices of this schedule, and of how many
	for schedules := 1; ; schedules++ {
		depth, left := 0, preemptions
		choose := func(n int) int {
			if n == 1 {
				return 0
			}
			if depth == len(path) {
				path, width = append(path, 0), append(width, n)
			}
			depth++
			return path[depth-1]
		}
		m := newModel(off, choose)
		m.tracing = tracing
		m.servers = m.servers[:2] // one standby is enough here
		scenario(m)
		m.run(func(ready []*task) *task {
			// The task that ran last comes first; leaving it while it can go on costs a preemption.
			free := true
			for i, t := range ready {
				if t == m.current {
					copy(ready[1:i+1], ready[:i])
					ready[0] = t
					free = false
				}
			}
			if free {
				return ready[choose(len(ready))]
			}
			if left == 0 {
				return ready[0]
			}
			n := choose(len(ready))
			if n > 0 {
				left--
			}
			return ready[n]
		})
		m.end()
		for len(path) > 0 && path[len(path)-1] == width[len(path)-1]-1 {
			path, width = path[:len(path)-1], width[:len(path)-1]
		}
		if m.violation != nil || len(path) == 0 || schedules == most {
			return m, schedules
		}
		path[len(path)-1]++
	}
}
