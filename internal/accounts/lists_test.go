package accounts_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/accounts"
	"github.com/payment-services/accounts/internal/errcode"
	"github.com/payment-services/accounts/internal/identifier"
	"github.com/payment-services/accounts/internal/pgtest"
	"github.com/payment-services/accounts/internal/routing"
)

// statuses returns "status matched_by" of the results of a lookup.
func statuses(results []accounts.LookupResult) []string {
	var texts []string
	for _, r := range results {
		texts = append(texts, r.Status+" "+string(r.MatchedBy))
	}
	return texts
}

func TestLookup(t *testing.T) {
	t.Parallel()
	p := newProcess(t, pgtest.Shared(t))
	ann, bob := p.createUser(phone(1)), p.createUser(phone(2))
	inactive := false
	_, err := p.UpdateUser(t.Context(), bob, accounts.UserPatch{IsActive: &inactive})
	require.NoError(t, err)
	results, _, err := p.Lookup(t.Context(), []string{
		phone(3), "", "+79990000001", ann.String(), "nobody", "+7", bob.String(), phone(1), phone(2),
	})
	require.NoError(t, err)
	require.Equal(t, []string{
		"not_found phone", "invalid ", "found phone", "found uuid", "not_found second_login", "invalid ", "not_found uuid", "found phone", "not_found phone",
	}, statuses(results))
	one, err := p.UserByID(t.Context(), ann, nil)
	require.NoError(t, err)
	for _, r := range results {
		if r.Status == accounts.LookupFound {
			require.Equal(t, string(one.Body), string(r.User))
		} else {
			require.Nil(t, r.User)
		}
	}
	none, _, err := p.Lookup(t.Context(), []string{"", "@"})
	require.NoError(t, err)
	require.Equal(t, []string{"invalid ", "invalid "}, statuses(none))
}

// An identifier in several spellings is one lookup of the database, and each item has its result.
func TestLookup_DuplicatesAreLookedUpOnce(t *testing.T) {
	t.Parallel()
	d := pgtest.Shared(t)
	p := newProcess(t, d)
	ann := p.createUser(phone(1))
	super, err := pgx.Connect(t.Context(), d.SuperURL)
	require.NoError(t, err)
	t.Cleanup(func() { _ = super.Close(context.Background()) })
	_, err = super.Exec(t.Context(), `
		ALTER FUNCTION accounts.lookup_users_v1(text[]) RENAME TO looked_up;
		CREATE FUNCTION accounts.lookup_users_v1(p_identifiers text[])
		RETURNS SETOF accounts.user_lookup_v1 LANGUAGE plpgsql STABLE SECURITY DEFINER AS $$
		BEGIN
			IF cardinality(p_identifiers) <> 3 THEN
				RAISE EXCEPTION 'looked up % identifiers', cardinality(p_identifiers);
			END IF;
			RETURN QUERY SELECT * FROM accounts.looked_up(p_identifiers);
		END $$;
		GRANT EXECUTE ON FUNCTION accounts.lookup_users_v1(text[]) TO accounts_read, accounts_write`)
	require.NoError(t, err)
	require.NoError(t, d.WaitForReplay(t.Context()))

	spellings := []string{
		"+79990000001", "8 (999) 000-00-01", "", phone(1), ann.String(), strings.ToUpper(ann.String()), phone(2), "+7 999 000 00 02", phone(1),
	}
	results, _, err := p.Lookup(t.Context(), spellings)
	require.NoError(t, err)
	require.Equal(t, []string{
		"found phone", "found phone", "invalid ", "found phone", "found uuid", "found uuid", "not_found phone", "not_found phone", "found phone",
	}, statuses(results))
	for _, i := range []int{1, 3, 4, 5, 8} {
		require.Equal(t, string(results[0].User), string(results[i].User))
	}
}

