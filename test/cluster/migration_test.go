//go:build cluster

package cluster

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// goose runs the plain CLI from this host through a port of HAProxy.
func goose(t *testing.T, dir string, port int, command string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), commandTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(c.cfg.Root, ".tools", "goose"), "-dir", dir, "postgres", c.MigrateURL(port), command)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestMigrationNeedsThePrimary(t *testing.T) {
	steady(t, 1, 1)
	replica := fmt.Sprintf("postgres://accounts_migrator:%s@haproxy:5433/accounts?sslmode=disable", c.Secret("ACCOUNTS_MIGRATOR_PASSWORD"))
	_, err := c.Compose(t.Context(), "run", "--rm", "--no-deps", "-e", "DATABASE_MIGRATE_URL="+replica, "migrate")
	require.ErrorContains(t, err, "migrations run against the primary only")

	migrations := filepath.Join(c.cfg.Root, "db", "migrations")
	out, err := goose(t, migrations, c.WritePort, "status")
	require.NoError(t, err, out)
	require.NotContains(t, out, "Pending")
	out, err = goose(t, migrations, c.WritePort, "up")
	require.NoError(t, err, out)
}

// The primary dies in the middle of a migration: it was applied, or it left nothing.
func TestMigrationDuringFailover(t *testing.T) {
	if *short {
		t.Log("left to the full form")
		return
	}
	dir := t.TempDir()
	migrations, err := filepath.Glob(filepath.Join(c.cfg.Root, "db", "migrations", "*.sql"))
	require.NoError(t, err)
	for _, file := range migrations {
		require.NoError(t, os.Symlink(file, filepath.Join(dir, filepath.Base(file))))
	}
	const halves = "SELECT count(*) FROM pg_tables WHERE schemaname = 'accounts' AND tablename LIKE 'half\\_%'"
	require.NoError(t, os.WriteFile(filepath.Join(dir, "90001_halves.sql"), []byte(`-- +goose Up
CREATE TABLE accounts.half_one (id bigint);
SELECT pg_sleep(4);
CREATE TABLE accounts.half_two (id bigint);

-- +goose Down
DROP TABLE accounts.half_one;
DROP TABLE accounts.half_two;
`), 0o600))
	_, before := steady(t, 1, 1)
	var migrating sync.WaitGroup
	var out string
	var migrateErr error
	migrating.Go(func() { out, migrateErr = goose(t, dir, c.WritePort, "up") })
	require.NoError(t, Eventually(t.Context(), 20*time.Second, func() error {
		sleeping, err := c.SQL(t.Context(), before.Leader, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
		if err == nil && sleeping != "1" {
			err = fmt.Errorf("the migration has not got so far")
		}
		return err
	}))
	docker(t, "kill", before.Leader)
	migrating.Wait()
	t.Logf("goose: %v: %s", migrateErr, strings.TrimSpace(out))
	docker(t, "start", before.Leader)
	require.NoError(t, c.Await(t.Context(), rejoin, "a healthy cluster", State.Healthy))
	state, err := c.State(t.Context())
	require.NoError(t, err)
	tables, err := c.SQL(t.Context(), state.Leader, halves)
	require.NoError(t, err)
	if migrateErr == nil {
		require.Equal(t, "2", tables)
	} else {
		require.Equal(t, "0", tables)
		out, err = goose(t, dir, c.WritePort, "up")
		require.NoError(t, err, out)
	}
	out, err = goose(t, dir, c.WritePort, "down")
	require.NoError(t, err, out)
}
