package httpapi

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/auth"
	"github.com/payment-services/accounts/internal/errcode"
)

const ivan = `{
	"profile": {"name": "Иван <b>", "age": 30},
	"contacts": [
		{"type": "phone", "value": "+7 (999) 123-45-67"},
		{"type": "email", "value": "Ivan.Petrov+shop@Example.com"},
		{"type": "second_login", "value": "Ivan"}
	],
	"groups": ["driver", "client"]
}`

// createIvan creates a user with a contact of each kind and two groups.
func (s *stack) createIvan() UserDetail {
	s.t.Helper()
	for _, name := range []string{"client", "driver"} {
		s.call(http.MethodPost, "/accounts/user-groups", `{"name":"`+name+`"}`).ok(http.StatusCreated, nil)
	}
	return s.createUser(ivan)
}

func (s *stack) createUser(body string) UserDetail {
	s.t.Helper()
	var user UserDetail
	a := s.call(http.MethodPost, "/accounts/users", body).ok(http.StatusCreated, &user)
	require.Equal(s.t, "/accounts/users/"+user.ID.String(), a.Header().Get("Location"))
	require.NotEmpty(s.t, a.Header().Get("ETag"))
	return user
}

func (s *stack) user(id string) UserDetail {
	s.t.Helper()
	var user UserDetail
	s.call(http.MethodGet, "/accounts/users/"+id, "").ok(http.StatusOK, &user)
	return user
}

func TestUserIsFoundByEveryIdentifier(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	user := s.createIvan()
	require.True(t, user.IsActive)
	require.JSONEq(t, `{"name": "Иван <b>", "age": 30}`, string(user.Profile))
	require.Equal(t, "client", user.Groups[0].Name)
	require.Equal(t, "driver", user.Groups[1].Name)
	require.Len(t, user.Contacts, 3)

	for raw, kind := range map[string]string{
		user.ID.String():                   "uuid",
		strings.ToUpper(user.ID.String()):  "uuid",
		"+79991234567":                     "phone",
		"%2B79991234567":                   "phone",
		"%2079991234567":                   "phone",
		"8+999+123+45+67":                  "phone",
		"8%20(999)%20123-45-67":            "phone",
		"ivan.petrov+shop@example.com":     "email",
		"IVAN.PETROV%2Bshop%40EXAMPLE.COM": "email",
		"ivan":                             "second_login",
		"IVAN":                             "second_login",
	} {
		var found MatchedUser
		first := s.call(http.MethodGet, "/accounts/users/by-identifier?identifier="+raw, "").ok(http.StatusOK, &found)
		require.Equal(t, kind, found.MatchedBy, raw)
		require.Equal(t, user, found.UserDetail, raw)
		require.Contains(t, []string{"hit", "miss"}, first.Header().Get("X-Cache"))
		second := s.call(http.MethodGet, "/accounts/users/by-identifier/?identifier="+raw, "").ok(http.StatusOK, nil)
		require.Equal(t, "hit", second.Header().Get("X-Cache"), raw)
		require.Equal(t, "cache", second.Header().Get("X-Data-Source"))
		require.Equal(t, first.Body.String(), second.Body.String())

		etag := second.Header().Get("ETag")
		require.Regexp(t, `^"\d+-[^"]+-`+kind+`"$`, etag)
		same := s.call(http.MethodGet, "/accounts/users/by-identifier?identifier="+raw, "", "If-None-Match", `"x", W/`+etag)
		same.ok(http.StatusNotModified, nil)
		require.Empty(t, same.Body.String())
		require.Equal(t, etag, same.Header().Get("ETag"))
	}
	require.NotContains(t, s.log.String(), "9991234567")
	require.NotContains(t, strings.ToLower(s.log.String()), "ivan")
}

