package db_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/dbgen/read"
	"github.com/payment-services/accounts/internal/dbgen/write"
)

func TestAddContact(t *testing.T) {
	t.Parallel()
	a := open(t)
	a.createType("telegram", "allow")
	u := a.createUser(nil)
	id := "u:" + u.ID.String()

	for _, step := range []struct {
		contact    contact
		identifier []string
		active     []string
	}{
		{contact{"phone", "8 999 000-00-01", "+79990000001"}, []string{"i:phone:+79990000001"}, []string{"phone 8 999 000-00-01"}},
		{same("telegram", "@ann"), nil, []string{"phone 8 999 000-00-01", "telegram @ann"}},
		{same("telegram", "@anna"), nil, []string{"phone 8 999 000-00-01", "telegram @ann", "telegram @anna"}},
	} {
		before := a.detail(u.ID)
		got := a.addContact(u.ID, step.contact)
		a.requireTouched(got.Touched, got.OutboxID, append(step.identifier, id, "c:"+got.ID.String())...)
		requireOneUp(t, before, a.detail(u.ID))
		require.Equal(t, step.active, a.contactsOf(u.ID))

		require.Equal(t, u.ID, got.UserID)
		require.Equal(t, step.contact.kind, got.Type)
		require.Equal(t, step.contact.value, got.Value)
		require.True(t, got.IsActive)
		require.Nil(t, got.DeactivatedAt)
		require.WithinDuration(t, time.Now(), got.CreatedAt, time.Minute)
		read, err := a.read.GetContactV1(t.Context(), got.ID)
		require.NoError(t, err)
		require.Equal(t, contactOf(got), read)
	}
}

func TestAddContactReplaces(t *testing.T) {
	t.Parallel()
	a := open(t)
	a.createType("badge", "replace")
	u := a.createUser(nil, same("second_login", "old"), same("badge", "1"))
	id := "u:" + u.ID.String()
	history := func(kind string) (ids []string) {
		list, err := a.read.ListUserContactsV1(t.Context(), u.ID, true)
		require.NoError(t, err)
		for _, c := range list {
			require.Equal(t, c.IsActive, c.DeactivatedAt == nil)
			if c.Type == kind && !c.IsActive {
				ids = append(ids, "c:"+c.ID.String())
			}
		}
		return ids
	}

	before := a.detail(u.ID)
	login := a.addContact(u.ID, same("second_login", "new"))
	gone := history("second_login")
	require.Len(t, gone, 1)
	a.requireTouched(login.Touched, login.OutboxID, id, "c:"+login.ID.String(), gone[0], "i:second_login:old", "i:second_login:new")
	requireOneUp(t, before, a.detail(u.ID))
	require.Equal(t, []string{"badge 1", "second_login new"}, a.contactsOf(u.ID))

	badge := a.addContact(u.ID, same("badge", "2"))
	gone = history("badge")
	require.Len(t, gone, 1)
	a.requireTouched(badge.Touched, badge.OutboxID, id, "c:"+badge.ID.String(), gone[0])

	// The same value again replaces too; it names the user before and after.
	again := a.addContact(u.ID, same("second_login", "new"))
	a.requireTouched(again.Touched, again.OutboxID, id, "c:"+again.ID.String(), "c:"+login.ID.String(), "i:second_login:new")

	// A replaced value is free.
	other := a.createUser(nil, same("second_login", "old"))
	require.Equal(t, []string{"second_login old"}, a.contactsOf(other.ID))
}

