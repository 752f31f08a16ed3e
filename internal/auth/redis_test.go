package auth

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/stretchr/testify/require"
)

// sharedRedis serves the tests that never stop it; their keys hold random ids. It is nil in the short mode,
// whose tests end at needServer.
var sharedRedis *redisServer

func TestMain(m *testing.M) {
	logging.Disable()
	flag.Parse()
	if testing.Short() {
		os.Exit(m.Run())
	}
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "auth")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		sharedRedis = &redisServer{socket: filepath.Join(dir, "redis.sock")}
		if err := sharedRedis.start(); err != nil {
			panic(err)
		}
		defer sharedRedis.kill()
		return m.Run()
	}())
}

// redisServer is a redis-server process on a unix socket.
type redisServer struct {
	socket  string
	process *exec.Cmd
}

// needServer skips the test in the short mode, which starts no servers.
func needServer(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("needs Redis, which -short does not start")
	}
}

// newRedisServer starts a server of the test's own.
func newRedisServer(t *testing.T) *redisServer {
	t.Helper()
	needServer(t)
	// t.TempDir holds the name of the test, and a socket path may have 107 bytes only.
	dir, err := os.MkdirTemp("", "auth")
	require.NoError(t, err)
	server := &redisServer{socket: filepath.Join(dir, "redis.sock")}
	t.Cleanup(func() {
		server.kill()
		os.RemoveAll(dir)
	})
	require.NoError(t, server.start())
	return server
}

// start returns when the server answers.
func (s *redisServer) start() error {
	s.process = exec.Command("redis-server", "--port", "0", "--unixsocket", s.socket,
		"--save", "", "--appendonly", "no", "--dir", filepath.Dir(s.socket))
	// A test binary that panics or times out runs no cleanup.
	s.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.process.Start(); err != nil {
		return fmt.Errorf("start redis-server (is it installed?): %w", err)
	}
	client := redis.NewClient(&redis.Options{Network: "unix", Addr: s.socket})
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for {
		err := client.Ping(ctx).Err()
		if err == nil || ctx.Err() != nil {
			return err
		}
		sleep(ctx, 5*time.Millisecond)
	}
}

func (s *redisServer) kill() {
	_ = s.process.Process.Kill()
	_ = s.process.Wait()
}

func (s *redisServer) signal(t *testing.T, signal syscall.Signal) {
	t.Helper()
	require.NoError(t, s.process.Process.Signal(signal))
}

// client returns a client as the service makes it.
func (s *redisServer) client(t testing.TB) *redis.Client {
	t.Helper()
	needServer(t)
	client, err := NewRedis("unix://" + s.socket)
	require.NoError(t, err)
	t.Cleanup(func() { client.Close() })
	return client
}

// set puts keys into the list, as the auth service does.
func (s *redisServer) set(t testing.TB, keys ...string) {
	t.Helper()
	needServer(t)
	client := redis.NewClient(&redis.Options{Network: "unix", Addr: s.socket})
	defer client.Close()
	pipe := client.Pipeline()
	for _, key := range keys {
		pipe.Set(t.Context(), key, "1", time.Hour)
	}
	_, err := pipe.Exec(t.Context())
	require.NoError(t, err)
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }
