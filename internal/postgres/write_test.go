package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/dbgen/write"
	"github.com/payment-services/accounts/internal/errcode"
	"github.com/payment-services/accounts/internal/pgtest"
)

func TestWriteErrors(t *testing.T) {
	t.Parallel()
	d := pgtest.Shared(t)
	p := openPrimary(t, d.WriteURL)
	user := newUser(t, p)
	require.NoError(t, p.Write(t.Context(), createGroup("taken")))
	nobody := uuid.New()

	for name, tt := range map[string]struct {
		fn   func(context.Context, write.Querier) error
		want errcode.Error
	}{
		"not found": {patch(nobody, `{}`), errcode.Error{Code: errcode.NotFound, Entity: "User", ID: nobody.String()}},
		"another version": {func(ctx context.Context, q write.Querier) error {
			version := int64(7)
			_, err := q.UpdateUserV1(ctx, write.UpdateUserV1Params{UserID: user.ID, ExpectedVersions: []int64{version}})
			return err
		}, errcode.Error{Code: errcode.PreconditionFailed, Version: 1}},
		"fields that a function names": {func(ctx context.Context, q write.Querier) error {
			_, err := q.CreateUserV1(ctx, write.CreateUserV1Params{
				Profile: json.RawMessage(`{}`), ContactTypes: []string{"fax"}, ContactValues: []string{"1"}, ContactNormalized: []string{"1"},
				GroupKeys: []string{"taken", "nobodies"},
			})
			return err
		}, errcode.Error{Code: errcode.Validation, Fields: []errcode.Field{
			{Field: "contacts[0].type", Code: "unknown", Message: messages["unknown"]},
			{Field: "groups[1]", Code: "unknown", Message: messages["unknown"]},
		}}},
		"the field of a constraint": {createGroup("taken"), errcode.Error{Code: errcode.NameTaken, Fields: []errcode.Field{
			{Field: "name", Code: "taken", Message: violations["user_groups_name_key"].message},
		}}},
	} {
		t.Run(name, func(t *testing.T) {
			err := p.Write(t.Context(), tt.fn)
			got := *requireCode(t, err, tt.want.Code)
			got.Message = ""
			require.Equal(t, tt.want, got)
		})
	}
	require.EqualValues(t, 1, p.Stat().NewConnsCount(), "none of them costs a connection")

	own := errors.New("of fn")
	require.Equal(t, own, p.Write(t.Context(), func(context.Context, write.Querier) error { return own }))
	err := p.Write(t.Context(), func(ctx context.Context, q write.Querier) error {
		_, err := q.SetMembershipV1(ctx, user.ID, user.ID, false)
		return err
	})
	requireCode(t, err, errcode.NotFound)
}

func TestWriteLeavesNoRowsAsItIs(t *testing.T) {
	t.Parallel()
	d := pgtest.Shared(t)
	p := openPrimary(t, d.WriteURL)
	user := newUser(t, p)
	var group uuid.UUID
	require.NoError(t, p.Write(t.Context(), func(ctx context.Context, q write.Querier) error {
		g, err := q.CreateUserGroupV1(ctx, "drivers", "drivers")
		group = g.ID
		return err
	}))
	require.Equal(t, pgx.ErrNoRows, p.Write(t.Context(), func(ctx context.Context, q write.Querier) error {
		_, err := q.SetMembershipV1(ctx, user.ID, group, false)
		return err
	}))
}

