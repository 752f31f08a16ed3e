package db_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/dbgen/read"
	"github.com/payment-services/accounts/internal/dbgen/write"
)

func TestCreateUser(t *testing.T) {
	t.Parallel()
	a := open(t)
	drivers, clients := a.createGroup("drivers"), a.createGroup("clients")
	telegram := a.createType("telegram", "allow")

	p := newUser([]string{"drivers", "clients", "drivers"},
		same("telegram", "second"), same("telegram", "first"),
		contact{"phone", "8 999 123-45-67", "+79991234567"},
		contact{"email", "Ann@Example.com", "ann@example.com"},
		same("second_login", "ann"))
	p.Profile = json.RawMessage(`{"name": "Анна", "nested": {"n": null}}`)
	u, err := a.write.CreateUserV1(t.Context(), p)
	require.NoError(t, err)

	require.EqualValues(t, 1, u.Version)
	require.True(t, u.IsActive)
	require.WithinDuration(t, time.Now(), u.CreatedAt, time.Minute)
	require.WithinDuration(t, u.CreatedAt, u.UpdatedAt, time.Second)
	require.JSONEq(t, `{"name": "Анна", "nested": {"n": null}}`, string(u.Profile))
	require.JSONEq(t, `[{"id": "`+clients.ID.String()+`", "name": "clients"}, {"id": "`+drivers.ID.String()+`", "name": "drivers"}]`,
		string(u.Groups))
	require.Equal(t, []string{
		"email Ann@Example.com", "phone 8 999 123-45-67", "second_login ann", "telegram first", "telegram second",
	}, a.contactsOf(u.ID), "the contacts of one call are equally old: then by their own order of insertion")
	require.Equal(t, []string{"email:ann@example.com", "phone:+79991234567", "second_login:ann"}, u.Identifiers)
	require.ElementsMatch(t, []string{"g:" + drivers.ID.String(), "g:" + clients.ID.String(), "t:" + telegram.ID.String()}, u.Dependencies)

	want := []string{"u:" + u.ID.String(), "i:phone:+79991234567", "i:email:ann@example.com", "i:second_login:ann"}
	for _, id := range column[uuid.UUID](t, a.super, "SELECT id FROM accounts.user_contacts WHERE user_id = $1", u.ID) {
		want = append(want, "c:"+id.String())
	}
	require.Len(t, want, 9)
	a.requireTouched(u.Touched, u.OutboxID, want...)

	require.Equal(t, read.UserDetailV1{
		ID: u.ID, CreatedAt: u.CreatedAt, UpdatedAt: u.UpdatedAt, IsActive: u.IsActive, Profile: u.Profile,
		Version: u.Version, Groups: u.Groups, Contacts: u.Contacts, Identifiers: u.Identifiers, Dependencies: u.Dependencies,
	}, a.detail(u.ID))
}

func TestCreateUserWithNothing(t *testing.T) {
	t.Parallel()
	a := open(t)
	p := newUser(nil)
	p.IsActive = false
	u, err := a.write.CreateUserV1(t.Context(), p)
	require.NoError(t, err)
	require.False(t, u.IsActive)
	require.JSONEq(t, `[]`, string(u.Groups))
	require.JSONEq(t, `[]`, string(u.Contacts))
	require.Equal(t, []string{}, u.Identifiers)
	require.Equal(t, []string{}, u.Dependencies)
	a.requireTouched(u.Touched, u.OutboxID, "u:"+u.ID.String())
}