func TestUserIsNotFound(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	for _, raw := range []string{"+79990000000", "nobody@example.com", "nobody", absentID} {
		a := s.call(http.MethodGet, "/accounts/users/by-identifier?identifier="+raw, "")
		p := a.problem(errcode.NotFound)
		require.Equal(t, ProblemDetails{Entity: "User"}, p.Details)
		require.Equal(t, "/accounts/users/by-identifier", p.Instance)
		require.NotContains(t, a.Body.String(), raw)
	}
	p := s.call(http.MethodGet, "/accounts/users/"+absentID, "").problem(errcode.NotFound)
	require.Equal(t, ProblemDetails{Entity: "User", ID: absentID}, p.Details)
	for _, raw := range []string{"+7999", "a@@b", "%00", "%20", "12345678"} {
		p := s.call(http.MethodGet, "/accounts/users/by-identifier?identifier="+raw, "").problem(errcode.Validation)
		require.Len(t, p.Details.Errors, 1, raw)
		require.Equal(t, "identifier", p.Details.Errors[0].Field)
	}

	// An inactive user is found by id only.
	user := s.createUser(`{"is_active":false,"contacts":[{"type":"phone","value":"+79990000001"}]}`)
	require.False(t, s.user(user.ID.String()).IsActive)
	s.call(http.MethodGet, "/accounts/users/by-identifier?identifier=+79990000001", "").problem(errcode.NotFound)
	s.call(http.MethodGet, "/accounts/users/by-identifier?identifier="+user.ID.String(), "").problem(errcode.NotFound)
}

func TestOwnUser(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	mine, other := s.createUser(`{}`), s.createUser(`{}`)
	s.auth = bearer(t, mine.ID.String())
	require.Equal(t, mine, s.user(mine.ID.String()))
	s.call(http.MethodHead, "/accounts/users/"+mine.ID.String(), "").ok(http.StatusOK, nil)
	s.call(http.MethodGet, "/accounts/user-groups", "").ok(http.StatusOK, nil)
	s.call(http.MethodGet, "/accounts/contact-types", "").ok(http.StatusOK, nil)
	for _, path := range []string{
		"/accounts/users/" + other.ID.String(), "/accounts/users", "/accounts/users/by-identifier?identifier=" + mine.ID.String(),
		"/accounts/contacts/user/" + mine.ID.String(), "/accounts/user-group-memberships?user_id=" + mine.ID.String(),
	} {
		s.call(http.MethodGet, path, "").problem(errcode.Forbidden)
	}
	s.call(http.MethodPatch, "/accounts/users/"+mine.ID.String(), `{}`).problem(errcode.Forbidden)
}

