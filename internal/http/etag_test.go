package httpapi

import (
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/danielgtaylor/huma/v2"
	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/errcode"
)

func TestIfMatch(t *testing.T) {
	t.Parallel()
	none := []int64{}
	for header, want := range map[string][]int64{ // nil: invalid
		`"7-abc"`:                 {7},
		" \t\"7-abc\" ":           {7},
		`"7-abc-phone"`:           {7},
		`"7-abc", "8-def"`:        {7, 8},
		`"7-abc","8-def" ,, "x",`: {7, 8},
		`W/"7-abc", "8-def"`:      {8},
		`"0-a"`:                   {0},
		`"9223372036854775807-a"`: {1<<63 - 1},
		// Ordinary tags that no version has.
		`W/"7-abc"`:               none,
		`"*"`:                     none,
		`W/"*"`:                   none,
		`""`:                      none,
		`"7"`:                     none,
		`"7-"`:                    none,
		`"-abc"`:                  none,
		`"+7-abc"`:                none,
		`"07-abc"`:                none,
		`"x-abc"`:                 none,
		`"7,8-abc"`:               none,
		`"9223372036854775808-a"`: none,
		"\"\x80\xff\"":            none,
		// Not a list of tags.
		``: nil, `,`: nil, `7-abc`: nil, `"7-abc`: nil, `7-abc"`: nil, `""7-abc""`: nil, `w/"7-abc"`: nil, `W/`: nil, `W/*`: nil,
		`W/ "7-abc"`: nil, `"7-abc" "8-def"`: nil, `"7-abc" x`: nil, `"7 abc"`: nil, "\"7-a\x7f\"": nil, `**`: nil, `*, "7-abc"`: nil, `"7-abc", *`: nil,
		strings.Repeat(`"7-abc",`, maxEntityTags+1): nil,
	} {
		in := newTestInput("")
		in.r.Header["If-Match"] = []string{header}
		got := in.ifMatch()
		if want == nil {
			require.Equal(t, []string{"If-Match invalid_etag"}, in.faults(), "%q", header)
			continue
		}
		require.NoError(t, in.err(), "%q", header)
		require.Equal(t, want, got, "%q", header)
	}
	in := newTestInput("")
	require.Nil(t, in.ifMatch(), "no condition")
	in.r.Header["If-Match"] = []string{" * "}
	require.Nil(t, in.ifMatch(), "every version")
	in.r.Header["If-Match"] = []string{`"7-abc"`, `W/"1-a", "8-def"`}
	require.Equal(t, []int64{7, 8}, in.ifMatch(), "several lines are one list")
	in.r.Header["If-Match"] = []string{strings.Repeat(`"7-abc",`, maxEntityTags)}
	require.Len(t, in.ifMatch(), maxEntityTags)
	require.NoError(t, in.err())
	in.r.Header["If-Match"] = []string{"*", "*"}
	in.ifMatch()
	require.Error(t, in.err())
}

func TestIfNoneMatch(t *testing.T) {
	t.Parallel()
	for header, want := range map[string][]string{
		`*`:                                      {anyTag},
		`"a", W/"b"`:                             {"a", "b"},
		`"a,b" , "c"`:                            {"a,b", "c"},
		`"*"`:                                    nil,
		`W/"*"`:                                  nil,
		`W/*`:                                    nil,
		`*, "a"`:                                 nil,
		`"a", *`:                                 nil,
		`a`:                                      nil,
		``:                                       nil,
		`"` + strings.Repeat("a", 65) + `", "b"`: {"b"},
		strings.Repeat(`"a",`, maxEntityTags+1):  nil,
	} {
		in := newTestInput("")
		in.r.Header["If-None-Match"] = []string{header}
		require.Equal(t, want, in.ifNoneMatch(), "%q", header)
		require.NoError(t, in.err(), "%q", header)
	}
	in := newTestInput("")
	require.Empty(t, in.ifNoneMatch())
	in.r.Header["If-None-Match"] = []string{`"a"`, `"b"`}
	require.Equal(t, []string{"a", "b"}, in.ifNoneMatch())
}

