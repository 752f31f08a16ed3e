package cache

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/payment-services/accounts/internal/dbgen/read"
	"github.com/payment-services/accounts/internal/errcode"
	"github.com/payment-services/accounts/internal/postgres"
)

const (
	// D of the protocol: a replica must have replayed a position that the primary had at most this
	// long ago. It is shorter than M (dirtyLife), so that a write which is not covered by the proof
	// is still covered by its dirty marker.
	proofAge = 5 * time.Second
	// How often the primary is asked for its position; proofAge holds ten of them.
	sampleInterval = 500 * time.Millisecond
	// How often a write that waits for the new primary looks whether it is known.
	staleInterval = 20 * time.Millisecond
)

// errUnproven says that a replica could not show that it is fresh enough.
var errUnproven = errors.New("the replica has not proved to be fresh")

// Source says where an answer came from.
type Source string

// The values of Source.
const (
	FromCache   Source = "cache"
	FromReplica Source = "replica"
	FromPrimary Source = "primary"
)

// Query reads something with read functions. Nothing there is pgx.ErrNoRows. It may be called more
// than once, on several servers.
type Query func(context.Context, read.Querier) error

// origin is what is known about a load.
type origin struct {
	source   Source
	cluster  string // system identifier and timeline
	degraded bool   // the primary is down and the replica proved nothing: good enough to answer, not to fill
}

// sample is a position of the primary and when, at the latest, it was not yet asked for.
type sample struct {
	at  time.Time // this process's monotonic clock
	pos postgres.Position
}

// source chooses the server of every read, cached or not.
type source struct {
	primary *postgres.Primary
	replica *postgres.Replica

	known atomic.Pointer[postgres.Position] // the primary as it was last seen
	stale atomic.Bool                       // Redis has heard of a newer timeline than known

	mu      sync.Mutex
	samples []sample // oldest first, none older than proofAge
}

// read runs query on the replica if that proves to be fresh, and on the primary if it does not, if
// needPrimary is set, or if the replica does not have what is asked for: a miss on a replica proves
// nothing. With the primary down, the replica answers without proof; then a miss is unknown and
// becomes errcode.Database. A query that a live server cancelled because it took too long is not run on
// another server.
func (s *source) read(ctx context.Context, needPrimary bool, query Query) (origin, error) {
	if !needPrimary {
		pos, err := s.replica.Read(ctx, s.admit, query)
		switch {
		case postgres.StatementTimedOut(err):
			return origin{}, err // it would take the primary as long
		case err == nil, errors.Is(err, pgx.ErrNoRows) && (!pos.InRecovery || !guard("miss-on-primary")):
			return s.originOf(pos), err
		case errors.Is(err, pgx.ErrNoRows), errors.Is(err, errUnproven), errcode.Of(err) == errcode.Database:
			// on to the primary
		default:
			return origin{}, err
		}
	}
	pos, err := s.primary.Read(ctx, query)
	if errcode.Of(err) != errcode.Database || errors.Is(err, pgx.ErrNoRows) {
		return s.originOf(pos), err
	}
	if postgres.StatementTimedOut(err) || postgres.LockTimedOut(err) {
		return origin{}, err // the primary is alive
	}
	pos, replicaErr := s.replica.Read(ctx, postgres.AdmitAny, query)
	if errcode.Of(replicaErr) == errcode.Database && ctx.Err() == nil {
		// Through HAProxy's fallback a connection of the read pool may lead to the same frozen server. It
		// is closed now, and the next one leads elsewhere.
		pos, replicaErr = s.replica.Read(ctx, postgres.AdmitAny, query)
	}
	if replicaErr != nil {
		return origin{}, err // of the two, the primary's says what to do
	}
	o := s.originOf(pos)
	o.degraded = true
	return o, nil
}

func (s *source) originOf(pos postgres.Position) origin {
	o := origin{source: FromPrimary, cluster: clusterName(pos)}
	if pos.InRecovery {
		o.source = FromReplica
	}
	return o
}

// clusterName is how FILL compares where a load came from with where ATTACH said that data come from.
func clusterName(pos postgres.Position) string {
	return strconv.FormatInt(pos.SystemIdentifier, 10) + "/" + strconv.Itoa(int(pos.Timeline))
}

// admit accepts a server of the read pool if it is the primary itself or a standby that has replayed
// one of the sampled positions.
func (s *source) admit(pos postgres.Position) error {
	known := s.cluster()
	if pos.Timeline == 0 || pos.Timeline != known.Timeline || pos.SystemIdentifier != known.SystemIdentifier {
		if guard("replica-timeline") {
			return errUnproven
		}
	}
	if !pos.InRecovery {
		return nil
	}
	if !guard("lsn") {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sample := range s.samples {
		if (time.Since(sample.at) <= proofAge || !guard("proof-age")) && pos.LSN >= sample.pos.LSN {
			return nil
		}
	}
	return errUnproven
}

// cluster returns the database cluster and timeline that this process works with; zero when the
// primary has not been seen yet.
func (s *source) cluster() postgres.Position {
	if known := s.known.Load(); known != nil {
		return *known
	}
	return postgres.Position{}
}

// sample asks the primary for its position and reports whether it is on another timeline, or of
// another cluster, than before.
func (s *source) sample(ctx context.Context) (changed bool, err error) {
	at := time.Now()
	pos, err := s.primary.Position(ctx)
	if err != nil {
		return false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.known.Swap(&pos)
	changed = before == nil || before.Timeline != pos.Timeline || before.SystemIdentifier != pos.SystemIdentifier
	if changed {
		s.samples = nil // positions of different timelines do not compare
	}
	for len(s.samples) > 0 && at.Sub(s.samples[0].at) > proofAge {
		s.samples = s.samples[1:]
	}
	s.samples = append(s.samples, sample{at: at, pos: pos})
	return changed, nil
}
