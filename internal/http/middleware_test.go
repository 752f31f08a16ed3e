package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/accounts"
	"github.com/payment-services/accounts/internal/auth"
	"github.com/payment-services/accounts/internal/cache"
	"github.com/payment-services/accounts/internal/errcode"
)

// addHandler adds a route that everybody with a token may use.
func (s *stack) addHandler(method, path string, handle func(ctx context.Context, w *response, in *input) error) {
	s.add(route{method: method, path: path, id: method + path, access: anyToken, status: http.StatusOK, handle: handle})
}

func (s *stack) addFailure(path string, err error) {
	s.addHandler(http.MethodGet, path, func(context.Context, *response, *input) error { return err })
}

func TestRequestID(t *testing.T) {
	t.Parallel()
	s := newBareAPI(t)
	for _, id := range []string{"a", "Az09._-", strings.Repeat("x", 64)} {
		require.Equal(t, id, s.call(http.MethodGet, "/healthz", "", "X-Request-ID", id).Header().Get("X-Request-Id"))
	}
	seen := map[string]bool{}
	for _, id := range []string{"", "a b", "a\"b", "идентификатор", "a\tb", "a/b", strings.Repeat("x", 65)} {
		got := s.call(http.MethodGet, "/healthz", "", "X-Request-ID", id).Header().Get("X-Request-Id")
		require.Regexp(t, `^[A-Za-z0-9._-]{16,64}$`, got)
		require.NotEqual(t, id, got)
		require.False(t, seen[got])
		seen[got] = true
	}
	p := s.call(http.MethodGet, "/accounts/nowhere", "", "X-Request-ID", "mine", "Authorization", "").problem(errcode.Unauthenticated)
	require.Equal(t, "mine", p.RequestID)
}

func TestStrangersLearnNothing(t *testing.T) {
	t.Parallel()
	s := newBareAPI(t)
	refused := func(a answer) string {
		p := a.problem(errcode.Unauthenticated)
		require.Empty(t, a.Header().Get("Allow"))
		p.RequestID, p.Instance = "", ""
		return fmt.Sprint(p)
	}
	want := refused(s.call(http.MethodGet, "/accounts/users", "", "Authorization", ""))
	for _, path := range []string{
		"/accounts", "/accounts/", "/accounts/users/", "/accounts/users/" + absentID, "/accounts/users?nonsense=1",
		"/accounts/users/not-an-id", "/accounts/nowhere", "/accounts/nowhere/", "/accounts/users/by-identifier?identifier=1",
	} {
		for _, method := range []string{
			http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodOptions, "BREW",
		} {
			require.Equal(t, want, refused(s.call(method, path, "", "Authorization", "")), "%s %s", method, path)
		}
	}
}

func TestAuthorizationHeader(t *testing.T) {
	t.Parallel()
	s := newBareAPI(t)
	s.addHandler(http.MethodGet, "/accounts/hello", func(_ context.Context, w *response, _ *input) error {
		return w.json(http.StatusOK, "hello")
	})
	token := strings.TrimPrefix(s.auth, "Bearer ")
	for _, header := range []string{"Bearer " + token, "bearer " + token, "BEARER   " + token + " "} {
		s.call(http.MethodGet, "/accounts/hello", "", "Authorization", header).ok(http.StatusOK, nil)
	}
	a := s.call(http.MethodGet, "/accounts/hello", "", "Authorization", "")
	a.problem(errcode.Unauthenticated)
	require.Equal(t, `Bearer realm="accounts"`, a.Header().Get("WWW-Authenticate"))
	for _, header := range []string{
		token, "Bearer", "Bearer ", "Basic " + token, "Bearer " + token + "x", "Bearer " + token + ", Bearer " + token, "Bearer secret-79991234567",
	} {
		a := s.call(http.MethodGet, "/accounts/hello", "", "Authorization", header)
		a.problem(errcode.Unauthenticated)
		require.Equal(t, `Bearer realm="accounts", error="invalid_token"`, a.Header().Get("WWW-Authenticate"))
		require.NotContains(t, a.Body.String(), "79991234567")
	}
	r := httptest.NewRequest(http.MethodGet, "/accounts/hello", nil)
	r.Header["Authorization"] = []string{s.auth, s.auth}
	s.send(r).problem(errcode.Unauthenticated)
	require.NotContains(t, s.log.String(), token)
}

