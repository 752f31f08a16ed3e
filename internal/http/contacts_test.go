package httpapi

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/errcode"
)

func (s *stack) addContactTo(user UserDetail, typ, value string) answer {
	return s.call(http.MethodPost, "/accounts/contacts", `{"user_id":"`+user.ID.String()+`","type":"`+typ+`","value":"`+value+`"}`)
}

func TestAddContact_LimitReached(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.call(http.MethodPost, "/accounts/contact-types", `{"name":"fax","on_second":"allow"}`).ok(http.StatusCreated, nil)
	contacts := make([]string, 100)
	for i := range contacts {
		contacts[i] = fmt.Sprintf(`{"type":"fax","value":"fax %d"}`, i)
	}
	user := s.createUser(`{"contacts":[` + strings.Join(contacts, ",") + `]}`)
	p := s.addContactTo(user, "fax", "one more").problem(errcode.LimitReached)
	require.Contains(t, p.Message, "100 active contacts")
	first := "/accounts/contacts/" + user.Contacts[0].ID.String()
	s.call(http.MethodPatch, first, `{"is_active":false}`).ok(http.StatusOK, nil)
	s.addContactTo(user, "fax", "one more").ok(http.StatusCreated, nil)
	s.call(http.MethodPatch, first, `{"is_active":true}`).problem(errcode.LimitReached)
}

func TestContacts(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	user := s.createUser(`{}`)
	var phone Contact
	a := s.addContactTo(user, "phone", "8 (999) 123-45-67").ok(http.StatusCreated, &phone)
	path := "/accounts/contacts/" + phone.ID.String()
	require.Equal(t, path, a.Header().Get("Location"))
	require.Equal(t, "8 (999) 123-45-67", phone.Value)
	require.Equal(t, user.ID, phone.UserID)
	require.True(t, phone.IsActive)
	require.Contains(t, a.Body.String(), `"deactivated_at":null`)

	var got Contact
	a = s.call(http.MethodGet, path, "").ok(http.StatusOK, &got)
	require.Equal(t, phone, got)
	require.NotEmpty(t, a.Header().Get("X-Data-Source"))
	require.Equal(t, phone.ID, s.user(user.ID.String()).Contacts[0].ID, "the next GET shows it")

	// Another user cannot have it, this one no second phone, and a second login replaces the first.
	other := s.createUser(`{}`)
	require.Equal(t, []string{"value taken"}, s.addContactTo(other, "phone", "+79991234567").problem(errcode.IdentifierTaken).faults())
	require.Equal(t, []string{"type second_of_type"}, s.addContactTo(user, "phone", "+79990000000").problem(errcode.ContactTypeConflict).faults())
	s.addContactTo(user, "second_login", "first").ok(http.StatusCreated, nil)
	s.addContactTo(user, "second_login", "second").ok(http.StatusCreated, nil)
	s.call(http.MethodGet, "/accounts/users/by-identifier?identifier=first", "").problem(errcode.NotFound)
	s.call(http.MethodGet, "/accounts/users/by-identifier?identifier=second", "").ok(http.StatusOK, nil)

	for range 2 { // idempotent
		a := s.call(http.MethodDelete, path, "").ok(http.StatusNoContent, nil)
		require.Empty(t, a.Body.String())
	}
	s.call(http.MethodGet, path, "").ok(http.StatusOK, &got)
	require.False(t, got.IsActive)
	require.NotNil(t, got.DeactivatedAt)
	s.call(http.MethodGet, "/accounts/users/by-identifier?identifier=+79991234567", "").problem(errcode.NotFound)
	s.addContactTo(other, "phone", "+79991234567").ok(http.StatusCreated, nil)

	var list ContactList
	s.call(http.MethodGet, "/accounts/contacts/user/"+user.ID.String(), "").ok(http.StatusOK, &list)
	require.Len(t, list.Items, 1)
	s.call(http.MethodGet, "/accounts/contacts/user/"+user.ID.String()+"?include_inactive=true", "").ok(http.StatusOK, &list)
	require.Len(t, list.Items, 3)
	a = s.call(http.MethodGet, "/accounts/contacts/user/"+s.createUser(`{}`).ID.String()+"/", "").ok(http.StatusOK, nil)
	require.JSONEq(t, `{"items":[]}`, a.Body.String())
}

