package httpapi

import (
	"encoding/json"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/auth"
	"github.com/payment-services/accounts/internal/errcode"
)

// members returns the sorted names of the answer's members.
func (a answer) members() []string {
	a.t.Helper()
	var object map[string]any
	require.NoError(a.t, json.Unmarshal(a.Body.Bytes(), &object), a.Body.String())
	return slices.Sorted(maps.Keys(object))
}

// writer returns the token of a service that may write and not read.
func (s *stack) writer() string { return bearer(s.t, "importer", auth.ScopeWrite) }

func TestIsUser(t *testing.T) {
	t.Parallel()
	require.True(t, isUser(testSubject, testSubject))
	require.True(t, isUser(strings.ToUpper(testSubject), testSubject))
	for _, subject := range []string{
		"X" + testSubject + "Y", "{" + testSubject + "}", "urn:uuid:" + testSubject, strings.ReplaceAll(testSubject, "-", ""),
		" " + testSubject, testSubject + "\n", testSubject[:35], "", absentID, `"` + testSubject + `"`,
	} {
		require.False(t, isUser(subject, testSubject), "%q", subject)
		require.False(t, isUser(testSubject, subject), "%q", subject)
	}
}

// TestOwnUser_WithoutReadScope checks who reads a user without the read scope: the user itself, while it is active.
func TestOwnUser_WithoutReadScope(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	user := s.createIvan()
	id := user.ID.String()
	path := "/accounts/users/" + id
	etag := s.call(http.MethodGet, path, "").Header().Get("ETag")
	for _, scopes := range [][]string{{}, {auth.ScopeWrite}} {
		own := bearer(t, id, scopes...)
		s.call(http.MethodGet, path, "", "Authorization", own).ok(http.StatusOK, nil)
		s.call(http.MethodGet, path, "", "Authorization", own, "If-None-Match", etag).ok(http.StatusNotModified, nil)
		for _, subject := range []string{"X" + id + "Y", "{" + id + "}", "urn:uuid:" + id, strings.ReplaceAll(id, "-", ""), absentID, ""} {
			if subject != "" {
				s.call(http.MethodGet, path, "", "Authorization", bearer(t, subject, scopes...)).problem(errcode.Forbidden)
			}
		}
	}
	own := bearer(t, id, auth.ScopeWrite)
	require.Contains(t, s.call(http.MethodPatch, path, `{}`, "Authorization", own).ok(http.StatusOK, nil).members(), "contacts")

	a := s.call(http.MethodPatch, path, `{"is_active":false}`, "Authorization", own).ok(http.StatusOK, nil)
	require.Equal(t, []string{"id", "version"}, a.members(), "the user is not active any more")
	etag = s.call(http.MethodGet, path, "").Header().Get("ETag")
	for _, header := range []string{"", etag, "*"} { // 200 and 304 would both tell
		p := s.call(http.MethodGet, path, "", "Authorization", own, "If-None-Match", header).problem(errcode.Forbidden)
		require.Equal(t, "the user of this token is deactivated", p.Detail)
	}
	s.call(http.MethodGet, path, "", "Authorization", bearer(t, id, auth.ScopeRead)).ok(http.StatusOK, nil)
}