func TestScopes(t *testing.T) {
	t.Parallel()
	s := newBareAPI(t)
	none, reader, writer := bearer(t, testSubject), bearer(t, testSubject, auth.ScopeRead), bearer(t, testSubject, auth.ScopeWrite)
	both := bearer(t, testSubject, auth.ScopeRead, auth.ScopeWrite)
	for _, access := range []access{anyToken, ownerOrRead, readAccess, writeAccess} {
		s.add(route{
			method: http.MethodGet, path: fmt.Sprintf("/accounts/scope/%d/{user_id}", access), id: fmt.Sprint("scope", access),
			access: access, status: http.StatusOK,
			handle: func(_ context.Context, w *response, _ *input) error { return w.json(http.StatusOK, "hello") },
		})
	}
	for _, test := range []struct {
		access  access
		user    string
		allowed []string
	}{
		{anyToken, absentID, []string{none, reader, writer, both}},
		{readAccess, testSubject, []string{reader, both}},
		{writeAccess, testSubject, []string{writer, both}},
		{ownerOrRead, absentID, []string{reader, both}},
		{ownerOrRead, testSubject, []string{none, reader, writer, both}},
		{ownerOrRead, strings.ToUpper(testSubject), []string{none, reader, writer, both}},
		{ownerOrRead, "nonsense", []string{reader, both}},
	} {
		for _, token := range []string{none, reader, writer, both} {
			a := s.call(http.MethodGet, fmt.Sprintf("/accounts/scope/%d/%s", test.access, test.user), "", "Authorization", token)
			if slices.Contains(test.allowed, token) {
				a.ok(http.StatusOK, nil)
				continue
			}
			p := a.problem(errcode.Forbidden)
			require.Contains(t, p.Message, test.access.scope())
			require.Contains(t, a.Header().Get("WWW-Authenticate"), `error="insufficient_scope"`)
		}
	}
	// A subject that is no id owns nobody.
	s.call(http.MethodGet, fmt.Sprintf("/accounts/scope/%d/billing", ownerOrRead), "", "Authorization", bearer(t, "billing")).
		problem(errcode.Forbidden)
}

func TestRevocationListUnavailable(t *testing.T) {
	t.Parallel()
	s := newBareAPI(t, func(c *Config) {
		c.Auth = newVerifier(t, "redis://"+closedAddress(t)+"/0", auth.OutageDeny)
	})
	a := s.call(http.MethodGet, "/accounts/users", "")
	a.problem(errcode.RevocationUnavailable)
	require.Equal(t, "1", a.Header().Get("Retry-After"))
}

func TestRouterErrors(t *testing.T) {
	t.Parallel()
	s := newBareAPI(t)
	for _, path := range []string{"/", "/nowhere", "/accounts", "/accounts/", "/accounts/nowhere", "/accounts/users/" + absentID + "/x", "//healthz", "/accounts%2Fusers"} {
		for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodOptions, "BREW"} {
			p := s.call(method, path+"?identifier=79991234567", "").problem(errcode.NotFound)
			require.Equal(t, "Route", p.Details.Entity)
			require.Empty(t, p.Details.ID)
			require.Equal(t, strings.TrimRight(path, "/"), strings.TrimRight(p.Instance, "/"))
		}
	}
	s.call(http.MethodGet, "/healthz//", "").problem(errcode.NotFound)
	for path, allow := range map[string]string{
		"/healthz":                       "GET, HEAD, OPTIONS",
		"/accounts/users":                "GET, HEAD, POST, OPTIONS",
		"/accounts/users/":               "GET, HEAD, POST, OPTIONS",
		"/accounts/users/" + absentID:    "GET, HEAD, PATCH, OPTIONS",
		"/accounts/contacts":             "POST, OPTIONS",
		"/accounts/contacts/" + absentID: "GET, HEAD, PATCH, DELETE, OPTIONS",
	} {
		for _, method := range []string{http.MethodPut, http.MethodTrace, "BREW"} {
			a := s.call(method, path, "")
			a.problem(errcode.MethodNotAllowed)
			require.Equal(t, allow, a.Header().Get("Allow"))
		}
		a := s.call(http.MethodOptions, path, "").ok(http.StatusNoContent, nil)
		require.Equal(t, allow, a.Header().Get("Allow"))
		require.Empty(t, a.Body.String())
	}
	s.call(http.MethodOptions, "*", "").problem(errcode.NotFound)
}

