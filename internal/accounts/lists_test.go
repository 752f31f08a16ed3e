package accounts_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"slices"
	"testing"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/accounts"
	"github.com/payment-services/accounts/internal/cache"
	"github.com/payment-services/accounts/internal/errcode"
	"github.com/payment-services/accounts/internal/identifier"
	"github.com/payment-services/accounts/internal/pgtest"
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
	one, err := p.UserByID(t.Context(), ann, "")
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
		return err == nil && origin.Source == cache.FromReplica
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
		require.Equal(t, cache.FromPrimary, origin.Source)
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
