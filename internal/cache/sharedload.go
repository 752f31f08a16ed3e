package cache

import (
	"context"
	"errors"
	"sync"

	"github.com/payment-services/accounts/internal/mutation"
)

// sharedLoads are the loads of this process that other requests may join. They are found by lease token,
// and only while the generation has not changed: a request that saw this lease in Redis knows that
// nothing was invalidated since the lease was planted. If loads were found by cache key, a request that
// began after a write could get data that was loaded before the write.
type sharedLoads struct {
	mu      sync.Mutex
	byToken map[string]*sharedLoad
}

type sharedLoad struct {
	seq    int64
	done   chan struct{}
	result Result
	err    error
}

func (s *sharedLoads) start(l lease) *sharedLoad {
	load := &sharedLoad{seq: l.seq, done: make(chan struct{}), err: errors.New("cache: the load ended without a result")}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.byToken[l.token] = load
	return load
}

func (s *sharedLoads) find(token string, seq int64) *sharedLoad {
	s.mu.Lock()
	defer s.mu.Unlock()
	load := s.byToken[token]
	if load == nil || load.seq != seq && mutation.Point("join-seq") {
		return nil
	}
	return load
}

func (s *sharedLoads) finish(l lease, load *sharedLoad) {
	s.mu.Lock()
	delete(s.byToken, l.token)
	s.mu.Unlock()
	close(load.done)
}

func (l *sharedLoad) wait(ctx context.Context) (Result, error) {
	select {
	case <-l.done:
		return l.result, l.err
	case <-ctx.Done():
		return Result{}, ctx.Err()
	}
}
