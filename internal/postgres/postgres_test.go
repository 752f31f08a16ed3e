package postgres

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/dbgen/read"
	"github.com/payment-services/accounts/internal/dbgen/write"
	"github.com/payment-services/accounts/internal/errcode"
	"github.com/payment-services/accounts/internal/pgtest"
)

const (
	// waitLimit bounds each wait for a server; only a defect makes one last so long.
	waitLimit = 20 * time.Second
	// pollTick paces the question whether a server has got there.
	pollTick = 2 * time.Millisecond
	// poolSize is small enough that a test sees every connection of a pool.
	poolSize = 4
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func openPrimary(t *testing.T, url string) *Primary {
	t.Helper()
	p, err := OpenPrimary(Config{URL: url, MaxConns: poolSize})
	require.NoError(t, err)
	t.Cleanup(p.Close)
	return p
}

func openReplica(t *testing.T, url string) *Replica {
	t.Helper()
	r, err := OpenReplica(Config{URL: url, MaxConns: poolSize})
	require.NoError(t, err)
	t.Cleanup(r.Close)
	return r
}

// superuser is a connection for a look behind the scene.
func superuser(t *testing.T, d *pgtest.DB) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), d.SuperURL)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func execute(t *testing.T, conn *pgx.Conn, sql string, args ...any) {
	t.Helper()
	_, err := conn.Exec(t.Context(), sql, args...)
	require.NoError(t, err)
}

// writerThat waits until a session of the write login is in this state, and returns its pid.
func writerThat(t *testing.T, super *pgx.Conn, condition string, args ...any) (pid uint32) {
	t.Helper()
	require.Eventually(t, func() bool {
		return super.QueryRow(t.Context(), `SELECT pid FROM pg_stat_activity
			 WHERE datname = current_database() AND usename = 'accounts_writer' AND `+condition, args...).Scan(&pid) == nil
	}, waitLimit, pollTick, condition)
	return pid
}

const waitsForALock = "wait_event_type = 'Lock'"

func createGroup(name string) func(context.Context, write.Querier) error {
	return func(ctx context.Context, q write.Querier) error {
		_, err := q.CreateUserGroupV1(ctx, name, name)
		return err
	}
}

func newUser(t *testing.T, p *Primary) (user write.UserWriteV1) {
	t.Helper()
	require.NoError(t, p.Write(t.Context(), func(ctx context.Context, q write.Querier) (err error) {
		user, err = q.CreateUserV1(ctx, write.CreateUserV1Params{IsActive: true, Profile: json.RawMessage(`{}`)})
		return err
	}))
	return user
}

// patch sets one member of a user's profile.
func patch(user uuid.UUID, text string) func(context.Context, write.Querier) error {
	return func(ctx context.Context, q write.Querier) error {
		_, err := q.UpdateUserV1(ctx, write.UpdateUserV1Params{UserID: user, ProfilePatch: json.RawMessage(text)})
		return err
	}
}

// lockUser holds the lock of a user until the transaction, which it returns, ends.
func lockUser(t *testing.T, conn *pgx.Conn, user uuid.UUID) pgx.Tx {
	t.Helper()
	tx, err := conn.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "SELECT FROM accounts.users WHERE id = $1 FOR UPDATE", user)
	require.NoError(t, err)
	return tx
}

// inBackground runs a call and delivers its error.
func inBackground(call func() error) <-chan error {
	done := make(chan error, 1)
	go func() { done <- call() }()
	return done
}

func requireCode(t *testing.T, err error, code errcode.Code) *errcode.Error {
	t.Helper()
	var coded *errcode.Error
	require.ErrorAs(t, err, &coded)
	require.Equal(t, code, coded.Code, "%v", err)
	if code == errcode.Database || code == errcode.OutcomeUnknown {
		require.Positive(t, coded.RetryAfter)
	}
	return coded
}

func listGroups(names *[]string) func(context.Context, read.Querier) error {
	return func(ctx context.Context, q read.Querier) error {
		groups, err := q.ListUserGroupsV1(ctx)
		*names = nil
		for _, g := range groups {
			*names = append(*names, g.Name)
		}
		return err
	}
}