func TestContactFaults(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	user := s.createUser(`{}`)
	for body, want := range map[string][]string{
		``:   {"body required"},
		`{}`: {"user_id required", "type required", "value required"},
		`{"user_id":1,"type":2,"value":3,"is_active":true}`: {
			"user_id invalid_type", "type invalid_type", "value invalid_type", "is_active unknown",
		},
		`{"user_id":"` + absentID + `","type":"phone","value":"+7 (000) 765-43-21"}`: {"value"},
		`{"user_id":"` + absentID + `","type":"email","value":"ivan-79991234567"}`:   {"value"},
		`{"user_id":"` + user.ID.String() + `","type":"telegram","value":"x"}`:       {"type unknown"},
	} {
		a := s.call(http.MethodPost, "/accounts/contacts", body, "Content-Type", "application/json")
		got := a.problem(errcode.Validation).faults()
		require.Len(t, got, len(want), "%s: %v", body, got)
		for i := range want {
			require.Contains(t, got[i], want[i], body)
		}
		require.NotContains(t, a.Body.String(), "79991234567")
		require.NotContains(t, a.Body.String(), "765-43-21")
	}
	p := s.addContactTo(user, "second_login", "+79991234567").problem(errcode.InvalidSecondLogin)
	require.Equal(t, "value", p.Details.Errors[0].Field)
	p = s.call(http.MethodPost, "/accounts/contacts", `{"user_id":"`+absentID+`","type":"phone","value":"+79991234567"}`).problem(errcode.NotFound)
	require.Equal(t, ProblemDetails{Entity: "User", ID: absentID}, p.Details)

	for _, method := range []string{http.MethodGet, http.MethodDelete} {
		p := s.call(method, "/accounts/contacts/"+absentID, "").problem(errcode.NotFound)
		require.Equal(t, ProblemDetails{Entity: "Contact", ID: absentID}, p.Details)
		p = s.call(method, "/accounts/contacts/7?x=1", "").problem(errcode.Validation)
		require.Equal(t, []string{"x unknown", "id invalid_uuid"}, p.faults())
	}
	p = s.call(http.MethodGet, "/accounts/contacts/user/"+absentID, "").problem(errcode.NotFound)
	require.Equal(t, ProblemDetails{Entity: "User", ID: absentID}, p.Details)
	p = s.call(http.MethodGet, "/accounts/contacts/user/1?include_inactive=yes", "").problem(errcode.Validation)
	require.Equal(t, []string{"user_id invalid_uuid", "include_inactive invalid_boolean"}, p.faults())
}

func TestUpdateContact(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	user := s.createUser(`{}`)
	var phone Contact
	s.addContactTo(user, "phone", "+79991234567").ok(http.StatusCreated, &phone)
	path := "/accounts/contacts/" + phone.ID.String()
	find := func(identifier string) answer {
		return s.call(http.MethodGet, "/accounts/users/by-identifier?identifier="+identifier, "")
	}
	find("+79991234567").ok(http.StatusOK, nil)
	var got Contact
	s.call(http.MethodPatch, path, `{"value":"8 (999) 765-43-21"}`).ok(http.StatusOK, &got)
	require.Equal(t, "8 (999) 765-43-21", got.Value)
	require.Equal(t, phone.ID, got.ID)
	find("+79991234567").problem(errcode.NotFound)
	find("+79997654321").ok(http.StatusOK, nil)
	s.call(http.MethodPatch, path, `{"is_active":false}`, "Content-Type", "application/merge-patch+json").ok(http.StatusOK, &got)
	require.False(t, got.IsActive)
	require.NotNil(t, got.DeactivatedAt)
	find("+79997654321").problem(errcode.NotFound)
	require.Equal(t, []string{"value deactivated"}, s.call(http.MethodPatch, path, `{"value":"+79991111111"}`).problem(errcode.Validation).faults())
	s.call(http.MethodPatch, path, `{}`).ok(http.StatusOK, &got)
	require.False(t, got.IsActive)
	s.call(http.MethodPatch, path, `{"is_active":true,"value":"+79991111111"}`).ok(http.StatusOK, &got)
	require.True(t, got.IsActive)
	require.Nil(t, got.DeactivatedAt)

	s.addContactTo(s.createUser(`{}`), "phone", "+79992222222").ok(http.StatusCreated, nil)
	a := s.call(http.MethodPatch, path, `{"value":"8-999-222-22-22"}`)
	require.Equal(t, []string{"value taken"}, a.problem(errcode.IdentifierTaken).faults())
	require.NotContains(t, a.Body.String(), "222-22")
	for body, want := range map[string][]string{
		`{"value":"123"}`:                      {"value invalid_phone"},
		`{"value":null,"is_active":"x"}`:       {"is_active invalid_type", "value null"},
		`{"value":"","type":"email"}`:          {"type unknown", "value too_short"},
		`{"value":"+7 (999) 111-11-11\u0000"}`: {"value invalid_text"},
	} {
		require.ElementsMatch(t, want, s.call(http.MethodPatch, path, body).problem(errcode.Validation).faults(), body)
	}
	var login Contact
	s.addContactTo(user, "second_login", "ivan").ok(http.StatusCreated, &login)
	s.call(http.MethodPatch, "/accounts/contacts/"+login.ID.String(), `{"value":"a@b"}`).problem(errcode.InvalidSecondLogin)
	p := s.call(http.MethodPatch, "/accounts/contacts/"+absentID, `{"value":"x"}`).problem(errcode.NotFound)
	require.Equal(t, ProblemDetails{Entity: "Contact", ID: absentID}, p.Details)
}
