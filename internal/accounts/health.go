package accounts

import (
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/payment-services/accounts/internal/postgres"
)

// healthTimeout bounds all checks together: less than any prober's patience, so that a server that
// does not answer is reported instead of making this process look dead.
const healthTimeout = 900 * time.Millisecond

// Health is what this process can do right now.
type Health struct {
	// Ready says that reads can be answered. Without the primary that is still so: taking every
	// process out of rotation then would turn a missing write path into a full outage.
	Ready bool
	// Checks are write, replica, redis and schema.
	Checks map[string]Check
}

// Check is one part of Health.
type Check struct {
	OK       bool
	Degraded bool // not OK, but requests are answered
	Detail   string
	Value    string
}

// Health asks every server, all at once.
func (s *Service) Health(ctx context.Context) Health {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()

	var (
		asking                         sync.WaitGroup
		primary, replica               postgres.Position
		onPrimary, onReplica           schemaAnswer
		writeErr, replicaErr, redisErr error
	)
	asking.Go(func() {
		primary, writeErr = s.router.PrimaryPosition(ctx)
		onPrimary = s.schema.primary.check(ctx, writeErr)
	})
	asking.Go(func() {
		replica, replicaErr = s.router.ReplicaPosition(ctx)
		onReplica = s.schema.replica.check(ctx, replicaErr)
	})
	asking.Go(func() { redisErr = s.cache.Ping(ctx) })
	asking.Wait()

	h := Health{Checks: map[string]Check{}}
	h.Checks["write"] = Check{OK: true}
	if writeErr != nil {
		h.Checks["write"] = Check{Degraded: true, Detail: "the primary takes no writes"}
	}
	switch {
	case replicaErr != nil:
		h.Checks["replica"] = Check{Degraded: true, Detail: "the read server does not answer"}
	case writeErr == nil && replica.InRecovery:
		h.Checks["replica"] = Check{OK: true, Value: strconv.FormatInt(max(0, primary.LSN-replica.LSN), 10) + " bytes behind"}
	case !replica.InRecovery:
		h.Checks["replica"] = Check{OK: true, Value: "the primary answers reads"}
	default:
		h.Checks["replica"] = Check{OK: true, Value: "lag unknown without the primary"}
	}
	h.Checks["redis"] = Check{OK: true}
	if redisErr != nil {
		h.Checks["redis"] = Check{Degraded: true, Detail: "reads bypass the cache"}
	}
	h.Checks["schema"] = s.schema.judge(onReplica, onPrimary)
	h.Ready = true
	for _, check := range h.Checks {
		h.Ready = h.Ready && (check.OK || check.Degraded)
	}
	return h
}
