package auth

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// snapshotInterval is the pause between two complete passes over the list, and so the age up to
	// which a revocation may be missing from the snapshot.
	snapshotInterval = 10 * time.Second
	// snapshotRetry is the pause after a pass that failed.
	snapshotRetry = time.Second
	// snapshotMaxAge is how long after the last complete pass the snapshot may decide.
	snapshotMaxAge = 5 * time.Minute
	// snapshotMaxKeys bounds the memory: about 8 MB while a pass replaces the old copy. A longer list
	// is no snapshot at all, for a part of it would let revoked tokens in.
	snapshotMaxKeys = 200_000
	// scanCount and scanPause keep a pass from hogging Redis: one page is well under a millisecond.
	scanCount = 1000
	scanPause = 5 * time.Millisecond
)

var errListTooLong = errors.New("more keys than a snapshot may hold")

// snapshot is this process's copy of the revocation list. It keeps a 64-bit hash of each key, seeded
// at random: a false match (2^-46 for a full list) refuses a good token during an outage, and nobody
// can aim for one. It is safe for concurrent use, but only one pass may run at a time.
type snapshot struct {
	redis   *redis.Client
	glob    string
	seed    maphash.Seed
	maxKeys int
	now     func() time.Time
	logger  *slog.Logger

	mu        sync.RWMutex
	keys      map[uint64]struct{} // the last complete pass, and what was learned since it began
	learned   map[uint64]struct{} // learned since the running pass began: SCAN may have missed these
	spoiled   bool                // the running pass must not count: learned has overflowed
	completed time.Time           // end of the last complete pass; zero, and so too old, without one
}

func newSnapshot(client *redis.Client, glob string, now func() time.Time, logger *slog.Logger) *snapshot {
	return &snapshot{
		redis:   client,
		glob:    glob,
		seed:    maphash.MakeSeed(),
		maxKeys: snapshotMaxKeys,
		now:     now,
		logger:  logger,
		keys:    make(map[uint64]struct{}),
		learned: make(map[uint64]struct{}),
	}
}

// contains reports whether key is in the snapshot; ok is false if there is none young enough.
func (s *snapshot) contains(key string) (revoked, ok bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.now().Sub(s.completed) > snapshotMaxAge {
		return false, false
	}
	_, revoked = s.keys[s.hash(key)]
	return revoked, true
}

// learn adds a key that Redis was just seen to have.
func (s *snapshot) learn(key string) {
	hash := s.hash(key)
	s.mu.RLock()
	_, known := s.learned[hash]
	s.mu.RUnlock()
	if known {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys[hash] = struct{}{}
	s.learned[hash] = struct{}{}
	if len(s.keys) > s.maxKeys {
		s.drop()
	}
}

// run makes one pass after the other until ctx ends.
func (s *snapshot) run(ctx context.Context) {
	log := failureLog{logger: s.logger, what: "snapshot of the revocation list"}
	every(ctx, func(ctx context.Context) time.Duration {
		err := s.pass(ctx)
		log.report(ctx, err)
		if err != nil && !errors.Is(err, errListTooLong) {
			return snapshotRetry
		}
		return snapshotInterval
	})
}

// pass copies the whole list. A pass that fails leaves the previous snapshot in force.
func (s *snapshot) pass(ctx context.Context) error {
	s.begin()
	// One connection for the whole pass: a cursor means nothing to a Redis that was restarted between
	// two pages, and the pool would dial it without a word.
	conn := s.redis.Conn()
	defer conn.Close()

	found := make(map[uint64]struct{})
	for cursor := uint64(0); ; {
		page, next, err := s.page(ctx, conn, cursor)
		if err != nil {
			return fmt.Errorf("scan the revocation list: %w", err)
		}
		for _, key := range page {
			found[s.hash(key)] = struct{}{}
		}
		if len(found) > s.maxKeys || next == 0 {
			return s.commit(found)
		}
		if !sleep(ctx, scanPause) {
			return fmt.Errorf("scan the revocation list: %w", context.Cause(ctx))
		}
		cursor = next
	}
}

func (s *snapshot) page(ctx context.Context, conn *redis.Conn, cursor uint64) ([]string, uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	return conn.Scan(ctx, cursor, s.glob, scanCount).Result()
}

func (s *snapshot) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.learned = make(map[uint64]struct{})
	s.spoiled = false
}

// commit makes found, and what was learned meanwhile, the snapshot.
func (s *snapshot) commit(found map[uint64]struct{}) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for hash := range s.learned {
		found[hash] = struct{}{}
	}
	if s.spoiled || len(found) > s.maxKeys {
		s.drop()
		return errListTooLong
	}
	s.keys, s.completed = found, s.now()
	return nil
}

// drop forgets everything: there is no snapshot until another pass completes.
func (s *snapshot) drop() {
	s.keys = make(map[uint64]struct{})
	s.learned = make(map[uint64]struct{})
	s.spoiled = true
	s.completed = time.Time{}
}

func (s *snapshot) hash(key string) uint64 { return maphash.String(s.seed, key) }