func TestCreateUser(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	require.JSONEq(t, `{}`, string(s.createUser(`{}`).Profile))
	s.createIvan()
	for body, want := range map[string][]string{
		``:                          {"body required"},
		`[]`:                        {"body invalid_type"},
		`{"name":"x"}`:              {"name unknown"},
		`{"id":"` + absentID + `"}`: {"id unknown"},
		`{"profile":null,"is_active":null,"contacts":null,"groups":null}`: {
			"profile null", "is_active null", "contacts null", "groups null",
		},
		`{"groups":["none",""," "]}`:                 {"groups[0] unknown", "groups[1] unknown", "groups[2] unknown"},
		`{"contacts":[{"type":"none","value":"x"}]}`: {"contacts[0].type unknown"},
		`{"contacts":[{"type":"phone","value":"+79991111111"},{"type":"phone","value":"123"},{"type":"email","value":"x"}]}`: {
			"contacts[1].value", "contacts[2].value",
		},
		`{"contacts":[{"type":"phone","value":""},{"type":"","value":"` + strings.Repeat("x", 256) + `"}]}`: {
			"contacts[0].value too_short", "contacts[1].type too_short", "contacts[1].value too_long",
		},
		`{"profile":{"big":"` + strings.Repeat("x", 17<<10) + `"}}`:                       {"profile too_large"},
		`{"profile":` + strings.Repeat(`{"a":`, 40) + `1` + strings.Repeat(`}`, 40) + `}`: {"profile too_deep"},
	} {
		p := s.call(http.MethodPost, "/accounts/users", body, "Content-Type", "application/json").problem(errcode.Validation)
		got := p.faults()
		require.Len(t, got, len(want), "%s: %v", body, got)
		for i := range want {
			require.True(t, strings.HasPrefix(got[i], want[i]), "%.200s: %v", body, got)
		}
	}
	// What PostgreSQL cannot store.
	for _, profile := range []string{`{"a":"\u0000"}`, `{"a":"\ud800"}`, `{"a":1e400000}`} {
		s.call(http.MethodPost, "/accounts/users", `{"profile":`+profile+`}`).problem(errcode.Validation)
	}
	for _, value := range []string{`+79991234567\u0000`, `a\u0000@example.com`} {
		s.call(http.MethodPost, "/accounts/users", `{"contacts":[{"type":"email","value":"`+value+`"}]}`).problem(errcode.Validation)
	}
	s.call(http.MethodPost, "/accounts/users", `{"groups":["a\u0000"]}`).problem(errcode.Validation)

	p := s.call(http.MethodPost, "/accounts/users", `{"contacts":[{"type":"second_login","value":"x@y"}]}`).problem(errcode.InvalidSecondLogin)
	require.Equal(t, "contacts[0].value", p.Details.Errors[0].Field)
	a := s.call(http.MethodPost, "/accounts/users",
		`{"contacts":[{"type":"second_login","value":"free"},{"type":"phone","value":"8 999 123 45 67"},{"type":"email","value":"ivan.petrov+shop@example.com"}]}`)
	require.Equal(t, []string{"contacts[1].value taken", "contacts[2].value taken"}, a.problem(errcode.IdentifierTaken).faults())
	require.NotContains(t, a.Body.String(), "999")
	p = s.call(http.MethodPost, "/accounts/users",
		`{"contacts":[{"type":"phone","value":"+79992222222"},{"type":"phone","value":"+79993333333"}]}`).problem(errcode.ContactTypeConflict)
	require.Equal(t, []string{"contacts[1].type second_of_type"}, p.faults())
}

func TestUpdateUser(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	user := s.createIvan()
	path := "/accounts/users/" + user.ID.String()
	read := func() (UserDetail, string) {
		var u UserDetail
		a := s.call(http.MethodGet, path, "").ok(http.StatusOK, &u)
		return u, a.Header().Get("ETag")
	}
	_, first := read()

	var changed UserDetail
	a := s.call(http.MethodPatch, path, `{"profile":{"age":null,"city":"Омск"}}`,
		"Content-Type", "application/merge-patch+json", "If-Match", first).ok(http.StatusOK, &changed)
	require.JSONEq(t, `{"name":"Иван <b>","city":"Омск"}`, string(changed.Profile))
	require.Greater(t, changed.Version, user.Version)
	now, etag := read()
	require.Equal(t, changed, now, "the next GET shows it")
	require.Equal(t, a.Header().Get("ETag"), etag)
	require.NotEqual(t, first, etag)

	// Whoever did not see that must look again, whatever the tag's hash says.
	for _, stale := range []string{first, `"1-x"`, "W/" + etag, `"0-x"`} {
		a := s.call(http.MethodPatch, path, `{"is_active":false}`, "If-Match", stale)
		p := a.problem(errcode.PreconditionFailed)
		require.Equal(t, etag, a.Header().Get("ETag"))
		require.Equal(t, now.Version, p.Details.Version)
	}
	version, _, _ := strings.Cut(etag, "-")
	for _, current := range []string{etag, version + `-otherhash"`, version + `-hash-phone"`, "*"} {
		s.call(http.MethodPatch, path, `{}`, "If-Match", current).ok(http.StatusOK, nil)
		require.Equal(t, now.Version, s.user(user.ID.String()).Version, "nothing changed")
	}
	s.call(http.MethodPatch, path, `{"is_active":false}`).ok(http.StatusOK, &changed)
	require.False(t, changed.IsActive)
	s.call(http.MethodGet, "/accounts/users/by-identifier?identifier=ivan", "").problem(errcode.NotFound)
	s.call(http.MethodPatch, path, `{"is_active":true}`).ok(http.StatusOK, nil)
	s.call(http.MethodGet, "/accounts/users/by-identifier?identifier=ivan", "").ok(http.StatusOK, nil)

	for body, want := range map[string][]string{
		`{"profile":null}`:                 {"profile null"},
		`{"profile":"x","is_active":null}`: {"is_active null", "profile invalid_type"},
		`{"version":1}`:                    {"version unknown"},
		`{"Is_Active":false}`:              {"Is_Active unknown"},
		`{"profile":{"x":"` + strings.Repeat("x", 17<<10) + `"}}`: {"profile too_large"},
	} {
		require.ElementsMatch(t, want, s.call(http.MethodPatch, path, body).problem(errcode.Validation).faults(), "%.100s", body)
	}
	keys := make([]string, 8000)
	for i := range keys {
		keys[i] = fmt.Sprintf(`"key %d":1`, i)
	}
	for _, patch := range []string{strings.Join(keys, ","), `"a":` + strings.Repeat(" ", 70<<10) + `1`} {
		a := s.call(http.MethodPatch, path, `{"profile":{`+patch+`}}`)
		require.Equal(t, []string{"profile too_large"}, a.problem(errcode.Validation).faults())
	}
	p := s.call(http.MethodPatch, path, `{}`, "If-Match", "1").problem(errcode.Validation)
	require.Equal(t, []string{"If-Match invalid_etag"}, p.faults())
	p = s.call(http.MethodPatch, "/accounts/users/"+absentID, `{}`).problem(errcode.NotFound)
	require.Equal(t, ProblemDetails{Entity: "User", ID: absentID}, p.Details)
}

