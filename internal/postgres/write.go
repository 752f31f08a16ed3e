package postgres

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/payment-services/accounts/internal/dbgen/read"
	"github.com/payment-services/accounts/internal/dbgen/write"
)

const (
	// WriteRetryBudget: a write that certainly had no effect is tried again for this long, so that clients do not
	// notice a switchover; and while the primary has been gone for longer, new writes are refused
	// at once.
	WriteRetryBudget = 4 * time.Second
	// While the primary has been gone for longer, reads of it are refused at once.
	readRetryBudget = time.Second
	// WriteTimeout: no client waits longer than this for the outcome of a write.
	WriteTimeout = 4600 * time.Millisecond
	// Between two attempts: long enough not to storm a server that starts, short against a
	// switchover of two seconds. Up to the same again is added at random.
	writeRetryPause = 50 * time.Millisecond
	// While calls are refused, one is let through this often to see whether the primary is back.
	probeInterval = 100 * time.Millisecond
)

// The server function that warns of a commit whose wait for the synchronous standby was cancelled:
// the server then reports success, but a failover may undo it. Its message is translated.
const syncRepWait = "SyncRepWaitForLSN"

var errSyncRepCancelled = errors.New("the synchronous standby did not confirm the commit")

// Primary is the write pool. It also offers reads, for those who must see their own writes. Safe
// for concurrent use.
type Primary struct {
	pool      *pool
	goneSince atomic.Int64 // Unix nanoseconds of the first failure since the last success, or 0
	probed    atomic.Int64 // Unix nanoseconds of the last call let through while gone
}

// OpenPrimary makes the write pool. The server may still be down.
func OpenPrimary(cfg Config) (*Primary, error) {
	p, err := cfg.open("primary", primaryConnLifetime, func(pc *pgxpool.Config) {
		// A write that is sent into a connection that died unnoticed has an unknown outcome. A round
		// trip before each is cheap beside its commit. The hook makes it.
		pc.ShouldPing = func(context.Context, pgxpool.ShouldPingParams) bool { return false }
		pc.PrepareConn = prepareConn
		cc := pc.ConnConfig
		if cc.ValidateConnect == nil {
			// HAProxy or a list of hosts may lead to a node that was demoted a moment ago.
			cc.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
		}
		cc.OnNotice = func(conn *pgconn.PgConn, n *pgconn.Notice) {
			if n.Routine == syncRepWait {
				conn.CustomData()[syncRepWait] = true
			}
		}
	})
	if err != nil {
		return nil, err
	}
	return &Primary{pool: p}, nil
}

// Read calls fn with read functions bound to the primary. Everything else is as in Replica.Read. While
// the primary has been gone for more than a second most calls fail at once: a reader has somewhere
// else to go, and must not wait each time for a server that does not answer.
func (p *Primary) Read(ctx context.Context, fn func(context.Context, read.Querier) error) (Position, error) {
	if now := time.Now(); p.goneFor(now) > readRetryBudget && !p.mayProbe(now) {
		return Position{}, coded(errPrimaryGone)
	}
	pos, err := p.pool.read(ctx, func(at Position) error {
		if at.InRecovery {
			return errDemoted
		}
		return nil
	}, fn)
	p.note(ctx, err)
	return pos, err
}

// Position returns the primary's position. The error is coded; a server in recovery is one.
func (p *Primary) Position(ctx context.Context) (Position, error) {
	pos, err := p.pool.position(ctx)
	if err == nil && pos.InRecovery {
		p.pool.Reset()
		err = coded(errDemoted)
	}
	p.note(ctx, err)
	return pos, err
}

// Write calls fn, which calls one write function. An attempt that certainly had no effect because
// of the server (it is gone, was demoted, does not have the prepared statement, or chose this call as
// the victim of a deadlock) is repeated for up to 4 s. The error is coded: errcode.Database when nothing was written,
// errcode.OutcomeUnknown when the connection was lost in the commit. fn must leave what it scanned
// where its caller sees it also after an error: after OutcomeUnknown it may tell what was touched.
func (p *Primary) Write(ctx context.Context, fn func(context.Context, write.Querier) error) error {
	started := time.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, WriteTimeout, errSilent)
	defer cancel()
	budget := WriteRetryBudget
	if p.goneFor(started) > WriteRetryBudget {
		if !p.mayProbe(started) {
			return codedWrite(errPrimaryGone)
		}
		budget = 0
	}
	for {
		err := p.writeOnce(ctx, fn)
		p.note(ctx, err)
		if err == nil || !retryable(err) {
			return codedWrite(err)
		}
		pause := writeRetryPause + rand.N(writeRetryPause)
		if time.Since(started)+pause > budget {
			return codedWrite(err)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return codedWrite(err)
		}
	}
}

