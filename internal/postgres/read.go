package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/payment-services/accounts/internal/dbgen/read"
)

const (
	// One statement of a read, and the wait for a connection before the first, may take this long. A
	// frozen replica costs a client no more before the primary is asked.
	readTimeout = 1200 * time.Millisecond
	// A live server cancels a statement of a read after this time, so that only a server that does not
	// answer at all reaches readTimeout.
	readStatementTimeout = 900 * time.Millisecond
	// A statement on a standby waits for a lock only while DDL is replayed; then the primary is asked.
	readLockTimeout = 400 * time.Millisecond
)

// Position is which server answered a read and how far it was when the read began.
type Position struct {
	SystemIdentifier int64 // names the database cluster, and survives failovers
	InRecovery       bool  // a standby
	Timeline         int32 // 0: unknown, on a standby that receives no WAL
	LSN              int64 // bytes of WAL: flushed on a primary, replayed on a standby
}

// Replica is the read pool: a standby, or the primary where HAProxy falls back to it. It can call
// read functions only, and its login may execute no others. Safe for concurrent use.
type Replica struct{ pool *pool }

// OpenReplica makes the read pool. The server may still be down.
func OpenReplica(cfg Config) (*Replica, error) {
	p, err := cfg.open("read server", replicaConnLifetime, func(pc *pgxpool.Config) {
		setTimeouts(pc, readStatementTimeout, readLockTimeout)
	})
	if err != nil {
		return nil, err
	}
	return &Replica{pool: p}, nil
}

// Read calls fn with read functions bound to one connection. In front of the first call, in a
// separate statement of the same round trip, the server is asked for its position; if admit refuses
// that, fn's call fails with admit's error. The order matters: if the position were read in the same
// statement, or after it, an old row could come with a newer position.
//
// fn may be called twice: once more if the connection was lost or its prepared statements are stale. A
// statement that the server cancelled because it took too long is not repeated (StatementTimedOut). The
// error is admit's, fn's, or coded (errcode.Database when the server is gone or too slow; pgx.ErrNoRows
// is left as it is).
func (r *Replica) Read(ctx context.Context, admit func(Position) error, fn func(context.Context, read.Querier) error) (Position, error) {
	return r.pool.read(ctx, admit, fn)
}

// Position returns the server's position. The error is coded.
func (r *Replica) Position(ctx context.Context) (Position, error) { return r.pool.position(ctx) }

// Stat returns the counters of the pool.
func (r *Replica) Stat() *pgxpool.Stat { return r.pool.Stat() }

// Reset replaces every connection, those in use when they are released.
func (r *Replica) Reset() { r.pool.Reset() }

// Close closes the pool and waits until its connections have been given back.
func (r *Replica) Close() { r.pool.Close() }

// AdmitAny accepts every position.
func AdmitAny(Position) error { return nil }

func (p *pool) read(ctx context.Context, admit func(Position) error, fn func(context.Context, read.Querier) error) (Position, error) {
	pos, err := p.readOnce(ctx, admit, fn)
	again := statementStale(err) || serverGone(err) && !errors.Is(err, context.DeadlineExceeded)
	if again && ctx.Err() == nil {
		pos, err = p.readOnce(ctx, admit, fn)
	}
	return pos, coded(err)
}

func (p *pool) readOnce(ctx context.Context, admit func(Position) error, fn func(context.Context, read.Querier) error) (Position, error) {
	var pos Position
	err := p.with(ctx, readTimeout, statementLimit{timeout: readStatementTimeout}, func(conn *pgx.Conn) error {
		q := &positioned{conn: conn, admit: func(at Position) error {
			pos = at
			return admit(at)
		}}
		return fn(ctx, read.New(q))
	})
	return pos, err
}

func (p *pool) position(ctx context.Context) (Position, error) {
	var pos Position
	err := p.with(ctx, readTimeout, statementLimit{timeout: readStatementTimeout}, func(conn *pgx.Conn) (err error) {
		ctx, cancel := context.WithTimeoutCause(ctx, readTimeout, errSilent)
		defer cancel()
		pos, err = scanPosition(ctx, conn)
		return err
	})
	return pos, coded(err)
}

