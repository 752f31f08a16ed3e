package db_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/dbgen/write"
	"github.com/payment-services/accounts/internal/pgtest"
)

// What the tests of this package did with each function of the schema. After a complete run of the
// package, check compares it with the catalog. Only what PostgreSQL counted or what two sessions were
// seen to do counts: a test cannot register a function that it did not call.
var coverage = functionCoverage{
	functions: map[string]catalogFunction{}, calls: map[string]int64{},
	together: map[string]bool{}, ordered: map[string]bool{}, severalUsers: map[string]bool{},
}

type functionCoverage struct {
	mu           sync.Mutex
	functions    map[string]catalogFunction
	calls        map[string]int64 // of pg_stat_user_functions
	together     map[string]bool  // two sessions called it at once
	ordered      map[string]bool  // two sessions locked the same rows, given in opposite order
	severalUsers map[string]bool  // the oracle saw it change several users in one call
}

type catalogFunction struct {
	body  string
	write bool // granted to accounts_write, and VOLATILE
}

// orderExceptions are functions that several rows make wait in no order, with the reason.
var orderExceptions = map[string]string{
	"add_bulk_memberships_v1": "its callers have created or locked the users, so that the memberships of a user have one writer",
	"stage_import_rows_v1":    "it locks the import first, so that the rows of an import have one writer",
}

// sessionEndTimeout limits the wait for the server processes of closed connections.
const sessionEndTimeout = 20 * time.Second

// harvest adds what happened in a test's database. The connections of the test are closed. A session
// publishes its counts when its server process ends, which is a moment after the connection is closed, so
// harvest waits for that.
func (c *functionCoverage) harvest(t *testing.T, super *pgx.Conn) {
	t.Helper()
	ctx := context.Background() // the test's own has ended
	require.Eventually(t, func() bool {
		var others int
		err := super.QueryRow(ctx, `
			SELECT count(*) FROM pg_stat_activity
			 WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'`).Scan(&others)
		return err == nil && others == 0
	}, sessionEndTimeout, time.Millisecond, "sessions of the test have not ended")
	_, err := super.Exec(ctx, "SELECT pg_stat_force_next_flush()")
	require.NoError(t, err)
	c.mu.Lock()
	defer c.mu.Unlock()
	var name string
	var f catalogFunction
	var calls int64
	rows, err := super.Query(ctx, `
		SELECT p.proname, p.prosrc, p.provolatile = 'v' AND has_function_privilege('accounts_write', p.oid, 'EXECUTE'),
		       coalesce(pg_stat_get_function_calls(p.oid), 0)
		  FROM pg_proc AS p
		 WHERE p.pronamespace = 'accounts'::regnamespace AND p.proname ~ '_v[1-9][0-9]*$'`)
	require.NoError(t, err)
	_, err = pgx.ForEachRow(rows, []any{&name, &f.body, &f.write, &calls}, func() error {
		c.functions[name] = f
		c.calls[name] += calls
		return nil
	})
	require.NoError(t, err)
	var oracle bool
	require.NoError(t, super.QueryRow(ctx, "SELECT to_regnamespace('oracle') IS NOT NULL").Scan(&oracle))
	if !oracle {
		return
	}
	rows, err = super.Query(ctx, "SELECT DISTINCT m.function FROM oracle.multi_user_calls AS m")
	require.NoError(t, err)
	_, err = pgx.ForEachRow(rows, []any{&name}, func() error {
		c.severalUsers[name] = true
		return nil
	})
	require.NoError(t, err)
}

// check runs after all tests of the package, unless only some were asked for.
func (c *functionCoverage) check() error {
	for _, name := range []string{"test.run", "test.skip", "test.list"} {
		if flag.Lookup(name).Value.String() != "" {
			return nil
		}
	}
	return c.missing()
}

// missing lists what no test has done.
func (c *functionCoverage) missing() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var found []string
	for name, f := range c.functions {
		if c.calls[name] == 0 {
			found = append(found, name+": no test calls it")
		}
		if f.write && !c.together[name] {
			found = append(found, name+": no test calls it from two sessions at once (overlap, or sideBySide if it does not wait)")
		}
		_, excepted := orderExceptions[name]
		switch needed := c.severalUsers[name] || locksSeveralRows(f.body); {
		case needed && !excepted && !c.ordered[name]:
			found = append(found, name+": it locks several rows, and no test has two callers lock them in opposite order (inKeyOrder)")
		case !needed && excepted:
			found = append(found, name+": remove it from orderExceptions, it locks one row")
		}
	}
	for name := range orderExceptions {
		if _, known := c.functions[name]; !known {
			found = append(found, name+": remove it from orderExceptions, there is no such function")
		}
	}
	if len(found) == 0 {
		return nil
	}
	slices.Sort(found)
	return fmt.Errorf("functions that the tests of this package do not cover:\n  %s", strings.Join(found, "\n  "))
}

