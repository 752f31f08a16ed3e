package httpapi

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// closesAtOnce is far more than lingerTimeout on a busy machine, and less than bodyTimeout.
const closesAtOnce = 6 * time.Second

// rawConn is a connection to a server that a test writes bytes to.
type rawConn struct {
	*net.TCPConn
	t       testing.TB
	reader  *bufio.Reader
	request *http.Request // for answers to HEAD
}

func dial(t testing.TB, address string) *rawConn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return &rawConn{TCPConn: c.(*net.TCPConn), t: t, reader: bufio.NewReader(c)}
}

func (c *rawConn) send(text string) {
	c.t.Helper()
	_, err := io.WriteString(c, text)
	require.NoError(c.t, err)
}

// answer reads one answer and its body.
func (c *rawConn) answer(within time.Duration) (*http.Response, string) {
	c.t.Helper()
	require.NoError(c.t, c.SetReadDeadline(time.Now().Add(within)))
	res, err := http.ReadResponse(c.reader, c.request)
	require.NoError(c.t, err)
	body, err := io.ReadAll(res.Body)
	require.NoError(c.t, err)
	return res, string(body)
}

// requireClosed waits until the server closes the connection without sending more.
func (c *rawConn) requireClosed(within time.Duration) {
	c.t.Helper()
	require.NoError(c.t, c.SetReadDeadline(time.Now().Add(within)))
	rest, err := io.ReadAll(c.reader)
	if timeout, ok := err.(net.Error); ok { // a reset is a close
		require.False(c.t, timeout.Timeout(), "the connection is still open")
	}
	require.Empty(c.t, string(rest))
}

// faultsOf returns the faulty fields of a problem body.
func faultsOf(t testing.TB, body string) []string {
	t.Helper()
	var p Problem
	require.NoError(t, json.Unmarshal([]byte(body), &p), body)
	return p.faults()
}

func (s *stack) head(request string, headers ...string) string {
	return request + " HTTP/1.1\r\nHost: x\r\n" + strings.Join(append(headers, "", ""), "\r\n")
}

func TestUnreadBody_AnswerClosesTheConnection(t *testing.T) {
	t.Parallel()
	s := newBareAPI(t)
	address, _, _ := s.serve()
	const someOfIt = "Content-Length: 100"
	authorized := "Authorization: " + s.auth
	limited, _, _ := newBareAPI(t, func(c *Config) { c.Limits = RateLimits{PerMinute: 1} }).serve()
	first := dial(t, limited)
	first.send(s.head("GET /accounts/users"))
	res, _ := first.answer(closesAtOnce)
	require.Equal(t, 401, res.StatusCode)

	tests := map[string]struct {
		status  int
		request string
	}{
		"401":            {401, s.head("POST /accounts/users", someOfIt)},
		"401 chunked":    {401, s.head("POST /accounts/users", "Transfer-Encoding: chunked") + "5\r\nab"},
		"401 started":    {401, s.head("POST /accounts/users", someOfIt) + "{"},
		"401 large":      {401, s.head("POST /accounts/users", "Content-Length: 10000000") + strings.Repeat("x", 100_000)},
		"401 expects":    {401, s.head("POST /accounts/users", someOfIt, "Expect: 100-continue")},
		"401 upload":     {401, s.head("POST /accounts/users/bulk/upload", someOfIt)},
		"404":            {404, s.head("POST /nothing", someOfIt)},
		"405":            {405, s.head("PUT /healthz", someOfIt)},
		"413":            {413, s.head("POST /accounts/users", authorized, "Content-Type: application/json", "Content-Length: 9999999")},
		"413 upload":     {413, s.head("POST /accounts/users/bulk/upload", authorized, "Content-Type: multipart/form-data; boundary=x", "Content-Length: 99999999")},
		"415":            {415, s.head("POST /accounts/users", authorized, "Content-Type: text/plain", someOfIt)},
		"415 upload":     {415, s.head("POST /accounts/users/bulk/upload", authorized, "Content-Type: text/plain", someOfIt)},
		"429":            {429, s.head("POST /accounts/users", someOfIt)},
		"GET":            {200, s.head("GET /healthz", someOfIt)},
		"GET chunked":    {200, s.head("GET /healthz", "Transfer-Encoding: chunked")},
		"HEAD":           {200, s.head("HEAD /healthz", someOfIt)},
		"HTTP/1.0":       {200, "GET /healthz HTTP/1.0\r\nContent-Length: 100\r\n\r\n"},
		"document":       {200, s.head("GET /openapi.json", someOfIt)},
		"OPTIONS":        {204, s.head("OPTIONS /healthz", someOfIt)},
		"trailing slash": {200, s.head("GET /healthz/", someOfIt)},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			to := address
			if test.status == 429 {
				to = limited
			}
			c := dial(t, to)
			if name == "HEAD" {
				c.request = &http.Request{Method: http.MethodHead}
			}
			c.send(test.request)
			start := time.Now()
			res, _ := c.answer(closesAtOnce)
			require.Equal(t, test.status, res.StatusCode)
			require.True(t, res.Close, "no Connection: close")
			c.requireClosed(time.Until(start.Add(closesAtOnce)))
		})
	}
}

