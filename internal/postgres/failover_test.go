package postgres

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/dbgen/write"
	"github.com/payment-services/accounts/internal/errcode"
	"github.com/payment-services/accounts/internal/localservers"
	"github.com/payment-services/accounts/internal/pgtest"
)

// Nobody may wait longer than this for the answer that the primary is gone.
const promised = 5 * time.Second

func TestPrimaryIsGone(t *testing.T) {
	t.Parallel()
	s := pgtest.Private(t)
	p := openPrimary(t, s.WriteURL)
	require.NoError(t, p.Write(t.Context(), createGroup("before")))

	// Killed, and back while the write is being tried: its client notices nothing.
	require.NoError(t, s.Cluster.Primary.Kill())
	done := inBackground(func() error { return p.Write(t.Context(), createGroup("meanwhile")) })
	waitForAFailure(t, p)
	startAgain(t, s.Cluster.Primary)
	require.NoError(t, <-done)

	// Killed for good: an answer within five seconds, and then at once.
	require.NoError(t, s.Cluster.Primary.Kill())
	started := time.Now()
	requireCode(t, p.Write(t.Context(), createGroup("x")), errcode.Database)
	require.Less(t, time.Since(started), promised)
	require.Greater(t, time.Since(started), WriteRetryBudget-2*writeRetryPause, "it was tried until the last moment")
	require.Eventually(t, func() bool { return p.goneFor(time.Now()) > WriteRetryBudget }, waitLimit, pollTick)
	for range 20 {
		started = time.Now()
		requireCode(t, p.Write(t.Context(), createGroup("x")), errcode.Database)
		require.Less(t, time.Since(started), 50*time.Millisecond)
	}
	_, err := p.Position(t.Context())
	requireCode(t, err, errcode.Database)

	// And back.
	startAgain(t, s.Cluster.Primary)
	require.Eventually(t, func() bool { return p.Write(t.Context(), createGroup("after")) == nil }, waitLimit, pollTick)
	require.Zero(t, p.goneFor(time.Now()))
	var names []string
	_, err = p.Read(t.Context(), listGroups(&names))
	require.NoError(t, err)
	require.Equal(t, []string{"after", "before", "meanwhile"}, names)
}

// The node behind an open connection was demoted: the write goes to its successor.
func TestWriteFollowsADemotion(t *testing.T) {
	t.Parallel()
	s := pgtest.Private(t)
	p := openPrimary(t, s.FailoverWriteURL)
	require.NoError(t, p.Write(t.Context(), createGroup("before")))
	at, err := p.Position(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 1, at.Timeline)

	super := superuser(t, s.DB)
	require.NoError(t, s.WaitForReplay(t.Context()))
	require.NoError(t, s.Cluster.Promote(t.Context()))
	execute(t, super, "ALTER SYSTEM SET default_transaction_read_only = on")
	execute(t, super, "SELECT pg_reload_conf()")
	require.Eventually(t, func() bool {
		var on bool
		err := super.QueryRow(t.Context(), "SELECT current_setting('default_transaction_read_only')::boolean").Scan(&on)
		return err == nil && on
	}, waitLimit, pollTick)

	calls := 0
	require.NoError(t, p.Write(t.Context(), func(ctx context.Context, q write.Querier) error {
		calls++
		return createGroup("after")(ctx, q)
	}))
	require.Equal(t, 2, calls, "25006, and then the other server")
	at, err = p.Position(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 2, at.Timeline)
}

// A write URL that leads to a standby is a primary that is gone.
func TestStandbyBehindTheWriteAddress(t *testing.T) {
	t.Parallel()
	d := pgtest.Shared(t)
	p := openPrimary(t, d.ReadURL)
	started := time.Now()
	requireCode(t, p.Write(t.Context(), createGroup("x")), errcode.Database)
	require.Less(t, time.Since(started), promised)
	_, err := p.Position(t.Context())
	requireCode(t, err, errcode.Database)
	_, err = p.Read(t.Context(), listGroups(new([]string)))
	requireCode(t, err, errcode.Database)
}

// A commit that the synchronous standby did not confirm may be lost in a failover, although the
// server reports success.
func TestUnconfirmedCommitIsAnUnknownOutcome(t *testing.T) {
	t.Parallel()
	s := pgtest.Private(t)
	p := openPrimary(t, s.WriteURL)
	require.NoError(t, p.Write(t.Context(), createGroup("before")))
	super := superuser(t, s.DB)
	setStandbys := func(names string) {
		execute(t, super, "ALTER SYSTEM SET synchronous_standby_names = '"+names+"'")
		execute(t, super, "SELECT pg_reload_conf()")
	}
	setStandbys("nobody")
	for _, end := range []string{"pg_cancel_backend", "pg_terminate_backend"} {
		var last string
		done := inBackground(func() error {
			for n := 0; ; n++ { // the new setting reaches each session in its own time
				last = fmt.Sprintf("%s %d", end, n)
				if err := p.Write(t.Context(), createGroup(last)); err != nil {
					return err
				}
			}
		})
		pid := writerThat(t, super, "wait_event = 'SyncRep'")
		execute(t, super, "SELECT "+end+"($1)", pid)
		requireCode(t, <-done, errcode.OutcomeUnknown)
		var there bool
		require.NoError(t, super.QueryRow(t.Context(), "SELECT EXISTS (SELECT FROM accounts.user_groups WHERE name = $1)", last).Scan(&there))
		require.True(t, there)
	}
	setStandbys("")
	require.Eventually(t, func() bool { return p.Write(t.Context(), createGroup("after")) == nil }, waitLimit, pollTick)
}

// startAgain starts a server that was killed. PostgreSQL refuses while a process of the old one is
// still ending and holds its shared memory.
func startAgain(t *testing.T, server *localservers.Server) {
	t.Helper()
	require.Eventually(t, func() bool { return server.Start(t.Context()) == nil }, waitLimit, pollTick)
}
