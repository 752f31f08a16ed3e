package main

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
)

func TestAdminServer_BodyThatDoesNotArriveHoldsNoConnection(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := newAdminServer(prometheus.NewRegistry())
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	for name, test := range map[string]struct {
		request string
		status  int
	}{
		"metrics": {"GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n", 200},
		"chunked": {"GET /debug/pprof/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", 200},
		"symbol":  {"POST /debug/pprof/symbol HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n", 200},
		"404":     {"POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n", 404},
		"405":     {"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n", 405},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := net.Dial("tcp", listener.Addr().String())
			require.NoError(t, err)
			defer c.Close()
			_, err = io.WriteString(c, test.request)
			require.NoError(t, err)
			// Less than adminReadTimeout, which would end the connection too.
			require.NoError(t, c.SetReadDeadline(time.Now().Add(4*time.Second)))
			reader := bufio.NewReader(c)
			res, err := http.ReadResponse(reader, nil)
			require.NoError(t, err)
			require.Equal(t, test.status, res.StatusCode)
			require.True(t, res.Close)
			_, err = io.Copy(io.Discard, res.Body)
			require.NoError(t, err)
			_, err = reader.ReadByte()
			require.ErrorIs(t, err, io.EOF, "the connection is still open")
		})
	}
}

func TestAdminServer_BoundsEveryRequest(t *testing.T) {
	t.Parallel()
	server := newAdminServer(prometheus.NewRegistry())
	for _, limit := range []time.Duration{server.ReadTimeout, server.WriteTimeout, server.IdleTimeout} {
		require.NotZero(t, limit)
	}
	require.NotZero(t, server.MaxHeaderBytes)
}