func TestUnreadBody_ThatHasArrivedKeepsTheConnection(t *testing.T) {
	t.Parallel()
	s := newBareAPI(t)
	address, _, _ := s.serve()
	c := dial(t, address)
	for range 3 {
		c.send(s.head("POST /accounts/users", "Content-Length: 3") + "{ }")
		res, _ := c.answer(closesAtOnce)
		require.Equal(t, 401, res.StatusCode)
		c.send(s.head("POST /nothing", "Transfer-Encoding: chunked") + "3\r\n{ }\r\n0\r\n\r\n")
		res, _ = c.answer(closesAtOnce)
		require.Equal(t, 404, res.StatusCode)
	}
	// Pipelined, in one segment.
	c.send(s.head("GET /healthz") + s.head("GET /nothing", "Content-Length: 1") + "x" + s.head("GET /healthz"))
	for _, status := range []int{200, 404, 200} {
		res, _ := c.answer(closesAtOnce)
		require.Equal(t, status, res.StatusCode)
	}
}

// TestUnreadBody_ClientThatSendsFirstGetsTheAnswer: many clients read the answer only after they have sent
// the whole body. The bodies do not fit into the buffers of both sockets.
func TestUnreadBody_ClientThatSendsFirstGetsTheAnswer(t *testing.T) {
	t.Parallel()
	s := newBareAPI(t)
	address, _, _ := s.serve()
	withoutMemory, _, _ := newBareAPI(t, func(c *Config) { c.BodyMemory = 1 << 20 }).serve()
	const size = 40 << 20
	authorized, length := "Authorization: "+s.auth, fmt.Sprintf("Content-Length: %d", size)
	chunk := fmt.Sprintf("%x\r\n%s\r\n", 1<<20, strings.Repeat("x", 1<<20))
	for name, test := range map[string]struct {
		status  int
		request string
		body    func(c *rawConn)
	}{
		"401":        {401, s.head("POST /accounts/users", length), nil},
		"404":        {404, s.head("POST /nothing", length), nil},
		"405":        {405, s.head("PUT /healthz", length), nil},
		"413":        {413, s.head("POST /accounts/users", authorized, "Content-Type: application/json", length), nil},
		"413 upload": {413, s.head("POST /accounts/users/bulk/upload", authorized, "Content-Type: multipart/form-data; boundary=x", length), nil},
		"415":        {415, s.head("POST /accounts/users", authorized, "Content-Type: text/plain", length), nil},
		"413 chunked": {413, s.head("POST /accounts/users", authorized, "Content-Type: application/json", "Transfer-Encoding: chunked"), func(c *rawConn) {
			c.send(strings.Repeat(chunk, size>>20) + "0\r\n\r\n")
		}},
		"503": {503, s.head("POST /accounts/users/bulk", authorized, "Content-Type: application/json", "Content-Length: 17000000"), func(c *rawConn) {
			c.send(strings.Repeat(" ", 17_000_000))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			to := address
			if test.status == 503 {
				to = withoutMemory
			}
			c := dial(t, to)
			c.send(test.request)
			if test.body == nil {
				c.send(strings.Repeat("x", size))
			} else {
				test.body(c)
			}
			res, _ := c.answer(closesAtOnce)
			require.Equal(t, test.status, res.StatusCode)
			require.True(t, res.Close)
			c.requireClosed(closesAtOnce)
		})
	}
}

// TestUnreadBody_TrickleDoesNotHoldTheConnection: a client that goes on sending is waited for only as long
// as it sends enough.
func TestUnreadBody_TrickleDoesNotHoldTheConnection(t *testing.T) {
	t.Parallel()
	s := newBareAPI(t)
	address, _, _ := s.serve()
	c := dial(t, address)
	c.send(s.head("POST /accounts/users", "Content-Length: 10000000"))
	res, _ := c.answer(closesAtOnce)
	require.Equal(t, 401, res.StatusCode)
	start := time.Now()
	require.Eventually(t, func() bool {
		_, err := c.Write([]byte("x"))
		return err != nil
	}, closesAtOnce, lingerTimeout/10)
	require.Less(t, time.Since(start), maxLinger)
}