func TestUserETag(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	user := s.createUser(`{}`)
	path := "/accounts/users/" + user.ID.String()
	a := s.call(http.MethodGet, path, "").ok(http.StatusOK, nil)
	etag := a.Header().Get("ETag")
	for _, header := range []string{etag, "W/" + etag, `"a", ` + etag, "*"} {
		s.call(http.MethodGet, path, "", "If-None-Match", header).ok(http.StatusNotModified, nil)
	}
	version, _, _ := strings.Cut(etag, "-")
	for _, header := range []string{`"other"`, version + `-x"`, "nonsense"} {
		s.call(http.MethodGet, path, "", "If-None-Match", header).ok(http.StatusOK, nil)
	}
	r := httptest.NewRequest(http.MethodGet, path, nil)
	r.Header = http.Header{"Authorization": {s.auth}, "If-None-Match": {`"a"`, etag}}
	s.send(r).ok(http.StatusNotModified, nil)
	s.call(http.MethodHead, path, "", "If-None-Match", etag).ok(http.StatusNotModified, nil)

	// A client may have what the cache has not.
	changed := s.call(http.MethodPatch, path, `{"profile":{"a":1}}`).ok(http.StatusOK, nil)
	missed := s.call(http.MethodGet, path, "", "If-None-Match", changed.Header().Get("ETag")).ok(http.StatusNotModified, nil)
	require.Equal(t, "miss", missed.Header().Get("X-Cache"))
	require.Equal(t, changed.Header().Get("ETag"), missed.Header().Get("ETag"))
}

