package db_test

import (
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/dbgen/read"
	"github.com/payment-services/accounts/internal/dbgen/write"
)

func TestSetMembership(t *testing.T) {
	t.Parallel()
	a := open(t)
	g := a.createGroup("drivers")
	u := a.createUser(nil)
	_, err := a.read.GetUserMembershipV1(t.Context(), u.ID, g.ID)
	require.ErrorIs(t, err, pgx.ErrNoRows)

	_, err = a.write.SetMembershipV1(t.Context(), u.ID, g.ID, false)
	require.ErrorIs(t, err, pgx.ErrNoRows, "a membership that never was cannot end")
	require.EqualValues(t, 1, a.detail(u.ID).Version)

	var first, last write.MembershipWriteV1
	for i, step := range []struct {
		active, changes bool
	}{{true, true}, {true, false}, {false, true}, {false, false}, {true, true}} {
		before := a.detail(u.ID)
		got, err := a.write.SetMembershipV1(t.Context(), u.ID, g.ID, step.active)
		require.NoError(t, err)
		require.Equal(t, step.active, got.IsActive)
		require.Equal(t, "drivers", got.GroupName)
		after := a.detail(u.ID)
		if i == 0 {
			first = got
		}
		require.Equal(t, first.CreatedAt, got.CreatedAt)
		if step.changes {
			a.requireTouched(got.Touched, got.OutboxID, "u:"+u.ID.String())
			requireOneUp(t, before, after)
			require.True(t, got.UpdatedAt.After(last.UpdatedAt))
		} else {
			a.requireTouched(got.Touched, got.OutboxID)
			require.Equal(t, before, after)
			require.Equal(t, last.UpdatedAt, got.UpdatedAt)
		}
		last = got

		one, err := a.read.GetUserMembershipV1(t.Context(), u.ID, g.ID)
		require.NoError(t, err)
		require.Equal(t, read.MembershipV1{
			UserID: u.ID, GroupID: g.ID, GroupName: "drivers", IsActive: step.active,
			CreatedAt: got.CreatedAt, UpdatedAt: got.UpdatedAt,
		}, one)
		list, err := a.read.ListUserMembershipsV1(t.Context(), u.ID)
		require.NoError(t, err)
		if step.active {
			require.Equal(t, []read.MembershipV1{one}, list)
			require.Equal(t, []string{"g:" + g.ID.String()}, after.Dependencies)
		} else {
			require.Equal(t, []read.MembershipV1{}, list)
			require.JSONEq(t, `[]`, string(after.Groups))
		}
	}
}

func TestListUserMembershipsByName(t *testing.T) {
	t.Parallel()
	a := open(t)
	a.createGroup("b")
	a.createGroup("a")
	u := a.createUser([]string{"b", "a"})
	list, err := a.read.ListUserMembershipsV1(t.Context(), u.ID)
	require.NoError(t, err)
	require.Len(t, list, 2)
	require.Equal(t, []string{"a", "b"}, []string{list[0].GroupName, list[1].GroupName})
	list, err = a.read.ListUserMembershipsV1(t.Context(), uuid.New())
	require.NoError(t, err)
	require.Equal(t, []read.MembershipV1{}, list)
}

func TestSetMembershipRefuses(t *testing.T) {
	t.Parallel()
	a := open(t)
	g, u, nobody := a.createGroup("drivers"), a.createUser(nil), uuid.New()
	_, err := a.write.SetMembershipV1(t.Context(), nobody, g.ID, true)
	requireState(t, err, notFound, "", missing("User", nobody))
	_, err = a.write.SetMembershipV1(t.Context(), u.ID, nobody, true)
	requireState(t, err, notFound, "", missing("Group", nobody))
	_, err = a.write.SetMembershipsV1(t.Context(), nobody, []uuid.UUID{u.ID}, true)
	requireState(t, err, notFound, "", missing("Group", nobody))
}