func TestPreconditions_NeverIgnored(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		method string
		params []*huma.Param
		header http.Header
		want   []string
	}{
		{http.MethodPatch, []*huma.Param{ifMatchParam}, http.Header{"If-Match": {"*"}}, nil},
		{http.MethodPost, nil, http.Header{"If-Match": {"*"}}, []string{"If-Match unsupported"}},
		{http.MethodGet, nil, http.Header{"If-Match": {`"1-a"`}}, []string{"If-Match unsupported"}},
		{http.MethodGet, nil, http.Header{"If-None-Match": {"*"}}, nil},
		{http.MethodHead, nil, http.Header{"If-None-Match": {"*"}}, nil},
		{http.MethodPost, nil, http.Header{"If-None-Match": {"*"}}, []string{"If-None-Match unsupported"}},
		{http.MethodPatch, []*huma.Param{ifMatchParam}, http.Header{"If-None-Match": {`"1-a"`}}, []string{"If-None-Match unsupported"}},
		{http.MethodDelete, nil, http.Header{"If-Unmodified-Since": {"x"}}, []string{"If-Unmodified-Since unsupported"}},
		{http.MethodPatch, []*huma.Param{ifMatchParam}, http.Header{"If-Unmodified-Since": {"x"}, "If-Match": {"*"}}, nil},
		{http.MethodGet, nil, http.Header{"If-Unmodified-Since": {"x"}, "If-Modified-Since": {"x"}}, nil},
		{http.MethodPatch, nil, http.Header{"If-Modified-Since": {"x"}}, nil},
	} {
		in := newTestInput("", test.params...)
		in.r.Method, in.r.Header = test.method, test.header
		in.checkPreconditions()
		require.Equal(t, test.want, in.faults(), "%s %v", test.method, test.header)
	}
}

// TestPreconditions_EveryRoute checks that each PATCH and DELETE of a resource with an ETag declares
// If-Match and 412, and no other route does.
func TestPreconditions_EveryRoute(t *testing.T) {
	t.Parallel()
	for path, item := range theContract().Paths.Map() {
		tagged := item.Get != nil && item.Get.Responses.Status(http.StatusOK).Value.Headers["ETag"] != nil
		require.Equal(t, strings.HasSuffix(path, "}") && !strings.Contains(path, "/imports/") && !strings.Contains(path, "/contacts/user/"),
			tagged && strings.HasSuffix(path, "}"), "%s: one resource has an ETag", path)
		for method, op := range item.Operations() {
			changes := tagged && (method == http.MethodPatch || method == http.MethodDelete)
			require.Equal(t, changes, op.Parameters.GetByInAndName("header", "If-Match") != nil, "%s %s", method, path)
			require.Equal(t, changes, op.Responses.Status(http.StatusPreconditionFailed) != nil, "%s %s", method, path)
		}
	}
}

