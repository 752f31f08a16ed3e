package main

import (
	"context"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestLogFile_ReopenFollowsTheName(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "accounts.log")
	f, err := openLogFile(path)
	require.NoError(t, err)
	write := func(line string) {
		_, err := f.Write([]byte(line))
		require.NoError(t, err)
	}
	requireContent := func(path, want string) {
		content, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, want, string(content))
	}
	write("1")
	require.NoError(t, os.Rename(path, path+".1"))
	write("2")
	require.NoError(t, f.Reopen())
	write("3")
	requireContent(path+".1", "12")
	requireContent(path, "3")
	require.NoError(t, f.Reopen(), "without a rotation")
	write("4")
	requireContent(path, "34")

	require.NoError(t, os.Remove(path))
	require.NoError(t, os.Mkdir(path, 0o700))
	require.Error(t, f.Reopen())
	write("5") // to the file that was open
	require.NoError(t, os.Remove(path))
	require.NoError(t, syscall.Mkfifo(path, 0o600))
	require.ErrorIs(t, f.Reopen(), syscall.ENXIO, "a FIFO that is not read")
	write("6")
	require.NoError(t, f.Close())
}

// TestServe_SIGHUP is not parallel: it changes the environment and sends the signal to its process.
func TestServe_SIGHUP(t *testing.T) {
	const closed = "127.0.0.1:1" // the servers may be down
	environment(t, map[string]string{
		"DATABASE_WRITE_URL": "postgres://writer@" + closed + "/accounts", "DATABASE_READ_URL": "postgres://reader@" + closed + "/accounts",
		"REDIS_URL": "redis://" + closed + "/1", "AUTH_REDIS_URL": "redis://" + closed + "/0",
		"JWT_SECRET_KEY": "0123456789abcdef0123456789abcdef",
	})
	folder := t.TempDir()
	t.Setenv("LOG_DIR", folder)
	t.Setenv("HTTP_ADDR", "127.0.0.1:0")
	t.Setenv("ADMIN_ADDR", "127.0.0.1:0")
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx) }()
	path := filepath.Join(folder, "accounts.log")
	require.Eventually(t, func() bool {
		content, _ := os.ReadFile(path)
		return len(content) > 0
	}, 10*time.Second, time.Millisecond, "it logs that it listens")

	require.NoError(t, os.Rename(path, path+".1"))
	require.NoError(t, syscall.Kill(os.Getpid(), syscall.SIGHUP))
	require.Eventually(t, func() bool {
		_, err := os.Stat(path)
		return err == nil
	}, 10*time.Second, time.Millisecond, "the log file is opened again")
	require.Empty(t, ended, "the signal ended the server")
	require.True(t, signal.Ignored(syscall.SIGPIPE), "a log collector that ends would end the server")
	stop()
	require.NoError(t, <-ended)
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Contains(t, string(content), "stopped")
}