// JSON that PostgreSQL cannot hold is the client's fault, and never ours.
func TestHostileJSON(t *testing.T) {
	t.Parallel()
	d := pgtest.Shared(t)
	p := openPrimary(t, d.WriteURL)
	user := newUser(t, p)
	const depth = 100_000
	for name, text := range map[string]string{
		"NUL":                 `{"a": "\u0000"}`,
		"NUL in a key":        `{"\u0000": 1}`,
		"a lone surrogate":    `{"a": "\ud800"}`,
		"a huge number":       `{"a": 1e400000}`,
		"deep objects":        strings.Repeat(`{"a":`, depth) + "1" + strings.Repeat("}", depth),
		"deep lists":          `{"a":` + strings.Repeat("[", depth) + strings.Repeat("]", depth) + "}",
		"deep enough to nest": strings.Repeat(`{"a":`, 3000) + "1" + strings.Repeat("}", 3000),
		"broken":              `{"a": `,
		"nothing":             ` `,
		"broken UTF-8":        "{\"a\": \"\xff\"}",
		"too large":           `{"a": "` + strings.Repeat("x", 20_000) + `"}`,
		"no object":           `[]`,
		"null":                `null`,
	} {
		t.Run(name, func(t *testing.T) {
			requireCode(t, p.Write(t.Context(), patch(user.ID, text)), errcode.Validation)
			requireCode(t, p.Write(t.Context(), func(ctx context.Context, q write.Querier) error {
				_, err := q.CreateUserV1(ctx, write.CreateUserV1Params{Profile: json.RawMessage(text)})
				return err
			}), errcode.Validation)
		})
	}
	require.NoError(t, p.Write(t.Context(), patch(user.ID, `{"a": 1e300, "я": "\ud83d\ude00"}`)))
}

func TestLostConnectionIsAnUnknownOutcome(t *testing.T) {
	t.Parallel()
	d := pgtest.Shared(t)
	super := superuser(t, d)
	for name, fault := range map[string]func(*pgtest.Proxy){
		"cut":     (*pgtest.Proxy).Cut,
		"stalled": (*pgtest.Proxy).Stall,
	} {
		t.Run(name, func(t *testing.T) {
			proxy, url := proxied(t, d.WriteURL)
			p := openPrimary(t, url)
			user := newUser(t, p)
			tx := lockUser(t, superuser(t, d), user.ID)
			calls := 0
			started := time.Now()
			done := inBackground(func() error {
				return p.Write(t.Context(), func(ctx context.Context, q write.Querier) error {
					calls++
					return patch(user.ID, `{"a": 1}`)(ctx, q)
				})
			})
			writerThat(t, super, waitsForALock)
			fault(proxy)
			// It really is unknown: the server goes on, and commits.
			require.NoError(t, tx.Rollback(t.Context()))
			require.Eventually(t, func() bool { return version(t, super, user.ID) == 2 }, waitLimit, pollTick)
			requireCode(t, <-done, errcode.OutcomeUnknown)
			require.Less(t, time.Since(started), promised)
			require.Equal(t, 1, calls, "never repeated")
			proxy.Resume() // or closing the pool would wait for the silent connection
		})
	}
}

func proxied(t *testing.T, url string) (*pgtest.Proxy, string) {
	t.Helper()
	config, err := pgx.ParseConfig(url)
	require.NoError(t, err)
	proxy := pgtest.NewProxy(t, net.JoinHostPort(config.Host, strconv.Itoa(int(config.Port))))
	through, err := proxy.URL(url)
	require.NoError(t, err)
	return proxy, through
}

// What was never sent may be repeated: the client notices nothing of a short cut.
func TestWriteBeforeWhichTheConnectionWasLostIsRepeated(t *testing.T) {
	t.Parallel()
	d := pgtest.Shared(t)
	proxy, url := proxied(t, d.WriteURL)
	p := openPrimary(t, url)
	user := newUser(t, p)
	proxy.Cut()
	done := inBackground(func() error { return p.Write(t.Context(), patch(user.ID, `{"a": 1}`)) })
	waitForAFailure(t, p)
	require.NoError(t, proxy.Heal())
	require.NoError(t, <-done)
}

// waitForAFailure returns when at least one attempt has failed because the primary was gone.
func waitForAFailure(t *testing.T, p *Primary) {
	t.Helper()
	require.Eventually(t, func() bool { return p.goneFor(time.Now()) > 0 }, waitLimit, pollTick)
}

// A server that accepts connections and answers nothing.
func TestWriteToASilentServer(t *testing.T) {
	t.Parallel()
	d := pgtest.Shared(t)
	proxy, url := proxied(t, d.WriteURL)
	p := openPrimary(t, url)
	proxy.Stall()
	started := time.Now()
	requireCode(t, p.Write(t.Context(), createGroup("x")), errcode.Database)
	require.Less(t, time.Since(started), promised)
	proxy.Resume()
	require.NoError(t, p.Write(t.Context(), createGroup("x")))
}