func TestAddContactRefuses(t *testing.T) {
	t.Parallel()
	a := open(t)
	a.createType("telegram", "allow")
	a.createType("badge", "replace")
	u := a.createUser(nil, same("phone", "+79990000001"), same("badge", "mine"))
	a.createUser(nil, same("email", "taken@example.com"), same("telegram", "taken"), same("badge", "taken"))
	nobody := uuid.New()
	before, outbox := a.detail(u.ID), a.count("cache_outbox")

	for name, tt := range map[string]struct {
		user                      uuid.UUID
		contact                   contact
		state, constraint, detail string
	}{
		"no such user":      {nobody, same("phone", "+79990000002"), notFound, "", missing("User", nobody)},
		"no such type":      {u.ID, same("fax", "1"), invalid, "", faults("type unknown")},
		"second of a type":  {u.ID, same("phone", "+79990000002"), unique, "user_contacts_single_active_key", faults("type second_of_type")},
		"the same again":    {u.ID, same("phone", "+79990000001"), unique, "user_contacts_single_active_key", faults("type second_of_type")},
		"taken":             {u.ID, same("email", "taken@example.com"), unique, "user_contacts_active_normalized_key", faults("value taken")},
		"taken, allow":      {u.ID, same("telegram", "taken"), unique, "user_contacts_active_normalized_key", faults("value taken")},
		"taken, replace":    {u.ID, same("badge", "taken"), unique, "user_contacts_active_normalized_key", faults("value taken")},
		"no email":          {u.ID, same("email", "x"), check, "user_contacts_email_canonical", ""},
		"long email":        {u.ID, same("email", strings.Repeat("x", 243)+"@example.com"), check, "user_contacts_email_canonical", ""},
		"no login":          {u.ID, same("second_login", "a b"), check, "user_contacts_second_login_canonical", ""},
		"empty":             {u.ID, contact{"telegram", "", "x"}, check, "user_contacts_value_length", ""},
		"empty, normalized": {u.ID, contact{"telegram", "x", ""}, check, "user_contacts_normalized_length", ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := a.write.AddContactV1(t.Context(), addition(tt.user, tt.contact))
			requireState(t, err, tt.state, tt.constraint, tt.detail)
		})
	}
	require.Equal(t, before, a.detail(u.ID), "a refused replacement keeps the old contact")
	require.Equal(t, outbox, a.count("cache_outbox"))
}

func TestTwoReplacementsAtOnce(t *testing.T) {
	t.Parallel()
	a := open(t)
	u := a.createUser(nil, same("second_login", "old"))
	var first, second write.ContactWriteV1
	var firstErr, secondErr error
	a.overlap(commit, func(q *write.Queries) {
		first, firstErr = q.AddContactV1(t.Context(), addition(u.ID, same("second_login", "one")))
	}, func(q *write.Queries) {
		second, secondErr = q.AddContactV1(t.Context(), addition(u.ID, same("second_login", "two")))
	})
	require.NoError(t, firstErr)
	require.NoError(t, secondErr)
	require.Equal(t, []string{"second_login two"}, a.contactsOf(u.ID))
	require.EqualValues(t, 3, a.detail(u.ID).Version)
	a.requireTouched(second.Touched, second.OutboxID, "u:"+u.ID.String(),
		"c:"+second.ID.String(), "c:"+first.ID.String(), "i:second_login:one", "i:second_login:two")
}