var (
	lockingClause = regexp.MustCompile(`\bFOR\s+(NO\s+KEY\s+UPDATE|UPDATE|KEY\s+SHARE|SHARE)\b`)
	neverWaits    = regexp.MustCompile(`\b(SKIP\s+LOCKED|NOWAIT)\b`)
	oneRow        = regexp.MustCompile(`\bLIMIT\s+1\b|\bWHERE\s+\w+\.\w+\s+=\s+[pv]_\w+`)
	insertSelect  = regexp.MustCompile(`(?s)\bINSERT\s+INTO\s+accounts\.[^;]*?\bSELECT\b`)
)

// locksSeveralRows reports whether a statement of a body may wait for several rows: those that it locks,
// or those with the unique keys that it inserts. In doubt it reports true.
func locksSeveralRows(body string) bool {
	for statement := range strings.SplitSeq(strings.ToUpper(body), ";") {
		if neverWaits.MatchString(statement) {
			continue
		}
		if lockingClause.MatchString(statement) && !oneRow.MatchString(strings.ReplaceAll(strings.ReplaceAll(statement, "P_", "p_"), "V_", "v_")) {
			return true
		}
	}
	return insertSelect.MatchString(body)
}

// session is what one connection has called, in order; the last call may still run.
type session struct {
	mu    sync.Mutex
	calls []string
}

var sessions sync.Map // *pgx.Conn -> *session

func sessionOf(conn *pgx.Conn) *session {
	s, _ := sessions.LoadOrStore(conn, new(session))
	return s.(*session)
}

func (s *session) called(function string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Contains(s.calls, function)
}

func (s *session) last() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.calls) == 0 {
		return ""
	}
	return s.calls[len(s.calls)-1]
}

// recorded notes the calls of a connection, and has the oracle compare what they return as touched.
type recorded struct {
	pgtest.Querier
	session *session
}

var functionCall = regexp.MustCompile(`\baccounts\.(\w+)\(`)

func (r recorded) note(sql string) {
	if m := functionCall.FindStringSubmatch(sql); m != nil {
		r.session.mu.Lock()
		defer r.session.mu.Unlock()
		r.session.calls = append(r.session.calls, m[1])
	}
}

func (r recorded) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	r.note(sql)
	return r.Querier.Exec(ctx, sql, args...)
}

func (r recorded) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	r.note(sql)
	return r.Querier.Query(ctx, sql, args...)
}

func (r recorded) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	r.note(sql)
	return r.Querier.QueryRow(ctx, sql, args...)
}

// writer returns the write functions on a connection, and writerIn those in its transaction. All tests
// of this package call them through these.
func writer(conn *pgx.Conn) *write.Queries {
	return write.New(recorded{pgtest.CheckTouched(conn), sessionOf(conn)})
}

func writerIn(tx pgx.Tx) *write.Queries {
	return write.New(recorded{pgtest.CheckTouched(tx), sessionOf(tx.Conn())})
}

// waited notes that one session, in a call, waits for another that called the same function.
func (c *functionCoverage) waited(waiter, holder *pgx.Conn) {
	if name := sessionOf(waiter).last(); name != "" && sessionOf(holder).called(name) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.together[name] = true
	}
}