// TestWriteAnswers_WithoutReadScope checks that no write answers with what the token may not read.
func TestWriteAnswers_WithoutReadScope(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	user := s.createIvan()
	var group Group
	s.call(http.MethodPost, "/accounts/user-groups", `{"name":"vip"}`).ok(http.StatusCreated, &group)
	contact, membership := user.Contacts[0].ID.String(), user.ID.String()+"/"+user.Groups[0].ID.String()
	writer := s.writer()
	for _, test := range []struct {
		method, path, body string
		status             int
		read               string // what shows the same resource to a reader; empty: the Location
		members            []string
	}{
		{http.MethodPost, "/users", `{"profile":{"a":1},"contacts":[{"type":"phone","value":"+79990000009"}]}`, 201, "", []string{"id", "version"}},
		{http.MethodPatch, "/users/" + user.ID.String(), `{}`, 200, "/users/" + user.ID.String(), []string{"id", "version"}},
		{http.MethodPatch, "/users/" + user.ID.String(), `{"profile":{"b":1}}`, 200, "/users/" + user.ID.String(), []string{"id", "version"}},
		{http.MethodPost, "/contacts", `{"user_id":"` + user.ID.String() + `","type":"second_login","value":"vanya"}`, 201, "", []string{"id", "version"}},
		{http.MethodPatch, "/contacts/" + contact, `{}`, 200, "/contacts/" + contact, []string{"id", "version"}},
		{http.MethodPatch, "/contacts/" + contact, `{"is_active":false}`, 200, "/contacts/" + contact, []string{"id", "version"}},
		{http.MethodPost, "/user-group-memberships", `{"user_id":"` + user.ID.String() + `","group_id":"` + user.Groups[0].ID.String() + `"}`,
			200, "/user-group-memberships/" + membership, []string{"group_id", "user_id", "version"}},
		{http.MethodPatch, "/user-group-memberships/" + membership, `{"is_active":false}`, 200, "/user-group-memberships/" + membership,
			[]string{"group_id", "user_id", "version"}},
	} {
		at := test.method + " " + test.path
		a := s.call(test.method, "/accounts"+test.path, test.body, "Authorization", writer).ok(test.status, nil)
		require.Equal(t, test.members, a.members(), at)
		path := "/accounts" + test.read
		if test.read == "" {
			path = a.Header().Get("Location")
		}
		s.call(http.MethodGet, path, "", "Authorization", writer).problem(errcode.Forbidden)
		// Its ETag and its version are those of the resource.
		etag, full := a.Header().Get("ETag"), s.call(http.MethodGet, path, "").ok(http.StatusOK, nil)
		version, _, _ := strings.Cut(etag, "-")
		require.True(t, strings.HasPrefix(full.Header().Get("ETag"), version+"-"), at)
		require.Contains(t, a.Body.String(), `"version":`+strings.Trim(version, `"`), at)
		require.NotEqual(t, full.Header().Get("ETag"), etag, "%s: a hash of the whole body lets one test guesses", at)
		a = s.call(http.MethodPatch, path, `{}`, "Authorization", writer, "If-Match", etag).ok(http.StatusOK, nil)
		require.Equal(t, etag, a.Header().Get("ETag"), at)
		// The same for a precondition that failed.
		a = s.call(http.MethodPatch, path, `{}`, "Authorization", writer, "If-Match", `"0-x"`)
		a.problem(errcode.PreconditionFailed)
		require.Equal(t, etag, a.Header().Get("ETag"), at)
	}
	// The dictionaries are readable by every token, so their writes answer in full.
	a := s.call(http.MethodPatch, "/accounts/user-groups/"+group.ID.String(), `{"name":"gold"}`, "Authorization", writer)
	require.Contains(t, a.ok(http.StatusOK, nil).members(), "name")
	a = s.call(http.MethodPost, "/accounts/user-group-memberships/bulk",
		`{"group_id":"`+group.ID.String()+`","user_ids":["`+user.ID.String()+`"]}`, "Authorization", writer)
	require.Equal(t, []string{"results"}, a.ok(http.StatusOK, nil).members())
	a = s.call(http.MethodDelete, "/accounts/contacts/"+contact, "", "Authorization", writer).ok(http.StatusNoContent, nil)
	require.Empty(t, a.Header().Get("ETag"))
}

