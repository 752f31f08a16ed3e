package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// These tests change the environment, so none of them is parallel.

// environment sets variables for one test, in a folder without .env, and nothing else of the service.
func environment(t *testing.T, values map[string]string) {
	t.Helper()
	t.Chdir(t.TempDir())
	for _, name := range []string{
		"DATABASE_WRITE_URL", "DATABASE_READ_URL", "REDIS_URL", "AUTH_REDIS_URL", "JWT_SECRET_KEY", "USER_CACHE_TTL",
	} {
		t.Setenv(name, values[name])
		if _, set := values[name]; !set {
			require.NoError(t, os.Unsetenv(name)) // t.Setenv puts it back
		}
	}
}

func TestEveryMissingVariableIsNamedAtOnce(t *testing.T) {
	environment(t, map[string]string{"DATABASE_READ_URL": "postgres://reader@localhost/accounts", "USER_CACHE_TTL": "soon-secret"})
	err := load(new(Config))
	for _, name := range []string{"DATABASE_WRITE_URL", "REDIS_URL", "AUTH_REDIS_URL", "USER_CACHE_TTL"} {
		require.ErrorContains(t, err, name)
	}
	require.NotContains(t, err.Error(), "DATABASE_READ_URL")
	require.NotContains(t, err.Error(), "soon-secret", "a value is never quoted")
}

func TestSecretsMayBeFiles(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "jwt")
	require.NoError(t, os.WriteFile(secret, []byte("0123456789abcdef0123456789abcdef\n"), 0o600))
	environment(t, map[string]string{
		"DATABASE_WRITE_URL": "w", "DATABASE_READ_URL": "r", "REDIS_URL": "c", "AUTH_REDIS_URL": "a",
	})
	t.Setenv("JWT_SECRET_KEY_FILE", secret)
	var cfg Config
	require.NoError(t, load(&cfg))
	require.Equal(t, "0123456789abcdef0123456789abcdef", cfg.SecretKey)
	require.Equal(t, 10*time.Minute, cfg.UserTTL)
	require.Equal(t, ":8002", cfg.HTTPAddr)

	t.Setenv("JWT_SECRET_KEY", "another")
	require.ErrorContains(t, load(new(Config)), "JWT_SECRET_KEY and JWT_SECRET_KEY_FILE are both set")
	t.Setenv("JWT_SECRET_KEY", "")
	t.Setenv("JWT_SECRET_KEY_FILE", secret+".missing")
	require.ErrorContains(t, load(new(Config)), "JWT_SECRET_KEY_FILE")
}

func TestUnknownCommandIsRefused(t *testing.T) {
	require.ErrorContains(t, run(t.Context(), []string{"sevre"}, os.Stdout), "usage: server")
}