// A goodbye of the server before any answer means that the statement was never finished.
func TestTerminatedWriteIsRepeated(t *testing.T) {
	t.Parallel()
	d := pgtest.Shared(t)
	p, super := openPrimary(t, d.WriteURL), superuser(t, d)
	user := newUser(t, p)
	tx := lockUser(t, superuser(t, d), user.ID)
	done := inBackground(func() error { return p.Write(t.Context(), patch(user.ID, `{"a": 1}`)) })
	first := writerThat(t, super, waitsForALock)
	execute(t, super, "SELECT pg_terminate_backend($1)", first)
	writerThat(t, super, waitsForALock+" AND pid <> $1", first)
	require.NoError(t, tx.Rollback(t.Context()))
	require.NoError(t, <-done)
	require.EqualValues(t, 2, version(t, super, user.ID), "once")
}

func version(t *testing.T, super *pgx.Conn, user uuid.UUID) (v int64) {
	t.Helper()
	require.NoError(t, super.QueryRow(t.Context(), "SELECT version FROM accounts.users WHERE id = $1", user).Scan(&v))
	return v
}

func TestVictimOfADeadlockIsRepeated(t *testing.T) {
	t.Parallel()
	d := pgtest.Shared(t)
	p, super := openPrimary(t, d.WriteURL), superuser(t, d)
	users := []uuid.UUID{newUser(t, p).ID, newUser(t, p).ID}
	slices.SortFunc(users, func(a, b uuid.UUID) int { return strings.Compare(a.String(), b.String()) })
	var group uuid.UUID
	require.NoError(t, p.Write(t.Context(), func(ctx context.Context, q write.Querier) error {
		g, err := q.CreateUserGroupV1(ctx, "drivers", "drivers")
		group = g.ID
		return err
	}))

	other := superuser(t, d)
	execute(t, other, "SET deadlock_timeout = '20s'") // so that the write's own session is the one that notices
	tx := lockUser(t, other, users[1])
	calls := 0
	done := inBackground(func() error {
		return p.Write(t.Context(), func(ctx context.Context, q write.Querier) error {
			calls++
			_, err := q.SetMembershipsV1(ctx, group, users, true)
			return err
		})
	})
	writerThat(t, super, waitsForALock)
	_, err := tx.Exec(t.Context(), "SELECT FROM accounts.users WHERE id = $1 FOR UPDATE", users[0])
	require.NoError(t, err)
	require.NoError(t, tx.Commit(t.Context()))
	require.NoError(t, <-done)
	require.Greater(t, calls, 1)
	require.EqualValues(t, 2, version(t, super, users[0]))
}

// A write that waits too long, for a lock or for itself, has a known outcome: nothing.
func TestWriteThatTakesTooLong(t *testing.T) {
	t.Parallel()
	d := pgtest.Shared(t)
	p, super := openPrimary(t, d.WriteURL), superuser(t, d)
	user := newUser(t, p)
	tx := lockUser(t, superuser(t, d), user.ID)
	execute(t, super, `CREATE OR REPLACE FUNCTION accounts.create_user_group_v1(p_name text, p_name_key text)
		RETURNS SETOF accounts.user_group_write_v1 LANGUAGE plpgsql SECURITY DEFINER AS $$
		BEGIN
			INSERT INTO accounts.user_groups (name, name_key) VALUES (p_name, p_name_key);
			PERFORM pg_sleep(20);
		END $$`)
	started := time.Now()
	locked := inBackground(func() error { return p.Write(t.Context(), patch(user.ID, `{"a": 1}`)) })
	slow := inBackground(func() error { return p.Write(t.Context(), createGroup("x")) })
	requireCode(t, <-locked, errcode.Database)
	requireCode(t, <-slow, errcode.Database)
	require.Less(t, time.Since(started), promised)

	require.NoError(t, tx.Rollback(t.Context()))
	require.EqualValues(t, 1, version(t, super, user.ID))
	var groups int
	require.NoError(t, super.QueryRow(t.Context(), "SELECT count(*) FROM accounts.user_groups").Scan(&groups))
	require.Zero(t, groups)
	require.NoError(t, p.Write(t.Context(), patch(user.ID, `{"a": 1}`)), "a slow statement is no sign that the primary is gone")
}