func scanPosition(ctx context.Context, db read.DBTX) (Position, error) {
	row, err := read.New(db).GetReplicationPositionV1(ctx)
	if err != nil {
		return Position{}, fmt.Errorf("read the replication position: %w", err)
	}
	pos := Position{SystemIdentifier: row.SystemIdentifier, InRecovery: row.InRecovery}
	if row.Timeline != nil {
		pos.Timeline = *row.Timeline
	}
	if row.Lsn != nil {
		pos.LSN = *row.Lsn
	}
	return pos, nil
}

// positioned is a read.DBTX that sends the position query in front of the first query, in one
// pipeline. Both statements are one implicit transaction, and in READ COMMITTED each has its own
// snapshot, taken in this order. Each query may take readTimeout, its rows included.
type positioned struct {
	conn  *pgx.Conn
	admit func(Position) error
	asked bool
}

func (p *positioned) begin(ctx context.Context, sql string, args []any) (pgx.BatchResults, error) {
	var batch pgx.Batch
	if !p.asked {
		batch.Queue(read.GetReplicationPositionV1)
	}
	batch.Queue(sql, args...)
	ctx, cancel := context.WithTimeoutCause(ctx, readTimeout, errSilent)
	results := &timedResults{p.conn.SendBatch(ctx, &batch), cancel}
	if p.asked {
		return results, nil
	}
	p.asked = true
	pos, err := scanPosition(ctx, batchRow{results})
	if err == nil {
		err = p.admit(pos)
	}
	if err != nil {
		_ = results.Close() // the result of the query is not needed
		return nil, err
	}
	return results, nil
}

func (p *positioned) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	results, err := p.begin(ctx, sql, args)
	if err != nil {
		return pgconn.CommandTag{}, err
	}
	tag, err := results.Exec()
	return tag, errors.Join(err, results.Close())
}

func (p *positioned) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	results, err := p.begin(ctx, sql, args)
	if err != nil {
		return nil, err
	}
	rows, err := results.Query()
	if err != nil {
		return nil, errors.Join(err, results.Close())
	}
	return &batchRows{Rows: rows, results: results}, nil
}

func (p *positioned) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	results, err := p.begin(ctx, sql, args)
	return lastRow{results: results, err: err}
}

// timedResults ends the time limit of its batch when it is closed.
type timedResults struct {
	pgx.BatchResults
	cancel context.CancelFunc
}

func (r *timedResults) Close() error {
	defer r.cancel()
	return r.BatchResults.Close()
}

// batchRow is a read.DBTX whose only query is the next one of a batch that was sent already.
type batchRow struct{ results pgx.BatchResults }

func (b batchRow) QueryRow(context.Context, string, ...any) pgx.Row { return b.results.QueryRow() }

func (b batchRow) Query(context.Context, string, ...any) (pgx.Rows, error) { return b.results.Query() }

func (b batchRow) Exec(context.Context, string, ...any) (pgconn.CommandTag, error) {
	return b.results.Exec()
}

// lastRow is the last result of a batch.
type lastRow struct {
	results pgx.BatchResults
	err     error
}

func (r lastRow) Scan(dest ...any) error {
	if r.err != nil {
		return r.err
	}
	err := r.results.QueryRow().Scan(dest...)
	if closeErr := r.results.Close(); err == nil {
		err = closeErr
	}
	return err
}

// batchRows ends its batch when it is closed.
type batchRows struct {
	pgx.Rows
	results pgx.BatchResults
	err     error
}

func (r *batchRows) Close() {
	r.Rows.Close()
	r.err = r.results.Close()
}

func (r *batchRows) Next() bool {
	if r.Rows.Next() {
		return true
	}
	r.Close() // as pgx does after the last row: an error of the end must be seen by Err
	return false
}

func (r *batchRows) Err() error {
	if err := r.Rows.Err(); err != nil {
		return err
	}
	return r.err
}
