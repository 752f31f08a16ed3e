package db_test

import (
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/dbgen/write"
)

// The ids of the seeded types; the service, the checks and get_user_by_identifier_v1 rely on them.
var (
	phoneType = uuid.MustParse("00000000-0000-7000-8000-000000000001")
	emailType = uuid.MustParse("00000000-0000-7000-8000-000000000002")
	loginType = uuid.MustParse("00000000-0000-7000-8000-000000000003")
)

func TestSeededContactTypes(t *testing.T) {
	t.Parallel()
	a := open(t)
	require.Equal(t, []string{"email reject", "phone reject", "second_login replace"}, a.contactTypes())
	ids := map[string]uuid.UUID{}
	list, err := a.read.ListContactTypesV1(t.Context())
	require.NoError(t, err)
	for _, c := range list {
		ids[c.Name] = c.ID
	}
	require.Equal(t, map[string]uuid.UUID{"phone": phoneType, "email": emailType, "second_login": loginType}, ids)
}

func TestCreateContactType(t *testing.T) {
	t.Parallel()
	a := open(t)
	for _, onSecond := range []string{"replace", "reject", "allow"} {
		got := a.createType("t_"+onSecond, onSecond)
		require.Equal(t, "t_"+onSecond, got.Name)
		require.Equal(t, onSecond, got.OnSecond)
		a.requireTouched(got.Touched, got.OutboxID, "d:contact_types")
	}
	require.Equal(t, []string{
		"email reject", "phone reject", "second_login replace", "t_allow allow", "t_reject reject", "t_replace replace",
	}, a.contactTypes())
}

func TestCreateContactTypeRefuses(t *testing.T) {
	t.Parallel()
	a := open(t)
	before, outbox := a.contactTypes(), a.count("cache_outbox")
	for _, tt := range []struct{ name, onSecond, state, constraint string }{
		{"phone", "allow", check, "contact_types_identifier_name_fixed"},
		{"uuid", "allow", check, "contact_types_identifier_name_fixed"},
		{"", "allow", check, "contact_types_name_form"},
		{"Fax", "allow", check, "contact_types_name_form"},
		{"1fax", "allow", check, "contact_types_name_form"},
		{"fax:x", "allow", check, "contact_types_name_form"},
		{"fax\n", "allow", check, "contact_types_name_form"},
		{strings.Repeat("a", 64), "allow", check, "contact_types_name_form"},
		{"fax", "maybe", check, "contact_types_on_second_known"},
		{"fax", "", check, "contact_types_on_second_known"},
	} {
		_, err := a.write.CreateContactTypeV1(t.Context(), tt.name, tt.onSecond)
		requireState(t, err, tt.state, tt.constraint, "")
	}
	require.Equal(t, before, a.contactTypes())
	require.Equal(t, outbox, a.count("cache_outbox"))

	a.createType(strings.Repeat("a", 63), "allow")
	_, err := a.write.CreateContactTypeV1(t.Context(), strings.Repeat("a", 63), "reject")
	requireState(t, err, unique, "contact_types_name_key", "")
}

func TestTwoCreatorsOfOneContactType(t *testing.T) {
	t.Parallel()
	a := open(t)
	var firstErr, secondErr error
	a.overlap(commit,
		func(q *write.Queries) { _, firstErr = q.CreateContactTypeV1(t.Context(), "fax", "allow") },
		func(q *write.Queries) { _, secondErr = q.CreateContactTypeV1(t.Context(), "fax", "reject") })
	require.NoError(t, firstErr)
	requireState(t, secondErr, unique, "contact_types_name_key", "")
	require.Contains(t, a.contactTypes(), "fax allow")
}

