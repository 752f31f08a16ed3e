package accounts

import (
	"context"
	"strconv"
	"time"
)

// healthTimeout bounds all checks together: who asks for health has no patience.
const healthTimeout = 3 * time.Second

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

// Health asks every server.
func (s *Service) Health(ctx context.Context) Health {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()

	h := Health{Checks: map[string]Check{}}
	primary, writeErr := s.primary.Position(ctx)
	h.Checks["write"] = Check{OK: true}
	if writeErr != nil {
		h.Checks["write"] = Check{Degraded: true, Detail: "the primary takes no writes"}
	}

	replica, replicaErr := s.cache.ReplicaPosition(ctx)
	switch {
	case replicaErr != nil:
		h.Checks["replica"] = Check{Degraded: writeErr == nil, Detail: "the read server does not answer"}
	case writeErr == nil && replica.InRecovery:
		h.Checks["replica"] = Check{OK: true, Value: strconv.FormatInt(max(0, primary.LSN-replica.LSN), 10) + " bytes behind"}
	case !replica.InRecovery:
		h.Checks["replica"] = Check{OK: true, Value: "the primary answers reads"}
	default:
		h.Checks["replica"] = Check{OK: true, Value: "lag unknown without the primary"}
	}

	h.Checks["redis"] = Check{OK: true}
	if err := s.cache.Ping(ctx); err != nil {
		h.Checks["redis"] = Check{Degraded: true, Detail: "reads bypass the cache"}
	}

	h.Checks["schema"] = s.schema.run(ctx, replicaErr, writeErr)

	h.Ready = true
	for _, check := range h.Checks {
		h.Ready = h.Ready && (check.OK || check.Degraded)
	}
	return h
}
