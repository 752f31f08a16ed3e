package httpapi

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9/logging"
	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/accounts"
	"github.com/payment-services/accounts/internal/auth"
	"github.com/payment-services/accounts/internal/core/coretest"
	"github.com/payment-services/accounts/internal/errcode"
	"github.com/payment-services/accounts/internal/identifier"
	"github.com/payment-services/accounts/internal/pgtest"
)

const (
	// testSubject is the user that tokens of these tests belong to.
	testSubject = "0199a1b2-0000-7000-8000-00000000000a"
	// absentID is an id that nothing has.
	absentID = "0199a1b2-0000-7000-8000-0000000000ff"
)

var testSecret = []byte("0123456789abcdef0123456789abcdef")

func TestMain(m *testing.M) {
	logging.Disable() // go-redis would tell of every connection that a test has refused
	pgtest.Main(m)
}

// stack is an API and what a test asks it with.
type stack struct {
	*API
	t    testing.TB
	log  *syncBuffer
	auth string // of requests that do not say otherwise
	db   *pgtest.DB
}

// newBareAPI returns an API whose domain has no servers, for what happens before and after it. Tokens are
// not held against a revocation list.
func newBareAPI(t testing.TB, change ...func(*Config)) *stack {
	t.Helper()
	parser, err := identifier.NewParser("RU")
	require.NoError(t, err)
	cfg := Config{
		Accounts: accounts.New(accounts.Config{Parser: parser}),
		Auth:     newVerifier(t, "redis://"+closedAddress(t)+"/0", auth.OutageAllow), Version: "test",
	}
	for _, c := range change {
		c(&cfg)
	}
	return newStackOf(t, cfg)
}

// newStack returns an API on real PostgreSQL and Redis servers.
func newStack(t testing.TB) *stack {
	t.Helper()
	return newStackWith(t, func(*Config) {})
}

func newStackWith(t testing.TB, change func(*Config)) *stack {
	t.Helper()
	db := pgtest.Shared(t)
	cfg := Config{
		Accounts: coretest.Start(t, coretest.Config(db.WriteURL, db.ReadURL, db.Redis().URL)).Accounts,
		Auth:     newVerifier(t, db.AuthRedis().URL, auth.OutageAllow), Version: "test",
	}
	change(&cfg)
	s := newStackOf(t, cfg)
	s.db = db
	return s
}

func newStackOf(t testing.TB, cfg Config) *stack {
	log := new(syncBuffer)
	cfg.Logger = slog.New(slog.NewJSONHandler(log, nil))
	return &stack{
		API: New(cfg), t: t, log: log,
		auth: bearer(t, testSubject, auth.ScopeRead, auth.ScopeWrite),
	}
}

func newVerifier(t testing.TB, redisURL string, outage auth.Outage) *auth.Verifier {
	t.Helper()
	client, err := auth.NewRedis(redisURL)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	v, err := auth.New(auth.Config{
		SecretKey: testSecret, Redis: client, RevocationOutage: outage, Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	return v
}

// closedAddress returns an address where nobody listens.
func closedAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	return l.Addr().String()
}

func bearer(t testing.TB, subject string, scopes ...string) string {
	t.Helper()
	token, err := auth.Sign(testSecret, subject, append([]string{}, scopes...), time.Hour, "", "")
	require.NoError(t, err)
	return "Bearer " + token
}

// answer is a recorded answer.
type answer struct {
	*httptest.ResponseRecorder
	t testing.TB
}

// call sends a request. headers are name, value, name, value; the value "" leaves a header out.
func (s *stack) call(method, target, body string, headers ...string) answer {
	s.t.Helper()
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Header.Set("Authorization", s.auth)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		if r.Header.Del(headers[i]); headers[i+1] != "" {
			r.Header.Set(headers[i], headers[i+1])
		}
	}
	return s.send(r)
}

func (s *stack) send(r *http.Request) answer {
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	requireDocumented(s.t, r, w)
	return answer{w, s.t}
}

// ok checks the status and decodes the body into v, if v is not nil.
func (a answer) ok(status int, v any) answer {
	a.t.Helper()
	require.Equal(a.t, status, a.Code, a.Body.String())
	require.NotEmpty(a.t, a.Header().Get("X-Request-Id"))
	if v != nil {
		require.Equal(a.t, "application/json", a.Header().Get("Content-Type"))
		require.NoError(a.t, json.Unmarshal(a.Body.Bytes(), v), a.Body.String())
	}
	return a
}

// problem checks that the answer is a whole and correct problem body with this code, and returns it.
func (a answer) problem(code errcode.Code) Problem {
	a.t.Helper()
	body := a.Body.String()
	require.Equal(a.t, "application/problem+json", a.Header().Get("Content-Type"), body)
	var members map[string]any
	require.NoError(a.t, json.Unmarshal([]byte(body), &members))
	for _, name := range []string{
		"type", "title", "status", "detail", "instance", "request_id", "error_code", "message", "details",
	} {
		require.Contains(a.t, members, name)
	}
	require.Len(a.t, members, 9)
	require.IsType(a.t, map[string]any{}, members["details"])

	var p Problem
	dec := json.NewDecoder(strings.NewReader(body))
	dec.DisallowUnknownFields()
	require.NoError(a.t, dec.Decode(&p))
	require.Equal(a.t, code, p.ErrorCode, body)
	require.Equal(a.t, statuses[code], a.Code)
	require.Equal(a.t, a.Code, p.Status)
	require.Equal(a.t, http.StatusText(a.Code), p.Title)
	require.Equal(a.t, "about:blank", p.Type)
	require.NotEmpty(a.t, p.Message)
	require.Equal(a.t, p.Message, p.Detail)
	require.NotContains(a.t, p.Instance, "?")
	require.NotEmpty(a.t, p.RequestID)
	require.Equal(a.t, a.Header().Get("X-Request-Id"), p.RequestID)
	require.Equal(a.t, "nosniff", a.Header().Get("X-Content-Type-Options"))
	require.Equal(a.t, "private, no-cache", a.Header().Get("Cache-Control"))
	for _, field := range p.Details.Errors {
		require.NotEmpty(a.t, field.Field, body)
		require.NotEmpty(a.t, field.Code, body)
		require.NotEmpty(a.t, field.Message, body)
	}
	return p
}

// faults returns the faulty fields of a problem as "field code".
func (p Problem) faults() []string {
	var texts []string
	for _, f := range p.Details.Errors {
		texts = append(texts, f.Field+" "+f.Code)
	}
	return texts
}

// lines returns the log, one object a line.
func (s *stack) lines() []map[string]any {
	s.t.Helper()
	var lines []map[string]any
	dec := json.NewDecoder(strings.NewReader(s.log.String()))
	for {
		var line map[string]any
		err := dec.Decode(&line)
		if err == io.EOF {
			return lines
		}
		require.NoError(s.t, err)
		lines = append(lines, line)
	}
}

// syncBuffer is a buffer that several goroutines may write to.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
