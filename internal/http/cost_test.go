package httpapi

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/errcode"
)

// TestBodyCost is not parallel: it measures what is allocated. Before the body was checked token by token,
// the first one took 847 MB and the last one 16 GB.
func TestBodyCost(t *testing.T) {
	s := newBareAPI(t)
	levels := func(n int, inner string) string {
		return strings.Repeat(`{"`+strings.Repeat("a", 64)+`":`, n) + inner + strings.Repeat("}", n)
	}
	for name, request := range map[string]struct{ path, body string }{
		"many values at 60 levels": {"/accounts/users", `{"profile":` + levels(60, "["+strings.Repeat("12345678,", 100_000)+"1]") + `}`},
		"many values":              {"/accounts/users/lookup", `{"identifiers":[` + strings.Repeat("1,", 500_000) + `1]}`},
		"many unknown members":     {"/accounts/users", `{` + strings.Repeat(`"ab":1,`, 140_000) + `"b":1}`},
		"many duplicates":          {"/accounts/users", `{"profile":{` + strings.Repeat(`"ab":1,`, 9000) + `"b":1},"groups":[` + strings.Repeat(`"x",`, 200_000) + `1]}`},
		"long names":               {"/accounts/users", `{"profile":{` + strings.Repeat(`"`+strings.Repeat("a", 900)+`":1,`, 1000) + `"b":1}}`},
		"long string":              {"/accounts/users", `{"profile":{"a":"` + strings.Repeat("\\u0041", 160_000) + `"}}`},
		"long number":              {"/accounts/users", `{"profile":{"a":` + strings.Repeat("1", 1_000_000) + `}}`},
		"deep":                     {"/accounts/users", strings.Repeat("[", 1_000_000)},
		"bulk": {"/accounts/users/bulk", `{"users":[{"phone":"1","user_groups":[],"profile":` +
			levels(60, "["+strings.Repeat("12345678,", 1_800_000)+"1]") + `,"zzz":1}]}`},
		"bulk of faulty rows": {"/accounts/users/bulk", `{"users":[` + strings.Repeat(`{},`, 900_000) + `{}]}`},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodPost, request.path, strings.NewReader(request.body))
			r.Header.Set("Authorization", s.auth)
			r.Header.Set("Content-Type", "application/json")
			w := httptest.NewRecorder()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			s.ServeHTTP(w, r)
			runtime.ReadMemStats(&after)
			require.Equal(t, http.StatusBadRequest, w.Code)
			require.Less(t, w.Body.Len(), 16<<10, "the answer is larger than its errors need")
			require.Less(t, after.TotalAlloc-before.TotalAlloc, 8*uint64(len(request.body))+1<<20)
			require.Less(t, after.Mallocs-before.Mallocs, uint64(50_000))
		})
	}
}

func TestBodyMemory_IsShared(t *testing.T) {
	t.Parallel()
	const size = 64 << 10
	s := newBareAPI(t, func(c *Config) { c.BodyMemory = size })
	s.addSample()
	large := `{` + sampleID + `,"profile":{"a":"` + strings.Repeat("x", 40_000) + `"}}`

	// A request that has sent most of its body holds the memory for it.
	body, send := io.Pipe()
	r := httptest.NewRequest(http.MethodPost, "/accounts/sample", body)
	r.Header.Set("Authorization", s.auth)
	r.Header.Set("Content-Type", "application/json")
	held := make(chan answer)
	go func() { held <- s.send(r) }()
	_, err := send.Write([]byte(large))
	require.NoError(t, err)

	a := s.call(http.MethodPost, "/accounts/sample", large)
	a.problem(errcode.Overloaded)
	require.Equal(t, "1", a.Header().Get("Retry-After"))
	s.call(http.MethodPost, "/accounts/sample", `{`+sampleID+`}`).ok(http.StatusOK, nil)

	require.NoError(t, send.Close())
	(<-held).ok(http.StatusOK, nil)
	s.call(http.MethodPost, "/accounts/sample", large).ok(http.StatusOK, nil)
	require.True(t, s.bodyMemory.TryAcquire(size), "memory was not given back")
}

// TestAnswerMemory_IsShared: clients that do not read large answers must not use up the memory.
func TestAnswerMemory_IsShared(t *testing.T) {
	t.Parallel()
	s := newBareAPI(t)
	size := freeAnswerBytes
	for path, access := range map[string]access{"/accounts/large": readAccess, "/accounts/written": writeAccess} {
		s.add(route{method: http.MethodGet, path: path, id: path, access: access, status: http.StatusOK,
			handle: func(_ context.Context, w *response, _ *input) error {
				return w.json(http.StatusOK, strings.Repeat("x", size))
			}})
	}
	s.call(http.MethodGet, "/accounts/large", "").ok(http.StatusOK, nil)
	require.True(t, s.answerMemory.TryAcquire(defaultAnswerMemory), "memory was not given back")
	a := s.call(http.MethodGet, "/accounts/large", "")
	a.problem(errcode.Overloaded)
	require.Equal(t, "1", a.Header().Get("Retry-After"))
	s.call(http.MethodGet, "/accounts/written", "").ok(http.StatusOK, nil) // what was done is always answered
	size = freeAnswerBytes - 2                                             // and two quotes
	s.call(http.MethodGet, "/accounts/large", "").ok(http.StatusOK, nil)
}
