package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/dbgen/read"
	"github.com/payment-services/accounts/internal/identifier"
	"github.com/payment-services/accounts/internal/pgtest"
)

func TestRunKeepsItsDataAndLeavesNothingRunning(t *testing.T) {
	t.Parallel()
	pgtest.NeedServers(t)
	const users = 20
	opts := options{dir: filepath.Join(t.TempDir(), "stack"), noServer: true, users: users}
	t.Cleanup(func() {
		// As root it is a link to a folder that user postgres can enter.
		if data, err := filepath.EvalSymlinks(filepath.Join(opts.dir, "pg")); err == nil {
			require.NoError(t, os.RemoveAll(data))
		}
	})

	first := start(t, opts)
	require.ErrorContains(t, run(t.Context(), opts), "another `make run`")
	require.Equal(t, users, first.countUsers(t))
	first.stop(t)

	second := start(t, opts)
	require.Equal(t, users, second.countUsers(t))
	require.Equal(t, first.variables["JWT_SECRET_KEY"], second.variables["JWT_SECRET_KEY"])
	require.Equal(t, first.variables["DATABASE_READ_URL"], second.variables["DATABASE_READ_URL"])
	second.stop(t)
}

func TestLostStateIsSaid(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "pg", "primary"), 0o700))
	require.ErrorContains(t, run(t.Context(), options{dir: dir}), "make clean")
}

func TestDemoUsersAreValidUniqueAndAlwaysTheSame(t *testing.T) {
	t.Parallel()
	const count = 3000
	users := demoUsers(count)
	require.Len(t, users, count)
	require.Equal(t, users, demoUsers(count))
	parser, err := identifier.NewParser("RU")
	require.NoError(t, err)
	seen := make(map[string]bool)
	for _, user := range users {
		params, err := user.params(parser)
		require.NoError(t, err)
		for _, canonical := range params.ContactNormalized {
			require.False(t, seen[canonical], canonical)
			seen[canonical] = true
		}
	}
	require.True(t, seen[demoPhone])
}

// running is a stack between start and stop.
type running struct {
	env       string
	cancel    context.CancelFunc
	ended     chan error
	variables map[string]string
}

// start runs a stack and returns when its env file is there, as a shell reads it.
func start(t *testing.T, opts options) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	r := &running{env: filepath.Join(opts.dir, "env"), cancel: cancel, ended: make(chan error, 1)}
	go func() { r.ended <- run(ctx, opts) }()
	const limit, pause = 2 * time.Minute, 20 * time.Millisecond
	require.Eventually(t, func() bool {
		_, err := os.Stat(r.env)
		return err == nil || len(r.ended) > 0
	}, limit, pause)
	info, err := os.Stat(r.env)
	require.NoError(t, err)
	require.EqualValues(t, secretMode, info.Mode().Perm())
	r.variables = make(map[string]string)
	for _, name := range []string{"TOKEN", "JWT_SECRET_KEY", "DATABASE_WRITE_URL", "DATABASE_READ_URL",
		"DATABASE_MIGRATE_URL", "REDIS_URL", "AUTH_REDIS_URL"} {
		out, err := exec.Command("sh", "-c", `. "$1" && eval "printf %s \"\$$2\""`, "sh", r.env, name).Output()
		require.NoError(t, err)
		require.NotEmpty(t, out, name)
		r.variables[name] = string(out)
	}
	return r
}

func (r *running) stop(t *testing.T) {
	t.Helper()
	r.cancel()
	require.NoError(t, <-r.ended)
	require.NoFileExists(t, r.env)
	_, err := pgx.Connect(t.Context(), r.variables["DATABASE_READ_URL"])
	require.ErrorContains(t, err, "connection refused")
}

// countUsers asks the standby.
func (r *running) countUsers(t *testing.T) int {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), r.variables["DATABASE_READ_URL"])
	require.NoError(t, err)
	defer conn.Close(t.Context())
	users, err := read.New(conn).ListUsersV1(t.Context(), read.ListUsersV1Params{PageLimit: 100})
	require.NoError(t, err)
	return len(users)
}
