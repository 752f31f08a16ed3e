package cache

import (
	"context"
	"errors"
	"sync"
)

// flights are the loads of this process that others may join. They are found by lease token, and
// only while the generation is what it was: whoever saw this lease in Redis knows that nothing was
// invalidated since it was planted. Joined by cache key, a reader that came after a write could be
// handed what was loaded before it.
type flights struct {
	mu      sync.Mutex
	byToken map[string]*flight
}

type flight struct {
	seq    int64
	done   chan struct{}
	result Result
	err    error
}

func (f *flights) start(l lease) *flight {
	fl := &flight{seq: l.seq, done: make(chan struct{}), err: errors.New("cache: the load was abandoned")}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.byToken[l.token] = fl
	return fl
}

func (f *flights) find(token string, seq int64) *flight {
	f.mu.Lock()
	defer f.mu.Unlock()
	fl := f.byToken[token]
	if fl == nil || fl.seq != seq && guard("flight-seq") {
		return nil
	}
	return fl
}

func (f *flights) finish(l lease, fl *flight) {
	f.mu.Lock()
	delete(f.byToken, l.token)
	f.mu.Unlock()
	close(fl.done)
}

func (f *flight) wait(ctx context.Context) (Result, error) {
	select {
	case <-f.done:
		return f.result, f.err
	case <-ctx.Done():
		return Result{}, ctx.Err()
	}
}
