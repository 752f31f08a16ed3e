package main

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	dbread "github.com/payment-services/accounts/internal/dbgen/read"
	dbwrite "github.com/payment-services/accounts/internal/dbgen/write"
	"github.com/payment-services/accounts/internal/pgtest"
)

const (
	// waitLimit bounds the wait for a server to publish its counters.
	waitLimit = 20 * time.Second
	pollTick  = 50 * time.Millisecond
)

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// list is what is printed of each function, by its signature.
func list(t *testing.T, d *pgtest.DB, all bool) map[string]string {
	t.Helper()
	var out strings.Builder
	require.NoError(t, unused(t.Context(), d.WriteURL, []string{d.ReadURL}, all, &out))
	lines := map[string]string{}
	for line := range strings.Lines(out.String()) {
		if signature, rest, found := strings.Cut(line, ")"); found && strings.HasPrefix(line, "accounts.") {
			lines[signature+")"] = strings.Join(strings.Fields(rest), " ")
		}
	}
	require.Contains(t, out.String(), "calls since: ")
	return lines
}

func TestUnused(t *testing.T) {
	t.Parallel()
	d := pgtest.Shared(t)
	super := connect(t, d.SuperURL)
	for _, sql := range []string{ // a second version, and one that no build knows
		"CREATE FUNCTION accounts.list_user_groups_v12() RETURNS bigint LANGUAGE sql AS 'SELECT 1'",
		"GRANT EXECUTE ON FUNCTION accounts.list_user_groups_v12() TO accounts_read",
	} {
		_, err := super.Exec(t.Context(), sql)
		require.NoError(t, err)
	}
	require.NoError(t, d.WaitForReplay(t.Context()))
	before := list(t, d, false)
	require.Equal(t, "0 0 _v12 yes", before["accounts.list_user_groups_v1()"])
	require.Equal(t, "0 0 - no", before["accounts.list_user_groups_v12()"])
	require.NotContains(t, before, "accounts.merge_patch_v1(jsonb,jsonb)", "internal")

	writer, reader := connect(t, d.WriteURL), connect(t, d.ReadURL)
	_, err := dbwrite.New(writer).CreateUserGroupV1(t.Context(), "a", "a")
	require.NoError(t, err)
	for range 2 {
		_, err = dbread.New(reader).ListUserGroupsV1(t.Context())
		require.NoError(t, err)
	}
	_, err = dbread.New(writer).GetUserDetailV1(t.Context(), uuid.New())
	require.ErrorIs(t, err, pgx.ErrNoRows)
	// A server publishes the counts of a session at its end at the latest.
	require.NoError(t, writer.Close(t.Context()))
	require.NoError(t, reader.Close(t.Context()))
	require.Eventually(t, func() bool {
		lines := list(t, d, true)
		return lines["accounts.create_user_group_v1(text,text)"] == "1 0 - yes" &&
			lines["accounts.list_user_groups_v1()"] == "0 2 _v12 yes" &&
			lines["accounts.get_user_detail_v1(uuid)"] == "1 0 - yes"
	}, waitLimit, pollTick)
	after := list(t, d, false)
	require.NotContains(t, after, "accounts.list_user_groups_v1()")
	require.Contains(t, after, "accounts.list_user_groups_v12()")
}

func TestUnused_Refuses(t *testing.T) {
	t.Parallel()
	d := pgtest.Shared(t)
	const password = "hidden"
	for _, test := range []struct {
		primary  string
		replicas []string
		text     string
	}{
		{"", nil, "DATABASE_WRITE_URL and DATABASE_READ_URL are needed"},
		{d.WriteURL, nil, "are needed"},
		{d.ReadURL, []string{d.ReadURL}, "leads to a standby"},
		{d.WriteURL, []string{d.ReadURL, d.PrimaryReadURL}, "replica 2 of DATABASE_READ_URL is a primary"},
		{"postgres://u:" + password + "@127.0.0.1:port/x", []string{d.ReadURL}, "the primary is malformed"},
	} {
		err := unused(t.Context(), test.primary, test.replicas, false, new(strings.Builder))
		require.ErrorContains(t, err, test.text)
		require.NotContains(t, err.Error(), password)
	}
	_, err := connect(t, d.SuperURL).Exec(t.Context(), "ALTER ROLE accounts_writer IN DATABASE "+d.Name+" SET track_functions = none")
	require.NoError(t, err)
	err = unused(t.Context(), d.WriteURL, []string{d.ReadURL}, false, new(strings.Builder))
	require.EqualError(t, err, "the primary counts no calls: set track_functions = pl there, and wait")
}