func TestCreateUserRefuses(t *testing.T) {
	t.Parallel()
	a := open(t)
	a.createType("telegram", "allow")
	a.createUser(nil, same("phone", "+79990000001"), same("telegram", "x"))
	users, contacts, outbox := a.count("users"), a.count("user_contacts"), a.count("cache_outbox")

	for name, tt := range map[string]struct {
		user                      write.CreateUserV1Params
		state, constraint, detail string
	}{
		"unknown names, all of them": {
			newUser([]string{"a", "b"}, same("fax", "1"), same("phone", "+79990000002"), same("", "1")),
			invalid, "", faults("contacts[0].type unknown", "contacts[2].type unknown", "groups[0] unknown", "groups[1] unknown"),
		},
		"second contacts of single types, all of them": {
			newUser(nil, same("phone", "+79990000002"), same("second_login", "a"), same("phone", "+79990000003"), same("second_login", "b")),
			unique, "user_contacts_single_active_key", faults("contacts[2].type second_of_type", "contacts[3].type second_of_type"),
		},
		"taken values, all of them": {
			newUser(nil, same("telegram", "x"), same("email", "a@example.com"), same("phone", "+79990000001")),
			unique, "user_contacts_active_normalized_key", faults("contacts[0].value taken", "contacts[2].value taken"),
		},
		"one value twice": {
			newUser(nil, same("telegram", "y"), same("telegram", "y")),
			unique, "user_contacts_active_normalized_key", faults("contacts[1].value taken"),
		},
		"no phone":          {newUser(nil, same("phone", "79990000002")), check, "user_contacts_phone_canonical", ""},
		"no email":          {newUser(nil, same("email", "A@example.com")), check, "user_contacts_email_canonical", ""},
		"no login":          {newUser(nil, same("second_login", "8 999 000-00-02")), check, "user_contacts_second_login_canonical", ""},
		"empty value":       {newUser(nil, contact{"telegram", "", "z"}), check, "user_contacts_value_length", ""},
		"long value":        {newUser(nil, contact{"telegram", strings.Repeat("я", 256), "z"}), check, "user_contacts_value_length", ""},
		"empty normalized":  {newUser(nil, contact{"telegram", "z", ""}), check, "user_contacts_normalized_length", ""},
		"long normalized":   {newUser(nil, contact{"telegram", "z", strings.Repeat("я", 256)}), check, "user_contacts_normalized_length", ""},
		"profile no object": {write.CreateUserV1Params{Profile: json.RawMessage(`[]`)}, check, "users_profile_is_object", ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := a.write.CreateUserV1(t.Context(), tt.user)
			requireState(t, err, tt.state, tt.constraint, tt.detail)
		})
	}
	require.Equal(t, users, a.count("users"))
	require.Equal(t, contacts, a.count("user_contacts"))
	require.Equal(t, outbox, a.count("cache_outbox"))
}

func TestTwoCreatorsOfOneIdentifier(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		end  func(pgx.Tx) error
		wins bool
	}{
		"the first commits":    {commit, false},
		"the first rolls back": {rollback, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := open(t)
			var firstErr, secondErr error
			a.overlap(tt.end, func(q *write.Queries) {
				_, firstErr = q.CreateUserV1(t.Context(), newUser(nil, same("phone", "+79990000001"), same("email", "a@example.com")))
			}, func(q *write.Queries) {
				// In the other order: whoever took the locks as they come would deadlock.
				_, secondErr = q.CreateUserV1(t.Context(), newUser(nil, same("email", "a@example.com"), same("phone", "+79990000001")))
			})
			require.NoError(t, firstErr)
			if tt.wins {
				require.NoError(t, secondErr)
			} else {
				requireState(t, secondErr, unique, "user_contacts_active_normalized_key",
					faults("contacts[0].value taken", "contacts[1].value taken"))
			}
			require.EqualValues(t, 1, a.count("users"))
			require.EqualValues(t, 2, a.count("user_contacts"))
		})
	}
}

// Two creators with the same contacts in opposite order, of whom each would hold what the other needs
// if they took the keys as they come.
func TestTwoCreatorsInOppositeOrder(t *testing.T) {
	t.Parallel()
	a := open(t)
	a.createType("telegram", "allow")
	blocker := connect(t, a.WriteURL)
	tx, err := blocker.Begin(t.Context())
	require.NoError(t, err)
	_, err = writerIn(tx).CreateUserV1(t.Context(), newUser(nil, same("telegram", "m")))
	require.NoError(t, err)

	create := func(values ...string) (*pgx.Conn, <-chan error) {
		conn, done := connect(t, a.WriteURL), make(chan error, 1)
		var contacts []contact
		for _, v := range values {
			contacts = append(contacts, same("telegram", v))
		}
		go func() {
			_, err := writer(conn).CreateUserV1(t.Context(), newUser(nil, contacts...))
			done <- err
		}()
		return conn, done
	}
	first, firstDone := create("a", "m", "z")
	a.waitUntilBlocked(first, blocker)
	second, secondDone := create("z", "m", "a")
	a.waitUntilBlocked(second, first)
	require.NoError(t, tx.Rollback(t.Context()))
	require.NoError(t, <-firstDone)
	requireState(t, <-secondDone, unique, "user_contacts_active_normalized_key",
		faults("contacts[0].value taken", "contacts[1].value taken", "contacts[2].value taken"))
}