func TestTrailingSlashAndHead(t *testing.T) {
	t.Parallel()
	s := newBareAPI(t)
	s.addHandler(http.MethodGet, "/accounts/echo/{user_id}", func(_ context.Context, w *response, in *input) error {
		text, _ := in.text(userIDParam)
		return w.json(http.StatusOK, text)
	})
	for target, want := range map[string]string{
		"/accounts/echo/a":       `"a"`,
		"/accounts/echo/a/":      `"a"`,
		"/accounts/echo/%D0%B8/": `"и"`,
		"/accounts/echo/a%2Fb":   `"a/b"`,
		"/accounts/echo/a%2Fb/":  `"a/b"`,
		"/accounts/echo/a%2F":    `"a/"`,
		"/accounts/echo/%2B7":    `"+7"`,
		"/accounts/echo/+7":      `"+7"`,
	} {
		a := s.call(http.MethodGet, target, "").ok(http.StatusOK, nil)
		require.Equal(t, want, a.Body.String(), target)
	}

	// Over a connection, because it is net/http that drops the body.
	server := httptest.NewServer(s)
	defer server.Close()
	client := &http.Client{Transport: &http.Transport{DisableCompression: true}} // it would hide the length
	for _, path := range []string{"/healthz", "/healthz/", "/openapi.json", "/nowhere"} {
		get, err := client.Get(server.URL + path)
		require.NoError(t, err)
		require.NoError(t, get.Body.Close())
		head, err := client.Head(server.URL + path)
		require.NoError(t, err)
		require.NoError(t, head.Body.Close())
		require.Equal(t, get.StatusCode, head.StatusCode)
		require.Equal(t, get.Header.Get("Content-Type"), head.Header.Get("Content-Type"))
		if path != "/nowhere" { // its length depends on the request id
			require.Equal(t, get.ContentLength, head.ContentLength)
		}
	}
}

func TestProblemOfEveryCode(t *testing.T) {
	t.Parallel()
	s := newBareAPI(t)
	for i, code := range errcode.All() {
		require.Contains(t, statuses, code, "every code has a status")
		path := fmt.Sprintf("/accounts/fail/%d", i)
		e := errcode.New(code, "some text")
		e.RetryAfter = 1500 * time.Millisecond
		s.addFailure(path, fmt.Errorf("wrapped: %w", e))
		a := s.call(http.MethodGet, path, "")
		p := a.problem(code)
		if code != errcode.Internal {
			require.Equal(t, "some text", p.Message)
		}
		retry := ""
		if a.Code == http.StatusServiceUnavailable || a.Code == http.StatusTooManyRequests {
			retry = "2"
		}
		require.Equal(t, retry, a.Header().Get("Retry-After"), code)
		require.Equal(t, path, p.Instance)
		require.Equal(t, ProblemDetails{}, p.Details)
	}
	require.Len(t, statuses, len(errcode.All()))
}

