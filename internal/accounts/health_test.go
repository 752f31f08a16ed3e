package accounts_test

import (
	"io"
	"log/slog"
	"strconv"
	"testing"
	"time"

	"github.com/pressly/goose/v3"
	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/db"
	"github.com/payment-services/accounts/internal/accounts"
	"github.com/payment-services/accounts/internal/localservers"
	"github.com/payment-services/accounts/internal/pgtest"
)

// beforeCheck is the last migration without the function that tells which others are missing.
const beforeCheck = 12

// schemaCheck is the check after the standby has replayed everything.
func (p *process) schemaCheck(d *pgtest.DB) (ready bool, c accounts.Check) {
	p.t.Helper()
	require.NoError(p.t, d.WaitForReplay(p.t.Context()))
	h := p.Health(p.t.Context())
	return h.Ready, h.Checks["schema"]
}

func TestReadyOnlyWithEveryNeededFunction(t *testing.T) {
	t.Parallel()
	const revoked, dropped = "accounts.update_user_v1(uuid,jsonb,boolean,bigint[])", "accounts.get_contact_v1(uuid)"
	for name, test := range map[string]struct{ sql, missing string }{
		"all there":                       {"SELECT 1", ""},
		"a read function is gone":         {"DROP FUNCTION " + dropped, dropped},
		"another signature":               {"ALTER FUNCTION " + dropped + " RENAME TO get_contact_v2", dropped},
		"another schema":                  {"ALTER FUNCTION " + dropped + " SET SCHEMA public", dropped},
		"a write function is not granted": {"REVOKE EXECUTE ON FUNCTION " + revoked + " FROM accounts_write", revoked},
		"the reader may not": {"REVOKE EXECUTE ON FUNCTION accounts.list_user_groups_v1() FROM accounts_read",
			"accounts.list_user_groups_v1()"},
		"the writer may not read": {"REVOKE EXECUTE ON FUNCTION accounts.list_user_groups_v1() FROM accounts_write",
			"accounts.list_user_groups_v1()"},
		"nobody can be asked": {"DROP FUNCTION accounts.list_missing_functions_v1(text[])",
			"accounts.list_missing_functions_v1(text[])"},
		"not even the version": {"DROP FUNCTION accounts.get_schema_version_v1()", "accounts.get_schema_version_v1()"},
		"no schema":            {"DROP SCHEMA accounts CASCADE", "accounts.get_schema_version_v1()"},
		"no right on the schema": {"REVOKE USAGE ON SCHEMA accounts FROM accounts_read, accounts_write",
			"accounts.get_schema_version_v1()"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := pgtest.Shared(t)
			p := newProcess(t, d)
			_, err := p.super.Exec(t.Context(), test.sql)
			require.NoError(t, err)
			ready, c := p.schemaCheck(d)
			require.Equal(t, test.missing == "", ready)
			require.Equal(t, test.missing == "", c.OK)
			require.False(t, c.Degraded)
			if test.missing != "" {
				require.Equal(t, "missing or not granted: "+test.missing+"; migrate first", c.Detail)
			}
		})
	}
}

func TestReadinessFollowsMigrations(t *testing.T) {
	t.Parallel()
	d := pgtest.Shared(t)
	p := newProcess(t, d)
	latest, err := db.LatestVersion()
	require.NoError(t, err)
	ready, c := p.schemaCheck(d)
	require.True(t, ready)
	require.True(t, c.OK)
	require.Equal(t, strconv.FormatInt(latest, 10), c.Value)

	// What was found is not believed of another version; what was missing is asked for again.
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	err = db.WithProvider(t.Context(), d.MigrateURL, quiet, func(g *goose.Provider) error {
		for v := latest; v > beforeCheck; v-- {
			if _, err := g.Down(t.Context()); err != nil {
				return err
			}
		}
		ready, c = p.schemaCheck(d)
		require.False(t, ready)
		require.Contains(t, c.Detail, "list_missing_functions_v1")
		_, err := g.Up(t.Context())
		return err
	})
	require.NoError(t, err)
	ready, _ = p.schemaCheck(d)
	require.True(t, ready)

	// A newer schema that has kept what this build needs, then one migration fewer than it knows.
	_, err = p.super.Exec(t.Context(), "INSERT INTO goose_db_version (version_id, is_applied) VALUES ($1, true)", latest+1)
	require.NoError(t, err)
	ready, c = p.schemaCheck(d)
	require.True(t, ready)
	require.True(t, c.OK)
	_, err = p.super.Exec(t.Context(), "DELETE FROM goose_db_version WHERE version_id >= $1", latest)
	require.NoError(t, err)
	ready, c = p.schemaCheck(d)
	require.True(t, ready)
	require.True(t, c.Degraded)
	require.Contains(t, c.Detail, "every needed function is there")
}

// Probes come every second: while nothing changes they do not ask for the functions, for a while.
func TestReadinessRemembersSuccess(t *testing.T) {
	t.Parallel()
	d := pgtest.Shared(t)
	p := newProcess(t, d)
	p.RememberSchema(time.Hour)
	ready, _ := p.schemaCheck(d)
	require.True(t, ready)
	_, err := p.super.Exec(t.Context(), "REVOKE EXECUTE ON FUNCTION accounts.get_contact_v1(uuid) FROM accounts_read")
	require.NoError(t, err)
	ready, _ = p.schemaCheck(d)
	require.True(t, ready, "not asked for")
	p.RememberSchema(0)
	ready, _ = p.schemaCheck(d)
	require.False(t, ready)
}

// A server that is away says nothing about the schema; the other one does.
func TestReadinessWithoutOneServer(t *testing.T) {
	t.Parallel()
	for name, down := range map[string]func(*localservers.Cluster) *localservers.Server{
		"primary": func(c *localservers.Cluster) *localservers.Server { return c.Primary },
		"standby": func(c *localservers.Cluster) *localservers.Server { return c.Standby },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := pgtest.Private(t)
			p := newProcess(t, s.DB)
			p.RememberSchema(0)
			require.NoError(t, down(s.Cluster).Kill())
			h := p.Health(t.Context())
			require.True(t, h.Ready, h.Checks)
			require.True(t, h.Checks["schema"].OK)
		})
	}
}

// No database answers: that is degraded while it may be a failover, and then the end of readiness.
func TestReadinessOutlivesAFailover(t *testing.T) {
	t.Parallel()
	s := pgtest.Private(t)
	p := newProcess(t, s.DB)
	h := p.Health(t.Context())
	require.True(t, h.Ready)
	require.True(t, h.Checks["schema"].OK)

	require.NoError(t, s.Cluster.Primary.Kill())
	require.NoError(t, s.Cluster.Standby.Kill())
	h = p.Health(t.Context())
	require.True(t, h.Ready)
	require.True(t, h.Checks["schema"].Degraded)
	require.True(t, h.Checks["write"].Degraded)

	p.SetSchemaSeen(time.Now().Add(-time.Minute))
	require.False(t, p.Health(t.Context()).Ready)
}