// A write that waited for a connection has less time left, and so has its statement: its outcome is known.
func TestWrite_StatementEndsBeforeTheDeadline(t *testing.T) {
	t.Parallel()
	d := pgtest.Shared(t)
	super := superuser(t, d)
	p, err := OpenPrimary(Config{URL: d.WriteURL, MaxConns: 1})
	require.NoError(t, err)
	t.Cleanup(p.Close)
	user := newUser(t, p)
	execute(t, super, `CREATE OR REPLACE FUNCTION accounts.create_user_group_v1(p_name text, p_name_key text)
		RETURNS SETOF accounts.user_group_write_v1 LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN PERFORM pg_sleep(20); END $$`)
	tx := lockUser(t, superuser(t, d), user.ID)
	first := inBackground(func() error { return p.Write(t.Context(), patch(user.ID, `{"a": 1}`)) })
	writerThat(t, super, waitsForALock)
	started := time.Now()
	second := inBackground(func() error { return p.Write(t.Context(), createGroup("x")) })
	require.Eventually(t, func() bool { return p.Stat().EmptyAcquireCount() > 1 || time.Since(started) > time.Second }, waitLimit, pollTick)
	require.NoError(t, tx.Rollback(t.Context()))
	require.NoError(t, <-first)
	err = <-second
	requireCode(t, err, errcode.Database) // not: OUTCOME_UNKNOWN
	require.True(t, StatementTimedOut(err))
	require.Less(t, time.Since(started), WriteTimeout)
	require.EqualValues(t, 1, p.Stat().NewConnsCount())
	require.NoError(t, p.Write(t.Context(), patch(user.ID, `{"a": 2}`)))
	require.Equal(t, "4s", showOn(t, p, "statement_timeout"), "the limit is restored")
}

func showOn(t *testing.T, p *Primary, setting string) (text string) {
	t.Helper()
	require.NoError(t, p.pool.with(t.Context(), WriteTimeout, writeLimit(t.Context()), func(conn *pgx.Conn) error {
		return conn.QueryRow(t.Context(), "SHOW "+setting).Scan(&text)
	}))
	return text
}

func TestStatementLimit(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for name, tt := range map[string]struct {
		left   time.Duration // until the deadline; 0: none
		want   time.Duration
		enough bool
	}{
		"no deadline":     {0, statementTimeout, true},
		"all of the time": {WriteTimeout, statementTimeout, true},
		"half":            {2 * time.Second, 1500 * time.Millisecond, true},
		"hardly any":      {cancelMargin + minStatementTimeout, minStatementTimeout, true},
		"too little":      {cancelMargin + minStatementTimeout - 1, minStatementTimeout - time.Millisecond, false},
		"over":            {-time.Second, -1500 * time.Millisecond, false},
	} {
		limit := statementLimit{timeout: statementTimeout}
		if tt.left != 0 {
			limit.deadline = now.Add(tt.left)
		}
		got, enough := limit.at(now)
		require.Equal(t, tt.want, got, name)
		require.Equal(t, tt.enough, enough, name)
	}
	require.False(t, serverGone(&acquireError{errNoTimeLeft}))
	requireCode(t, coded(&acquireError{errNoTimeLeft}), errcode.Database)
}

func TestCancelledWrite(t *testing.T) {
	t.Parallel()
	d := pgtest.Shared(t)
	p := openPrimary(t, d.WriteURL)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, p.Write(ctx, createGroup("x")), context.Canceled)
}

func TestInTx(t *testing.T) {
	t.Parallel()
	d := pgtest.Shared(t)
	p := openPrimary(t, d.WriteURL)
	own := errors.New("of fn")
	twice := func(end error) func(context.Context, write.Querier) error {
		return func(ctx context.Context, q write.Querier) error {
			return errors.Join(createGroup("one")(ctx, q), createGroup("two")(ctx, q), end)
		}
	}
	var names []string
	require.ErrorIs(t, p.InTx(t.Context(), twice(own)), own)
	_, err := p.Read(t.Context(), listGroups(&names))
	require.NoError(t, err)
	require.Empty(t, names, "all or nothing")

	require.NoError(t, p.InTx(t.Context(), twice(nil)))
	_, err = p.Read(t.Context(), listGroups(&names))
	require.NoError(t, err)
	require.Equal(t, []string{"one", "two"}, names)
	requireCode(t, p.InTx(t.Context(), createGroup("one")), errcode.NameTaken)
}