// sideBySide proves that second does not wait for first, which has done its work but not committed, and
// commits first. Functions that wait are tested with overlap.
func (a *api) sideBySide(first, second func(*write.Queries)) {
	a.t.Helper()
	one, two := connect(a.t, a.WriteURL), connect(a.t, a.WriteURL)
	tx, err := one.Begin(a.t.Context())
	require.NoError(a.t, err)
	first(writerIn(tx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		second(writer(two))
	}()
	select {
	case <-done:
	case <-time.After(waitLimit):
		require.FailNow(a.t, "the second call waits")
	}
	require.NoError(a.t, tx.Commit(a.t.Context()))
	coverage.mu.Lock()
	defer coverage.mu.Unlock()
	for _, name := range sessionOf(two).calls {
		if sessionOf(one).called(name) {
			coverage.together[name] = true
		}
	}
}

// inKeyOrder proves that a function locks rows of a table, of which three are given by their ids, in the
// order of the primary key: whatever the order of the arguments, and although the rows lie in the table in
// the opposite order and PostgreSQL reads them so. The first call gets the ids in order and the second in
// opposite order. The calls may differ in what else they change. shared: the locks do not exclude each
// other, so that both calls wait for the test.
func (a *api) inKeyOrder(table string, shared bool, ids []uuid.UUID, call func(q *write.Queries, ids []uuid.UUID) error) {
	a.t.Helper()
	ctx := a.t.Context()
	require.Len(a.t, ids, 3)
	ids = slices.Clone(ids)
	slices.SortFunc(ids, func(a, b uuid.UUID) int { return bytes.Compare(a[:], b[:]) })
	backwards := slices.Clone(ids)
	slices.Reverse(backwards)
	table = "accounts." + pgx.Identifier{table}.Sanitize()

	byHand := connect(a.t, a.UncheckedURL("moves rows within the table"))
	for _, id := range backwards {
		execute(a.t, byHand, "UPDATE "+table+" SET id = id WHERE id = $1", id)
	}
	require.Equal(a.t, backwards, column[uuid.UUID](a.t, byHand, "SELECT id FROM "+table+" WHERE id = ANY ($1) ORDER BY ctid", ids))

	blocker := connect(a.t, a.SuperURL)
	tx, err := blocker.Begin(ctx)
	require.NoError(a.t, err)
	_, err = tx.Exec(ctx, "SELECT FROM "+table+" WHERE id = $1 FOR UPDATE", ids[1])
	require.NoError(a.t, err)

	done := make(chan error, 2)
	start := func(ids []uuid.UUID) *pgx.Conn {
		conn := connect(a.t, a.WriteURL)
		for _, scan := range []string{"indexscan", "indexonlyscan", "bitmapscan"} {
			execute(a.t, conn, "SET enable_"+scan+" = off")
		}
		go func() { done <- call(writer(conn), ids) }()
		return conn
	}
	unlocked := func() []uuid.UUID {
		return column[uuid.UUID](a.t, byHand, "SELECT id FROM "+table+" WHERE id = ANY ($1) FOR UPDATE SKIP LOCKED", ids)
	}
	first := start(ids)
	a.waitUntilBlocked(first, blocker)
	require.Equal(a.t, ids[2:], unlocked(), "locked are those up to the one that it waits for")
	second := start(backwards)
	if shared {
		a.waitUntilBlocked(second, blocker)
	} else {
		a.waitUntilBlocked(second, first) // on ids[0]
	}
	require.Equal(a.t, ids[2:], unlocked(), "the second call has not begun at the other end")
	require.NoError(a.t, tx.Rollback(ctx))
	require.NoError(a.t, <-done)
	require.NoError(a.t, <-done)

	name := sessionOf(first).last()
	require.Equal(a.t, name, sessionOf(second).last())
	coverage.mu.Lock()
	defer coverage.mu.Unlock()
	coverage.ordered[name] = true
}

// A function that no test calls, that two callers never called at once, or that locks rows in an order
// which no test looked at is listed by its name.
func TestCoverage_ListsWhatIsMissing(t *testing.T) {
	t.Parallel()
	const several = "BEGIN PERFORM FROM accounts.users AS u WHERE u.id = ANY (p_ids) FOR NO KEY UPDATE; END"
	full := func() *functionCoverage {
		c := &functionCoverage{
			functions: map[string]catalogFunction{
				"read_v1": {"BEGIN END", false}, "one_v1": {"PERFORM FROM accounts.users AS u WHERE u.id = p_id FOR UPDATE;", true},
				"several_v1": {several, true},
			},
			calls: map[string]int64{}, together: map[string]bool{}, ordered: map[string]bool{"several_v1": true}, severalUsers: map[string]bool{},
		}
		for name := range orderExceptions {
			c.functions[name] = catalogFunction{"INSERT INTO accounts.import_rows (a) SELECT 1;", true}
		}
		for name := range maps.Keys(c.functions) {
			c.calls[name], c.together[name] = 1, true
		}
		return c
	}
	require.NoError(t, full().missing())
	for want, damage := range map[string]func(*functionCoverage){
		"read_v1: no test calls it":                           func(c *functionCoverage) { c.calls["read_v1"] = 0 },
		"one_v1: no test calls it from two sessions":          func(c *functionCoverage) { delete(c.together, "one_v1") },
		"several_v1: it locks several rows":                   func(c *functionCoverage) { delete(c.ordered, "several_v1") },
		"one_v1: it locks several rows":                       func(c *functionCoverage) { c.severalUsers["one_v1"] = true },
		"stage_import_rows_v1: remove it from orderException": func(c *functionCoverage) { delete(c.functions, "stage_import_rows_v1") },
	} {
		c := full()
		damage(c)
		require.ErrorContains(t, c.missing(), want)
	}
	for body, want := range map[string]bool{
		several: true,
		"PERFORM FROM accounts.users AS u WHERE u.id IN (SELECT 1) ORDER BY u.id for update;":               true,
		"INSERT INTO accounts.user_contacts (a)\nSELECT 1;":                                                 true,
		"SELECT j.* FROM accounts.import_jobs AS j ORDER BY j.id LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED;":    false,
		"SELECT u.* INTO v_user FROM accounts.users AS u WHERE u.id = p_user_id FOR NO KEY UPDATE;":         false,
		"INSERT INTO accounts.user_groups (name) VALUES (p_name); RETURN QUERY SELECT 1;":                   false,
		"DELETE FROM accounts.cache_outbox AS o WHERE o.id IN (SELECT 1 ORDER BY 1 FOR UPDATE SKIP LOCKED)": false,
	} {
		require.Equal(t, want, locksSeveralRows(body), body)
	}
}
