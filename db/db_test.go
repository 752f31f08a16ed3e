package db_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/db"
	"github.com/payment-services/accounts/internal/dbgen/read"
	"github.com/payment-services/accounts/internal/dbgen/write"
	"github.com/payment-services/accounts/internal/identifier"
	"github.com/payment-services/accounts/internal/pgtest"
)

const (
	// waitLimit bounds each wait for another session; only a defect makes one last so long.
	waitLimit = 20 * time.Second
	// pollTick paces the question whether another session waits.
	pollTick = 2 * time.Millisecond
)

func TestMain(m *testing.M) {
	if url := os.Getenv(migrateHelper); url != "" { // a process that tests may kill
		if err := db.Migrate(context.Background(), url, quiet); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	pgtest.Main(m, coverage.check)
}

// api is the database of one test as the service sees it: write functions called as accounts_writer,
// read functions as accounts_reader, and a superuser who looks behind the scene.
type api struct {
	*pgtest.DB
	t     *testing.T
	conn  *pgx.Conn // of write
	write *write.Queries
	read  *read.Queries
	super *pgx.Conn
}

func open(t *testing.T) *api {
	t.Helper()
	d := pgtest.Shared(t)
	super := connect(t, d.SuperURL)
	t.Cleanup(func() { coverage.harvest(t, super) }) // after the end of all other sessions
	conn := connect(t, d.WriteURL)
	return &api{
		DB: d, t: t, conn: conn,
		write: writer(conn),
		read:  read.New(connect(t, d.PrimaryReadURL)),
		super: super,
	}
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func execute(t *testing.T, conn *pgx.Conn, sql string, args ...any) {
	t.Helper()
	_, err := conn.Exec(t.Context(), sql, args...)
	require.NoError(t, err)
}

// value is the one value that a statement returns.
func value[T any](t *testing.T, conn *pgx.Conn, sql string, args ...any) T {
	t.Helper()
	var v T
	require.NoError(t, conn.QueryRow(t.Context(), sql, args...).Scan(&v))
	return v
}

// column is the one column that a statement returns.
func column[T any](t *testing.T, conn *pgx.Conn, sql string, args ...any) []T {
	t.Helper()
	rows, err := conn.Query(t.Context(), sql, args...)
	require.NoError(t, err)
	values, err := pgx.CollectRows(rows, pgx.RowTo[T])
	require.NoError(t, err)
	return values
}

// overlap proves that second waits for first, which has done its work but not committed, and lets
// first end as end says.
func (a *api) overlap(end func(pgx.Tx) error, first, second func(*write.Queries)) {
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
	a.waitUntilBlocked(two, one)
	require.NoError(a.t, end(tx))
	select {
	case <-done:
	case <-time.After(waitLimit):
		require.FailNow(a.t, "the second call still waits")
	}
}

// waitUntilBlocked returns when waiter waits for a lock that holder has.
func (a *api) waitUntilBlocked(waiter, holder *pgx.Conn) {
	a.t.Helper()
	require.Eventually(a.t, func() bool {
		var blocked bool
		err := a.super.QueryRow(a.t.Context(), "SELECT $2 = ANY (pg_blocking_pids($1))",
			waiter.PgConn().PID(), holder.PgConn().PID()).Scan(&blocked)
		return err == nil && blocked
	}, waitLimit, pollTick, "the second call does not wait")
	coverage.waited(waiter, holder)
}

func commit(tx pgx.Tx) error { return tx.Commit(context.Background()) }

func rollback(tx pgx.Tx) error { return tx.Rollback(context.Background()) }

// nameKey is the key of a name in canonical form, as the service makes it; a text that is no name is its
// own key.
func nameKey(name string) string {
	n, err := identifier.ParseName(name)
	if err != nil {
		return name
	}
	return n.Key
}

func nameKeys(names []string) []string {
	keys := make([]string, len(names))
	for i, name := range names {
		keys[i] = nameKey(name)
	}
	return keys
}

// contact is one contact of a user to be created.
type contact struct{ kind, value, normalized string }

// same is a contact whose value is canonical already.
func same(kind, value string) contact { return contact{kind, value, value} }

func newUser(groups []string, contacts ...contact) write.CreateUserV1Params {
	p := write.CreateUserV1Params{IsActive: true, Profile: json.RawMessage(`{}`), GroupKeys: nameKeys(groups)}
	for _, c := range contacts {
		p.ContactTypes = append(p.ContactTypes, c.kind)
		p.ContactValues = append(p.ContactValues, c.value)
		p.ContactNormalized = append(p.ContactNormalized, c.normalized)
	}
	return p
}

func (a *api) createUser(groups []string, contacts ...contact) write.UserWriteV1 {
	a.t.Helper()
	u, err := a.write.CreateUserV1(a.t.Context(), newUser(groups, contacts...))
	require.NoError(a.t, err)
	return u
}

func (a *api) createGroup(name string) write.UserGroupWriteV1 {
	a.t.Helper()
	g, err := a.write.CreateUserGroupV1(a.t.Context(), name, nameKey(name))
	require.NoError(a.t, err)
	return g
}

func (a *api) createType(name, onSecond string) write.ContactTypeWriteV1 {
	a.t.Helper()
	c, err := a.write.CreateContactTypeV1(a.t.Context(), name, onSecond)
	require.NoError(a.t, err)
	return c
}

func (a *api) addContact(user uuid.UUID, c contact) write.ContactWriteV1 {
	a.t.Helper()
	added, err := a.write.AddContactV1(a.t.Context(), addition(user, c))
	require.NoError(a.t, err)
	return added
}

func addition(user uuid.UUID, c contact) write.AddContactV1Params {
	return write.AddContactV1Params{UserID: user, Type: c.kind, Value: c.value, Normalized: c.normalized}
}

func (a *api) detail(user uuid.UUID) read.UserDetailV1 {
	a.t.Helper()
	d, err := a.read.GetUserDetailV1(a.t.Context(), user)
	require.NoError(a.t, err)
	return d
}

// contactsOf returns "type value" of the active contacts of a user.
func (a *api) contactsOf(user uuid.UUID) []string {
	a.t.Helper()
	list, err := a.read.ListUserContactsV1(a.t.Context(), user, false)
	require.NoError(a.t, err)
	texts := []string{}
	for _, c := range list {
		texts = append(texts, c.Type+" "+c.Value)
	}
	return texts
}

// requireTouched holds what a write reports, and the outbox row that it wrote, against the keys that
// it should have touched; no keys mean that it must not have written a row.
func (a *api) requireTouched(touched []string, outboxID *int64, want ...string) {
	a.t.Helper()
	require.ElementsMatch(a.t, want, touched)
	if len(want) == 0 {
		require.NotNil(a.t, touched)
		require.Nil(a.t, outboxID)
		return
	}
	require.NotNil(a.t, outboxID)
	var keys, deps, wantKeys, wantDeps []string
	err := a.super.QueryRow(a.t.Context(), "SELECT keys, deps FROM accounts.cache_outbox WHERE id = $1", *outboxID).
		Scan(&keys, &deps)
	require.NoError(a.t, err)
	for _, w := range want {
		if strings.HasPrefix(w, "g:") || strings.HasPrefix(w, "t:") {
			wantDeps = append(wantDeps, w)
		} else {
			wantKeys = append(wantKeys, w)
		}
	}
	require.ElementsMatch(a.t, wantKeys, keys)
	require.ElementsMatch(a.t, wantDeps, deps)
}

// requireOneUp checks that one change raised version by one and updated_at.
func requireOneUp(t *testing.T, before, after read.UserDetailV1) {
	t.Helper()
	require.Equal(t, before.Version+1, after.Version)
	require.True(t, after.UpdatedAt.After(before.UpdatedAt))
}

// count returns the number of rows of a table.
func (a *api) count(table string) int64 {
	a.t.Helper()
	return value[int64](a.t, a.super, "SELECT count(*) FROM accounts."+pgx.Identifier{table}.Sanitize())
}

// requireState checks an error of a function: its SQLSTATE, constraint, and DETAIL unless that is
// empty, as JSON.
func requireState(t *testing.T, err error, state, constraint, detail string) {
	t.Helper()
	var pgErr *pgconn.PgError
	require.ErrorAs(t, err, &pgErr)
	require.Equal(t, state, pgErr.Code, pgErr.Message)
	require.Equal(t, constraint, pgErr.ConstraintName)
	if detail != "" {
		require.JSONEq(t, detail, pgErr.Detail)
	}
}

// SQLSTATEs that the functions answer with.
const (
	notFound     = "UA001"
	invalid      = "UA002"
	otherVersion = "UA003"
	limitReached = "UA004"
	unique       = "23505"
	check        = "23514"
	denied       = "42501"
	readOnly     = "25006"
)

func missing(entity string, id uuid.UUID) string {
	return `{"entity": "` + entity + `", "id": "` + id.String() + `"}`
}

// faults is the DETAIL that names faulty fields, given as "field code" pairs.
func faults(pairs ...string) string {
	type fault struct {
		Field string `json:"field"`
		Code  string `json:"code"`
	}
	var list []fault
	for _, p := range pairs {
		field, code, _ := strings.Cut(p, " ")
		list = append(list, fault{field, code})
	}
	text, err := json.Marshal(map[string][]fault{"errors": list})
	if err != nil {
		panic(err) // strings only
	}
	return string(text)
}

func ptr[T any](v T) *T { return &v }
