package pgtest

import (
	"context"
	"errors"
	"fmt"
	"regexp"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Querier is what generated queries run on: a connection or a transaction.
type Querier interface {
	Exec(context.Context, string, ...any) (pgconn.CommandTag, error)
	Query(context.Context, string, ...any) (pgx.Rows, error)
	QueryRow(context.Context, string, ...any) pgx.Row
}

// CheckTouched returns a Querier that, after each call of a function that returns touched and
// outbox_id, has the oracle compare them: what the rows of one outbox_id touched is what that outbox
// row declares, and a call without an outbox row touched nothing. A difference is an error of the call.
// The login must be accounts_writer or a superuser.
func CheckTouched(db Querier) Querier { return touchedChecker{db} }

type touchedChecker struct{ Querier }

func (c touchedChecker) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	rows, err := c.Querier.Query(ctx, sql, args...)
	if err != nil {
		return rows, err
	}
	return newTouchedRows(ctx, c.Querier, sql, rows), nil
}

func (c touchedChecker) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	rows, err := c.Query(ctx, sql, args...)
	return touchedRow{rows, err}
}

// touchedRow is the one row of QueryRow.
type touchedRow struct {
	rows pgx.Rows
	err  error
}

func (r touchedRow) Scan(dest ...any) error {
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
	if err := r.rows.Scan(dest...); err != nil {
		return err
	}
	r.rows.Close()
	return r.rows.Err()
}

// touchedRows collects the two columns while the caller reads the rows.
type touchedRows struct {
	pgx.Rows
	ctx               context.Context
	db                Querier
	function          string
	touched, outboxID int // positions of the columns, -1: there is no such column
	declared          map[int64][]string
	withoutRow        []string
	closed, bare      bool // bare: a row without outbox_id was read
	err               error
}

// calledFunction is the function in the text of a generated query.
var calledFunction = regexp.MustCompile(`\baccounts\.(\w+)\s*\(`)

func newTouchedRows(ctx context.Context, db Querier, sql string, rows pgx.Rows) *touchedRows {
	r := &touchedRows{Rows: rows, ctx: ctx, db: db, touched: -1, outboxID: -1, declared: map[int64][]string{}}
	if m := calledFunction.FindStringSubmatch(sql); m != nil {
		r.function = "accounts." + m[1]
	}
	for i, field := range rows.FieldDescriptions() {
		switch field.Name {
		case "touched":
			r.touched = i
		case "outbox_id":
			r.outboxID = i
		}
	}
	return r
}

func (r *touchedRows) Next() bool {
	if !r.Rows.Next() {
		r.check()
		return false
	}
	if r.touched < 0 || r.outboxID < 0 {
		return true
	}
	values, err := r.Rows.Values()
	if err != nil {
		r.err = err
		return true
	}
	list, ok := values[r.touched].([]any)
	if !ok {
		r.err = fmt.Errorf("oracle: rule touched: function %s: touched is NULL", r.function)
		return true
	}
	keys := []string{}
	for _, key := range list {
		keys = append(keys, fmt.Sprint(key))
	}
	if id, ok := values[r.outboxID].(int64); ok {
		r.declared[id] = append(r.declared[id], keys...)
	} else {
		r.bare = true
		r.withoutRow = append(r.withoutRow, keys...)
	}
	return true
}

func (r *touchedRows) Close() {
	r.Rows.Close()
	r.check()
}

// Err returns the error of the rows, and else that of the comparison, which needs the connection that
// the rows occupy until they end.
func (r *touchedRows) Err() error {
	if err := r.Rows.Err(); err != nil {
		return err
	}
	return r.err
}

func (r *touchedRows) check() {
	if r.closed {
		return
	}
	r.closed = true
	if r.Rows.Err() != nil || r.err != nil {
		return
	}
	const compare = "SELECT oracle.compare_touched($1, $2, $3)"
	if r.bare && len(r.withoutRow) > 0 {
		_, r.err = r.db.Exec(r.ctx, compare, r.function, nil, r.withoutRow)
	}
	for id, keys := range r.declared {
		_, err := r.db.Exec(r.ctx, compare, r.function, id, keys)
		r.err = errors.Join(r.err, err)
	}
}
