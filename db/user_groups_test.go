package db_test

import (
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/dbgen/read"
	"github.com/payment-services/accounts/internal/dbgen/write"
)

func TestCreateUserGroup(t *testing.T) {
	t.Parallel()
	a := open(t)
	empty, err := a.read.ListUserGroupsV1(t.Context())
	require.NoError(t, err)
	require.Equal(t, []read.UserGroupV1{}, empty)

	for _, name := range []string{"водители", "clients", "Anna's friends", strings.Repeat("я", 100)} {
		got := a.createGroup(name)
		require.Equal(t, name, got.Name)
		a.requireTouched(got.Touched, got.OutboxID, "d:user_groups")
	}
	require.Equal(t, []string{"Anna's friends", "clients", "водители", strings.Repeat("я", 100)}, a.groups())
}

func TestCreateUserGroupRefuses(t *testing.T) {
	t.Parallel()
	a := open(t)
	a.createGroup("clients")
	for _, tt := range []struct{ name, state, constraint string }{
		{"clients", unique, "user_groups_name_key"},
		{"", check, "user_groups_name_form"},
		{strings.Repeat("я", 101), check, "user_groups_name_form"},
		{"a,b", check, "user_groups_name_form"},
		{"a\tb", check, "user_groups_name_form"},
		{" a", check, "user_groups_name_form"},
		{"a ", check, "user_groups_name_form"},
		{"a\n", check, "user_groups_name_form"},
	} {
		_, err := a.write.CreateUserGroupV1(t.Context(), tt.name)
		requireState(t, err, tt.state, tt.constraint, "")
	}
	require.Equal(t, []string{"clients"}, a.groups())
	require.EqualValues(t, 1, a.count("cache_outbox"))
}

func TestTwoCreatorsOfOneUserGroup(t *testing.T) {
	t.Parallel()
	a := open(t)
	var firstErr, secondErr error
	a.overlap(commit,
		func(q *write.Queries) { _, firstErr = q.CreateUserGroupV1(t.Context(), "clients") },
		func(q *write.Queries) { _, secondErr = q.CreateUserGroupV1(t.Context(), "clients") })
	require.NoError(t, firstErr)
	requireState(t, secondErr, unique, "user_groups_name_key", "")
}

func TestUpdateUserGroup(t *testing.T) {
	t.Parallel()
	a := open(t)
	g := a.createGroup("clients")
	u := a.createUser([]string{"clients"})
	before := a.detail(u.ID)

	for _, name := range []*string{nil, ptr("clients")} {
		got, err := a.write.UpdateUserGroupV1(t.Context(), g.ID, name, nil)
		require.NoError(t, err)
		a.requireTouched(got.Touched, got.OutboxID)
		require.Equal(t, g.UpdatedAt, got.UpdatedAt)
	}
	got, err := a.write.UpdateUserGroupV1(t.Context(), g.ID, ptr("customers"), nil)
	require.NoError(t, err)
	a.requireTouched(got.Touched, got.OutboxID, "d:user_groups", "g:"+g.ID.String())
	require.True(t, got.UpdatedAt.After(g.UpdatedAt))
	require.Equal(t, []string{"customers"}, a.groups())

	after := a.detail(u.ID)
	require.JSONEq(t, `[{"id": "`+g.ID.String()+`", "name": "customers"}]`, string(after.Groups))
	require.Equal(t, before.Version, after.Version, "a group is no part of its members: their documents depend on it")
}

func TestUpdateUserGroupRefuses(t *testing.T) {
	t.Parallel()
	a := open(t)
	g := a.createGroup("clients")
	a.createGroup("drivers")
	nobody := uuid.New()
	for _, tt := range []struct {
		id                              uuid.UUID
		name, state, constraint, detail string
	}{
		{nobody, "x", notFound, "", missing("Group", nobody)},
		{g.ID, "drivers", unique, "user_groups_name_key", ""},
		{g.ID, "a,b", check, "user_groups_name_form", ""},
	} {
		_, err := a.write.UpdateUserGroupV1(t.Context(), tt.id, &tt.name, nil)
		requireState(t, err, tt.state, tt.constraint, tt.detail)
	}
	require.Equal(t, []string{"clients", "drivers"}, a.groups())
}

func TestTwoRenamesOfOneUserGroup(t *testing.T) {
	t.Parallel()
	a := open(t)
	g := a.createGroup("clients")
	var second write.UserGroupWriteV1
	var firstErr, secondErr error
	rename := func(q *write.Queries) (write.UserGroupWriteV1, error) {
		return q.UpdateUserGroupV1(t.Context(), g.ID, ptr("customers"), nil)
	}
	a.overlap(commit,
		func(q *write.Queries) { _, firstErr = rename(q) },
		func(q *write.Queries) { second, secondErr = rename(q) })
	require.NoError(t, firstErr)
	require.NoError(t, secondErr)
	a.requireTouched(second.Touched, second.OutboxID)
}

// groups returns the names of all groups, as the list orders them.
func (a *api) groups() []string {
	a.t.Helper()
	list, err := a.read.ListUserGroupsV1(a.t.Context())
	require.NoError(a.t, err)
	var names []string
	for _, g := range list {
		names = append(names, g.Name)
	}
	return names
}