func TestSetMemberships(t *testing.T) {
	t.Parallel()
	a := open(t)
	g := a.createGroup("drivers")
	member, ended, stranger, nobody := a.createUser([]string{"drivers"}).ID, a.createUser([]string{"drivers"}).ID, a.createUser(nil).ID, uuid.New()
	_, err := a.write.SetMembershipV1(t.Context(), ended, g.ID, false)
	require.NoError(t, err)
	ids := []uuid.UUID{stranger, nobody, member, stranger, ended}

	for _, step := range []struct {
		active bool
		want   []string // of stranger, nobody, member, ended
	}{
		{true, []string{"changed", "user_not_found", "unchanged", "changed"}},
		{true, []string{"unchanged", "user_not_found", "unchanged", "unchanged"}},
		{false, []string{"changed", "user_not_found", "changed", "changed"}},
		{false, []string{"unchanged", "user_not_found", "unchanged", "unchanged"}},
	} {
		before := map[uuid.UUID]read.UserDetailV1{}
		for _, id := range []uuid.UUID{stranger, member, ended} {
			before[id] = a.detail(id)
		}
		got, err := a.write.SetMembershipsV1(t.Context(), g.ID, ids, step.active)
		require.NoError(t, err)
		var users []uuid.UUID
		var results, keys []string
		for _, r := range got {
			users, results = append(users, r.UserID), append(results, r.Result)
			if r.Result == "changed" {
				require.Equal(t, []string{"u:" + r.UserID.String()}, r.Touched)
				requireOneUp(t, before[r.UserID], a.detail(r.UserID))
			} else {
				require.Equal(t, []string{}, r.Touched)
				if r.UserID != nobody {
					require.Equal(t, before[r.UserID], a.detail(r.UserID))
				}
			}
			require.Equal(t, got[0].OutboxID, r.OutboxID)
			keys = append(keys, r.Touched...)
		}
		require.Equal(t, []uuid.UUID{stranger, nobody, member, ended}, users, "each once, in the order given")
		require.Equal(t, step.want, results)
		a.requireTouched(append([]string{}, keys...), got[0].OutboxID, keys...)
	}

	none, err := a.write.SetMembershipsV1(t.Context(), g.ID, nil, true)
	require.NoError(t, err)
	require.Empty(t, none)
}

func TestTwoMembershipsAtOnce(t *testing.T) {
	t.Parallel()
	a := open(t)
	g, u := a.createGroup("drivers"), a.createUser(nil)
	var second write.MembershipWriteV1
	var firstErr, secondErr error
	set := func(q *write.Queries) (write.MembershipWriteV1, error) {
		return q.SetMembershipV1(t.Context(), u.ID, g.ID, true)
	}
	a.overlap(commit,
		func(q *write.Queries) { _, firstErr = set(q) },
		func(q *write.Queries) { second, secondErr = set(q) })
	require.NoError(t, firstErr)
	require.NoError(t, secondErr)
	a.requireTouched(second.Touched, second.OutboxID)
	require.EqualValues(t, 2, a.detail(u.ID).Version)
}

// Two calls for the same users in opposite order, of which each would hold what the other needs if
// they locked the users as they come.
func TestSetMemberships_LocksUsersInKeyOrder(t *testing.T) {
	t.Parallel()
	a := open(t)
	groups := []uuid.UUID{a.createGroup("one").ID, a.createGroup("two").ID}
	users := []uuid.UUID{a.createUser(nil).ID, a.createUser(nil).ID, a.createUser(nil).ID}
	a.inKeyOrder("users", false, users, func(q *write.Queries, ids []uuid.UUID) error {
		group := groups[0]
		if compareIDs(ids[0], ids[1]) > 0 { // the second call
			group = groups[1]
		}
		_, err := q.SetMembershipsV1(t.Context(), group, ids, true)
		return err
	})
	for _, id := range users {
		require.EqualValues(t, 3, a.detail(id).Version)
	}
}
