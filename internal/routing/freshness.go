package routing

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/payment-services/accounts/internal/mutation"
	"github.com/payment-services/accounts/internal/postgres"
)

// ProofAge is D of the cache protocol: a replica is fresh if it has replayed a position that the primary
// had at most this long ago. It is shorter than the time for which a dirty marker lives
// (cache.DirtyTTL), so every write is covered by the proof or by its dirty marker.
const ProofAge = 5 * time.Second

// errUnproven means that a replica could not prove that it is fresh.
var errUnproven = errors.New("the replica did not prove that it is fresh")

// sample is a position of the primary and the time just before it was requested.
type sample struct {
	requested time.Time // of this process's monotonic clock
	position  postgres.Position
}

// freshness keeps the primary's recent positions and checks replicas against them.
type freshness struct {
	now   func() time.Time
	known atomic.Pointer[postgres.Position] // the newest sample's

	mu      sync.Mutex
	samples []sample // oldest first, none older than ProofAge
}

// observe adds a sample and reports whether its timeline or cluster differs from the last one's.
func (f *freshness) observe(position postgres.Position, requested time.Time) (changed bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	before := f.known.Swap(&position)
	changed = before == nil || before.Timeline != position.Timeline || before.SystemIdentifier != position.SystemIdentifier
	if changed {
		f.samples = nil // positions of different timelines do not compare
	}
	for len(f.samples) > 0 && requested.Sub(f.samples[0].requested) > ProofAge {
		f.samples = f.samples[1:]
	}
	f.samples = append(f.samples, sample{requested: requested, position: position})
	return changed
}

// primary returns the newest position, or zero.
func (f *freshness) primary() postgres.Position {
	if known := f.known.Load(); known != nil {
		return *known
	}
	return postgres.Position{}
}

// check returns nil if position is that of the primary itself, or of a standby on the primary's timeline
// which has replayed one of the samples. Otherwise it returns errUnproven.
func (f *freshness) check(position postgres.Position) error {
	known := f.primary()
	if position.Timeline == 0 || position.Timeline != known.Timeline || position.SystemIdentifier != known.SystemIdentifier {
		if mutation.Point("replica-timeline") {
			return errUnproven
		}
	}
	if !position.InRecovery {
		return nil
	}
	if !mutation.Point("lsn") {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, sample := range f.samples {
		recent := f.now().Sub(sample.requested) <= ProofAge || !mutation.Point("proof-age")
		if recent && position.LSN >= sample.position.LSN {
			return nil
		}
	}
	return errUnproven
}