// TestBulk_WithoutReadScope checks that a list of phones does not find the users that they belong to.
func TestBulk_WithoutReadScope(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	user := s.createIvan()
	const rows = `{"users":[{"phone":"+79991234567","user_groups":[]},{"phone":"+79990000001","user_groups":["client"]},` +
		`{"phone":"+79990000001","user_groups":[]}]}`
	ids := func(token, query string) (ids []uuid.UUID) {
		var got BulkResult
		s.call(http.MethodPost, "/accounts/users/bulk"+query, rows, "Authorization", token).ok(http.StatusOK, &got)
		for _, row := range got.Rows {
			if row.UserID != nil {
				ids = append(ids, *row.UserID)
			}
		}
		return ids
	}
	require.Equal(t, []uuid.UUID{user.ID}, ids(s.auth, "?dry_run=true"))
	require.Empty(t, ids(s.writer(), "?dry_run=true"))
	require.Empty(t, ids(s.writer(), "?dry_run=true&on_conflict=merge"))
	// A dry run does not compare: which groups and profile a user has cannot be found out by guessing.
	for _, guess := range []string{`"profile":{"age":30}`, `"profile":{"age":31}`, `"profile":{"absent":null}`} {
		var got BulkResult
		s.call(http.MethodPost, "/accounts/users/bulk?dry_run=true&on_conflict=merge",
			`{"users":[{"phone":"+79991234567","user_groups":["client"],`+guess+`}]}`, "Authorization", s.writer()).ok(http.StatusOK, &got)
		require.Equal(t, []string{"1 exists"}, got.outcomes(t), guess)
	}
	var dry BulkResult
	dryBody, dryType := form(t, [3]string{"file", "users.csv", "phone,user_groups\n+79991234567,vip\n+79991234567,client\n"})
	s.createGroup("vip")
	s.call(http.MethodPost, "/accounts/users/bulk/upload?dry_run=true&on_conflict=merge", dryBody, "Content-Type", dryType, "Authorization", s.writer()).
		ok(http.StatusOK, &dry)
	require.Zero(t, dry.Merged)
	created := ids(s.writer(), "?on_conflict=merge")
	require.Len(t, created, 1)
	require.NotEqual(t, user.ID, created[0])
	require.Empty(t, ids(s.writer(), ""), "it exists now")

	const file = "phone,user_groups\n+79991234567,client\n+79990000002,client\n"
	body, contentType := form(t, [3]string{"file", "users.csv", file})
	var uploaded BulkResult
	s.call(http.MethodPost, "/accounts/users/bulk/upload?on_conflict=merge", body, "Content-Type", contentType, "Authorization", s.writer()).
		ok(http.StatusOK, &uploaded)
	require.Nil(t, uploaded.Rows[0].UserID)
	require.NotNil(t, uploaded.Rows[1].UserID)

	var job Import
	body, contentType = form(t, [3]string{"file", "users.csv", file + "+79990000003,client\n"})
	s.call(http.MethodPost, "/accounts/users/bulk/upload", body, "Content-Type", contentType, "Authorization", s.writer(), "Prefer", "respond-async").
		ok(http.StatusAccepted, &job)
	for {
		worked, err := s.accounts.RunImportChunk(t.Context())
		require.NoError(t, err)
		if !worked {
			break
		}
	}
	result := "/accounts/imports/" + job.ID.String() + "/result"
	full := s.call(http.MethodGet, result, "").Body.String()
	require.Contains(t, full, user.ID.String())
	hidden := s.call(http.MethodGet, result, "", "Authorization", s.writer()).Body.String()
	require.NotContains(t, hidden, user.ID.String())
	var third string
	for line := range strings.Lines(full) {
		if strings.Contains(line, "+79990000003") {
			third = line
		}
	}
	require.Contains(t, third, "created")
	require.Contains(t, hidden, third, "the row of a created user is whole")
}

func TestRequestLimit_SpellingOfTheHeader(t *testing.T) {
	t.Parallel()
	s := newBareAPI(t, func(c *Config) { c.Limits.PerMinute = 5 })
	now := time.Now().Truncate(limitWindow)
	s.requests.now = func() time.Time { return now }
	_, token, _ := strings.Cut(s.auth, " ")
	allowed := 0
	for i := range 40 {
		scheme := []byte("bearer")
		for bit := range 5 {
			if i>>bit&1 == 1 {
				scheme[bit] -= 'a' - 'A'
			}
		}
		r := newRequestFrom(i, string(scheme)+strings.Repeat(" ", 1+i%7)+token+strings.Repeat(" ", i%3))
		if s.send(r).Code == http.StatusNotFound {
			allowed++
		}
	}
	require.Equal(t, 5, allowed, "the token is one, however the header is spelled and wherever it comes from")
	r := newRequestFrom(41, bearer(t, testSubject, auth.ScopeRead))
	require.Equal(t, http.StatusNotFound, s.send(r).Code, "another token has its own count")
}

// newRequestFrom returns a request from the i-th of many addresses.
func newRequestFrom(i int, authorization string) *http.Request {
	r, _ := http.NewRequest(http.MethodGet, "/accounts/nowhere", nil)
	r.RemoteAddr = "10.1.1." + string(rune('0'+i/10)) + string(rune('0'+i%10)) + ":1"
	r.RemoteAddr = strings.Replace(r.RemoteAddr, ".0", ".", 1)
	r.Header.Set("Authorization", authorization)
	return r
}