func TestUpdateContactType(t *testing.T) {
	t.Parallel()
	a := open(t)
	fax := a.createType("fax", "allow")
	u := a.createUser(nil, same("fax", "1"))
	before := a.detail(u.ID)
	dictionary, dep := "d:contact_types", "t:"+fax.ID.String()
	single := func() bool {
		return value[bool](t, a.super, "SELECT single FROM accounts.user_contacts WHERE contact_type_id = $1", fax.ID)
	}

	last := fax.UpdatedAt
	for _, step := range []struct {
		why            string
		name, onSecond *string
		touched        []string
		want           string
		single         bool
	}{
		{"nothing", nil, nil, nil, "fax allow", false},
		{"as it is", ptr("fax"), ptr("allow"), nil, "fax allow", false},
		{"rename", ptr("telefax"), nil, []string{dictionary, dep}, "telefax allow", false},
		{"to reject, the contacts follow", nil, ptr("reject"), []string{dictionary}, "telefax reject", true},
		{"to replace", nil, ptr("replace"), []string{dictionary}, "telefax replace", true},
		{"both", ptr("fax"), ptr("allow"), []string{dictionary, dep}, "fax allow", false},
	} {
		t.Run(step.why, func(t *testing.T) {
			got, err := a.write.UpdateContactTypeV1(t.Context(), write.UpdateContactTypeV1Params{ContactTypeID: fax.ID, Name: step.name, OnSecond: step.onSecond})
			require.NoError(t, err)
			require.Equal(t, step.want, got.Name+" "+got.OnSecond)
			require.Contains(t, a.contactTypes(), step.want)
			a.requireTouched(got.Touched, got.OutboxID, step.touched...)
			require.Equal(t, step.touched != nil, got.UpdatedAt.After(last))
			last = got.UpdatedAt
			require.Equal(t, step.single, single())
		})
	}
	require.Equal(t, before, a.detail(u.ID), "a type is no part of its users: their documents depend on it")
}

func TestUpdateContactTypeRefuses(t *testing.T) {
	t.Parallel()
	a := open(t)
	fax := a.createType("fax", "allow")
	a.createType("telex", "allow")
	a.createUser(nil, same("fax", "1"), same("fax", "2"))
	before := a.contactTypes()
	nobody := uuid.New()

	for name, tt := range map[string]struct {
		id                        uuid.UUID
		name, onSecond            *string
		state, constraint, detail string
	}{
		"no such type":           {nobody, ptr("x"), nil, notFound, "", missing("ContactType", nobody)},
		"taken name":             {fax.ID, ptr("telex"), nil, unique, "contact_types_name_key", ""},
		"reserved name":          {fax.ID, ptr("email"), nil, check, "contact_types_identifier_name_fixed", ""},
		"phone stays phone":      {phoneType, ptr("mobile"), nil, check, "contact_types_identifier_name_fixed", ""},
		"email stays email":      {emailType, ptr("mail"), nil, check, "contact_types_identifier_name_fixed", ""},
		"login stays login":      {loginType, ptr("login"), nil, check, "contact_types_identifier_name_fixed", ""},
		"no name":                {fax.ID, ptr("Fax"), nil, check, "contact_types_name_form", ""},
		"unknown on_second":      {fax.ID, nil, ptr("x"), check, "contact_types_on_second_known", ""},
		"a user has two already": {fax.ID, nil, ptr("reject"), unique, "user_contacts_single_active_key", ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := a.write.UpdateContactTypeV1(t.Context(), write.UpdateContactTypeV1Params{ContactTypeID: tt.id, Name: tt.name, OnSecond: tt.onSecond})
			requireState(t, err, tt.state, tt.constraint, tt.detail)
		})
	}
	require.Equal(t, before, a.contactTypes())
}