func TestListUsers(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	var page UserPage
	a := s.call(http.MethodGet, "/accounts/users", "").ok(http.StatusOK, &page)
	require.Equal(t, UserPage{Items: []User{}, Page: 1, Size: defaultPageSize}, page)
	require.JSONEq(t, `{"items":[],"page":1,"size":50,"total":0,"pages":0}`, a.Body.String())

	ivan := s.createIvan()
	inactive := s.createUser(`{"is_active":false}`)
	last := s.createUser(`{"profile":{"n":1}}`)
	ids := func(query string) []string {
		t.Helper()
		require.NoError(t, s.db.WaitForReplay(t.Context())) // a list may be as old as the replica
		a := s.call(http.MethodGet, "/accounts/users?"+query, "").ok(http.StatusOK, &page)
		require.NotEmpty(t, a.Header().Get("X-Data-Source"))
		found := []string{}
		for _, u := range page.Items {
			found = append(found, u.ID.String())
		}
		return found
	}
	a1, a2, a3 := ivan.ID.String(), inactive.ID.String(), last.ID.String()
	require.Equal(t, []string{a1, a2, a3}, ids(""))
	require.Equal(t, ivan.User, page.Items[0])
	require.EqualValues(t, 3, page.Total)
	require.Equal(t, []string{a1, a2}, ids("size=2"))
	require.EqualValues(t, 2, page.Pages)
	require.Equal(t, []string{a3}, ids("size=2&page=2"))
	require.Equal(t, []string{}, ids("page=21474836&size=100"))
	require.Equal(t, []string{a2}, ids("is_active=false"))
	require.Equal(t, []string{a1}, ids("is_active=true&group_id="+ivan.Groups[0].ID.String()))
	require.Equal(t, []string{}, ids("group_id="+absentID))
	since := last.UpdatedAt.Format("2006-01-02T15:04:05.999999Z07:00")
	require.Equal(t, []string{a3}, ids("updated_since="+url.QueryEscape(since)))
	require.Equal(t, []string{}, ids("updated_since=9999-01-01T00:00:00Z"))
	require.Len(t, ids("updated_since=0000-01-01T00:00:00Z"), 3)
}

func TestRevokedToken(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.call(http.MethodGet, "/accounts/user-groups", "").ok(http.StatusOK, nil)
	client, err := auth.NewRedis(s.db.AuthRedis().URL)
	require.NoError(t, err)
	defer client.Close()
	var claims struct{ JTI string }
	payload := strings.Split(s.auth, ".")[1]
	data, err := base64.RawURLEncoding.DecodeString(payload)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, &claims))
	require.NoError(t, client.Set(t.Context(), "black_list_access_tokens:"+claims.JTI, 1, 0).Err())
	s.call(http.MethodGet, "/accounts/user-groups", "").problem(errcode.Unauthenticated)
}

func TestListUsersByCursor(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	var want []string
	for range 5 {
		want = append(want, s.createUser(`{}`).ID.String())
	}
	require.NoError(t, s.db.WaitForReplay(t.Context()))
	for _, query := range []string{"cursor=&limit=2", "limit=2", "cursor=&limit=2&is_active=true", "limit=5", "cursor=", "limit=100"} {
		var got []string
		next := query
		for range 10 {
			var slice UserSlice
			s.call(http.MethodGet, "/accounts/users?"+next, "").ok(http.StatusOK, &slice)
			for _, u := range slice.Items {
				got = append(got, u.ID.String())
			}
			if slice.NextCursor == nil {
				break
			}
			next = strings.Replace(query, "cursor=", "", 1) + "&cursor=" + *slice.NextCursor
		}
		require.Equal(t, want, got, query)
	}
	for query, want := range map[string][]string{
		"cursor=&page=1": {"page excluded"}, "limit=5&size=5&page=2": {"page excluded", "size excluded"},
		"limit=0": {"limit invalid_integer"}, "limit=101": {"limit invalid_integer"}, "limit=": {"limit invalid_integer"},
		"cursor=x": {"cursor invalid_cursor"}, "cursor=" + absentID: {"cursor invalid_cursor"},
		"cursor=" + strings.Repeat("A", 65): {"cursor too_long"}, "cursor=AZmhsgAAcACAAAAAAAAA_x": {"cursor invalid_cursor"},
		"cursor=a&cursor=b": {"cursor repeated"},
	} {
		p := s.call(http.MethodGet, "/accounts/users?"+query, "").problem(errcode.Validation)
		require.Equal(t, want, p.faults(), query)
	}
}