// A reader never sees two active logins, nor none, while two callers replace it as fast as they can.
func TestReplacementIsAtomicForReaders(t *testing.T) {
	t.Parallel()
	a := open(t)
	u := a.createUser(nil, same("second_login", "start"))
	const callers, replacements = 2, 25
	done := make(chan error, callers)
	for i := range callers {
		q := writer(connect(t, a.WriteURL))
		go func() {
			for j := range replacements {
				login := "login_" + string(rune('a'+i)) + "_" + strings.Repeat("x", j+1)
				if _, err := q.AddContactV1(t.Context(), addition(u.ID, same("second_login", login))); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for finished := 0; finished < callers; {
		select {
		case err := <-done:
			require.NoError(t, err)
			finished++
		default:
			require.Len(t, a.detail(u.ID).Identifiers, 1)
		}
	}
	require.EqualValues(t, 1+callers*replacements, a.detail(u.ID).Version)
}

func TestTwoUsersAddOneValue(t *testing.T) {
	t.Parallel()
	a := open(t)
	one, two := a.createUser(nil), a.createUser(nil)
	var firstErr, secondErr error
	a.overlap(commit, func(q *write.Queries) {
		_, firstErr = q.AddContactV1(t.Context(), addition(one.ID, same("phone", "+79990000001")))
	}, func(q *write.Queries) {
		_, secondErr = q.AddContactV1(t.Context(), addition(two.ID, same("phone", "+79990000001")))
	})
	require.NoError(t, firstErr)
	requireState(t, secondErr, unique, "user_contacts_active_normalized_key", "")
	require.Empty(t, a.contactsOf(two.ID))
	require.EqualValues(t, 1, a.detail(two.ID).Version)
}

func TestUpdateContact(t *testing.T) {
	t.Parallel()
	a := open(t)
	a.createType("telegram", "allow")
	u := a.createUser(nil)
	phone := a.addContact(u.ID, same("phone", "+79990000001"))
	user, key := "u:"+u.ID.String(), "c:"+phone.ID.String()
	before, after := "i:phone:+79990000001", "i:phone:+79990000002"

	for _, step := range []struct {
		name    string
		change  write.UpdateContactV1Params
		touched []string
		value   string
		active  bool
	}{
		{"nothing", write.UpdateContactV1Params{}, nil, "+79990000001", true},
		{"as it is", write.UpdateContactV1Params{
			Value: ptr("+79990000001"), Normalized: ptr("+79990000001"), IsActive: ptr(true)}, nil, "+79990000001", true},
		{"another spelling", write.UpdateContactV1Params{
			Value: ptr("8 999 000-00-01"), Normalized: ptr("+79990000001")}, []string{user, key}, "8 999 000-00-01", true},
		{"another value", write.UpdateContactV1Params{
			Value: ptr("+79990000002"), Normalized: ptr("+79990000002")}, []string{user, key, before, after}, "+79990000002", true},
		{"deactivate", write.UpdateContactV1Params{IsActive: ptr(false)}, []string{user, key, after}, "+79990000002", false},
		{"deactivate again", write.UpdateContactV1Params{IsActive: ptr(false)}, nil, "+79990000002", false},
		{"reactivate", write.UpdateContactV1Params{IsActive: ptr(true)}, []string{user, key, after}, "+79990000002", true},
		{"deactivate with another value", write.UpdateContactV1Params{
			IsActive: ptr(false), Value: ptr("+79990000001"), Normalized: ptr("+79990000001")}, []string{user, key, after}, "+79990000001", false},
		{"reactivate with another value", write.UpdateContactV1Params{
			IsActive: ptr(true), Value: ptr("+79990000002"), Normalized: ptr("+79990000002")}, []string{user, key, after}, "+79990000002", true},
	} {
		t.Run(step.name, func(t *testing.T) {
			was := a.detail(u.ID)
			step.change.ContactID = phone.ID
			got, err := a.write.UpdateContactV1(t.Context(), step.change)
			require.NoError(t, err)
			a.requireTouched(got.Touched, got.OutboxID, step.touched...)
			require.Equal(t, step.value, got.Value)
			require.Equal(t, step.active, got.IsActive)
			require.Equal(t, step.active, got.DeactivatedAt == nil)
			require.Equal(t, phone.CreatedAt, got.CreatedAt)
			if is := a.detail(u.ID); step.touched == nil {
				require.Equal(t, was, is)
			} else {
				requireOneUp(t, was, is)
			}
		})
	}
}

func TestReactivationObeysOnSecond(t *testing.T) {
	t.Parallel()
	a := open(t)
	a.createType("telegram", "allow")
	u := a.createUser(nil)
	on, off := ptr(true), ptr(false)
	set := func(id uuid.UUID, active *bool) (write.ContactWriteV1, error) {
		return a.write.UpdateContactV1(t.Context(), write.UpdateContactV1Params{ContactID: id, IsActive: active})
	}

	old := a.addContact(u.ID, same("second_login", "old"))
	current := a.addContact(u.ID, same("second_login", "new"))
	got, err := set(old.ID, on)
	require.NoError(t, err)
	a.requireTouched(got.Touched, got.OutboxID, "u:"+u.ID.String(), "c:"+old.ID.String(), "c:"+current.ID.String(),
		"i:second_login:old", "i:second_login:new")
	require.Equal(t, []string{"second_login old"}, a.contactsOf(u.ID))

	phone := a.addContact(u.ID, same("phone", "+79990000001"))
	_, err = set(phone.ID, off)
	require.NoError(t, err)
	a.addContact(u.ID, same("phone", "+79990000002"))
	_, err = set(phone.ID, on)
	requireState(t, err, unique, "user_contacts_single_active_key", faults("type second_of_type"))

	telegram := a.addContact(u.ID, same("telegram", "one"))
	_, err = set(telegram.ID, off)
	require.NoError(t, err)
	a.addContact(u.ID, same("telegram", "two"))
	_, err = set(telegram.ID, on)
	require.NoError(t, err)
	require.Equal(t, []string{"phone +79990000002", "second_login old", "telegram one", "telegram two"}, a.contactsOf(u.ID))

	_, err = set(telegram.ID, off)
	require.NoError(t, err)
	a.createUser(nil, same("telegram", "one"))
	_, err = set(telegram.ID, on)
	requireState(t, err, unique, "user_contacts_active_normalized_key", faults("value taken"))
}

func TestUpdateContactRefuses(t *testing.T) {
	t.Parallel()
	a := open(t)
	u := a.createUser(nil)
	phone := a.addContact(u.ID, same("phone", "+79990000001"))
	login := a.addContact(u.ID, same("second_login", "old"))
	a.addContact(u.ID, same("second_login", "new"))
	a.createUser(nil, same("phone", "+79990000002"))
	nobody := uuid.New()
	before := a.detail(u.ID)

	for name, tt := range map[string]struct {
		change                    write.UpdateContactV1Params
		state, constraint, detail string
	}{
		"no such contact": {write.UpdateContactV1Params{ContactID: nobody}, notFound, "", missing("Contact", nobody)},
		"history": {write.UpdateContactV1Params{ContactID: login.ID, Value: ptr("x"), Normalized: ptr("x")},
			invalid, "", faults("value deactivated")},
		"taken": {write.UpdateContactV1Params{ContactID: phone.ID, Value: ptr("+79990000002"), Normalized: ptr("+79990000002")},
			unique, "user_contacts_active_normalized_key", faults("value taken")},
		"no phone": {write.UpdateContactV1Params{ContactID: phone.ID, Value: ptr("x"), Normalized: ptr("x")},
			check, "user_contacts_phone_canonical", ""},
		"empty": {write.UpdateContactV1Params{ContactID: phone.ID, Value: ptr("")}, check, "user_contacts_value_length", ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := a.write.UpdateContactV1(t.Context(), tt.change)
			requireState(t, err, tt.state, tt.constraint, tt.detail)
		})
	}
	require.Equal(t, before, a.detail(u.ID))
}

func TestReactivationAgainstAddition(t *testing.T) {
	t.Parallel()
	a := open(t)
	u := a.createUser(nil)
	old := a.addContact(u.ID, same("phone", "+79990000001"))
	_, err := a.write.DeactivateContactV1(t.Context(), old.ID, nil)
	require.NoError(t, err)
	var firstErr, secondErr error
	reactivate := func(q *write.Queries) error {
		_, err := q.UpdateContactV1(t.Context(), write.UpdateContactV1Params{ContactID: old.ID, IsActive: ptr(true)})
		return err
	}
	add := func(q *write.Queries) error {
		_, err := q.AddContactV1(t.Context(), addition(u.ID, same("phone", "+79990000002")))
		return err
	}

	a.overlap(rollback,
		func(q *write.Queries) { firstErr = reactivate(q) },
		func(q *write.Queries) { secondErr = add(q) })
	require.NoError(t, firstErr)
	require.NoError(t, secondErr)
	require.Equal(t, []string{"phone +79990000002"}, a.contactsOf(u.ID))

	_, err = a.write.DeactivateContactV1(t.Context(), a.onlyContact(u.ID), nil)
	require.NoError(t, err)
	a.overlap(commit,
		func(q *write.Queries) { firstErr = add(q) },
		func(q *write.Queries) { secondErr = reactivate(q) })
	require.NoError(t, firstErr)
	requireState(t, secondErr, unique, "user_contacts_single_active_key", faults("type second_of_type"))
}

// A contact that changed while the second caller waited is seen as it is then.
func TestTwoUpdatesOfOneContact(t *testing.T) {
	t.Parallel()
	a := open(t)
	u := a.createUser(nil)
	phone := a.addContact(u.ID, same("phone", "+79990000001"))
	var second write.ContactWriteV1
	var firstErr, secondErr error
	a.overlap(commit,
		func(q *write.Queries) { _, firstErr = q.DeactivateContactV1(t.Context(), phone.ID, nil) },
		func(q *write.Queries) { second, secondErr = q.DeactivateContactV1(t.Context(), phone.ID, nil) })
	require.NoError(t, firstErr)
	require.NoError(t, secondErr)
	a.requireTouched(second.Touched, second.OutboxID)
	require.EqualValues(t, 3, a.detail(u.ID).Version)
}

func TestDeactivateContact(t *testing.T) {
	t.Parallel()
	a := open(t)
	u := a.createUser(nil)
	phone := a.addContact(u.ID, same("phone", "+79990000001"))
	before := a.detail(u.ID)
	got, err := a.write.DeactivateContactV1(t.Context(), phone.ID, nil)
	require.NoError(t, err)
	require.False(t, got.IsActive)
	require.WithinDuration(t, time.Now(), *got.DeactivatedAt, time.Minute)
	a.requireTouched(got.Touched, got.OutboxID, "u:"+u.ID.String(), "c:"+phone.ID.String(), "i:phone:+79990000001")
	after := a.detail(u.ID)
	requireOneUp(t, before, after)
	require.Empty(t, after.Identifiers)

	again, err := a.write.DeactivateContactV1(t.Context(), phone.ID, nil)
	require.NoError(t, err)
	a.requireTouched(again.Touched, again.OutboxID)
	require.Equal(t, got.DeactivatedAt, again.DeactivatedAt)
	require.Equal(t, after, a.detail(u.ID))

	history, err := a.read.GetContactV1(t.Context(), phone.ID)
	require.NoError(t, err)
	require.Equal(t, contactOf(got), history)
	a.createUser(nil, same("phone", "+79990000001")) // its value is free

	nobody := uuid.New()
	_, err = a.write.DeactivateContactV1(t.Context(), nobody, nil)
	requireState(t, err, notFound, "", missing("Contact", nobody))
}

func TestContactMisses(t *testing.T) {
	t.Parallel()
	a := open(t)
	_, err := a.read.GetContactV1(t.Context(), uuid.New())
	require.ErrorIs(t, err, pgx.ErrNoRows)
	for _, user := range []uuid.UUID{uuid.New(), a.createUser(nil).ID} {
		list, err := a.read.ListUserContactsV1(t.Context(), user, true)
		require.NoError(t, err)
		require.Equal(t, []read.ContactV1{}, list)
	}
}

func (a *api) onlyContact(user uuid.UUID) uuid.UUID {
	a.t.Helper()
	list, err := a.read.ListUserContactsV1(a.t.Context(), user, false)
	require.NoError(a.t, err)
	require.Len(a.t, list, 1)
	return list[0].ID
}

func contactOf(w write.ContactWriteV1) read.ContactV1 {
	return read.ContactV1{
		ID: w.ID, UserID: w.UserID, Type: w.Type, Value: w.Value,
		IsActive: w.IsActive, CreatedAt: w.CreatedAt, UpdatedAt: w.UpdatedAt, DeactivatedAt: w.DeactivatedAt,
	}
}

func TestUpdateContact_TwoCallersAtOnce(t *testing.T) {
	t.Parallel()
	a := open(t)
	u := a.createUser(nil)
	c := a.addContact(u.ID, same("phone", "+79990000001"))
	var writes []write.ContactWriteV1
	change := func(value string) func(*write.Queries) {
		return func(q *write.Queries) {
			w, err := q.UpdateContactV1(t.Context(), write.UpdateContactV1Params{ContactID: c.ID, Value: &value, Normalized: &value})
			require.NoError(t, err)
			writes = append(writes, w)
		}
	}
	a.overlap(commit, change("+79990000002"), change("+79990000003"))
	require.Equal(t, []string{"phone +79990000003"}, a.contactsOf(u.ID))
	a.requireTouched(writes[1].Touched, writes[1].OutboxID,
		"u:"+u.ID.String(), "c:"+c.ID.String(), "i:phone:+79990000002", "i:phone:+79990000003")
	require.EqualValues(t, 4, a.detail(u.ID).Version)
}