func TestBodyDeadline_RunsFromTheStartOfTheRequest(t *testing.T) {
	t.Parallel()
	s := newBareAPI(t)
	s.addSample()
	s.bodyTimeout = 300 * time.Millisecond
	address, _, _ := s.serve()
	json, authorized := "Content-Type: application/json", "Authorization: "+s.auth
	for name, request := range map[string]string{
		"nothing arrives":          s.head("POST /accounts/sample", authorized, json, "Content-Length: 100"),
		"chunked":                  s.head("POST /accounts/sample", authorized, json, "Transfer-Encoding: chunked"),
		"the last byte is missing": s.head("POST /accounts/sample", authorized, json, "Content-Length: 3") + "{}",
		"bulk":                     s.head("POST /accounts/users/bulk", authorized, json, "Content-Length: 100"),
		"bulk chunked":             s.head("POST /accounts/users/bulk", authorized, json, "Transfer-Encoding: chunked"),
		"upload": s.head("POST /accounts/users/bulk/upload", authorized,
			"Content-Type: multipart/form-data; boundary=x", "Content-Length: 100"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := dial(t, address)
			c.send(request)
			res, body := c.answer(closesAtOnce)
			require.Equal(t, 400, res.StatusCode)
			require.Equal(t, []string{"body timeout"}, faultsOf(t, body))
			c.requireClosed(closesAtOnce)
		})
	}
	for _, path := range []string{"/accounts/sample", "/accounts/users/bulk"} {
		t.Run("a byte at a time "+path, func(t *testing.T) {
			t.Parallel()
			c := dial(t, address)
			c.send(s.head("POST "+path, authorized, json, "Content-Length: 100"))
			done := make(chan struct{})
			go func() {
				defer close(done)
				for range 200 { // for longer than closesAtOnce
					if _, err := c.Write([]byte(" ")); err != nil {
						return
					}
					time.Sleep(s.bodyTimeout / 5)
				}
			}()
			res, body := c.answer(closesAtOnce)
			require.Equal(t, 400, res.StatusCode)
			require.Equal(t, []string{"body timeout"}, faultsOf(t, body))
			<-done // the connection is closed
		})
	}
}

// TestBodyDeadline_EndsWithTheBody: it must not end the connection of a slow handler.
func TestBodyDeadline_EndsWithTheBody(t *testing.T) {
	t.Parallel()
	s := newBareAPI(t)
	s.bodyTimeout = 50 * time.Millisecond
	work := func(ctx context.Context, w *response, in *input) error {
		if in.r.Method == http.MethodPost {
			readBody[sample](in)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * s.bodyTimeout):
			return w.json(http.StatusOK, "done")
		}
	}
	s.addHandler(http.MethodGet, "/accounts/slow", work)
	s.addHandler(http.MethodPost, "/accounts/slow", work)
	address, _, _ := s.serve()
	c := dial(t, address)
	for _, request := range []string{
		s.head("GET /accounts/slow", "Authorization: "+s.auth),
		s.head("POST /accounts/slow", "Authorization: "+s.auth, "Content-Type: application/json", "Content-Length: 2") + "{}",
		s.head("POST /accounts/slow", "Authorization: "+s.auth, "Content-Length: 2") + "{}",
	} {
		c.send(request)
		res, body := c.answer(closesAtOnce)
		require.Equal(t, http.StatusOK, res.StatusCode)
		require.Equal(t, `"done"`, body)
	}
}

func TestSteadyBody_DeadlineMovesWithTheBody(t *testing.T) {
	t.Parallel()
	w := &deadlineRecorder{ResponseRecorder: httptest.NewRecorder()}
	a := &API{bodyTimeout: time.Minute} // slowBodyTimeout ends after the first minute
	body := a.newSteadyBody(&response{ResponseWriter: w}, io.NopCloser(strings.NewReader(strings.Repeat("x", 2*bodyWindow+1))))
	require.Len(t, w.deadlines, 1)
	require.WithinDuration(t, time.Now().Add(time.Minute), w.deadlines[0], maxLinger)
	buffer := make([]byte, bodyWindow/2)
	for i, moves := range []int{1, 2, 2, 3} {
		_, err := io.ReadFull(body, buffer)
		require.NoError(t, err)
		require.Len(t, w.deadlines, moves, i)
	}
	body.end = time.Now()
	body.moveDeadline()
	require.Equal(t, body.end, w.deadlines[3], "the whole body has a limit too")
}

