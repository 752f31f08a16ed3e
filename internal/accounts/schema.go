package accounts

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/payment-services/accounts/internal/dbgen/read"
	"github.com/payment-services/accounts/internal/postgres"
	"github.com/payment-services/accounts/internal/routing"
)

const (
	// schemaLife is how long a pool that had every function is not asked again, unless the schema's
	// version changes: probes come every second, and who revokes a right by hand can wait.
	schemaLife = 5 * time.Second
	// A process that no database has answered for this long cannot serve. Before that it may be a
	// failover, and all processes share the databases: to take them out of rotation would only replace
	// their answers, the cached ones too, by a load balancer's.
	unansweredGrace = 5 * time.Second
	// maxMissing functions are named by a check; without a migration all are missing.
	maxMissing = 5
)

// The functions of the check itself are needed as all others are. A schema without them is one that
// this build does not run on, and it says so by failing to call them.
const (
	versionFunction = "accounts.get_schema_version_v1()"
	missingFunction = "accounts.list_missing_functions_v1(text[])"
)

// schemaCheck finds out whether the functions that this build calls are there. What counts is the
// functions and not the number of the newest migration: a build runs on an older schema that has all
// it needs, and on a newer one that has kept it. Safe for concurrent use.
type schemaCheck struct {
	known            int64        // the newest migration of this build
	seen             atomic.Int64 // Unix nanoseconds of when a server last had everything
	replica, primary *poolFunctions
}

// schemaAnswer is what one pool's server said.
type schemaAnswer struct {
	version int64    // of the schema, 0 if that has none
	missing []string // what the pool's login cannot call
	err     error    // the server is away
}

// poolFunctions are those that one pool's login must be able to call.
type poolFunctions struct {
	ask        func(context.Context, routing.Query) error
	signatures []string
	life       time.Duration

	mu      sync.Mutex
	found   time.Time // when all were there, at the latest
	version int64     // and in which schema
}

func newSchemaCheck(cfg Config) *schemaCheck {
	return &schemaCheck{
		known:   cfg.SchemaVersion,
		replica: &poolFunctions{ask: cfg.Router.ReadReplica, signatures: cfg.ReadFunctions, life: schemaLife},
		primary: &poolFunctions{
			ask: cfg.Router.ReadPrimary, signatures: slices.Concat(cfg.ReadFunctions, cfg.WriteFunctions), life: schemaLife,
		},
	}
}

// judge is the check called schema, of what the servers said.
func (c *schemaCheck) judge(answers ...schemaAnswer) Check {
	version := int64(math.MaxInt64)
	for _, a := range answers {
		if len(a.missing) > 0 {
			return missing(a.version, a.missing)
		}
		if a.err == nil {
			version = min(version, a.version)
		}
	}
	now := time.Now().UnixNano()
	if version == math.MaxInt64 {
		return Check{Degraded: now-c.seen.Load() < int64(unansweredGrace), Detail: "no database answers"}
	}
	c.seen.Store(now)
	value := strconv.FormatInt(version, 10)
	if version < c.known {
		return Check{Value: value, Degraded: true, Detail: "every needed function is there, but migrations up to " +
			strconv.FormatInt(c.known, 10) + " are to come"}
	}
	return Check{OK: true, Value: value}
}

func missing(version int64, signatures []string) Check {
	detail := "missing or not granted: " + strings.Join(signatures[:min(len(signatures), maxMissing)], ", ")
	if more := len(signatures) - maxMissing; more > 0 {
		detail += fmt.Sprintf(" and %d more", more)
	}
	return Check{Value: strconv.FormatInt(version, 10), Detail: detail + "; migrate first"}
}

// check asks the pool's server, unless positionErr, of a question before, says that it is away. Only
// that the login can call everything is remembered.
func (p *poolFunctions) check(ctx context.Context, positionErr error) (a schemaAnswer) {
	if positionErr != nil && !postgres.Uncallable(positionErr) {
		return schemaAnswer{err: positionErr}
	}
	at := time.Now()
	call := versionFunction
	err := p.ask(ctx, func(ctx context.Context, q read.Querier) (err error) {
		call = versionFunction
		if a.version, err = q.GetSchemaVersionV1(ctx); err != nil || p.remembered(a.version, at) {
			return err
		}
		call = missingFunction
		a.missing, err = q.ListMissingFunctionsV1(ctx, p.signatures)
		if err == nil && len(a.missing) == 0 {
			p.remember(a.version, at)
		}
		return err
	})
	switch {
	case postgres.Uncallable(err):
		a.missing = []string{call}
	case err != nil:
		return schemaAnswer{err: err}
	}
	return a
}

func (p *poolFunctions) remembered(version int64, at time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.version == version && at.Sub(p.found) < p.life
}

func (p *poolFunctions) remember(version int64, at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.found, p.version = at, version
}
