package db_test

import (
	"bytes"
	"encoding/json"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/dbgen/read"
	"github.com/payment-services/accounts/internal/dbgen/write"
)

// walk reads the users that the filters of p leave, page by page, and calls between after each.
func (a *api) walk(p read.ListUsersAfterV1Params, between func()) []read.UserV1 {
	a.t.Helper()
	var users []read.UserV1
	for {
		page, err := a.read.ListUsersAfterV1(a.t.Context(), p)
		require.NoError(a.t, err)
		require.LessOrEqual(a.t, len(page), int(p.PageLimit))
		users = append(users, page...)
		if len(page) < int(p.PageLimit) {
			return users
		}
		p.AfterID = &page[len(page)-1].ID
		between()
	}
}

func idsOf(users []read.UserV1) []uuid.UUID {
	var ids []uuid.UUID
	for _, u := range users {
		ids = append(ids, u.ID)
	}
	return ids
}

func compareIDs(a, b uuid.UUID) int { return bytes.Compare(a[:], b[:]) }

func TestListUsersAfter(t *testing.T) {
	t.Parallel()
	a := open(t)
	group, empty := a.createGroup("drivers").ID, a.createGroup("empty").ID
	var all []uuid.UUID
	for i := range 8 {
		groups := []string{}
		if i >= 3 {
			groups = []string{"drivers"}
		}
		all = append(all, a.createUser(groups).ID)
	}
	_, err := a.write.UpdateUserV1(t.Context(), write.UpdateUserV1Params{UserID: all[7], IsActive: ptr(false)})
	require.NoError(t, err)
	_, err = a.write.SetMembershipV1(t.Context(), all[6], group, false)
	require.NoError(t, err)
	since := a.detail(all[7]).UpdatedAt

	for name, tt := range map[string]struct {
		filter read.ListUsersAfterV1Params
		want   []uuid.UUID
	}{
		"all":                      {read.ListUsersAfterV1Params{}, all},
		"active":                   {read.ListUsersAfterV1Params{IsActive: ptr(true)}, all[:7]},
		"inactive":                 {read.ListUsersAfterV1Params{IsActive: ptr(false)}, all[7:]},
		"members":                  {read.ListUsersAfterV1Params{GroupID: &group}, []uuid.UUID{all[3], all[4], all[5], all[7]}},
		"active members":           {read.ListUsersAfterV1Params{GroupID: &group, IsActive: ptr(true)}, all[3:6]},
		"changed since, inclusive": {read.ListUsersAfterV1Params{UpdatedSince: &since}, all[6:]},
		"all filters":              {read.ListUsersAfterV1Params{UpdatedSince: &since, IsActive: ptr(false), GroupID: &group}, all[7:]},
		"an empty group":           {read.ListUsersAfterV1Params{GroupID: &empty}, nil},
		"no such group":            {read.ListUsersAfterV1Params{GroupID: ptr(uuid.New())}, nil},
		"before the first":         {read.ListUsersAfterV1Params{AfterID: &uuid.Nil}, all},
		"after the last":           {read.ListUsersAfterV1Params{AfterID: &uuid.Max}, nil},
		"members after the last":   {read.ListUsersAfterV1Params{AfterID: &uuid.Max, GroupID: &group}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			want := slices.SortedFunc(slices.Values(tt.want), compareIDs)
			for _, tt.filter.PageLimit = range []int32{1, 2, 3, 100} {
				users := a.walk(tt.filter, func() {})
				require.Equal(t, want, idsOf(users), "pages of %d", tt.filter.PageLimit)
				for _, u := range users {
					d := a.detail(u.ID)
					require.Equal(t, read.UserV1{
						ID: d.ID, CreatedAt: d.CreatedAt, UpdatedAt: d.UpdatedAt, IsActive: d.IsActive, Profile: d.Profile, Version: d.Version,
					}, u)
				}
			}
		})
	}
}

// updated_at is the time of the statement, which is visible at the commit. So a poller that goes on from
// the time of its last poll loses what was not yet committed then; with the documented overlap it does not.
func TestListUsersAfter_UpdatedSinceNeedsTheOverlap(t *testing.T) {
	t.Parallel()
	const overlap = 2 * time.Minute // docs/http.md, "Synchronise with `updated_since`"
	a := open(t)
	now := func() time.Time { return value[time.Time](t, a.super, "SELECT clock_timestamp()") }
	poll := func(since time.Time) []uuid.UUID {
		return idsOf(a.walk(read.ListUsersAfterV1Params{PageLimit: 2, UpdatedSince: &since}, func() {}))
	}
	var users []uuid.UUID
	for range 5 {
		users = append(users, a.createUser(nil).ID)
	}
	started := now()

	tx, err := connect(t, a.WriteURL).Begin(t.Context())
	require.NoError(t, err)
	for _, id := range users {
		_, err := write.New(tx).UpdateUserV1(t.Context(), write.UpdateUserV1Params{UserID: id, ProfilePatch: json.RawMessage(`{"a": 1}`)})
		require.NoError(t, err)
	}
	created, err := write.New(tx).CreateUserV1(t.Context(), newUser(nil))
	require.NoError(t, err)
	first := now() // when the poller asks, nothing is committed
	require.Empty(t, poll(started))
	require.NoError(t, tx.Commit(t.Context()))

	require.Empty(t, poll(first), "without an overlap all changes are lost")
	require.ElementsMatch(t, append(users, created.ID), poll(first.Add(-overlap)))
}