func TestUpdateUser(t *testing.T) {
	t.Parallel()
	a := open(t)
	u := a.createUser(nil, same("phone", "+79990000001"), same("second_login", "ann"))
	id := "u:" + u.ID.String()

	for _, step := range []struct {
		name    string
		change  write.UpdateUserV1Params
		touched []string
		profile string
		active  bool
	}{
		{"patch", write.UpdateUserV1Params{ProfilePatch: json.RawMessage(`{"a": {"b": 1, "c": null}}`)}, []string{id}, `{"a": {"b": 1}}`, true},
		{"the same patch", write.UpdateUserV1Params{ProfilePatch: json.RawMessage(`{"a": {"b": 1}}`)}, nil, `{"a": {"b": 1}}`, true},
		{"an empty patch", write.UpdateUserV1Params{ProfilePatch: json.RawMessage(`{}`)}, nil, `{"a": {"b": 1}}`, true},
		{"nothing", write.UpdateUserV1Params{}, nil, `{"a": {"b": 1}}`, true},
		{"active already", write.UpdateUserV1Params{IsActive: ptr(true)}, nil, `{"a": {"b": 1}}`, true},
		{"deactivate", write.UpdateUserV1Params{IsActive: ptr(false)},
			[]string{id, "i:phone:+79990000001", "i:second_login:ann"}, `{"a": {"b": 1}}`, false},
		{"patch and activate", write.UpdateUserV1Params{IsActive: ptr(true), ProfilePatch: json.RawMessage(`{"a": null}`)},
			[]string{id, "i:phone:+79990000001", "i:second_login:ann"}, `{}`, true},
		{"expected version", write.UpdateUserV1Params{ExpectedVersions: []int64{4}, ProfilePatch: json.RawMessage(`{"b": 2}`)},
			[]string{id}, `{"b": 2}`, true},
		{"expected version, nothing", write.UpdateUserV1Params{ExpectedVersions: []int64{5}}, nil, `{"b": 2}`, true},
	} {
		t.Run(step.name, func(t *testing.T) {
			before := a.detail(u.ID)
			step.change.UserID = u.ID
			got, err := a.write.UpdateUserV1(t.Context(), step.change)
			require.NoError(t, err)
			a.requireTouched(got.Touched, got.OutboxID, step.touched...)
			require.JSONEq(t, step.profile, string(got.Profile))
			require.Equal(t, step.active, got.IsActive)
			after := a.detail(u.ID)
			require.Equal(t, after.Version, got.Version)
			require.Equal(t, after.UpdatedAt, got.UpdatedAt)
			if step.touched == nil {
				require.Equal(t, before, after)
			} else {
				requireOneUp(t, before, after)
			}
			require.Equal(t, before.CreatedAt, after.CreatedAt)
		})
	}
}

func TestUpdateUserRefuses(t *testing.T) {
	t.Parallel()
	a := open(t)
	u := a.createUser(nil)
	nobody := uuid.New()
	for name, tt := range map[string]struct {
		change                    write.UpdateUserV1Params
		state, constraint, detail string
	}{
		"no such user":           {write.UpdateUserV1Params{UserID: nobody}, notFound, "", missing("User", nobody)},
		"another version":        {write.UpdateUserV1Params{UserID: u.ID, ExpectedVersions: []int64{7}}, otherVersion, "", `{"version": 1}`},
		"profile becomes null":   {write.UpdateUserV1Params{UserID: u.ID, ProfilePatch: json.RawMessage(`null`)}, check, "users_profile_is_object", ""},
		"profile becomes a list": {write.UpdateUserV1Params{UserID: u.ID, ProfilePatch: json.RawMessage(`[1]`)}, check, "users_profile_is_object", ""},
		"profile becomes a text": {write.UpdateUserV1Params{UserID: u.ID, ProfilePatch: json.RawMessage(`"x"`)}, check, "users_profile_is_object", ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := a.write.UpdateUserV1(t.Context(), tt.change)
			requireState(t, err, tt.state, tt.constraint, tt.detail)
		})
	}
	require.EqualValues(t, 1, a.detail(u.ID).Version)
}