func TestProblemDetails(t *testing.T) {
	t.Parallel()
	s := newBareAPI(t)
	s.addFailure("/accounts/missing", errcode.Missing("User", absentID))
	require.Equal(t, ProblemDetails{Entity: "User", ID: absentID}, s.call(http.MethodGet, "/accounts/missing", "").problem(errcode.NotFound).Details)

	fields := []errcode.Field{{Field: "a", Code: "b", Message: "c"}}
	s.addFailure("/accounts/invalid", errcode.Invalid(fields...))
	require.Equal(t, ProblemDetails{Errors: fields}, s.call(http.MethodGet, "/accounts/invalid", "").problem(errcode.Validation).Details)

	s.addFailure("/accounts/stale", &errcode.Error{Code: errcode.PreconditionFailed, Message: "changed", Version: 7})
	require.Equal(t, ProblemDetails{Version: 7}, s.call(http.MethodGet, "/accounts/stale", "").problem(errcode.PreconditionFailed).Details)

	s.addFailure("/accounts/busy", errcode.New(errcode.Database, "busy"))
	require.Equal(t, "1", s.call(http.MethodGet, "/accounts/busy", "").Header().Get("Retry-After"), "a 503 always says when")
}

func TestFaultsOfOurs(t *testing.T) {
	t.Parallel()
	s := newBareAPI(t)
	const secret = "cause-79991234567"
	s.addFailure("/accounts/fault", errors.New(secret))
	s.addFailure("/accounts/coded", &errcode.Error{Code: errcode.Internal, Message: secret, Cause: errors.New(secret)})
	s.addFailure("/accounts/slow", fmt.Errorf("%s: %w", secret, context.DeadlineExceeded))
	s.addHandler(http.MethodGet, "/accounts/panic", func(context.Context, *response, *input) error { panic(secret) })
	for path, code := range map[string]errcode.Code{
		"/accounts/fault": errcode.Internal, "/accounts/coded": errcode.Internal, "/accounts/panic": errcode.Internal,
		"/accounts/slow": errcode.Database,
	} {
		a := s.call(http.MethodGet, path, "")
		p := a.problem(code)
		require.NotContains(t, a.Body.String(), secret)
		require.Equal(t, ProblemDetails{}, p.Details)
		lines := s.lines()
		line := lines[len(lines)-1]
		require.Equal(t, "ERROR", line["level"])
		require.Contains(t, line["error"], secret)
		require.Equal(t, p.RequestID, line["request_id"])
		require.EqualValues(t, a.Code, line["status"])
		if path == "/accounts/panic" {
			require.Contains(t, line["stack"], "TestFaultsOfOurs")
		} else {
			require.NotContains(t, line, "stack")
		}
	}
	require.Len(t, s.lines(), 4, "one line a request")
}

// TestPanicInAnAnswer: what has begun cannot become a problem; the client must see that it is broken.
func TestPanicInAnAnswer(t *testing.T) {
	t.Parallel()
	s := newBareAPI(t)
	s.addHandler(http.MethodGet, "/accounts/half", func(_ context.Context, w *response, _ *input) error {
		w.Header().Set("Content-Length", "100")
		_, _ = w.Write([]byte("half"))
		panic("no more")
	})
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodGet, "/accounts/half", nil)
	r.Header.Set("Authorization", s.auth)
	// net/http closes the connection then, and logs nothing of its own.
	require.PanicsWithValue(t, http.ErrAbortHandler, func() { s.ServeHTTP(w, r) })
	require.Equal(t, "half", w.Body.String())
	require.Len(t, s.lines(), 1)
	require.Contains(t, s.lines()[0]["stack"], "TestPanicInAnAnswer")
}

func TestClientGone(t *testing.T) {
	t.Parallel()
	s := newBareAPI(t)
	s.addHandler(http.MethodGet, "/accounts/wait", func(ctx context.Context, _ *response, _ *input) error {
		<-ctx.Done()
		return fmt.Errorf("waited: %w", ctx.Err())
	})
	ctx, leave := context.WithCancel(t.Context())
	leave()
	r := httptest.NewRequest(http.MethodGet, "/accounts/wait", nil).WithContext(ctx)
	r.Header.Set("Authorization", s.auth)
	w := httptest.NewRecorder()
	// An answer of net/http for a handler that wrote nothing would be an empty 200.
	require.PanicsWithValue(t, http.ErrAbortHandler, func() { s.ServeHTTP(w, r) })
	require.Empty(t, w.Body.String())
	line := s.lines()[0]
	require.EqualValues(t, 499, line["status"])
	require.Equal(t, "INFO", line["level"])

	// A cancellation that is not the client's is a fault.
	s.addFailure("/accounts/cancelled", context.Canceled)
	s.call(http.MethodGet, "/accounts/cancelled", "").problem(errcode.Internal)
}