// InTx calls fn in one transaction, for background work that may be repeated later as a whole. Nothing
// is retried. The error is coded.
func (p *Primary) InTx(ctx context.Context, fn func(context.Context, write.Querier) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, WriteTimeout, errSilent)
	defer cancel()
	err := p.pool.with(ctx, WriteTimeout, writeLimit(ctx), func(conn *pgx.Conn) error {
		return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error { return fn(ctx, write.New(tx)) })
	})
	p.note(ctx, err)
	return coded(err)
}

// Stat returns the counters of the pool.
func (p *Primary) Stat() *pgxpool.Stat { return p.pool.Stat() }

// Reset replaces every connection, those in use when they are released.
func (p *Primary) Reset() { p.pool.Reset() }

// Close closes the pool and waits until its connections have been given back.
func (p *Primary) Close() { p.pool.Close() }

func (p *Primary) writeOnce(ctx context.Context, fn func(context.Context, write.Querier) error) error {
	var watched watchedConn
	err := p.pool.with(ctx, WriteTimeout, writeLimit(ctx), func(conn *pgx.Conn) error {
		watched = watchedConn{Conn: conn}
		delete(conn.PgConn().CustomData(), syncRepWait)
		if err := fn(ctx, write.New(&watched)); err != nil {
			return err
		}
		if conn.PgConn().CustomData()[syncRepWait] != nil {
			return &outcomeUnknownError{errSyncRepCancelled}
		}
		return nil
	})
	if err != nil && watched.mayHaveCommitted(err) {
		return &outcomeUnknownError{err}
	}
	return err
}

// note remembers since when the primary is gone. The end of the caller's context ctx tells nothing about
// the primary.
func (p *Primary) note(ctx context.Context, err error) {
	switch {
	case errors.Is(err, context.Canceled), err != nil && callerGaveUp(ctx):
	case serverGone(err):
		p.goneSince.CompareAndSwap(0, time.Now().UnixNano())
	default:
		p.goneSince.Store(0)
	}
}

func (p *Primary) goneFor(now time.Time) time.Duration {
	since := p.goneSince.Load()
	if since == 0 {
		return 0
	}
	return time.Duration(now.UnixNano() - since)
}

// mayProbe lets one write through per probeInterval.
func (p *Primary) mayProbe(now time.Time) bool {
	last := p.probed.Load()
	return now.UnixNano()-last >= int64(probeInterval) && p.probed.CompareAndSwap(last, now.UnixNano())
}

// watchedConn is a write.DBTX for one statement that remembers how far the statement came.
type watchedConn struct {
	*pgx.Conn
	sent     bool // the statement was handed to the connection
	answered bool // at least one row of its result came back
}

// Exec cannot tell whether a row came back, so it assumes the worse.
func (w *watchedConn) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	w.sent, w.answered = true, true
	return w.Conn.Exec(ctx, sql, args...)
}

func (w *watchedConn) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	w.sent = true
	rows, err := w.Conn.Query(ctx, sql, args...)
	return &watchedRows{Rows: rows, conn: w}, err
}

func (w *watchedConn) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	rows, err := w.Query(ctx, sql, args...)
	return &watchedRow{rows: rows, err: err}
}

// mayHaveCommitted reports whether the statement may have been committed although it failed with
// err. A single statement is committed after its last row was sent. So an ERROR means that it was
// rolled back, and a goodbye of the server (FATAL) before any row that it was never finished.
func (w *watchedConn) mayHaveCommitted(err error) bool {
	if !w.sent || unsent(err) || errors.Is(err, pgx.ErrNoRows) {
		return false
	}
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok {
		return w.answered && (pgErr.SeverityUnlocalized == "FATAL" || pgErr.SeverityUnlocalized == "PANIC")
	}
	return true
}

type watchedRow struct {
	rows pgx.Rows
	err  error
}

// Scan is that of pgx's own Row: the error of the end of the result counts, not only the row's.
func (r *watchedRow) Scan(dest ...any) error {
	if r.err != nil {
		return r.err
	}
	defer r.rows.Close()
	if !r.rows.Next() {
		if err := r.rows.Err(); err != nil {
			return err
		}
		return pgx.ErrNoRows
	}
	err := r.rows.Scan(dest...)
	r.rows.Close()
	if endErr := r.rows.Err(); endErr != nil {
		return endErr
	}
	return err
}

type watchedRows struct {
	pgx.Rows
	conn *watchedConn
}

func (r *watchedRows) Next() bool {
	ok := r.Rows.Next()
	r.conn.answered = r.conn.answered || ok
	return ok
}