func TestTwoUpdatesOfOneUser(t *testing.T) {
	t.Parallel()
	a := open(t)
	u := a.createUser(nil)
	patch := func(q *write.Queries, text string, versions []int64) (write.UserWriteV1, error) {
		return q.UpdateUserV1(t.Context(), write.UpdateUserV1Params{
			UserID: u.ID, ProfilePatch: json.RawMessage(text), ExpectedVersions: versions,
		})
	}

	var second write.UserWriteV1
	var firstErr, secondErr error
	a.overlap(commit,
		func(q *write.Queries) { _, firstErr = patch(q, `{"a": 1}`, nil) },
		func(q *write.Queries) { second, secondErr = patch(q, `{"b": 2}`, nil) })
	require.NoError(t, firstErr)
	require.NoError(t, secondErr)
	require.JSONEq(t, `{"a": 1, "b": 2}`, string(second.Profile), "no lost update")
	require.EqualValues(t, 3, second.Version)

	a.overlap(commit,
		func(q *write.Queries) { _, firstErr = patch(q, `{"a": 3}`, []int64{3}) },
		func(q *write.Queries) { _, secondErr = patch(q, `{"b": 4}`, []int64{3}) })
	require.NoError(t, firstErr)
	requireState(t, secondErr, otherVersion, "", `{"version": 4}`)
	require.JSONEq(t, `{"a": 3, "b": 2}`, string(a.detail(u.ID).Profile))
}

func TestGetUserDetailMiss(t *testing.T) {
	t.Parallel()
	a := open(t)
	_, err := a.read.GetUserDetailV1(t.Context(), uuid.New())
	require.ErrorIs(t, err, pgx.ErrNoRows)
}

func TestGetUserByIdentifier(t *testing.T) {
	t.Parallel()
	a := open(t)
	u := a.createUser(nil,
		same("phone", "+79991234567"), contact{"email", "Фёдор@Пример.рф", "фёдор@xn--e1afmkfd.xn--p1ai"}, same("second_login", "jürgen_1"))
	hex := strings.ReplaceAll(u.ID.String(), "-", "")

	for text, kind := range map[string]string{
		u.ID.String():                         "uuid",
		"  " + strings.ToUpper(u.ID.String()): "uuid",
		hex:                                   "uuid",
		"{" + u.ID.String() + "}":             "uuid",
		"{" + strings.ToUpper(hex) + "}":      "uuid",
		"+79991234567":                        "phone",
		" +7 (999) 123-45-67 ":                "phone",
		"+7.999.123.45.67":                    "phone",
		"фёдор@xn--e1afmkfd.xn--p1ai":         "email",
		"ФЁДОР@XN--E1AFMKFD.XN--P1AI":         "email",
		"jürgen_1":                            "second_login",
		"JÜRGEN_1 ":                           "second_login",
	} {
		got, err := a.read.GetUserByIdentifierV1(t.Context(), text)
		require.NoError(t, err, text)
		require.Equal(t, kind, got.MatchedBy, text)
		require.Equal(t, a.detail(u.ID), read.UserDetailV1{
			ID: got.ID, CreatedAt: got.CreatedAt, UpdatedAt: got.UpdatedAt, IsActive: got.IsActive, Profile: got.Profile,
			Version: got.Version, Groups: got.Groups, Contacts: got.Contacts, Identifiers: got.Identifiers, Dependencies: got.Dependencies,
		})
	}
	for _, text := range []string{
		"", " ", uuid.NewString(), "79991234567", "89991234567", "+79991234568", "jürgen", "jürgen_1 x", "%", "@", "+", "{}",
		"federico@xn--e1afmkfd.xn--p1ai", "+7 999 123 45 67 8", strings.Repeat("9", 100_000),
	} {
		_, err := a.read.GetUserByIdentifierV1(t.Context(), text)
		require.ErrorIs(t, err, pgx.ErrNoRows, "%.50q", text)
	}

	_, err := a.write.UpdateUserV1(t.Context(), write.UpdateUserV1Params{UserID: u.ID, IsActive: ptr(false)})
	require.NoError(t, err)
	for _, text := range []string{u.ID.String(), "+79991234567", "jürgen_1"} {
		_, err := a.read.GetUserByIdentifierV1(t.Context(), text)
		require.ErrorIs(t, err, pgx.ErrNoRows, "an inactive user is not found by %s", text)
	}
	require.False(t, a.detail(u.ID).IsActive)
}

