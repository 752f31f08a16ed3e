// Package routing chooses the database server that answers a read, and sends every write to the current
// primary. It stands between internal/cache and internal/postgres: the cache asks for a read and
// learns which server answered; it does not know how many servers there are.
//
// A read may go to the replica only if the replica proves that it is fresh (freshness.go). A read of
// data that was written a moment ago must go to the primary; the caller tells (Read, onPrimary).
package routing

import (
	"context"
	"errors"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/payment-services/accounts/internal/dbgen/read"
	"github.com/payment-services/accounts/internal/dbgen/write"
	"github.com/payment-services/accounts/internal/errcode"
	"github.com/payment-services/accounts/internal/mutation"
	"github.com/payment-services/accounts/internal/postgres"
)

const (
	// sampleInterval is the pause between two requests for the primary's position. ProofAge holds ten.
	sampleInterval = 500 * time.Millisecond
	// staleInterval is the pause between two looks of a write that waits for the new primary.
	staleInterval = 20 * time.Millisecond
)

// Server names the kind of server that answered a read.
type Server string

// The values of Server. A connection of the read pool may lead to the primary: then the answer counts as
// the primary's.
const (
	FromReplica Server = "replica"
	FromPrimary Server = "primary"
)

// Query reads with read functions. It returns pgx.ErrNoRows if it finds nothing. It may be called more
// than once, on different servers.
type Query func(context.Context, read.Querier) error

// Provenance describes the server that answered a read.
type Provenance struct {
	// Server is the kind of server; empty if no server answered.
	Server Server
	// Cluster is the server's system identifier and timeline, as ClusterName writes them.
	Cluster string
	// Unproven means that the primary is down and the replica did not prove that it is fresh. Such
	// data may be returned to a client, but must not be stored.
	Unproven bool
}

// Router chooses servers. Safe for concurrent use.
type Router struct {
	primary *postgres.Primary
	replica *postgres.Replica

	freshness freshness
	stale     atomic.Bool   // another process has seen a newer timeline than this one
	changed   chan struct{} // capacity 1; signalled when the primary's timeline or cluster changed
}

// New returns a Router for two pools. now is the clock of the proofs; nil is time.Now.
func New(primary *postgres.Primary, replica *postgres.Replica, now func() time.Time) *Router {
	if now == nil {
		now = time.Now
	}
	return &Router{
		primary: primary, replica: replica,
		freshness: freshness{now: now},
		changed:   make(chan struct{}, 1),
	}
}

// Run requests the primary's position every 500 ms until ctx ends.
func (r *Router) Run(ctx context.Context) {
	tick := time.NewTicker(sampleInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		_ = r.Sample(ctx) // Without samples no replica is proven fresh, and reads go to the primary.
	}
}

// Sample requests the primary's position once and records it.
func (r *Router) Sample(ctx context.Context) error {
	requested := r.freshness.now()
	position, err := r.primary.Position(ctx)
	if err != nil {
		return err
	}
	r.Observe(position, requested)
	return nil
}

// Observe records a position of the primary and the time just before it was requested. If the timeline
// or the cluster differs from that of the last position, it signals Changed.
func (r *Router) Observe(position postgres.Position, requested time.Time) {
	if r.freshness.observe(position, requested) {
		select {
		case r.changed <- struct{}{}:
		default:
		}
	}
}

// Changed delivers a value after the timeline or the cluster of the primary has changed. It has one
// receiver.
func (r *Router) Changed() <-chan struct{} { return r.changed }

// Cluster returns the last known position of the primary. Before the first it is zero.
func (r *Router) Cluster() postgres.Position { return r.freshness.primary() }

