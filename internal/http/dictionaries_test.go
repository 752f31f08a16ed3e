package httpapi

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/errcode"
)

func TestUserGroups(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	user := s.createIvan()
	var list GroupList
	first := s.call(http.MethodGet, "/accounts/user-groups", "").ok(http.StatusOK, &list)
	require.Len(t, list.Items, 2)
	etag := first.Header().Get("ETag")
	second := s.call(http.MethodGet, "/accounts/user-groups/", "").ok(http.StatusOK, nil)
	require.Equal(t, "hit", second.Header().Get("X-Cache"))
	s.call(http.MethodGet, "/accounts/user-groups", "", "If-None-Match", etag).ok(http.StatusNotModified, nil)

	client := list.Items[0]
	path := "/accounts/user-groups/" + client.ID.String()
	var got, renamed Group
	s.call(http.MethodGet, path, "").ok(http.StatusOK, &got)
	require.Equal(t, client, got)
	s.call(http.MethodPatch, path, `{"name":"Клиент"}`, "Content-Type", "application/merge-patch+json").ok(http.StatusOK, &renamed)
	require.Equal(t, "Клиент", renamed.Name)
	s.call(http.MethodPatch, path, `{}`).ok(http.StatusOK, &got)
	require.Equal(t, renamed, got)
	s.call(http.MethodGet, "/accounts/user-groups", "", "If-None-Match", etag).ok(http.StatusOK, &list)
	require.Contains(t, []string{list.Items[0].Name, list.Items[1].Name}, "Клиент")
	names := []string{}
	for _, g := range s.user(user.ID.String()).Groups {
		names = append(names, g.Name)
	}
	require.Contains(t, names, "Клиент", "the next GET of a member shows it")

	a := s.call(http.MethodPost, "/accounts/user-groups", `{"name":"new"}`).ok(http.StatusCreated, &got)
	require.Equal(t, "/accounts/user-groups/"+got.ID.String(), a.Header().Get("Location"))

	for body, want := range map[string]string{
		``: "body required", `{}`: "name required", `{"name":null}`: "name null", `{"name":""}`: "name too_short",
		`{"name":"` + strings.Repeat("x", 101) + `"}`: "name too_long", `{"name":1}`: "name invalid_type",
		`{"name":"a","x":1}`: "x unknown", `{"name":" \u3000"}`: "name invalid_name", `{"name":"a,b"}`: "name invalid_name",
	} {
		p := s.call(http.MethodPost, "/accounts/user-groups", body, "Content-Type", "application/json").problem(errcode.Validation)
		require.Equal(t, []string{want}, p.faults(), body)
		if want != "name required" {
			p = s.call(http.MethodPatch, path, body, "Content-Type", "application/json").problem(errcode.Validation)
			require.Equal(t, []string{want}, p.faults(), body)
		}
	}
	s.call(http.MethodPost, "/accounts/user-groups", `{"name":"a\u0000b"}`).problem(errcode.Validation)
	require.Equal(t, []string{"name taken"}, s.call(http.MethodPost, "/accounts/user-groups", `{"name":"new"}`).problem(errcode.NameTaken).faults())
	require.Equal(t, []string{"name taken"}, s.call(http.MethodPatch, path, `{"name":"new"}`).problem(errcode.NameTaken).faults())
	s.requireAbsent("/accounts/user-groups/", "Group")
}

func TestContactTypes(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	var list ContactTypeList
	first := s.call(http.MethodGet, "/accounts/contact-types", "").ok(http.StatusOK, &list)
	require.Len(t, list.Items, 3)
	s.call(http.MethodGet, "/accounts/contact-types", "", "If-None-Match", first.Header().Get("ETag")).ok(http.StatusNotModified, nil)

	var created, got ContactType
	a := s.call(http.MethodPost, "/accounts/contact-types", `{"name":"telegram","on_second":"allow"}`).ok(http.StatusCreated, &created)
	path := "/accounts/contact-types/" + created.ID.String()
	require.Equal(t, path, a.Header().Get("Location"))
	s.call(http.MethodGet, path, "").ok(http.StatusOK, &got)
	require.Equal(t, created, got)
	s.call(http.MethodGet, "/accounts/contact-types", "").ok(http.StatusOK, &list)
	require.Len(t, list.Items, 4)
	s.call(http.MethodPatch, path, `{"name":"tg"}`).ok(http.StatusOK, &got)
	require.Equal(t, "tg", got.Name)
	require.Equal(t, "allow", got.OnSecond)
	s.call(http.MethodPatch, path, `{"on_second":"reject"}`).ok(http.StatusOK, &got)
	require.Equal(t, "reject", got.OnSecond)

	for body, want := range map[string][]string{
		``: {"body required"}, `{}`: {"name required", "on_second required"},
		`{"name":1,"on_second":"never"}`:          {"name invalid_type", "on_second unknown"},
		`{"name":"","on_second":null}`:            {"name too_short", "on_second null"},
		`{"name":"A B","on_second":"allow"}`:      {"name invalid_name"},
		`{"name":"uuid","on_second":"allow"}`:     {"name reserved"},
		`{"name":"x","on_second":"allow","id":1}`: {"id unknown"},
	} {
		p := s.call(http.MethodPost, "/accounts/contact-types", body, "Content-Type", "application/json").problem(errcode.Validation)
		require.Equal(t, want, p.faults(), body)
	}
	for body, want := range map[string][]string{
		`{"name":null,"on_second":null}`: {"name null", "on_second null"},
		`{"on_second":"never"}`:          {"on_second unknown"},
		`{"single":true}`:                {"single unknown"},
	} {
		require.Equal(t, want, s.call(http.MethodPatch, path, body).problem(errcode.Validation).faults(), body)
	}
	require.Equal(t, []string{"name taken"},
		s.call(http.MethodPost, "/accounts/contact-types", `{"name":"tg","on_second":"allow"}`).problem(errcode.NameTaken).faults())
	s.requireAbsent("/accounts/contact-types/", "ContactType")
}

// requireAbsent checks GET and PATCH of an id that does not exist, and of one that is none.
func (s *stack) requireAbsent(base, entity string) {
	s.t.Helper()
	for _, method := range []string{http.MethodGet, http.MethodPatch} {
		body := ""
		if method == http.MethodPatch {
			body = `{"name":"z"}`
		}
		p := s.call(method, base+absentID, body).problem(errcode.NotFound)
		require.Equal(s.t, ProblemDetails{Entity: entity, ID: absentID}, p.Details)
		p = s.call(method, base+"1?x=2", body).problem(errcode.Validation)
		require.Equal(s.t, []string{"x unknown", "id invalid_uuid"}, p.faults())
	}
}