func TestListAndCountUsers(t *testing.T) {
	t.Parallel()
	a := open(t)
	group := a.createGroup("drivers")
	var all []uuid.UUID
	for range 3 {
		all = append(all, a.createUser(nil).ID)
	}
	for range 4 {
		all = append(all, a.createUser([]string{"drivers"}).ID)
	}
	_, err := a.write.UpdateUserV1(t.Context(), write.UpdateUserV1Params{UserID: all[6], IsActive: ptr(false)})
	require.NoError(t, err)
	_, err = a.write.SetMembershipV1(t.Context(), all[5], group.ID, false)
	require.NoError(t, err)
	since := a.detail(all[6]).UpdatedAt

	for name, tt := range map[string]struct {
		filter read.ListUsersV1Params
		want   []uuid.UUID
	}{
		"all, in the order of creation": {read.ListUsersV1Params{}, all},
		"active":                        {read.ListUsersV1Params{IsActive: ptr(true)}, all[:6]},
		"inactive":                      {read.ListUsersV1Params{IsActive: ptr(false)}, all[6:]},
		"members":                       {read.ListUsersV1Params{GroupID: &group.ID}, []uuid.UUID{all[3], all[4], all[6]}},
		"active members":                {read.ListUsersV1Params{GroupID: &group.ID, IsActive: ptr(true)}, all[3:5]},
		"changed since, inclusive":      {read.ListUsersV1Params{UpdatedSince: &since}, all[5:]},
		"all filters":                   {read.ListUsersV1Params{UpdatedSince: &since, IsActive: ptr(false), GroupID: &group.ID}, all[6:]},
		"no such group":                 {read.ListUsersV1Params{GroupID: ptr(uuid.New())}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var got []uuid.UUID
			for offset := int64(0); ; offset += 2 {
				tt.filter.PageLimit, tt.filter.PageOffset = 2, offset
				page, err := a.read.ListUsersV1(t.Context(), tt.filter)
				require.NoError(t, err)
				for _, u := range page {
					d := a.detail(u.ID)
					require.Equal(t, read.UserV1{
						ID: d.ID, CreatedAt: d.CreatedAt, UpdatedAt: d.UpdatedAt, IsActive: d.IsActive, Profile: d.Profile, Version: d.Version,
					}, u)
					got = append(got, u.ID)
				}
				if len(page) < 2 {
					break
				}
			}
			require.Equal(t, tt.want, got)
			n, err := a.read.CountUsersV1(t.Context(), tt.filter.IsActive, tt.filter.GroupID, tt.filter.UpdatedSince)
			require.NoError(t, err)
			require.Equal(t, read.UserCountV1{Total: int64(len(tt.want))}, n)
		})
	}
}

func TestCountUsersBeyondTheExactLimit(t *testing.T) {
	t.Parallel()
	a := open(t)
	a.super = connect(t, a.UncheckedURL("100,000 users are needed fast"))
	const exact, many = 100_000, 160_000
	insert := `INSERT INTO accounts.users (id, is_active) SELECT gen_random_uuid(), i % 4 > 0 FROM generate_series(1, $1) AS i`
	execute(t, a.super, insert, exact)
	n, err := a.read.CountUsersV1(t.Context(), nil, nil, nil)
	require.NoError(t, err)
	require.Equal(t, read.UserCountV1{Total: exact}, n)

	// Before the table was ever analysed there is nothing to estimate from but the limit itself.
	execute(t, a.super, insert, many-exact)
	n, err = a.read.CountUsersV1(t.Context(), nil, nil, nil)
	require.NoError(t, err)
	require.True(t, n.Estimated)
	require.Greater(t, n.Total, int64(exact))

	execute(t, a.super, "ANALYZE accounts.users")
	for _, tt := range []struct {
		active *bool
		want   read.UserCountV1
	}{
		{nil, read.UserCountV1{Total: many, Estimated: true}},
		{ptr(true), read.UserCountV1{Total: many * 3 / 4, Estimated: true}},
		{ptr(false), read.UserCountV1{Total: many / 4}},
	} {
		n, err = a.read.CountUsersV1(t.Context(), tt.active, nil, nil)
		require.NoError(t, err)
		require.Equal(t, tt.want.Estimated, n.Estimated)
		require.InEpsilon(t, tt.want.Total, n.Total, 0.05)
	}
}

func TestCreateUser_LocksContactTypesInKeyOrder(t *testing.T) {
	t.Parallel()
	a := open(t)
	names := map[uuid.UUID]string{}
	var types []uuid.UUID
	for _, name := range []string{"signal", "telegram", "viber"} {
		id := a.createType(name, "allow").ID
		names[id], types = name, append(types, id)
	}
	a.inKeyOrder("contact_types", true, types, func(q *write.Queries, ids []uuid.UUID) error {
		var contacts []contact
		for _, id := range ids {
			contacts = append(contacts, same(names[id], ids[0].String()))
		}
		_, err := q.CreateUserV1(t.Context(), newUser(nil, contacts...))
		return err
	})
	require.EqualValues(t, 2, a.count("users"))
}