func TestHandlersHaveADeadline(t *testing.T) {
	t.Parallel()
	s := newBareAPI(t)
	s.addHandler(http.MethodGet, "/accounts/deadline", func(ctx context.Context, w *response, _ *input) error {
		deadline, ok := ctx.Deadline()
		require.True(t, ok)
		require.WithinDuration(t, time.Now().Add(requestTimeout), deadline, 5*time.Second)
		return w.json(http.StatusOK, nil)
	})
	s.call(http.MethodGet, "/accounts/deadline", "").ok(http.StatusOK, nil)
}

func TestLogLine(t *testing.T) {
	t.Parallel()
	s := newBareAPI(t)
	s.addHandler(http.MethodGet, "/accounts/log/{user_id}", func(_ context.Context, w *response, _ *input) error {
		w.answer(http.StatusOK, accounts.Answer{
			Body: []byte(`{}`), Tag: "1-a", Origin: accounts.Origin{Cache: cache.Hit, Server: cache.FromCache},
		})
		return nil
	})
	const secret = "79991234567"
	a := s.call(http.MethodGet, "/accounts/log/"+secret, "", "X-Request-ID", "the-id", "User-Agent", secret, "X-Forwarded-For", secret)
	a.ok(http.StatusOK, nil)
	require.Equal(t, "hit", a.Header().Get("X-Cache"))
	require.Equal(t, "cache", a.Header().Get("X-Data-Source"))
	require.Equal(t, `"1-a"`, a.Header().Get("ETag"))
	line := s.lines()[0]
	require.GreaterOrEqual(t, line["duration_ms"], 0.0)
	delete(line, "time")
	delete(line, "duration_ms")
	require.Equal(t, map[string]any{
		"level": "INFO", "msg": "request", "method": "GET", "route": "/accounts/log/{user_id}", "status": 200.0,
		"bytes": 2.0, "request_id": "the-id", "subject": testSubject, "x_cache": "hit", "source": "cache",
	}, line)

	s.call(http.MethodGet, "/accounts/users?identifier="+secret+"&"+secret, "").problem(errcode.Validation)
	s.call(http.MethodGet, "/"+secret, "")
	s.call("M"+secret, "/healthz/"+secret, "")
	lines := s.lines()
	require.Len(t, lines, 4)
	require.Equal(t, "VALIDATION_ERROR", lines[1]["error_code"])
	require.Equal(t, unmatched, lines[2]["route"])
	require.Equal(t, "OTHER", lines[3]["method"])
	require.NotContains(t, s.log.String(), secret)
	require.NotContains(t, s.log.String(), "192.0.2.1", "the address of httptest's client")
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	s := newBareAPI(t, func(c *Config) { c.Metrics = registry })
	s.call(http.MethodGet, "/healthz", "")
	s.call(http.MethodGet, "/healthz/", "")
	s.call(http.MethodPut, "/healthz", "")
	s.call("BREW", "/nowhere", "")
	s.call(http.MethodGet, "/accounts/users/x", "")
	families, err := registry.Gather()
	require.NoError(t, err)
	require.Len(t, families, 1)
	require.Equal(t, "accounts_http_request_duration_seconds", families[0].GetName())
	counts := map[string]uint64{}
	for _, m := range families[0].GetMetric() {
		counts[labels(m)] = m.GetHistogram().GetSampleCount()
	}
	require.Equal(t, map[string]uint64{
		"GET /healthz 2xx": 2, "PUT /healthz 4xx": 1, "OTHER unmatched 4xx": 1, "GET /accounts/users/{user_id} 4xx": 1,
	}, counts)
}

func labels(m *dto.Metric) string {
	var values []string
	for _, label := range m.GetLabel() {
		values = append(values, label.GetValue())
	}
	return strings.Join(values, " ")
}
