package auth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/payment-services/accounts/internal/pipeline"
)

const (
	redisDialTimeout = 200 * time.Millisecond
	redisIOTimeout   = 100 * time.Millisecond
	// askTimeout bounds one question: a dial and an answer, or the wait for a connection.
	askTimeout = redisDialTimeout + redisIOTimeout
	// probePause is how long a failure of Redis is believed before one request tries again; the
	// others go straight to the policy. So Redis is asked again at most probePause + askTimeout after
	// it is back, plus 1 s if it was away for so long that go-redis stopped dialling by itself.
	probePause = 300 * time.Millisecond
)

// errUnreachable is the answer of the list while a failure of Redis is fresh.
var errUnreachable = errors.New("redis failed a moment ago")

// NewRedis returns a client for the revocation list (redis://, rediss:// or unix://; a database
// other than 0 must be in the URL). It does not connect. Its timeouts, which replace those of the
// URL, suit a question asked in every request: go-redis would wait up to 5 s, dial five times and
// retry three times, and ignore the deadline of the context.
func NewRedis(redisURL string) (*redis.Client, error) {
	options, err := redis.ParseURL(redisURL)
	if err != nil {
		if _, ok := errors.AsType[*url.Error](err); ok {
			err = errors.New("not a URL") // its text quotes the URL, and with it the password
		}
		return nil, fmt.Errorf("parse the URL of the revocation list: %w", err)
	}
	options.DialTimeout = redisDialTimeout
	options.DialerRetries = 1
	options.ReadTimeout = redisIOTimeout
	options.WriteTimeout = redisIOTimeout
	options.PoolTimeout = askTimeout
	options.MaxRetries = -1
	options.ContextTimeoutEnabled = true
	options.PipelinePoolSize = -1 // one pool for all
	options.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	return redis.NewClient(options), nil
}

// revocations answers whether a revocation key exists, by Redis or else by the policy.
type revocations struct {
	redis    *pipeline.Pipeline
	outage   Outage
	snapshot *snapshot // nil unless the policy is OutageSnapshot
	now      func() time.Time
	started  time.Time
	logger   *slog.Logger

	// retryAt is when Redis may be asked again, in nanoseconds since started; 0 while it answers.
	retryAt atomic.Int64
}

func newRevocations(cfg Config, pattern keyPattern, now func() time.Time) *revocations {
	r := &revocations{
		redis:   pipeline.New(cfg.Redis, askTimeout),
		outage:  cfg.RevocationOutage,
		now:     now,
		started: now(),
		logger:  cfg.Logger,
	}
	if r.outage == OutageSnapshot {
		r.snapshot = newSnapshot(cfg.Redis, pattern.glob(), now, cfg.Logger)
	}
	return r
}

// contains reports whether key revokes its token.
func (r *revocations) contains(ctx context.Context, key string) (bool, error) {
	revoked, err := r.ask(ctx, key)
	if err == nil {
		if revoked && r.snapshot != nil {
			r.snapshot.learn(key)
		}
		return revoked, nil
	}
	if ctx.Err() != nil {
		return false, fmt.Errorf("ask the revocation list: %w", context.Cause(ctx))
	}
	switch r.outage {
	case OutageAllow:
		return false, nil
	case OutageSnapshot:
		if revoked, ok := r.snapshot.contains(key); ok {
			return revoked, nil
		}
	}
	return false, unavailable("the revocation list is unavailable", err)
}

// ask asks Redis, unless it failed a moment ago.
func (r *revocations) ask(ctx context.Context, key string) (bool, error) {
	if !r.admit() {
		return false, errUnreachable
	}
	found, err := r.redis.Exists(ctx, key)
	if err != nil {
		if ctx.Err() == nil { // else the client went away, which says nothing about Redis
			r.failed(ctx, err)
		}
		return false, fmt.Errorf("ask the revocation list: %w", err)
	}
	if r.retryAt.Load() != 0 && r.retryAt.Swap(0) != 0 {
		r.logger.InfoContext(ctx, "revocation list reachable again")
	}
	return found, nil
}

// admit reports whether this request may ask Redis; of those that come when a failure has grown
// old, only one.
func (r *revocations) admit() bool {
	retryAt := r.retryAt.Load()
	if retryAt == 0 {
		return true
	}
	now := r.now().Sub(r.started)
	return int64(now) >= retryAt && r.retryAt.CompareAndSwap(retryAt, int64(now+probePause))
}

func (r *revocations) failed(ctx context.Context, err error) {
	if r.retryAt.Swap(int64(r.now().Sub(r.started)+probePause)) == 0 {
		r.logger.WarnContext(ctx, "revocation list unreachable", "policy", string(r.outage), "error", err)
	}
}