// The replica stands still: whatever was written is answered all the same.
func TestLookupAfterAWrite(t *testing.T) {
	t.Parallel()
	s := pgtest.Private(t)
	p := newProcess(t, s.DB)
	var old uuid.UUID // a user of long ago: nothing marks its phone as written just now
	require.NoError(t, p.super.QueryRow(t.Context(), `SELECT user_id
		FROM accounts.bulk_create_users_v1('{1}', '{+79990000001}', '{+79990000001}', '{"{}"}', '{}', '{}', 'skip', false)`).Scan(&old))
	require.NoError(t, s.WaitForReplay(t.Context()))
	options, err := redis.ParseURL(s.Redis().URL)
	require.NoError(t, err)
	client := redis.NewClient(options)
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	require.Eventually(t, func() bool {
		// A cache that has just begun trusts the primary only, for as long as these markers live.
		require.NoError(t, client.Del(t.Context(), "accounts:dirty").Err())
		_, origin, err := p.Lookup(t.Context(), []string{phone(1)})
		return err == nil && origin.Server == routing.FromReplica
	}, waitLimit, pollTick)
	require.NoError(t, s.Cluster.PauseReplay(t.Context()))
	t.Cleanup(func() { _ = s.Cluster.ResumeReplay(t.Context()) })

	fresh := p.createUser(phone(2))
	_, err = p.UpdateUser(t.Context(), old, accounts.UserPatch{Profile: json.RawMessage(`{"name":"new"}`)})
	require.NoError(t, err)
	_, err = p.BulkCreate(t.Context(), bulkRows(3, 1), accounts.BulkOptions{OnConflict: accounts.Skip})
	require.NoError(t, err)
	for _, identifiers := range [][]string{{phone(1)}, {old.String()}, {phone(2)}, {fresh.String()}, {phone(3)}, {phone(1), phone(2), phone(3)}} {
		results, origin, err := p.Lookup(t.Context(), identifiers)
		require.NoError(t, err)
		require.Equal(t, routing.FromPrimary, origin.Server)
		for i, r := range results {
			require.Equal(t, accounts.LookupFound, r.Status)
			if identifiers[i] == phone(1) || identifiers[i] == old.String() {
				require.Contains(t, string(r.User), `"name":"new"`)
			}
		}
	}
}

func TestListUsersAfter(t *testing.T) {
	t.Parallel()
	p := newProcess(t, pgtest.Shared(t))
	group := p.createGroup("client")
	var all, members []uuid.UUID
	for i := range 5 {
		groups := []string{"client"}[:i%2]
		id := p.createUser(phone(i), groups...)
		if all = append(all, id); i%2 == 1 {
			members = append(members, id)
		}
	}
	byID := func(a, b uuid.UUID) int { return bytes.Compare(a[:], b[:]) }
	slices.SortFunc(all, byID)
	slices.SortFunc(members, byID)

	for _, limit := range []int{1, 2, 5, 6} {
		var got, inGroup, joined []uuid.UUID
		for cursor := ""; ; {
			slice, _, err := p.ListUsersAfter(t.Context(), accounts.UserFilter{}, cursor, limit)
			require.NoError(t, err)
			for _, u := range slice.Items {
				got = append(got, u.ID)
			}
			if cursor = slice.Next; cursor == "" {
				break
			}
			require.Len(t, slice.Items, limit)
		}
		for cursor := ""; ; {
			slice, _, err := p.ListUsersAfter(t.Context(), accounts.UserFilter{GroupID: &group}, cursor, limit)
			require.NoError(t, err)
			for _, u := range slice.Items {
				inGroup = append(inGroup, u.ID)
			}
			if cursor = slice.Next; cursor == "" {
				break
			}
		}
		for cursor := ""; ; {
			slice, _, err := p.GroupMembers(t.Context(), group, cursor, limit)
			require.NoError(t, err)
			for _, m := range slice.Items {
				require.Equal(t, "client", m.GroupName)
				joined = append(joined, m.UserID)
			}
			if cursor = slice.Next; cursor == "" {
				break
			}
		}
		require.Equal(t, all, got, "pages of %d", limit)
		require.Equal(t, members, inGroup, "pages of %d", limit)
		require.Equal(t, members, joined, "pages of %d", limit)
	}
	empty, _, err := p.GroupMembers(t.Context(), p.createGroup("empty"), "", 10)
	require.NoError(t, err)
	require.Equal(t, accounts.MembershipSlice{Items: []accounts.Membership{}}, empty)
	nothing := uuid.New()
	_, _, err = p.GroupMembers(t.Context(), nothing, "", 10)
	require.Equal(t, nothing.String(), requireCode(t, err, errcode.NotFound).ID)
}

func TestCursorsOfOthers(t *testing.T) {
	t.Parallel()
	p := newProcess(t, pgtest.Shared(t))
	group := p.createGroup("client")
	id := p.createUser(phone(1), "client")
	good := base64.RawURLEncoding.EncodeToString(id[:])
	for _, cursor := range []string{
		"x", id.String(), good + "=", good[1:], good + "A", good[:len(good)-1] + "B", good[:len(good)-1] + "+", " " + good,
		good + "\n", base64.RawURLEncoding.EncodeToString(append(id[:], 0)), "%", "юникод", string(identifier.UUID),
	} {
		_, _, err := p.ListUsersAfter(t.Context(), accounts.UserFilter{}, cursor, 10)
		requireCode(t, err, errcode.Validation, "cursor invalid_cursor")
		_, _, err = p.GroupMembers(t.Context(), group, cursor, 10)
		requireCode(t, err, errcode.Validation, "cursor invalid_cursor")
	}
	slice, _, err := p.ListUsersAfter(t.Context(), accounts.UserFilter{}, good, 10)
	require.NoError(t, err)
	require.Empty(t, slice.Items)
}