// The type must not change between the decision about a second contact and the commit.
func TestContactAgainstChangeOfItsType(t *testing.T) {
	t.Parallel()
	a := open(t)
	fax := a.createType("fax", "allow")
	u := a.createUser(nil, same("fax", "1"))
	var firstErr, secondErr error
	add := func(q *write.Queries) error {
		_, err := q.AddContactV1(t.Context(), addition(u.ID, same("fax", "2")))
		return err
	}
	reject := func(q *write.Queries) error {
		_, err := q.UpdateContactTypeV1(t.Context(), write.UpdateContactTypeV1Params{ContactTypeID: fax.ID, Name: nil, OnSecond: ptr("reject")})
		return err
	}

	a.overlap(commit,
		func(q *write.Queries) { firstErr = add(q) },
		func(q *write.Queries) { secondErr = reject(q) })
	require.NoError(t, firstErr)
	requireState(t, secondErr, unique, "user_contacts_single_active_key", "")
	require.Equal(t, []string{"fax 1", "fax 2"}, a.contactsOf(u.ID))

	list, err := a.read.ListUserContactsV1(t.Context(), u.ID, false)
	require.NoError(t, err)
	_, err = a.write.DeactivateContactV1(t.Context(), list[1].ID, nil)
	require.NoError(t, err)
	a.overlap(commit,
		func(q *write.Queries) { firstErr = reject(q) },
		func(q *write.Queries) { secondErr = add(q) })
	require.NoError(t, firstErr)
	requireState(t, secondErr, unique, "user_contacts_single_active_key", faults("type second_of_type"))
	require.Equal(t, []string{"fax 1"}, a.contactsOf(u.ID))
}

// A new user with two contacts of a type that stops to allow them.
func TestNewUserAgainstChangeOfAType(t *testing.T) {
	t.Parallel()
	a := open(t)
	fax := a.createType("fax", "allow")
	var firstErr, secondErr error
	a.overlap(commit, func(q *write.Queries) {
		_, firstErr = q.CreateUserV1(t.Context(), newUser(nil, same("fax", "1"), same("fax", "2")))
	}, func(q *write.Queries) {
		_, secondErr = q.UpdateContactTypeV1(t.Context(), write.UpdateContactTypeV1Params{ContactTypeID: fax.ID, Name: nil, OnSecond: ptr("reject")})
	})
	require.NoError(t, firstErr)
	requireState(t, secondErr, unique, "user_contacts_single_active_key", "")

	telex := a.createType("telex", "allow")
	a.overlap(commit, func(q *write.Queries) {
		_, firstErr = q.UpdateContactTypeV1(t.Context(), write.UpdateContactTypeV1Params{ContactTypeID: telex.ID, Name: nil, OnSecond: ptr("reject")})
	}, func(q *write.Queries) {
		_, secondErr = q.CreateUserV1(t.Context(), newUser(nil, same("telex", "1"), same("telex", "2")))
	})
	require.NoError(t, firstErr)
	requireState(t, secondErr, unique, "user_contacts_single_active_key", faults("contacts[1].type second_of_type"))
}

// contactTypes returns "name on_second" of every type, as the list orders them.
func (a *api) contactTypes() []string {
	a.t.Helper()
	list, err := a.read.ListContactTypesV1(a.t.Context())
	require.NoError(a.t, err)
	var texts []string
	for _, c := range list {
		texts = append(texts, c.Name+" "+c.OnSecond)
	}
	return texts
}

func TestUpdateContactType_TwoCallersAtOnce(t *testing.T) {
	t.Parallel()
	a := open(t)
	c := a.createType("telegram", "allow")
	var writes []write.ContactTypeWriteV1
	rename := func(name string) func(*write.Queries) {
		return func(q *write.Queries) {
			w, err := q.UpdateContactTypeV1(t.Context(), write.UpdateContactTypeV1Params{ContactTypeID: c.ID, Name: &name})
			require.NoError(t, err)
			writes = append(writes, w)
		}
	}
	a.overlap(commit, rename("signal"), rename("signal"))
	a.requireTouched(writes[0].Touched, writes[0].OutboxID, "d:contact_types", "t:"+c.ID.String())
	a.requireTouched(writes[1].Touched, writes[1].OutboxID) // it is called so already
}
