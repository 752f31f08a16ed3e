package httpapi

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/errcode"
)

// newTestInput returns the input of a GET request with this query.
func newTestInput(query string, params ...*huma.Param) *input {
	r := httptest.NewRequest(http.MethodGet, "/?"+query, nil)
	return newInput(&API{}, nil, r, &route{params: params})
}

func (in *input) faults() []string {
	return Problem{Details: ProblemDetails{Errors: in.fields}}.faults()
}

func TestQueryParameters(t *testing.T) {
	t.Parallel()
	for query, want := range map[string]int{
		"": 1, "page=1": 1, "page=21474836": 21474836, "%70age=3": 3, "&page=2&": 2,
	} {
		in := newTestInput(query, pageParam)
		require.Equal(t, want, in.integer(pageParam), query)
		require.NoError(t, in.err(), query)
	}
	for _, query := range []string{
		"page=0", "page=-1", "page=21474837", "page=99999999999999999999", "page=1.0", "page=", "page", "page=x", "page=1%20", "page=1;", "page=0x1",
	} {
		in := newTestInput(query, pageParam)
		in.integer(pageParam)
		require.Equal(t, []string{"page invalid_integer"}, in.faults(), query)
	}
	in := newTestInput("page=1&page=1", pageParam)
	in.integer(pageParam)
	require.Equal(t, []string{"page repeated"}, in.faults())

	for query, want := range map[string]*bool{"": nil, "is_active=true": new(true), "is_active=false": new(false)} {
		in := newTestInput(query, isActiveParam)
		require.Equal(t, want, in.boolean(isActiveParam))
		require.NoError(t, in.err())
	}
	for _, query := range []string{"is_active", "is_active=", "is_active=1", "is_active=True", "is_active=t"} {
		in := newTestInput(query, isActiveParam)
		in.boolean(isActiveParam)
		require.Equal(t, []string{"is_active invalid_boolean"}, in.faults(), query)
	}

	for query, want := range map[string]string{
		"updated_since=2026-01-02T03:04:05Z":         "2026-01-02T03:04:05Z",
		"updated_since=2026-01-02T03:04:05%2B03:00":  "2026-01-02T00:04:05Z",
		"updated_since=2026-01-02T03:04:05+03:00":    "2026-01-02T00:04:05Z",
		"updated_since=2026-01-02T03:04:05.25-01:00": "2026-01-02T04:04:05.25Z",
	} {
		in := newTestInput(query, updatedSinceParam)
		got := in.time(updatedSinceParam)
		require.NoError(t, in.err(), query)
		require.Equal(t, want, got.UTC().Format(time.RFC3339Nano))
	}
	for _, query := range []string{"updated_since=", "updated_since=2026-01-02", "updated_since=1700000000", "updated_since=2026-01-02T03:04:05"} {
		in := newTestInput(query, updatedSinceParam)
		require.Nil(t, in.time(updatedSinceParam))
		require.Equal(t, []string{"updated_since invalid_time"}, in.faults(), query)
	}

	userParam := *memberParam
	userParam.Required = true
	in = newTestInput("user_id="+absentID, &userParam)
	require.Equal(t, absentID, in.uuid(&userParam).String())
	require.NoError(t, in.err())
	for query, want := range map[string]string{
		"": "user_id required", "user_id=": "user_id invalid_uuid", "user_id=1": "user_id invalid_uuid",
		"user_id={" + absentID + "}": "user_id invalid_uuid", "user_id=0199a1b200007000800000000000000a": "user_id invalid_uuid",
		"user_id=%ff": "user_id invalid_encoding", "user_id=%": "user_id invalid_encoding",
	} {
		in := newTestInput(query, &userParam)
		in.uuid(&userParam)
		require.Equal(t, []string{want}, in.faults(), query)
	}
}

func TestFaultsOfAllPartsComeTogether(t *testing.T) {
	t.Parallel()
	s := newBareAPI(t)
	p := s.call(http.MethodPatch, "/accounts/users/x?y=1", `{"is_active":1,"z":2}`, "If-Match", "v").problem(errcode.Validation)
	require.Equal(t, []string{
		"y unknown", "user_id invalid_uuid", "If-Match invalid_etag", "is_active invalid_type", "z unknown",
	}, p.faults())
	p = s.call(http.MethodGet, "/accounts/users?page=0&size=101&is_active=1&group_id=1&updated_since=1&pages=2", "").problem(errcode.Validation)
	require.Equal(t, []string{
		"pages unknown", "page invalid_integer", "size invalid_integer", "is_active invalid_boolean",
		"group_id invalid_uuid", "updated_since invalid_time",
	}, p.faults())
}

func BenchmarkMiddleware(b *testing.B) {
	s := newBareAPI(b)
	body := make([]byte, 600)
	s.add(route{
		method: http.MethodGet, path: "/bench/{user_id}", id: "bench", params: []*huma.Param{userIDParam, ifNoneMatchParam},
		status: http.StatusOK,
		handle: func(_ context.Context, w *response, in *input) error {
			_ = in.uuid(userIDParam)
			if err := in.err(); err != nil {
				return err
			}
			w.Header().Set("Content-Type", "application/json")
			w.send(http.StatusOK, body)
			return nil
		},
	})
	r := httptest.NewRequest(http.MethodGet, "/bench/"+absentID, nil)
	b.ReportAllocs()
	for b.Loop() {
		s.ServeHTTP(discardWriter{http.Header{}}, r)
	}
}

type discardWriter struct{ header http.Header }

func (w discardWriter) Header() http.Header         { return w.header }
func (w discardWriter) Write(p []byte) (int, error) { return len(p), nil }
func (w discardWriter) WriteHeader(int)             {}
