package cache

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/payment-services/accounts/internal/mutation"
)

// The defaults of go-redis (5 s timeouts, three retries) are too long for a cache: it must fail before
// the database would have answered.
const (
	dialTimeout = 200 * time.Millisecond
	ioTimeout   = 100 * time.Millisecond
	poolTimeout = 100 * time.Millisecond
	poolSize    = 32
	// batchTimeout limits a batch of scripts: waiting for a connection, dialling it, and the replies.
	batchTimeout = poolTimeout + dialTimeout + ioTimeout
)

// connect makes the client. onConnect runs on every new connection before its first use.
func connect(url string, onConnect func(context.Context, *redis.Conn) error) (*redis.Client, error) {
	opts, err := redis.ParseURL(url)
	if err != nil {
		return nil, errors.New("the cache's Redis URL is malformed") // the cause quotes it
	}
	opts.DialTimeout, opts.ReadTimeout, opts.WriteTimeout = dialTimeout, ioTimeout, ioTimeout
	opts.PoolTimeout, opts.PoolSize = poolTimeout, poolSize
	opts.MaxRetries = -1   // none
	opts.DialerRetries = 1 // one attempt, no pauses
	opts.ContextTimeoutEnabled = true
	opts.PipelinePoolSize = -1  // one pool for all
	opts.DisableIdentity = true // a round trip less for each connection
	opts.OnConnect = onConnect
	return redis.NewClient(opts), nil
}

// RunID returns the run_id of a Redis server: another one means another process.
func RunID(ctx context.Context, r interface {
	Info(ctx context.Context, section ...string) *redis.StringCmd
}) (string, error) {
	info, err := r.Info(ctx, "server").Result()
	if err != nil {
		return "", fmt.Errorf("ask redis for its run_id: %w", err)
	}
	for line := range strings.Lines(info) {
		if id, ok := strings.CutPrefix(strings.TrimSpace(line), "run_id:"); ok {
			return id, nil
		}
	}
	return "", errors.New("the reply of redis to INFO has no run_id")
}

// CheckSetup returns an error if the configuration makes the cache inexact or endangers the revocation
// list: the cache's server may evict the protocol's own keys, or it also holds the revocation list and may
// evict that. It returns nil for servers that do not answer.
func (c *Cache) CheckSetup(ctx context.Context, auth *redis.Client) error {
	policy, err := c.redis.ConfigGet(ctx, "maxmemory-policy").Result()
	if err != nil {
		return nil
	}
	if p := policy["maxmemory-policy"]; strings.HasPrefix(p, "allkeys-") {
		return fmt.Errorf("REDIS_URL: maxmemory-policy %s may evict the cache's dirty markers, which "+
			"have no TTL; use volatile-lfu or noeviction", p)
	} else if p == "noeviction" {
		return nil
	}
	mine, err := RunID(ctx, c.redis)
	if err != nil {
		return nil
	}
	theirs, err := RunID(ctx, auth)
	if err != nil || mine != theirs {
		return nil
	}
	return errors.New("REDIS_URL and AUTH_REDIS_URL are one Redis server that evicts keys: the cache's " +
		"pressure would evict the revocation list, and revoked tokens would live again; " +
		"run two servers, or one with maxmemory-policy noeviction")
}

// Attach tells Redis which Redis process, database cluster and timeline this process works with. If Redis
// or the database changed, every older entry becomes invalid.
func (c *Cache) Attach(ctx context.Context) error {
	runID, err := RunID(ctx, c.redis)
	if err != nil {
		return err
	}
	return c.attachOn(ctx, c.redis, runID)
}

func (c *Cache) attachOn(ctx context.Context, r redis.Scripter, runID string) error {
	at := c.router.Cluster()
	reply, err := c.scripts.attach.Run(ctx, r, []string{genKey, dirtyKey},
		runID, at.SystemIdentifier, at.Timeline, DirtyTTL.Milliseconds()).Text()
	if err != nil {
		return fmt.Errorf("cache ATTACH: %w", err)
	}
	if reply == "RAISED" {
		c.metrics.attaches.Inc()
		c.log.WarnContext(ctx, "cache attached again: every older entry is invalid",
			"timeline", at.Timeline, "system_identifier", at.SystemIdentifier)
	}
	c.router.SetStale(reply == "STALE" && mutation.Point("stale"))
	return nil
}

// attachNewConnection attaches on every new connection: it may lead to a Redis that was restarted, with or
// without its old data.
func (c *Cache) attachNewConnection(ctx context.Context, conn *redis.Conn) error {
	if !mutation.Point("run-id") {
		return nil
	}
	runID, err := RunID(ctx, conn)
	if err != nil {
		return err
	}
	return c.attachOn(ctx, conn, runID)
}
