package httpapi

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// serve runs Serve until stop is called, and returns its address and its outcome.
func (s *stack) serve() (address string, stop func(), ended <-chan error) {
	s.t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(s.t, err)
	ctx, stop := context.WithCancel(context.Background())
	s.t.Cleanup(stop)
	result := make(chan error, 1)
	go func() { result <- s.Serve(ctx, listener) }()
	return listener.Addr().String(), stop, result
}

func TestShutdownFinishesWhatRuns(t *testing.T) {
	t.Parallel()
	s := newBareAPI(t)
	begun, end := make(chan struct{}), make(chan struct{})
	s.addHandler(http.MethodGet, "/accounts/long", func(ctx context.Context, w *response, _ *input) error {
		close(begun)
		<-end
		require.NoError(t, ctx.Err())
		return w.json(http.StatusOK, "done")
	})
	address, stop, ended := s.serve()
	type outcome struct {
		body string
		err  error
	}
	answered := make(chan outcome, 1)
	go func() {
		r, _ := http.NewRequest(http.MethodGet, "http://"+address+"/accounts/long", nil)
		r.Header.Set("Authorization", s.auth)
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			answered <- outcome{err: err}
			return
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		answered <- outcome{string(body), err}
	}()
	<-begun
	stop()
	require.Eventually(t, func() bool {
		c, err := net.Dial("tcp", address)
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	}, 10*time.Second, time.Millisecond, "no new connections")
	select {
	case err := <-ended:
		require.Fail(t, "a request was cut off", "%v", err)
	default:
	}
	close(end)
	require.Equal(t, outcome{body: `"done"`}, <-answered)
	require.NoError(t, <-ended)
}

func TestDrain(t *testing.T) {
	t.Parallel()
	s := newBareAPI(t, func(c *Config) { c.DrainDelay = time.Hour })
	address, stop, ended := s.serve()
	stop()
	var res *http.Response
	require.Eventually(t, func() bool {
		var err error
		res, err = http.Get("http://" + address + "/healthz")
		if err != nil {
			return false
		}
		_ = res.Body.Close()
		return s.draining.Load()
	}, 10*time.Second, time.Millisecond, "it still accepts while it drains")
	require.Equal(t, http.StatusOK, res.StatusCode)
	a := s.call(http.MethodGet, "/readyz", "", "Authorization", "").ok(http.StatusServiceUnavailable, nil)
	require.JSONEq(t, `{"status":"draining"}`, a.Body.String())
	require.Equal(t, "1", a.Header().Get("Retry-After"))
	require.Empty(t, ended)
}

func TestServeReportsADeadListener(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, listener.Close())
	require.ErrorContains(t, newBareAPI(t).Serve(t.Context(), listener), "serve HTTP")
}

func TestServerLimits(t *testing.T) {
	t.Parallel()
	s := newBareAPI(t)
	server := s.NewServer()
	require.NotZero(t, server.ReadHeaderTimeout)
	require.NotZero(t, server.WriteTimeout)
	require.NotZero(t, server.IdleTimeout)
	require.Greater(t, server.WriteTimeout, requestTimeout)
	require.Greater(t, shutdownTimeout, requestTimeout)

	address, _, _ := s.serve()
	raw := func(request string) *http.Response {
		c, err := net.Dial("tcp", address)
		require.NoError(t, err)
		defer c.Close()
		_, err = io.WriteString(c, request)
		require.NoError(t, err)
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		return res
	}
	res := raw("OPTIONS * HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
	require.Equal(t, http.StatusNotFound, res.StatusCode)
	require.NotEmpty(t, res.Header.Get("X-Request-ID"), "on every answer")
	res = raw("GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: " + strings.Repeat("x", 2*maxHeaderBytes) + "\r\n\r\n")
	require.Equal(t, http.StatusRequestHeaderFieldsTooLarge, res.StatusCode)
	// A body that is larger than it may be is not read to its end, and the connection is closed.
	res = raw(fmt.Sprintf("POST /accounts/users HTTP/1.1\r\nHost: x\r\nAuthorization: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n{", s.auth, 10<<20))
	require.Equal(t, http.StatusRequestEntityTooLarge, res.StatusCode)
	require.True(t, res.Close)
}

func TestReadiness(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	var health Health
	s.call(http.MethodGet, "/readyz", "", "Authorization", "").ok(http.StatusOK, &health)
	require.Equal(t, "ok", health.Status)
	for _, name := range []string{"write", "replica", "redis", "schema"} {
		require.True(t, health.Checks[name].OK, name)
	}
	require.NoError(t, s.db.Redis().Kill())
	require.Eventually(t, func() bool {
		s.call(http.MethodGet, "/readyz", "").ok(http.StatusOK, &health)
		return health.Checks["redis"].Degraded
	}, 10*time.Second, 5*time.Millisecond, "ready without the cache")
	require.Equal(t, "degraded", health.Status)
	user := s.createUser(`{}`)
	a := s.call(http.MethodGet, "/accounts/users/"+user.ID.String(), "").ok(http.StatusOK, nil)
	require.Equal(t, "bypass", a.Header().Get("X-Cache"))
	s.Drain()
	s.call(http.MethodGet, "/readyz", "").ok(http.StatusServiceUnavailable, &health)
	s.call(http.MethodGet, "/healthz", "").ok(http.StatusOK, nil)
}
