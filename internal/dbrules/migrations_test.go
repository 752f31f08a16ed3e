package dbrules

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/pgtest"
)

const oldMigration = "db/migrations/00009_create_membership_functions.sql"

// The plant is a file, "name\ntext"; an existing one is replaced, and removed if there is no text.
var fileFaults = []fault{
	{"form of the name", migrationName, "db/migrations/90000_Next.sql\n" + head + foot},
	{"number twice", migrationOrder, "db/migrations/00013_same.sql\n" + head + foot},
	{"before the newest", migrationOrder, "db/migrations/00000_early.sql\n" + head + foot},
	{"edited", migrationFrozen, oldMigration + "\n" + head + foot},
	{"gone", migrationFrozen, oldMigration},
	{"Up waits", migrationTimeout, next + "\n-- +goose Up\nSELECT 1;\n" + foot},
	{"Down waits", migrationTimeout, next + "\n" + head + "\n-- +goose Down\nSELECT 1;\n"},
	{"lock_timeout later", migrationTimeout, next + "\n-- +goose Up\nSELECT 1;\nSET LOCAL lock_timeout = '5s';\n" + foot},
	{"LOCAL without a transaction", migrationTimeout, next + "\n-- +goose NO TRANSACTION\n" + head + "\n-- +goose Down\nSET lock_timeout = '5s';\n"},
	{"no Down", migrationDown, next + "\n" + head},
	{"no Up", migrationUp, next + "\nSELECT 1;\n" + foot},
	{"mark", fillIn, next + "\n" + head + "-- FILL IN: the body\n" + foot},
	{"mark in a query", fillIn, "db/queries/read/x.sql\n-- FILL IN: the arguments\n"},
	{"lock", migrationLock, next + "\n" + head + "LOCK TABLE accounts.users IN EXCLUSIVE MODE;\n" + foot},
	{"every row", migrationLock, next + "\n" + head + "UPDATE accounts.import_jobs SET done = 0;\n" + foot},
}

func checkFiles(t *testing.T, dir string) []Violation {
	t.Helper()
	tree := readTree(t, dir)
	base, err := FindBase(t.Context(), dir)
	require.NoError(t, err)
	released, err := Released(t.Context(), tree, base)
	require.NoError(t, err)
	found := append(Migrations(tree), released...)
	if program := squawk(t); program != "" {
		locks, err := Locks(t.Context(), tree, program)
		require.NoError(t, err)
		found = append(found, locks...)
	}
	return found
}

func TestFaultsOfMigrationFiles(t *testing.T) {
	t.Parallel()
	pgtest.NeedServers(t)
	for _, f := range slices.Concat(fileFaults, schemaFaults) {
		t.Run(f.rule+"/"+f.name, func(t *testing.T) {
			t.Parallel()
			bySquawk := func(r Rule) bool { return r.Name == f.rule }
			if (f.rule == migrationLock || f.rule == migrationRewrite || slices.ContainsFunc(squawkRules, bySquawk)) && squawk(t) == "" {
				t.Skip("squawk needs npm and x86_64")
			}
			dir := copyTree(t)
			name, text, found := strings.Cut(f.plant, "\n")
			if found {
				write(t, dir, name, text)
			} else {
				require.NoError(t, os.Remove(filepath.Join(dir, name)))
			}
			requireOnly(t, f.rule, withoutConsequences(checkFiles(t, dir)))
		})
	}
}

// What is no fault: all of it on a table of the migration's own, or as squawk wants it.
func TestWhatMigrationsMayDo(t *testing.T) {
	t.Parallel()
	pgtest.NeedServers(t)
	dir := copyTree(t)
	write(t, dir, next, head+`CREATE TABLE accounts.pets (
    id uuid NOT NULL,
    CONSTRAINT pets_pkey PRIMARY KEY (id)
);
CREATE INDEX pets_id_idx ON accounts.pets (id);
UPDATE accounts.pets SET id = id;
ALTER TABLE accounts.users ADD COLUMN note text NOT NULL DEFAULT '';
ALTER TABLE accounts.users ADD CONSTRAINT users_x CHECK (version > 1) NOT VALID;
-- allow migration-backfill: jobs are few
-- long lock: jobs are few
UPDATE accounts.import_jobs SET done = done;
-- allow migration-backfill: one row of a dictionary
INSERT INTO accounts.contact_types (name, on_second) VALUES ('fax', 'allow');
SELECT accounts.record_change_v1(ARRAY['d:contact_types'], '{}');
-- allow migration-do: for a test
-- +goose StatementBegin
DO $$
BEGIN
    LOCK TABLE accounts.users;
END
$$;
-- +goose StatementEnd
`+foot)
	write(t, dir, "db/migrations/90001_index.sql", `-- An index.

-- +goose NO TRANSACTION
-- +goose Up
SET lock_timeout = '5s';
CREATE INDEX CONCURRENTLY users_version_idx ON accounts.users (version);

-- +goose Down
SET lock_timeout = '5s';
DROP INDEX CONCURRENTLY accounts.users_version_idx;
`)
	require.Empty(t, checkFiles(t, dir))
}

// What may stand in the place of the migrations, to save time: a second file after a table of pets.
const petsUp = "CREATE SCHEMA accounts; CREATE TABLE accounts.pets (id integer NOT NULL, note text);\n" +
	"CREATE FUNCTION accounts.f_v1() RETURNS integer LANGUAGE plpgsql AS 'BEGIN RETURN 1; END';\n"