// The overlap covers the longest transaction of the write login, and what a replica may lag behind.
func TestUpdatedSinceOverlap_CoversTheLimitsOfTheLogin(t *testing.T) {
	t.Parallel()
	a := open(t)
	writer := connect(t, a.WriteURL)
	seconds := func(setting string) time.Duration {
		return time.Duration(value[int](t, writer, "SELECT extract(epoch FROM current_setting($1)::interval)::int", setting)) * time.Second
	}
	require.Equal(t, 60*time.Second, seconds("statement_timeout"))
	require.Equal(t, 30*time.Second, seconds("idle_in_transaction_session_timeout"))
	if value[int](t, writer, "SELECT current_setting('server_version_num')::int") >= 170000 {
		require.Equal(t, 60*time.Second, seconds("transaction_timeout"))
	}
}

// Whoever was there from the start is seen once, whatever is created and changed between the pages.
func TestListUsersAfterWhileUsersAreCreated(t *testing.T) {
	t.Parallel()
	a := open(t)
	var there []uuid.UUID
	for range 20 {
		there = append(there, a.createUser(nil).ID)
	}
	ctx, stop := t.Context(), make(chan struct{})
	var writers sync.WaitGroup
	for range 2 {
		q := writer(connect(t, a.WriteURL))
		writers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					_, err := q.CreateUserV1(ctx, newUser(nil))
					if err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	stopWriters := sync.OnceFunc(func() { close(stop); writers.Wait() })
	defer stopWriters()
	byHand := connect(t, a.UncheckedURL("no function creates a user with a given id"))
	var seen []uuid.UUID
	for page := (read.ListUsersAfterV1Params{PageLimit: 3}); len(seen) < len(there)+6; {
		users, err := a.read.ListUsersAfterV1(ctx, page)
		require.NoError(t, err)
		if len(users) == 0 {
			continue // faster than the writers
		}
		seen = append(seen, idsOf(users)...)
		page.AfterID = &seen[len(seen)-1]
		execute(t, byHand, "INSERT INTO accounts.users (id) VALUES (overlay(gen_random_uuid()::text PLACING '00000000' FROM 1)::uuid)")
		_, err = a.write.UpdateUserV1(ctx, write.UpdateUserV1Params{UserID: users[0].ID, IsActive: ptr(false)})
		require.NoError(t, err)
	}
	stopWriters()
	require.True(t, slices.IsSortedFunc(seen, compareIDs))
	require.Len(t, seen, len(slices.Compact(slices.Clone(seen))))
	require.Subset(t, seen, there)
}

func TestListGroupMembers(t *testing.T) {
	t.Parallel()
	a := open(t)
	group, empty := a.createGroup("drivers").ID, a.createGroup("empty").ID
	a.createUser([]string{"empty"})
	var members []uuid.UUID
	for range 5 {
		members = append(members, a.createUser([]string{"drivers"}).ID)
	}
	_, err := a.write.SetMembershipV1(t.Context(), members[1], group, false)
	require.NoError(t, err)
	_, err = a.write.UpdateUserV1(t.Context(), write.UpdateUserV1Params{UserID: members[2], IsActive: ptr(false)})
	require.NoError(t, err)
	_, err = a.write.SetMembershipsV1(t.Context(), empty, []uuid.UUID{a.createUser([]string{"empty"}).ID}, false)
	require.NoError(t, err)
	want := slices.SortedFunc(slices.Values(slices.Delete(members, 1, 2)), compareIDs)

	for _, limit := range []int32{1, 2, 4, 100} {
		var got []uuid.UUID
		var after *uuid.UUID
		for {
			page, err := a.read.ListGroupMembersV1(t.Context(), limit, group, after)
			require.NoError(t, err)
			for _, m := range page {
				one, err := a.read.GetUserMembershipV1(t.Context(), m.UserID, group)
				require.NoError(t, err)
				require.Equal(t, one, m)
				got = append(got, m.UserID)
				after = &m.UserID
			}
			if len(page) < int(limit) {
				break
			}
		}
		require.Equal(t, want, got, "an inactive user is still a member; pages of %d", limit)
	}
	none, err := a.read.ListGroupMembersV1(t.Context(), 10, uuid.New(), nil)
	require.NoError(t, err)
	require.Empty(t, none)
}
