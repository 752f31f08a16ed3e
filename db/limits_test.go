package db_test

import (
	"fmt"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/dbgen/write"
)

func limit(name string, maximum int) string {
	return fmt.Sprintf(`{"limit": %q, "maximum": %d}`, name, maximum)
}

// fill adds contacts of a custom type to a user, behind the functions.
func (a *api) fill(user uuid.UUID, kind string, n int, active bool) {
	a.t.Helper()
	byHand := connect(a.t, a.UncheckedURL("a thousand contacts one by one would take a minute"))
	execute(a.t, byHand, `
		INSERT INTO accounts.user_contacts (user_id, contact_type_id, value, normalized, single, is_active, deactivated_at)
		SELECT $1::uuid, t.id, v.value, v.value, t.single, $4::boolean, CASE WHEN NOT $4::boolean THEN now() END
		  FROM accounts.contact_types AS t, generate_series(1, $3::int) AS i, LATERAL (SELECT $1::uuid || ' ' || $4::boolean || ' ' || i) AS v (value)
		 WHERE t.name = $2`, user, kind, n, active)
}

func TestContactLimits(t *testing.T) {
	t.Parallel()
	a := open(t)
	a.createType("fax", "allow")
	a.createType("badge", "replace")
	user := func(active, inactive int) uuid.UUID {
		id := a.createUser(nil).ID
		a.fill(id, "fax", active, true)
		a.fill(id, "fax", inactive, false)
		return id
	}
	add := func(id uuid.UUID, kind string) (write.ContactWriteV1, error) {
		return a.write.AddContactV1(t.Context(), addition(id, same(kind, uuid.NewString())))
	}
	reactivate := func(id uuid.UUID) error {
		contact := value[uuid.UUID](t, a.super, "SELECT id FROM accounts.user_contacts WHERE user_id = $1 AND NOT is_active LIMIT 1", id)
		_, err := a.write.UpdateContactV1(t.Context(), write.UpdateContactV1Params{ContactID: contact, IsActive: ptr(true)})
		return err
	}

	id := user(99, 1)
	_, err := add(id, "badge")
	require.NoError(t, err, "the 100th active one")
	_, err = add(id, "fax")
	requireState(t, err, limitReached, "", limit("active_contacts", 100))
	_, err = add(id, "badge")
	require.NoError(t, err, "a replacement takes the place of what it replaces")
	requireState(t, reactivate(id), limitReached, "", limit("active_contacts", 100))
	require.Len(t, a.contactsOf(id), 100)

	id = user(0, 998)
	added, err := add(id, "fax")
	require.NoError(t, err)
	_, err = add(id, "badge")
	require.NoError(t, err, "the 1,000th")
	for _, kind := range []string{"fax", "badge"} {
		_, err = add(id, kind)
		requireState(t, err, limitReached, "", limit("contacts", 1000))
	}
	require.NoError(t, reactivate(id), "it adds none")
	_, err = a.write.UpdateContactV1(t.Context(), write.UpdateContactV1Params{ContactID: added.ID, Value: ptr("new"), Normalized: ptr("new")})
	require.NoError(t, err, "nor does a new value")

	var contacts []contact
	for i := range 101 {
		contacts = append(contacts, same("fax", fmt.Sprint("fax ", i)))
	}
	a.createUser(nil, contacts[:100]...)
	_, err = a.write.CreateUserV1(t.Context(), newUser(nil, contacts...))
	requireState(t, err, limitReached, "", limit("active_contacts", 100))
}

// A change from or to allow is copied to every contact of the type, while additions of the type wait.
func TestContactLimits_ChangeOfSingle(t *testing.T) {
	t.Parallel()
	a := open(t)
	fax := a.createType("fax", "allow")
	change := func(onSecond string) error {
		_, err := a.write.UpdateContactTypeV1(t.Context(), write.UpdateContactTypeV1Params{ContactTypeID: fax.ID, OnSecond: &onSecond})
		return err
	}
	for range 2 {
		a.fill(a.createUser(nil).ID, "fax", 1000, false)
	}
	require.NoError(t, change("reject"), "2,000 contacts")
	require.NoError(t, change("allow"))
	a.fill(a.createUser(nil).ID, "fax", 1, false)
	for _, onSecond := range []string{"replace", "reject"} {
		requireState(t, change(onSecond), limitReached, "", limit("contacts_of_type", 2000))
	}
	require.NoError(t, change("allow"), "nothing changes")
	_, err := a.write.UpdateContactTypeV1(t.Context(), write.UpdateContactTypeV1Params{ContactTypeID: fax.ID, Name: ptr("telefax")})
	require.NoError(t, err, "a name is not copied")
}

func TestContactLimits_TwoAtOnce(t *testing.T) {
	t.Parallel()
	a := open(t)
	a.createType("fax", "allow")
	id := a.createUser(nil).ID
	a.fill(id, "fax", 99, true)
	a.overlap(commit, func(q *write.Queries) {
		_, err := q.AddContactV1(t.Context(), addition(id, same("fax", "first")))
		require.NoError(t, err)
	}, func(q *write.Queries) {
		_, err := q.AddContactV1(t.Context(), addition(id, same("fax", "second")))
		requireState(t, err, limitReached, "", limit("active_contacts", 100))
	})
}

func TestDictionaryLimits(t *testing.T) {
	t.Parallel()
	a := open(t)
	group := func(q *write.Queries, name string) error {
		_, err := q.CreateUserGroupV1(t.Context(), name, name)
		return err
	}
	kind := func(q *write.Queries, name string) error {
		_, err := q.CreateContactTypeV1(t.Context(), name, "allow")
		return err
	}
	byHand := connect(t, a.UncheckedURL("a thousand groups one by one would take a minute"))
	execute(t, byHand, "INSERT INTO accounts.user_groups (name, name_key) SELECT 'group ' || i, 'group ' || i FROM generate_series(1, 999) AS i")
	execute(t, byHand, "INSERT INTO accounts.contact_types (name, on_second) SELECT 'type_' || i, 'allow' FROM generate_series(1, 96) AS i")
	for _, tt := range []struct {
		create  func(*write.Queries, string) error
		limit   string
		maximum int
	}{{group, "user_groups", 1000}, {kind, "contact_types", 100}} {
		// The second waits for the first, and sees its row.
		a.overlap(commit, func(q *write.Queries) { require.NoError(t, tt.create(q, "last")) }, func(q *write.Queries) {
			requireState(t, tt.create(q, "more"), limitReached, "", limit(tt.limit, tt.maximum))
		})
		requireState(t, tt.create(a.write, "more"), limitReached, "", limit(tt.limit, tt.maximum))
	}
}
