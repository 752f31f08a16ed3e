// Package postgres owns the two connection pools and everything that is known about PostgreSQL's
// errors. Primary and Replica are opaque: neither is a DBTX, so generated write calls cannot be
// bound to the replica. What is retried, how long, and what a SQLSTATE means is decided here and
// nowhere else.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	// A server of the same network answers a connection attempt in milliseconds; one that does not
	// within this time is gone, and the retry budget of a write must see several attempts.
	connectTimeout = time.Second

	// Connections to the read URL are renewed often, so that reads return to the replica soon after
	// HAProxy had sent them to the primary. The jitter spreads the reconnections.
	replicaConnLifetime = 30 * time.Second
	primaryConnLifetime = 5 * time.Minute
	connIdleTime        = time.Minute
	healthCheckPeriod   = 5 * time.Second

	// A statement ends at the server before its caller gives up (WriteTimeout), so that a slow
	// write has a known outcome: PostgreSQL says that it was rolled back.
	statementTimeout = 4 * time.Second
	lockTimeout      = 3 * time.Second
)

// Config tells how to reach one server, or whichever server stands behind one address.
type Config struct {
	// URL is a connection string; several hosts with target_session_attrs are fine.
	URL string
	// MaxConns bounds the pool; 0 takes pool_max_conns of the URL or pgxpool's default.
	MaxConns int32
}

// pool is what Primary and Replica share: a pgxpool that forgets a dead server at once.
type pool struct {
	*pgxpool.Pool
	name string
}

// open makes the pool of the server called name. No connection is made yet, so the server may
// still be down.
func (cfg Config) open(name string, lifetime time.Duration, adjust func(*pgxpool.Config)) (*pool, error) {
	pc, err := pgxpool.ParseConfig(cfg.URL)
	if err != nil {
		// The cause quotes the connection string, which holds a password.
		return nil, fmt.Errorf("the connection string of the %s is malformed", name)
	}
	if cfg.MaxConns > 0 {
		pc.MaxConns = cfg.MaxConns
	}
	pc.MaxConnLifetime = lifetime
	pc.MaxConnLifetimeJitter = lifetime / 4
	pc.MaxConnIdleTime = connIdleTime
	pc.HealthCheckPeriod = healthCheckPeriod
	pc.ConnConfig.ConnectTimeout = connectTimeout
	params := pc.ConnConfig.RuntimeParams
	if params["application_name"] == "" {
		params["application_name"] = "accounts"
	}
	params["statement_timeout"] = strconv.FormatInt(statementTimeout.Milliseconds(), 10)
	params["lock_timeout"] = strconv.FormatInt(lockTimeout.Milliseconds(), 10)
	adjust(pc)
	pgxPool, err := pgxpool.NewWithConfig(context.Background(), pc)
	if err != nil {
		return nil, fmt.Errorf("open the pool of the %s: %w", name, err)
	}
	return &pool{Pool: pgxPool, name: name}, nil
}

// with lends fn one connection. A connection on which the server turned out to be gone, or to be
// the wrong one, is closed together with its idle siblings, which are connected to the same server.
func (p *pool) with(ctx context.Context, fn func(*pgx.Conn) error) error {
	conn, err := p.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("connect to the %s: %w", p.name, &acquireError{err})
	}
	defer conn.Release()
	err = fn(conn.Conn())
	if serverGone(err) {
		p.Reset()
		// Release destroys a closed connection. The context is over, so that Close does not wait
		// for a server that may be frozen.
		over, cancel := context.WithCancel(context.WithoutCancel(ctx))
		cancel()
		_ = conn.Conn().Close(over)
	}
	return err
}

// acquireError marks a failure before any statement was sent, so certainly without effect.
type acquireError struct{ error }

func (e *acquireError) Unwrap() error { return e.error }

// unsent reports whether err happened before anything was sent to the server.
func unsent(err error) bool {
	_, ok := errors.AsType[*acquireError](err)
	return ok || pgconn.SafeToRetry(err)
}