// TestPreconditions_OnEveryResource follows the ETag of one resource of each kind through reads and
// conditional writes.
func TestPreconditions_OnEveryResource(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	user := s.createIvan()
	var typ ContactType
	s.call(http.MethodPost, "/accounts/contact-types", `{"name":"telegram","on_second":"allow"}`).ok(http.StatusCreated, &typ)
	for path, changes := range map[string][2]string{
		"/accounts/users/" + user.ID.String():                                                     {`{"profile":{"a":1}}`, `{"profile":{"a":2}}`},
		"/accounts/contacts/" + user.Contacts[0].ID.String():                                      {`{"is_active":false}`, `{"is_active":true}`},
		"/accounts/user-groups/" + user.Groups[0].ID.String():                                     {`{"name":"one"}`, `{"name":"two"}`},
		"/accounts/contact-types/" + typ.ID.String():                                              {`{"name":"signal"}`, `{"on_second":"reject"}`},
		"/accounts/user-group-memberships/" + user.ID.String() + "/" + user.Groups[1].ID.String(): {`{"is_active":false}`, `{"is_active":true}`},
	} {
		t.Run(path, func(t *testing.T) {
			read := func(tag string) answer { return s.call(http.MethodGet, path, "", "If-None-Match", tag) }
			first := read("").ok(http.StatusOK, nil).Header().Get("ETag")
			for _, same := range []string{first, "W/" + first, `"x", ` + first, "*"} {
				require.Equal(t, first, read(same).ok(http.StatusNotModified, nil).Header().Get("ETag"))
			}
			for _, other := range []string{`"*"`, "W/*", `"x"`, first[:len(first)-1]} {
				read(other).ok(http.StatusOK, nil)
			}
			patch := func(body, tag string) answer { return s.call(http.MethodPatch, path, body, "If-Match", tag) }

			second := patch(changes[0], `"0-x", `+first).ok(http.StatusOK, nil).Header().Get("ETag")
			require.NotEqual(t, first, second)
			require.Equal(t, second, read("").Header().Get("ETag"), "the write answers with the ETag of the next read")
			body := read("").Body.String()
			for _, stale := range []string{first, "W/" + second, `"*"`, `"x"`, first + `, W/` + second} {
				a := patch(changes[1], stale)
				require.Positive(t, a.problem(errcode.PreconditionFailed).Details.Version)
				require.Equal(t, second, a.Header().Get("ETag"), "the current ETag")
			}
			for _, broken := range []string{"W/*", "x", `"x`, ","} {
				require.Equal(t, []string{"If-Match invalid_etag"}, patch(changes[1], broken).problem(errcode.Validation).faults())
			}
			require.Equal(t, []string{"If-None-Match unsupported"},
				s.call(http.MethodPatch, path, changes[1], "If-None-Match", "*").problem(errcode.Validation).faults())
			require.Equal(t, []string{"If-Unmodified-Since unsupported"},
				s.call(http.MethodPatch, path, changes[1], "If-Unmodified-Since", "Thu, 01 Jan 1970 00:00:00 GMT").problem(errcode.Validation).faults())
			require.Equal(t, body, read("").Body.String(), "nothing has changed")
			third := patch(changes[1], first+", "+second).ok(http.StatusOK, nil).Header().Get("ETag")
			require.Equal(t, third, patch(`{}`, "*").ok(http.StatusOK, nil).Header().Get("ETag"), "nothing changed")

			if strings.Contains(path, "contacts/") || strings.Contains(path, "memberships/") {
				a := s.call(http.MethodDelete, path, "", "If-Match", second)
				a.problem(errcode.PreconditionFailed)
				require.Equal(t, third, a.Header().Get("ETag"))
				s.call(http.MethodDelete, path, "", "If-Match", second+","+third).ok(http.StatusNoContent, nil)
			}
		})
	}
	s.call(http.MethodPost, "/accounts/user-groups", `{"name":"x"}`, "If-None-Match", "*").problem(errcode.Validation)
	s.call(http.MethodPost, "/accounts/users", `{}`, "If-Match", "*").problem(errcode.Validation)
	for _, path := range []string{"contacts/" + absentID, "user-groups/" + absentID, "contact-types/" + absentID,
		"user-group-memberships/" + user.ID.String() + "/" + absentID, "users/" + absentID} {
		s.call(http.MethodPatch, "/accounts/"+path, `{}`, "If-Match", "*").problem(errcode.NotFound)
	}
}

