package db_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/dbgen/write"
)

// conditionalWrite is a function that takes expected versions. change alters the row each time, and
// returns the row's updated_at after that.
type conditionalWrite struct {
	updatedAt time.Time // before the first change
	change    func(q *write.Queries, versions []int64) (time.Time, error)
}

// conditionalWrites returns those of rows without a version column, one row of each kind.
func (a *api) conditionalWrites() map[string]conditionalWrite {
	user := a.createUser(nil)
	group, other := a.createGroup("clients"), a.createGroup("drivers")
	typ := a.createType("telegram", "allow")
	value := a.addContact(user.ID, same("telegram", "one"))
	ended := a.addContact(user.ID, same("telegram", "two"))
	membership, err := a.write.SetMembershipV1(a.t.Context(), user.ID, group.ID, true)
	require.NoError(a.t, err)
	ctx, n := a.t.Context(), 0
	fresh := func() *string { n++; return ptr(fmt.Sprintf("fresh%d", n)) }
	active := true
	return map[string]conditionalWrite{
		"update_user_group_v1": {other.UpdatedAt, func(q *write.Queries, versions []int64) (time.Time, error) {
			name := fresh()
			row, err := q.UpdateUserGroupV1(ctx, write.UpdateUserGroupV1Params{
				GroupID: other.ID, Name: name, NameKey: name, ExpectedVersions: versions,
			})
			return row.UpdatedAt, err
		}},
		"update_contact_type_v1": {typ.UpdatedAt, func(q *write.Queries, versions []int64) (time.Time, error) {
			row, err := q.UpdateContactTypeV1(ctx, write.UpdateContactTypeV1Params{
				ContactTypeID: typ.ID, Name: fresh(), ExpectedVersions: versions,
			})
			return row.UpdatedAt, err
		}},
		"update_contact_v1": {value.UpdatedAt, func(q *write.Queries, versions []int64) (time.Time, error) {
			text := fresh()
			row, err := q.UpdateContactV1(ctx, write.UpdateContactV1Params{
				ContactID: value.ID, Value: text, Normalized: text, ExpectedVersions: versions,
			})
			return row.UpdatedAt, err
		}},
		"deactivate_contact_v1": {ended.UpdatedAt, func(q *write.Queries, versions []int64) (time.Time, error) {
			row, err := q.DeactivateContactV1(ctx, ended.ID, versions)
			if err == nil { // the next deactivation must change it again
				row, err = q.UpdateContactV1(ctx, write.UpdateContactV1Params{ContactID: ended.ID, IsActive: ptr(true)})
			}
			return row.UpdatedAt, err
		}},
		"update_membership_v1": {membership.UpdatedAt, func(q *write.Queries, versions []int64) (time.Time, error) {
			row, err := q.UpdateMembershipV1(ctx, write.UpdateMembershipV1Params{
				UserID: user.ID, GroupID: group.ID, IsActive: ptr(!active), ExpectedVersions: versions,
			})
			if err == nil {
				active = !active
			}
			return row.UpdatedAt, err
		}},
	}
}

func TestExpectedVersions(t *testing.T) {
	t.Parallel()
	a := open(t)
	for name, w := range a.conditionalWrites() {
		t.Run(name, func(t *testing.T) {
			version := w.updatedAt.UnixMicro()
			current := fmt.Sprintf(`{"version": %d}`, version)
			for _, versions := range [][]int64{{}, {0}, {version - 1}, {version + 1}, {version - 1, version + 1}} {
				_, err := w.change(a.write, versions)
				requireState(t, err, otherVersion, "", current)
			}
			for _, versions := range [][]int64{{version}, nil} {
				updatedAt, err := w.change(a.write, versions)
				require.NoError(t, err)
				require.True(t, updatedAt.After(w.updatedAt))
				w.updatedAt = updatedAt
			}
			_, err := w.change(a.write, []int64{version})
			requireState(t, err, otherVersion, "", fmt.Sprintf(`{"version": %d}`, w.updatedAt.UnixMicro()))
			_, err = w.change(a.write, []int64{version, w.updatedAt.UnixMicro()})
			require.NoError(t, err, "one of a list is enough")
		})
	}
}

func TestExpectedVersions_OneOfTwoConcurrentWritesWins(t *testing.T) {
	t.Parallel()
	a := open(t)
	for name, w := range a.conditionalWrites() {
		t.Run(name, func(t *testing.T) {
			versions := []int64{w.updatedAt.UnixMicro()}
			var firstErr, secondErr error
			a.overlap(commit,
				func(q *write.Queries) { _, firstErr = w.change(q, versions) },
				func(q *write.Queries) { _, secondErr = w.change(q, versions) })
			require.NoError(t, firstErr)
			requireState(t, secondErr, otherVersion, "", "")
		})
	}
}

func TestReplacedContactHasNewVersion(t *testing.T) {
	t.Parallel()
	a := open(t)
	user := a.createUser(nil)
	old := a.addContact(user.ID, same("second_login", "ann"))
	a.addContact(user.ID, same("second_login", "anna"))
	now, err := a.read.GetContactV1(t.Context(), old.ID)
	require.NoError(t, err)
	require.False(t, now.IsActive)
	require.True(t, now.UpdatedAt.After(old.UpdatedAt))
	_, err = a.write.DeactivateContactV1(t.Context(), old.ID, []int64{old.UpdatedAt.UnixMicro()})
	requireState(t, err, otherVersion, "", fmt.Sprintf(`{"version": %d}`, now.UpdatedAt.UnixMicro()))
}

func TestUpdateMembership(t *testing.T) {
	t.Parallel()
	a := open(t)
	user, group := a.createUser(nil), a.createGroup("clients")
	update := func(userID, groupID uuid.UUID, active *bool) (write.MembershipWriteV1, error) {
		return a.write.UpdateMembershipV1(t.Context(), write.UpdateMembershipV1Params{
			UserID: userID, GroupID: groupID, IsActive: active,
		})
	}
	never := fmt.Sprintf(`{"entity": "Membership", "id": "%s/%s"}`, user.ID, group.ID)
	for _, active := range []*bool{nil, ptr(true), ptr(false)} {
		_, err := update(user.ID, group.ID, active)
		requireState(t, err, notFound, "", never)
	}
	nobody := uuid.New()
	_, err := update(nobody, group.ID, ptr(true))
	requireState(t, err, notFound, "", missing("User", nobody))

	begun, err := a.write.SetMembershipV1(t.Context(), user.ID, group.ID, true)
	require.NoError(t, err)
	before := a.detail(user.ID)
	for _, active := range []*bool{nil, ptr(true)} {
		same, err := update(user.ID, group.ID, active)
		require.NoError(t, err)
		a.requireTouched(same.Touched, same.OutboxID)
		require.Equal(t, begun.UpdatedAt, same.UpdatedAt)
	}
	require.Equal(t, before, a.detail(user.ID))
	ended, err := update(user.ID, group.ID, ptr(false))
	require.NoError(t, err)
	require.False(t, ended.IsActive)
	require.Equal(t, "clients", ended.GroupName)
	a.requireTouched(ended.Touched, ended.OutboxID, "u:"+user.ID.String())
	requireOneUp(t, before, a.detail(user.ID))
}