// Read runs query on the replica if the replica proves that it is fresh, otherwise on the primary.
// onPrimary skips the replica. If the replica does not have the row, the primary is asked, because
// the row may not have been replayed yet. If the primary is down, the replica answers without a proof;
// then a missing row is errcode.Database, because it may exist on the primary. A query that a live server
// cancelled because it took too long is not run on another server.
func (r *Router) Read(ctx context.Context, onPrimary bool, query Query) (Provenance, error) {
	if !onPrimary {
		position, err := r.replica.Read(ctx, r.freshness.check, query)
		switch {
		case postgres.StatementTimedOut(err):
			return Provenance{}, err // it would take the primary as long
		case err == nil, errors.Is(err, pgx.ErrNoRows) && (!position.InRecovery || !mutation.Point("miss-on-primary")):
			return provenance(position), err
		case errors.Is(err, pgx.ErrNoRows), errors.Is(err, errUnproven), errcode.Of(err) == errcode.Database:
			// The primary is asked next.
		default:
			return Provenance{}, err
		}
	}
	position, err := r.primary.Read(ctx, query)
	if errcode.Of(err) != errcode.Database || errors.Is(err, pgx.ErrNoRows) {
		return provenance(position), err
	}
	if postgres.StatementTimedOut(err) || postgres.LockTimedOut(err) {
		return Provenance{}, err // the primary works
	}
	position, replicaErr := r.replica.Read(ctx, postgres.AdmitAny, query)
	if errcode.Of(replicaErr) == errcode.Database && ctx.Err() == nil {
		// HAProxy may have sent this connection of the read pool to the same frozen primary. The
		// connection is closed now; the next one leads to another server.
		position, replicaErr = r.replica.Read(ctx, postgres.AdmitAny, query)
	}
	if replicaErr != nil {
		return Provenance{}, err // the primary's error tells the client what to do
	}
	p := provenance(position)
	p.Unproven = true
	return p, nil
}

// ReadPrimary runs query on the primary. If the primary is down, it fails.
func (r *Router) ReadPrimary(ctx context.Context, query Query) error {
	_, err := r.primary.Read(ctx, query)
	return err
}

// ReadReplica runs query on the read pool without a proof of freshness.
func (r *Router) ReadReplica(ctx context.Context, query Query) error {
	_, err := r.replica.Read(ctx, postgres.AdmitAny, query)
	return err
}

// Write calls fn, which calls one write function, on the primary (postgres.Primary.Write has the
// details). While this process is stale, it waits for the new primary within the retry budget.
func (r *Router) Write(ctx context.Context, fn func(context.Context, write.Querier) error) error {
	ctx, cancel := context.WithTimeout(ctx, postgres.WriteTimeout)
	defer cancel()
	if !r.awaitCurrent(ctx, postgres.WriteRetryBudget) {
		return &errcode.Error{
			Code: errcode.Database, RetryAfter: time.Second,
			Message: "the database was failed over a moment ago; nothing was changed",
		}
	}
	return r.primary.Write(ctx, fn)
}

// InTx calls fn in one transaction on the primary (postgres.Primary.InTx), for background work.
func (r *Router) InTx(ctx context.Context, fn func(context.Context, write.Querier) error) error {
	return r.primary.InTx(ctx, fn)
}

// PrimaryPosition requests the position of the primary.
func (r *Router) PrimaryPosition(ctx context.Context) (postgres.Position, error) {
	return r.primary.Position(ctx)
}

// ReplicaPosition requests the position of the server behind the read pool.
func (r *Router) ReplicaPosition(ctx context.Context) (postgres.Position, error) {
	return r.replica.Position(ctx)
}

// Stale reports whether another process has seen a newer timeline than this process's primary has. That
// primary was replaced and must not be written to.
func (r *Router) Stale() bool { return r.stale.Load() }

// SetStale sets what Stale reports. When it becomes true, all connections are closed: they lead to
// servers that are not what they were.
func (r *Router) SetStale(stale bool) {
	if r.stale.Swap(stale) != stale && stale {
		r.primary.Reset()
		r.replica.Reset()
	}
}

// awaitCurrent waits until this process is not stale, at most for limit, and reports whether it is
// current. The process that first sees a promotion tells the others through Redis; each of them then finds the
// new primary within sampleInterval.
func (r *Router) awaitCurrent(ctx context.Context, limit time.Duration) bool {
	for deadline := time.Now().Add(limit); r.Stale(); {
		if time.Now().After(deadline) {
			return false
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(staleInterval):
		}
	}
	return true
}

func provenance(position postgres.Position) Provenance {
	p := Provenance{Server: FromPrimary, Cluster: ClusterName(position)}
	if position.InRecovery {
		p.Server = FromReplica
	}
	return p
}

// ClusterName returns the system identifier and timeline of a position as one text.
func ClusterName(position postgres.Position) string {
	return strconv.FormatInt(position.SystemIdentifier, 10) + "/" + strconv.Itoa(int(position.Timeline))
}