// TestNotFoundLimit_Parallel checks that parallel requests do not get more guesses than sequential ones.
func TestNotFoundLimit_Parallel(t *testing.T) {
	t.Parallel()
	const limit, clients = 5, 40
	for name, guess := range map[string]func(s *stack) (answered int){
		"by-identifier": func(s *stack) int {
			if s.call(http.MethodGet, "/accounts/users/by-identifier?identifier=nobody", "").Code == http.StatusNotFound {
				return 1
			}
			return 0
		},
		"lookup": func(s *stack) int {
			a := s.lookup(`{"identifiers":["nobody1","nobody2","nobody3"]}`)
			return strings.Count(a.Body.String(), `"not_found"`)
		},
		"all routes": func(s *stack) (answered int) {
			for _, method := range []string{http.MethodGet, http.MethodHead} {
				a := s.call(method, "/accounts/users/by-identifier/?identifier=nobody@example.com", "", "If-None-Match", "*")
				if a.Code == http.StatusNotFound {
					answered++
				}
			}
			a := s.lookup(`{"identifiers":["nobody","NOBODY","+79990000099","` + absentID + `"]}`)
			return answered + strings.Count(a.Body.String(), `"not_found"`)
		},
		"hundred guesses a lookup": func(s *stack) int {
			a := s.lookup(`{"identifiers":["nobody"` + strings.Repeat(`,"nobody"`, 99) + `]}`)
			return strings.Count(a.Body.String(), `"not_found"`)
		},
		"lookup of more than the limit": func(s *stack) int {
			a := s.lookup(`{"identifiers":["a","b","c","d","e","f","g"]}`)
			return strings.Count(a.Body.String(), `"not_found"`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStackWith(t, func(c *Config) { c.Limits.NotFoundPerMinute = limit })
			now := time.Now().Truncate(limitWindow)
			s.guesses.now = func() time.Time { return now }
			var answered atomic.Int64
			var running sync.WaitGroup
			for range clients {
				running.Go(func() { answered.Add(int64(guess(s))) })
			}
			running.Wait()
			require.LessOrEqual(t, answered.Load(), int64(limit))
			require.Empty(t, s.guesses.reserved, "every reservation has ended")
		})
	}
}

// TestNotFoundLimit_FoundCostsNothing checks that identifiers of users do not use the limit up, also
// when a request has more of them than the limit.
func TestNotFoundLimit_FoundCostsNothing(t *testing.T) {
	t.Parallel()
	s := newStackWith(t, func(c *Config) { c.Limits.NotFoundPerMinute = 2 })
	s.createIvan()
	for range 5 {
		s.lookup(`{"identifiers":["ivan","+79991234567","Ivan.Petrov+shop@example.com","ivan"]}`).ok(http.StatusOK, nil)
		s.call(http.MethodGet, "/accounts/users/by-identifier?identifier=ivan", "").ok(http.StatusOK, nil)
	}
	a := s.lookup(`{"identifiers":["ivan","nobody1","nobody2","nobody3"]}`)
	a.problem(errcode.RateLimited)
	require.NotContains(t, a.Body.String(), "nobody")
	require.NotEmpty(t, a.Header().Get("Retry-After"))
	s.lookup(`{"identifiers":["ivan"]}`).problem(errcode.RateLimited)
}

func TestLimiter_Reservations(t *testing.T) {
	t.Parallel()
	l := newLimiter(5)
	now := time.Unix(0, 0)
	l.now = func() time.Time { return now }
	granted, _ := l.reserve("key", 3)
	require.Equal(t, 3, granted)
	granted, _ = l.reserve("key", 3)
	require.Equal(t, 2, granted, "what is left")
	granted, q := l.reserve("key", 1)
	require.Zero(t, granted)
	require.Equal(t, pendingWait, q.wait, "a reservation ends soon")
	granted, _ = l.reserve("other", 9)
	require.Equal(t, 5, granted)
	l.settle("key", 3, 0)
	l.settle("key", 2, 2)
	granted, _ = l.reserve("key", 9)
	require.Equal(t, 3, granted)
	l.settle("key", 3, 3)
	_, q = l.reserve("key", 1)
	require.Greater(t, q.wait, pendingWait)
	now = now.Add(2 * limitWindow)
	granted, _ = l.reserve("key", 9)
	require.Equal(t, 5, granted)
	require.Len(t, l.reserved, 2)
}

// TestScopes_OddTextsGrantNothing checks on every route that a scope counts only if it is written exactly.
func TestScopes_OddTextsGrantNothing(t *testing.T) {
	t.Parallel()
	s := newBareAPI(t)
	checked := 0
	for path, item := range theContract().Paths.Map() {
		for method := range item.Operations() {
			dictionary := method == http.MethodGet && (strings.HasPrefix(path, "/accounts/user-groups") || strings.HasPrefix(path, "/accounts/contact-types"))
			if dictionary || !strings.HasPrefix(path, "/accounts/") {
				continue
			}
			checked++
			path := regexp.MustCompile(`\{\w+\}`).ReplaceAllString(path, absentID)
			for _, scopes := range [][]string{
				{}, {""}, {" "}, {"ACCOUNTS:READ", "ACCOUNTS:WRITE"}, {"accounts:read,accounts:write"}, {"accounts:*"}, {"accounts"}, {"accounts:readwrite"},
				{"xaccounts:read", "accounts:writes"}, {"accounts:read\u200b", "accounts:write\u200b"}, {"accounts：read", "accounts：write"},
			} {
				s.call(method, path, "", "Authorization", bearer(t, testSubject, scopes...)).problem(errcode.Forbidden)
			}
		}
	}
	require.Greater(t, checked, 15)
}