type deadlineRecorder struct {
	*httptest.ResponseRecorder
	deadlines []time.Time
}

func (w *deadlineRecorder) SetReadDeadline(t time.Time) error {
	w.deadlines = append(w.deadlines, t)
	return nil
}

func TestExpectContinue(t *testing.T) {
	t.Parallel()
	s := newBareAPI(t)
	s.addSample()
	address, _, _ := s.serve()
	body := `{` + sampleID + `}`
	c := dial(t, address)
	c.send(s.head("POST /accounts/sample", "Authorization: "+s.auth, "Content-Type: application/json",
		fmt.Sprintf("Content-Length: %d", len(body)), "Expect: 100-continue"))
	res, _ := c.answer(closesAtOnce)
	require.Equal(t, http.StatusContinue, res.StatusCode)
	c.send(body)
	res, _ = c.answer(closesAtOnce)
	require.Equal(t, http.StatusOK, res.StatusCode)
}

func TestTruncatedBody_Is400(t *testing.T) {
	t.Parallel()
	s := newBareAPI(t)
	address, _, _ := s.serve()
	form := "--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.csv\"\r\n\r\nphone\r\n--x--\r\n"
	for _, route := range []struct{ request, mediaType, body string }{
		{"POST /accounts/users", "application/json", `{}`},
		{"PATCH /accounts/users/" + absentID, "application/json", `{}`},
		{"POST /accounts/users/lookup", "application/json", `{"identifiers":["x"]}`},
		{"POST /accounts/users/bulk", "application/json", `{"users":[{"phone":"1","user_groups":[]}]}`},
		{"POST /accounts/contacts", "application/json", `{"user_id":"` + absentID + `","type":"phone","value":"1"}`},
		{"PATCH /accounts/contacts/" + absentID, "application/json", `{}`},
		{"POST /accounts/user-groups", "application/json", `{"name":"x"}`},
		{"PATCH /accounts/user-groups/" + absentID, "application/json", `{}`},
		{"POST /accounts/contact-types", "application/json", `{"name":"x","on_second":"allow"}`},
		{"PATCH /accounts/contact-types/" + absentID, "application/json", `{}`},
		{"POST /accounts/user-group-memberships", "application/json", `{"user_id":"` + absentID + `","group_id":"` + absentID + `"}`},
		{"PATCH /accounts/user-group-memberships/" + absentID + "/" + absentID, "application/json", `{}`},
		{"POST /accounts/user-group-memberships/bulk", "application/json", `{"group_id":"` + absentID + `","user_ids":["` + absentID + `"]}`},
		{"POST /accounts/users/bulk/upload", "multipart/form-data; boundary=x", form},
		{"POST /accounts/users/bulk/upload", "multipart/form-data; boundary=x", form[:40]},
	} {
		for framing, wire := range map[string]string{
			"length":  fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(route.body)+10, route.body),
			"nothing": "Content-Length: 10\r\n\r\n",
			"chunks":  fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n", len(route.body), route.body),
			"trailer": fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n", len(route.body), route.body),
		} {
			t.Run(route.request+" "+framing, func(t *testing.T) {
				t.Parallel()
				c := dial(t, address)
				c.send(route.request + " HTTP/1.1\r\nHost: x\r\nAuthorization: " + s.auth + "\r\nContent-Type: " + route.mediaType + "\r\n" + wire)
				require.NoError(t, c.CloseWrite())
				res, body := c.answer(closesAtOnce)
				require.Equal(t, 400, res.StatusCode, body)
				require.Len(t, faultsOf(t, body), 1, body)
				require.True(t, res.Close)
				c.requireClosed(closesAtOnce)
			})
		}
	}
}

// TestHalfClose_NeverAnEmpty200: net/http cancels a request whose client closes its side.
func TestHalfClose_NeverAnEmpty200(t *testing.T) {
	t.Parallel()
	s := newBareAPI(t)
	s.addHandler(http.MethodGet, "/accounts/wait", func(ctx context.Context, _ *response, _ *input) error {
		<-ctx.Done()
		return ctx.Err()
	})
	address, _, _ := s.serve()
	c := dial(t, address)
	c.send(s.head("GET /accounts/wait", "Authorization: "+s.auth))
	require.NoError(t, c.CloseWrite())
	c.requireClosed(closesAtOnce)
}
