package httpapi

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/errcode"
)

func TestCORS(t *testing.T) {
	t.Parallel()
	s := newBareAPI(t, func(c *Config) {
		c.Origins = []string{"https://app.example.com"}
		c.AllowedHeaders, c.ExposedHeaders = []string{"traceparent", "Baggage"}, []string{"Server-Timing"}
	})
	preflight := func(origin string) answer {
		return s.call(http.MethodOptions, "/accounts/users", "", "Authorization", "", "Origin", origin,
			"Access-Control-Request-Method", "PATCH", "Access-Control-Request-Headers", "authorization,if-match,traceparent,baggage")
	}
	a := preflight("https://app.example.com").ok(http.StatusOK, nil)
	require.Equal(t, "https://app.example.com", a.Header().Get("Access-Control-Allow-Origin"))
	require.Equal(t, "PATCH", a.Header().Get("Access-Control-Allow-Methods"))
	require.Contains(t, strings.ToLower(a.Header().Get("Access-Control-Allow-Headers")), "if-match")
	require.Contains(t, strings.ToLower(a.Header().Get("Access-Control-Allow-Headers")), "traceparent")
	require.Contains(t, strings.ToLower(a.Header().Get("Access-Control-Allow-Headers")), "baggage")
	require.Empty(t, a.Header().Get("Access-Control-Allow-Credentials"))
	require.Empty(t, preflight("https://evil.example.com").Header().Get("Access-Control-Allow-Origin"))

	// Errors too, or a page would see a network error instead of a problem.
	a = s.call(http.MethodGet, "/accounts/users", "", "Authorization", "", "Origin", "https://app.example.com")
	a.problem(errcode.Unauthenticated)
	require.Equal(t, "https://app.example.com", a.Header().Get("Access-Control-Allow-Origin"))
	require.Contains(t, a.Header().Get("Access-Control-Expose-Headers"), "X-Request-Id")
	require.Contains(t, a.Header().Get("Access-Control-Expose-Headers"), "Server-Timing")
	require.Contains(t, a.Header().Values("Vary"), "Origin")
	require.Len(t, s.lines(), 3, "each has its log line")

	off := newBareAPI(t)
	a = off.call(http.MethodGet, "/healthz", "", "Origin", "https://app.example.com").ok(http.StatusOK, nil)
	require.Empty(t, a.Header().Get("Access-Control-Allow-Origin"))
}

func TestCompression(t *testing.T) {
	t.Parallel()
	s := newBareAPI(t)
	plain := s.call(http.MethodGet, "/openapi.json", "").ok(http.StatusOK, nil)
	require.Empty(t, plain.Header().Get("Content-Encoding"))
	require.Contains(t, plain.Header().Values("Vary"), "Accept-Encoding")
	for header, want := range map[string]bool{
		"gzip": true, "br, GZIP;q=0.5": true, "*": true, "gzip;q=0": false, "br": false, "*;q=0, gzip": true, "identity": false,
		"gzip;q=x": false, "gzip;q=0, *": false,
	} {
		a := s.call(http.MethodGet, "/openapi.json", "", "Accept-Encoding", header)
		require.Equal(t, want, a.Header().Get("Content-Encoding") == "gzip", header)
		body := a.Body.Bytes()
		if want {
			r, err := gzip.NewReader(bytes.NewReader(body))
			require.NoError(t, err)
			body, err = io.ReadAll(r)
			require.NoError(t, err)
			require.Less(t, a.Body.Len()*3, len(body))
		}
		require.True(t, bytes.Equal(plain.Body.Bytes(), body), header)
	}
	// Small answers, and what has a tag of its bytes, are never compressed.
	for _, path := range []string{"/healthz", "/docs", "/accounts/nowhere"} {
		require.Empty(t, s.call(http.MethodGet, path, "", "Accept-Encoding", "gzip").Header().Get("Content-Encoding"))
	}
}

func TestDocsFiles(t *testing.T) {
	t.Parallel()
	s := newBareAPI(t)
	for _, path := range []string{"/docs", "/docs/", "/docs/start.js", "/docs/swagger-ui-bundle.js", "/docs/swagger-ui.css", "/docs/favicon-32x32.png"} {
		a := s.call(http.MethodGet, path, "", "Authorization", "").ok(http.StatusOK, nil)
		require.Contains(t, a.Header().Get("Content-Security-Policy"), "default-src 'none'")
		require.NotEmpty(t, a.Header().Get("Content-Type"))
		if a.Header().Get("Content-Encoding") == "" {
			require.NotContains(t, a.Body.String(), "http://")
			require.NotContains(t, a.Body.String(), "https://")
		}
	}
	for _, path := range []string{"/docs/x", "/docs/oauth2-redirect.html", "/docs/..%2fdocs.go", "/docs/swagger-ui.css.gz"} {
		s.call(http.MethodGet, path, "").problem(errcode.NotFound)
	}
	s.call(http.MethodPost, "/docs", "").problem(errcode.MethodNotAllowed)
}
