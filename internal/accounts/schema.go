package accounts

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/payment-services/accounts/internal/cache"
	"github.com/payment-services/accounts/internal/dbgen/read"
	"github.com/payment-services/accounts/internal/postgres"
)

const (
	// schemaLife is how long a pool that had every function is not asked again, unless the schema's
	// version changes: probes come every second, and who revokes a right by hand can wait.
	schemaLife = 5 * time.Second
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
	known            int64 // the newest migration of this build
	replica, primary *poolFunctions
}

// poolFunctions are those that one pool's login must be able to call.
type poolFunctions struct {
	ask        func(context.Context, cache.Query) error
	signatures []string
	life       time.Duration

	mu      sync.Mutex
	found   time.Time // when all were there, at the latest
	version int64     // and in which schema
}

func newSchemaCheck(cfg Config) schemaCheck {
	return schemaCheck{
		known:   cfg.SchemaVersion,
		replica: &poolFunctions{ask: cfg.Cache.Replica, signatures: cfg.ReadFunctions, life: schemaLife},
		primary: &poolFunctions{
			ask: cfg.Cache.Primary, signatures: slices.Concat(cfg.ReadFunctions, cfg.WriteFunctions), life: schemaLife,
		},
	}
}

// run is the check called schema, of the servers that are not away according to the errors of others.
func (c *schemaCheck) run(ctx context.Context, replicaErr, primaryErr error) Check {
	version := int64(math.MaxInt64)
	for _, pool := range []struct {
		*poolFunctions
		err error
	}{{c.replica, replicaErr}, {c.primary, primaryErr}} {
		if pool.err != nil && !postgres.Uncallable(pool.err) {
			continue
		}
		v, list, err := pool.check(ctx)
		if err == nil {
			version = min(version, v)
		}
		if len(list) > 0 {
			return missing(v, list)
		}
	}
	value := strconv.FormatInt(version, 10)
	switch {
	case version == math.MaxInt64:
		return Check{Detail: "no database answers"}
	case version < c.known:
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

// check returns the schema's version, 0 for a schema that has none, and what the pool's login cannot
// call. Only that it can call everything is remembered.
func (p *poolFunctions) check(ctx context.Context) (version int64, list []string, err error) {
	at := time.Now()
	call := versionFunction
	err = p.ask(ctx, func(ctx context.Context, q read.Querier) (err error) {
		call = versionFunction
		if version, err = q.GetSchemaVersionV1(ctx); err != nil || p.remembered(version, at) {
			return err
		}
		call = missingFunction
		list, err = q.ListMissingFunctionsV1(ctx, p.signatures)
		if err == nil && len(list) == 0 {
			p.remember(version, at)
		}
		return err
	})
	switch {
	case postgres.Uncallable(err):
		return version, []string{call}, nil
	case err != nil:
		return 0, nil, err
	}
	return version, list, nil
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
