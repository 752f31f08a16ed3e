package db_test

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/dbgen/read"
	"github.com/payment-services/accounts/internal/dbgen/write"
	"github.com/payment-services/accounts/internal/identifier"
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
		{"a  b", check, "user_groups_name_form"},
		{"a\u00a0b", check, "user_groups_name_form"},
		{"\u3000", check, "user_groups_name_form"},
		{"cafe\u0301", check, "user_groups_name_form"}, // NFD
		{"vip\u00ad", check, "user_groups_name_form"},
		{"vip\u200b", check, "user_groups_name_form"},
		{"\u202evip", check, "user_groups_name_form"},
		{"vip\ufe0f", check, "user_groups_name_form"},
		{"vip\ufeff", check, "user_groups_name_form"},
		{"vip\U000e0041", check, "user_groups_name_form"},
		{"vip\U000e0100", check, "user_groups_name_form"},
		{"vip\ue000", check, "user_groups_name_form"},
		{"vip\ufffd", check, "user_groups_name_form"},
		{"vip\u0085", check, "user_groups_name_form"},
		{"CLIENTS", unique, "user_groups_name_key"},
	} {
		_, err := a.write.CreateUserGroupV1(t.Context(), tt.name, nameKey(tt.name))
		requireState(t, err, tt.state, tt.constraint, "")
	}
	require.Equal(t, []string{"clients"}, a.groups())
	require.EqualValues(t, 1, a.count("cache_outbox"))
}

// A user of psql cannot store a second spelling of a name, except with letters whose case folding only
// Unicode's tables know.
func TestUserGroupNameKey_AgreesWithTheName(t *testing.T) {
	t.Parallel()
	a := open(t)
	for _, tt := range []struct {
		name, key string
		ok        bool
	}{
		{"VIP", "vip", true},
		{"Водители Ё", "водители ё", true},
		{"Straße", "strasse", true},
		{"STRAẞE 2", "strasse 2", true},
		{"ΣΑΣ", "σασ", true},
		{"Ꭰ", "Ꭰ", true},
		{"Café", "café", true},
		{"VIP 2", "VIP 2", false},
		{"VIP 2", "vip", false},
		{"VIP 2", "vip 2 ", false},
		{"VIP 2", "vip 2\u200b", false},
		{"Водители", "Водители", false},
		{"Водители", "vip 3", false},
		{"CAFÉ", "CAFÉ", false},
		{"Élan", "Élan", false},
		{"Élan", "e\u0301lan", false},
		{"Élan", "é,lan", false},
		{"Élan", "", false},
		{"Élan", strings.Repeat("é", 256), false},
	} {
		_, err := a.write.CreateUserGroupV1(t.Context(), tt.name, tt.key)
		if tt.ok {
			require.NoError(t, err, "%q %q", tt.name, tt.key)
		} else {
			requireState(t, err, check, "user_groups_name_key_agrees", "")
		}
	}
}

// Every name that the service makes is stored, and so is its key, in all scripts; and every character that
// the service removes or refuses is refused by the database, apart from unassigned ones.
func TestCanonicalNames_AreStored(t *testing.T) {
	t.Parallel()
	a := open(t)
	var names, keys, others []string
	for r := rune(1); r <= unicode.MaxRune; r++ {
		text := "x" + string(r) + "y"
		name, err := identifier.ParseName(text)
		switch {
		case !utf8.ValidRune(r) || unicode.In(r, unicode.Han, unicode.Hangul) && r%64 != 0:
		case err == nil && name.Text == text:
			names, keys = append(names, name.Text), append(keys, name.Key)
		case unicode.In(r, unicode.L, unicode.M, unicode.N, unicode.P, unicode.S, unicode.Z, unicode.Cc, unicode.Co,
			unicode.Other_Default_Ignorable_Code_Point) || unicode.Is(unicode.Cf, r) && err == nil:
			others = append(others, text)
		}
	}
	require.Greater(t, len(names), 40_000)
	require.Greater(t, len(others), 100_000)
	const refused = `SELECT n.name FROM unnest($1::text[], $2::text[]) AS n (name, key)
		 WHERE NOT accounts.is_canonical_name_v1(n.name, false) OR NOT accounts.is_canonical_name_v1(n.key, true) LIMIT 20`
	require.Empty(t, column[string](t, a.super, refused, names, keys))
	const accepted = `SELECT n.name FROM unnest($1::text[]) AS n (name) WHERE accounts.is_canonical_name_v1(n.name, false) LIMIT 20`
	require.Empty(t, column[string](t, a.super, accepted, others))
}

func TestTwoCreatorsOfOneUserGroup(t *testing.T) {
	t.Parallel()
	a := open(t)
	var firstErr, secondErr error
	a.overlap(commit,
		func(q *write.Queries) { _, firstErr = q.CreateUserGroupV1(t.Context(), "clients", "clients") },
		func(q *write.Queries) { _, secondErr = q.CreateUserGroupV1(t.Context(), "clients", "clients") })
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
		got, err := a.write.UpdateUserGroupV1(t.Context(), write.UpdateUserGroupV1Params{GroupID: g.ID, Name: name, NameKey: name})
		require.NoError(t, err)
		a.requireTouched(got.Touched, got.OutboxID)
		require.Equal(t, g.UpdatedAt, got.UpdatedAt)
	}
	got, err := a.write.UpdateUserGroupV1(t.Context(), write.UpdateUserGroupV1Params{GroupID: g.ID, Name: ptr("customers"), NameKey: ptr("customers")})
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
		_, err := a.write.UpdateUserGroupV1(t.Context(), write.UpdateUserGroupV1Params{GroupID: tt.id, Name: &tt.name, NameKey: ptr(nameKey(tt.name))})
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
		return q.UpdateUserGroupV1(t.Context(), write.UpdateUserGroupV1Params{GroupID: g.ID, Name: ptr("customers"), NameKey: ptr("customers")})
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
