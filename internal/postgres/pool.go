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
	// within this time is gone, and the retry budget of a write must allow several attempts.
	connectTimeout = time.Second

	// Connections to the read URL are renewed often, so that reads return to the replica soon after
	// HAProxy had sent them to the primary. The jitter spreads the reconnections.
	replicaConnLifetime = 30 * time.Second
	primaryConnLifetime = 5 * time.Minute
	connIdleTime        = time.Minute
	healthCheckPeriod   = 5 * time.Second

	// The server cancels a statement before its caller gives up (WriteTimeout), so that a slow write
	// has a known outcome: it was rolled back.
	statementTimeout = 4 * time.Second
	lockTimeout      = 3 * time.Second
	// The server cancels a statement this long before the caller's deadline, for its error to arrive.
	cancelMargin = 500 * time.Millisecond
	// A statement is not sent if the server would have less time than this for it.
	minStatementTimeout = 50 * time.Millisecond
)

// The key of a connection's statement_timeout in its custom data, if it is not statementTimeout.
const currentStatementTimeout = "statement_timeout"

// limitKey is the context key under which with passes a statementLimit to the hook prepareConn.
type limitKey struct{}

// statementLimit bounds the time that the server may take for one statement.
type statementLimit struct {
	timeout  time.Duration
	deadline time.Time // of a write: its statement ends cancelMargin before; zero for a read
}

// writeLimit is the limit of a write that must end before the deadline of ctx.
func writeLimit(ctx context.Context) statementLimit {
	deadline, _ := ctx.Deadline()
	return statementLimit{statementTimeout, deadline}
}

// at returns the limit for a statement that is sent now, and false if the deadline is too near.
func (l statementLimit) at(now time.Time) (time.Duration, bool) {
	limit := l.timeout
	if !l.deadline.IsZero() {
		limit = min(limit, l.deadline.Sub(now)-cancelMargin)
	}
	return limit.Truncate(time.Millisecond), limit >= minStatementTimeout
}

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
	setTimeouts(pc, statementTimeout, lockTimeout)
	adjust(pc)
	pgxPool, err := pgxpool.NewWithConfig(context.Background(), pc)
	if err != nil {
		return nil, fmt.Errorf("open the pool of the %s: %w", name, err)
	}
	return &pool{Pool: pgxPool, name: name}, nil
}

func setTimeouts(pc *pgxpool.Config, statement, lock time.Duration) {
	pc.ConnConfig.RuntimeParams["statement_timeout"] = milliseconds(statement)
	pc.ConnConfig.RuntimeParams["lock_timeout"] = milliseconds(lock)
}

func milliseconds(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

// prepareConn checks, in one round trip, that the connection is alive, and sets its statement_timeout
// to what with wants. The pool closes the connection and takes the next if it returns false.
func prepareConn(ctx context.Context, conn *pgx.Conn) (bool, error) {
	want, ok := ctx.Value(limitKey{}).(statementLimit)
	if !ok {
		want.timeout = statementTimeout
	}
	limit, enough := want.at(time.Now())
	if !enough {
		return true, errNoTimeLeft
	}
	sql := "-- ping"
	if currentLimit(conn) != limit {
		sql = "SET statement_timeout = " + milliseconds(limit)
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	if _, err := conn.PgConn().Exec(ctx, sql).ReadAll(); err != nil {
		return false, nil
	}
	conn.PgConn().CustomData()[currentStatementTimeout] = limit
	return true, nil
}

func currentLimit(conn *pgx.Conn) time.Duration {
	if limit, ok := conn.PgConn().CustomData()[currentStatementTimeout].(time.Duration); ok {
		return limit
	}
	return statementTimeout
}

// with lends fn one connection, for which it waits as long as wait. On the primary limit bounds the
// statements of fn; the connections of the replica have the limit of reads from the start.
//
// A connection on which the server turned out to be gone, or to be the wrong one, is closed together
// with its idle siblings, which are connected to the same server; likewise one whose prepared
// statements are stale, because those of its siblings often are too.
func (p *pool) with(ctx context.Context, wait time.Duration, limit statementLimit, fn func(*pgx.Conn) error) error {
	acquireCtx, cancel := context.WithTimeoutCause(ctx, wait, errSilent)
	conn, err := p.Acquire(context.WithValue(acquireCtx, limitKey{}, limit))
	cancel()
	if err != nil {
		return fmt.Errorf("connect to the %s: %w", p.name, &acquireError{err})
	}
	defer conn.Release()
	err = fn(conn.Conn())
	if serverGone(err) && !callerGaveUp(ctx) || statementStale(err) {
		p.Reset()
		// Release destroys a closed connection. The context is over, so that Close does not wait
		// for a server that may be frozen.
		over, cancel := context.WithCancel(context.WithoutCancel(ctx))
		cancel()
		_ = conn.Conn().Close(over)
	}
	return err
}

// callerGaveUp reports whether ctx ended for another reason than a limit of this package, so that its
// end tells nothing about the server.
func callerGaveUp(ctx context.Context) bool {
	return ctx.Err() != nil && !errors.Is(context.Cause(ctx), errSilent)
}

// acquireError marks a failure before any statement was sent, so certainly without effect.
type acquireError struct{ error }

func (e *acquireError) Unwrap() error { return e.error }

// unsent reports whether err happened before anything was sent to the server.
func unsent(err error) bool {
	_, ok := errors.AsType[*acquireError](err)
	return ok || pgconn.SafeToRetry(err)
}
