package dbcatalog

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func connect(t *testing.T) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), pgtest.Shared(t).RemoveOracle("the catalog is what the migrations make").SuperURL)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func TestCommittedCatalogIsFresh(t *testing.T) {
	t.Parallel()
	files, err := Read(t.Context(), connect(t))
	require.NoError(t, err)
	require.NoError(t, files.Compare("../../db"))
}

// sqlc knows timestamptz, and not its long name, which pg_get_functiondef prints.
func TestFunctionFiles_SpellTypesAsMigrationsDo(t *testing.T) {
	t.Parallel()
	files, err := Read(t.Context(), connect(t))
	require.NoError(t, err)
	for path, text := range files {
		if path != ContractFile {
			require.NotContains(t, text, "timestamp with time zone", path)
		}
	}
	require.Contains(t, files[filepath.Join("functions", "list_users_v1.sql")], "p_updated_since timestamptz)")
}

// Every file creates its function again as it is.
func TestFunctionFilesCanBeExecuted(t *testing.T) {
	t.Parallel()
	conn := connect(t)
	before, err := Read(t.Context(), conn)
	require.NoError(t, err)
	for path, text := range before {
		if path != ContractFile {
			_, err := conn.PgConn().Exec(t.Context(), text).ReadAll()
			require.NoError(t, err, path)
		}
	}
	after, err := Read(t.Context(), conn)
	require.NoError(t, err)
	require.Equal(t, before, after)
}

func TestWriteAndCompare(t *testing.T) {
	t.Parallel()
	conn := connect(t)
	dir := t.TempDir()
	first, err := Read(t.Context(), conn)
	require.NoError(t, err)
	require.ErrorContains(t, first.Compare(dir), "contract.txt is stale")
	require.NoError(t, first.Write(dir))
	require.NoError(t, first.Compare(dir))

	_, err = conn.Exec(t.Context(), `
		DROP FUNCTION accounts.list_user_groups_v1();
		GRANT EXECUTE ON FUNCTION accounts.merge_patch_v1(jsonb, jsonb) TO PUBLIC;
		CREATE FUNCTION accounts.fresh_v1(p_a integer DEFAULT 1) RETURNS text LANGUAGE plpgsql AS 'BEGIN END'`)
	require.NoError(t, err)
	second, err := Read(t.Context(), conn)
	require.NoError(t, err)
	err = second.Compare(dir)
	for _, stale := range []string{
		"list_user_groups_v1.sql: there is no such function", "merge_patch_v1.sql is stale", "fresh_v1.sql is stale", "contract.txt is stale",
	} {
		require.ErrorContains(t, err, stale)
	}
	require.NotContains(t, err.Error(), "create_user_v1")
	require.NoError(t, second.Write(dir))
	require.NoError(t, second.Compare(dir))
	require.NoFileExists(t, filepath.Join(dir, "functions", "list_user_groups_v1.sql"))
	contract, err := os.ReadFile(filepath.Join(dir, ContractFile))
	require.NoError(t, err)
	require.Contains(t, string(contract), `
accounts.fresh_v1(p_a integer DEFAULT 1)
    RETURNS text
    VOLATILE PARALLEL UNSAFE COST 100 SECURITY INVOKER
    EXECUTE: PUBLIC
`)
}

func TestLiteral(t *testing.T) {
	t.Parallel()
	require.Equal(t, "    'it''s'", literal("it's"))
	require.Equal(t, "    ''", literal(""))
}