var roundTripFaults = []fault{
	{"fails", migrationUp, head + "SELECT no_such_thing;\n" + foot},
	{"Down fails", migrationDown, head + foot + "SELECT no_such_thing;\n"},
	{"Down forgets", migrationDown, head + "CREATE TABLE accounts.cages (id integer NOT NULL);\n" + foot},
	{"Down restores another body", migrationDown, head +
		"CREATE OR REPLACE FUNCTION accounts.f_v1() RETURNS integer LANGUAGE plpgsql AS 'BEGIN RETURN 2; END';\n" + foot +
		"CREATE OR REPLACE FUNCTION accounts.f_v1() RETURNS integer LANGUAGE plpgsql AS 'BEGIN RETURN 1 ; END';\n"},
	{"Down takes too much", migrationDown, head + foot + "ALTER TABLE accounts.pets DROP COLUMN note;\n"},
	{"Down of a grant", migrationDown, head + "GRANT SELECT ON accounts.pets TO accounts_read;\n" + foot},
	{"another type", migrationRewrite, head + "ALTER TABLE accounts.pets ALTER COLUMN id TYPE bigint;\n" + foot +
		"ALTER TABLE accounts.pets ALTER COLUMN id TYPE integer;\n"},
	{"volatile default", migrationRewrite, head + "ALTER TABLE accounts.pets ADD COLUMN seen timestamptz DEFAULT clock_timestamp();\n" + foot +
		"ALTER TABLE accounts.pets DROP COLUMN seen;\n"},
	{"TRUNCATE in a DO", migrationRewrite, head + "DO 'BEGIN TRUNCATE accounts.pets; END';\n" + foot},
}

func TestFaultsOfTheRoundTrip(t *testing.T) {
	t.Parallel()
	for _, f := range roundTripFaults {
		t.Run(f.rule+"/"+f.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			require.NoError(t, os.MkdirAll(filepath.Join(dir, migrationsFolder), 0o755))
			write(t, dir, "sqlc.yaml", "")
			write(t, dir, "db/migrations/00001_pets.sql", head+petsUp+foot+"DROP SCHEMA accounts CASCADE;\n")
			write(t, dir, "db/migrations/00002_next.sql", f.plant)
			migrate, super := empty(t)
			found, migrated, err := RoundTrip(t.Context(), readTree(t, dir), Base{}, migrate, super)
			require.NoError(t, err)
			requireOnly(t, f.rule, found)
			require.Equal(t, "db/migrations/00002_next.sql", found[0].File)
			require.Equal(t, !strings.HasSuffix(f.name, "fails"), migrated)
		})
	}
}

// What is released stays up: it cannot be changed, and would take longer with every release.
func TestTheRoundTripIsOfNewMigrations(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, migrationsFolder), 0o755))
	write(t, dir, "sqlc.yaml", "")
	write(t, dir, "db/migrations/00001_pets.sql", head+petsUp+foot+"SELECT no_such_thing;\n")
	git(t, dir, "init", "-q", "-b", "main")
	commit(t, dir)
	git(t, dir, "checkout", "-q", "-b", "work")
	write(t, dir, "db/migrations/00002_next.sql", head+"CREATE TABLE accounts.cages (id integer NOT NULL);\n"+foot)
	base, err := FindBase(t.Context(), dir)
	require.NoError(t, err)
	migrate, super := empty(t)
	found, migrated, err := RoundTrip(t.Context(), readTree(t, dir), base, migrate, super)
	require.NoError(t, err)
	require.False(t, migrated, "up again, the table is there")
	require.Contains(t, found[0].Message, "cages")
	requireOnly(t, migrationDown, found)
	require.Equal(t, "db/migrations/00002_next.sql", found[0].File)
}

func TestFindBase(t *testing.T) {
	t.Parallel()
	how := func(dir string) Base {
		base, err := FindBase(t.Context(), dir)
		require.NoError(t, err)
		return base
	}
	dir := t.TempDir()
	require.Contains(t, how(dir).How, "not a git repository")

	dir = copyTree(t)
	require.Contains(t, how(dir).How, "where this branch left main")
	git(t, dir, "checkout", "-q", "main")
	require.Contains(t, how(dir).How, "main has one commit")
	require.Empty(t, how(dir).Commit)

	write(t, dir, "db/contract.txt", "two")
	commit(t, dir)
	require.Contains(t, how(dir).How, "the commit before main")
	git(t, dir, "tag", "v1", "HEAD~1")
	write(t, dir, "db/contract.txt", "three")
	commit(t, dir)
	require.Contains(t, how(dir).How, "v1 (the latest tag before main)")
	git(t, dir, "tag", "v2")
	require.Contains(t, how(dir).How, "v1 (", "a release is compared with the one before")
	git(t, dir, "checkout", "-q", "--detach")
	require.Contains(t, how(dir).How, "v1 (", "as CI checks out main")

	clone := filepath.Join(t.TempDir(), "clone")
	git(t, dir, "checkout", "-q", "main")
	git(t, dir, "clone", "-q", "--depth=1", "file://"+dir, clone)
	require.Empty(t, how(clone).Commit)
	require.Contains(t, how(clone).How, "git fetch --unshallow")
}