// TestPreconditions_OneOfManyWriters checks that of clients that change one resource at the same time on the
// base of the same ETag exactly one succeeds, and that the others get the new ETag.
func TestPreconditions_OneOfManyWriters(t *testing.T) {
	t.Parallel()
	const clients = 16
	s := newStack(t)
	s.call(http.MethodPost, "/accounts/contact-types", `{"name":"telegram","on_second":"allow"}`).ok(http.StatusCreated, nil)
	user := s.createUser(`{"contacts":[{"type":"telegram","value":"first"},{"type":"telegram","value":"second"}]}`)
	member := s.createIvan()
	var typ ContactType
	s.call(http.MethodPost, "/accounts/contact-types", `{"name":"icq","on_second":"allow"}`).ok(http.StatusCreated, &typ)
	membership := "/accounts/user-group-memberships/" + member.ID.String() + "/"
	for _, test := range []struct{ method, path, body string }{
		{http.MethodPatch, "/accounts/users/" + user.ID.String(), `{"profile":{"client":"client%d"}}`},
		{http.MethodPatch, "/accounts/contacts/" + user.Contacts[0].ID.String(), `{"value":"client%d"}`},
		{http.MethodDelete, "/accounts/contacts/" + user.Contacts[1].ID.String(), ``},
		{http.MethodPatch, "/accounts/user-groups/" + member.Groups[0].ID.String(), `{"name":"client%d"}`},
		{http.MethodPatch, "/accounts/contact-types/" + typ.ID.String(), `{"name":"client%d"}`},
		{http.MethodPatch, membership + member.Groups[0].ID.String(), `{"is_active":false}`},
		{http.MethodDelete, membership + member.Groups[1].ID.String(), ``},
	} {
		t.Run(test.method+" "+test.path, func(t *testing.T) {
			read := func() string {
				return s.call(http.MethodGet, test.path, "").ok(http.StatusOK, nil).Header().Get("ETag")
			}
			first := read()
			answers := make([]answer, clients)
			var running sync.WaitGroup
			for i := range clients {
				running.Go(func() {
					answers[i] = s.call(test.method, test.path, strings.ReplaceAll(test.body, "%d", strconv.Itoa(i)), "If-Match", first)
				})
			}
			running.Wait()
			second := read()
			require.NotEqual(t, first, second)
			won := 0
			for _, a := range answers {
				if a.Code != http.StatusPreconditionFailed {
					require.Less(t, a.Code, 300, a.Body.String())
					won++
					continue
				}
				a.problem(errcode.PreconditionFailed)
				require.Equal(t, second, a.Header().Get("ETag"))
			}
			require.Equal(t, 1, won)
		})
	}
}

// TestETag_OfEveryAnswerMayBeSent checks that the ETags of the other representations of a user, and the one that a
// proxy extends when it compresses an answer, are accepted by If-Match.
func TestETag_OfEveryAnswerMayBeSent(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	user := s.createIvan()
	path := "/accounts/users/" + user.ID.String()
	for _, identifier := range []string{user.ID.String(), "ivan", "%2B79991234567", "Ivan.Petrov%2Bshop@example.com"} {
		found := "/accounts/users/by-identifier?identifier=" + identifier
		a := s.call(http.MethodGet, found, "").ok(http.StatusOK, nil)
		etag := a.Header().Get("ETag")
		for _, same := range []string{etag, "W/" + etag, `"x",` + etag, "*"} {
			head := s.call(http.MethodHead, found, "", "If-None-Match", same).ok(http.StatusNotModified, nil)
			require.Equal(t, etag, head.Header().Get("ETag"))
			require.Empty(t, head.Body.String())
			require.Empty(t, head.Header().Get("Content-Type"))
		}
		detail := s.call(http.MethodGet, path, "").Header().Get("ETag")
		s.call(http.MethodGet, found, "", "If-None-Match", detail).ok(http.StatusOK, nil) // it lacks matched_by
		s.call(http.MethodGet, path, "", "If-None-Match", etag).ok(http.StatusOK, nil)
		s.call(http.MethodPatch, path, `{"profile":{"seen":"`+identifier+`"}}`, "If-Match", etag).ok(http.StatusOK, nil)
		s.call(http.MethodPatch, path, `{"profile":{"seen":1}}`, "If-Match", etag).problem(errcode.PreconditionFailed)
	}
	etag := s.call(http.MethodPatch, path, `{}`, "Authorization", s.writer()).ok(http.StatusOK, nil).Header().Get("ETag")
	etag = s.call(http.MethodPatch, path, `{"profile":{"a":1}}`, "If-Match", etag).ok(http.StatusOK, nil).Header().Get("ETag")
	etag = strings.TrimSuffix(etag, `"`) + `-gzip"`
	s.call(http.MethodPatch, path, `{"profile":{"a":2}}`, "If-Match", etag).ok(http.StatusOK, nil)
}
