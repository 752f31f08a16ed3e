package dbrules

const (
	upOnly  = next + "\n" + head
	noTx    = next + "\n-- +goose NO TRANSACTION\n-- +goose Up\nSET lock_timeout = '5s';\n"
	noTxEnd = "-- +goose Down\nSET lock_timeout = '5s';\n"
	wait    = next + "\n-- +goose Up\n"
)

// schemaFaults are planted like fileFaults.
var schemaFaults = []fault{
	{"zero", migrationTimeout, wait + "set local LOCK_TIMEOUT to 0;\n" + foot},
	{"half an hour", migrationTimeout, wait + "SET LOCAL lock_timeout = '30min';\n" + foot},
	{"milliseconds", migrationTimeout, wait + "SET LOCAL lock_timeout = 1800000;\n" + foot},
	{"default", migrationTimeout, wait + "SET lock_timeout TO DEFAULT;\n" + foot},
	{"empty Down", migrationTimeout, upOnly + "\n-- +goose Down\n"},
	{"reset", migrationTimeout, upOnly + "RESET lock_timeout;\n" + foot},
	{"reset all", migrationTimeout, upOnly + "RESET ALL;\n" + foot},
	{"set again", migrationTimeout, upOnly + "SET LOCAL lock_timeout = 0;\n" + foot},
	{"set_config", migrationTimeout, upOnly + "SELECT set_config('lock_timeout', '0', true);\n" + foot},

	{"index", "index-concurrently", upOnly + "CREATE INDEX users_version_idx ON accounts.users (version);\n" + foot},
	{"DROP INDEX", "index-concurrently", upOnly + "DROP INDEX accounts.user_contacts_user_id_idx;\n" + foot},
	{"concurrently in a transaction", "index-transaction", upOnly + "CREATE INDEX CONCURRENTLY users_version_idx ON accounts.users (version);\n" + foot},
	{"check", "constraint-not-valid", upOnly + "ALTER TABLE accounts.users ADD CONSTRAINT users_x CHECK (version > 1);\n" + foot},
	{"foreign key", "constraint-not-valid", upOnly + "ALTER TABLE accounts.import_rows ADD CONSTRAINT import_rows_user_id_fkey " +
		"FOREIGN KEY (user_id) REFERENCES accounts.users (id);\n" + foot},
	{"not null", "set-not-null", upOnly + "ALTER TABLE accounts.user_contacts ALTER COLUMN deactivated_at SET NOT NULL;\n" + foot},
	{"type", migrationRewrite, upOnly + "ALTER TABLE accounts.users ALTER COLUMN version TYPE numeric;\n" + foot},
	{"volatile default", migrationRewrite, upOnly + "ALTER TABLE accounts.users ADD COLUMN seen timestamptz DEFAULT clock_timestamp();\n" + foot},
	{"unique constraint", "constraint-using-index", upOnly +
		"-- allow unique-index-data: no two groups have one name\nALTER TABLE accounts.user_groups ADD CONSTRAINT user_groups_x_key UNIQUE (name, id);\n" + foot},
	{"required", "required-column", upOnly + "ALTER TABLE accounts.users ADD COLUMN note text NOT NULL;\n" + foot},
	{"column", "rename", upOnly + "ALTER TABLE accounts.users RENAME COLUMN version TO revision;\n" + foot},
	{"table", "rename", upOnly + "ALTER TABLE accounts.users RENAME TO people;\n" + foot},
	{"column", "drop-not-null", upOnly + "ALTER TABLE accounts.users ALTER COLUMN version DROP NOT NULL;\n" + foot},
	{"BEGIN", "transaction", upOnly + "BEGIN;\nCOMMENT ON TABLE accounts.users IS 'x';\nCOMMIT;\n" + foot},
	{"long", "identifier-length", upOnly + "CREATE TABLE accounts.petpetpetpetpetpetpetpetpetpetpetpetpetpetpetpetpetpetpetpetpetpetpetpet (id uuid);\n" + foot},

	{"statement", migrationSyntax, upOnly + "SELECT 1;\nCREATE TABL accounts.pets (id uuid);\n" + foot},
	{"in Down", migrationSyntax, upOnly + foot + "DROP TABL accounts.pets;\n"},
	{"UPDATE", migrationBackfill, upOnly + "ALTER TABLE accounts.users ADD COLUMN note text;\nUPDATE accounts.users SET note = '' WHERE version = 1;\n" + foot},
	{"small letters", migrationBackfill, upOnly + "alter table accounts.users add column note text;\nupdate  accounts . users set note = '' where version = 1;\n" + foot},
	{"INSERT", migrationBackfill, upOnly + "CREATE TABLE accounts.pets (id uuid);\nINSERT INTO accounts.import_jobs (on_conflict, dry_run) VALUES ('skip', true);\n" + foot},
	{"in WITH", migrationBackfill, upOnly + "ALTER TABLE accounts.users ADD COLUMN note text;\n" +
		"WITH u AS (UPDATE accounts.users SET note = '' WHERE version = 1) SELECT 1;\n" + foot},
	{"plain", migrationDo, upOnly + "DO $$ BEGIN NULL; END $$;\n" + foot},
	{"small letters", migrationDo, upOnly + "/* x */ do language plpgsql 'BEGIN NULL; END';\n" + foot},
	{"in Down", migrationDo, upOnly + foot + "DO 'BEGIN NULL; END';\n"},
	{"INSERT SELECT", migrationCopy, upOnly + "INSERT INTO accounts.import_rows (user_id) SELECT u.id FROM accounts.users AS u;\n" + foot},
	{"INSERT WITH", migrationCopy, upOnly + "INSERT INTO accounts.import_rows (user_id) WITH x AS (SELECT id FROM accounts.users) SELECT x.id FROM x;\n" + foot},
	{"AS", migrationCopy, upOnly + "CREATE TABLE accounts.pets AS SELECT u.id FROM accounts.users AS u;\n" + foot},
	{"two indexes", migrationRepeatable, noTx + "CREATE INDEX CONCURRENTLY users_a_idx ON accounts.users (version);\n" +
		"CREATE INDEX CONCURRENTLY users_b_idx ON accounts.users (version, id);\n" + noTxEnd +
		"DROP INDEX CONCURRENTLY IF EXISTS accounts.users_a_idx;\nDROP INDEX CONCURRENTLY IF EXISTS accounts.users_b_idx;\n"},
	{"IF NOT EXISTS", migrationRepeatable, noTx + "CREATE INDEX CONCURRENTLY IF NOT EXISTS users_a_idx ON accounts.users (version);\n" +
		"COMMENT ON INDEX accounts.users_a_idx IS 'x';\n" + noTxEnd + "DROP INDEX CONCURRENTLY accounts.users_a_idx;\n"},
	{"table", qualifiedNames, upOnly + "CREATE TABLE pets (id uuid);\n" + foot},
	{"function", qualifiedNames, upOnly + "CREATE FUNCTION feed_v1() RETURNS void LANGUAGE plpgsql AS 'BEGIN END';\n" + foot},
	{"ALTER", qualifiedNames, upOnly + "ALTER TABLE users ADD COLUMN note text;\n" + foot},
	{"comment", qualifiedNames, upOnly + "COMMENT ON TABLE users IS 'x';\n" + foot},
	{"grant", qualifiedNames, upOnly + "GRANT EXECUTE ON FUNCTION lock_user_v1(uuid) TO accounts_write;\n" + foot},
	{"type", qualifiedNames, upOnly + "CREATE FUNCTION accounts.feed_v1() RETURNS SETOF user_v1 LANGUAGE plpgsql AS 'BEGIN END';\n" + foot},
	{"DROP in Down", qualifiedNames, upOnly + foot + "DROP FUNCTION feed_v1();\n"},
	{"function", migrationCascade, upOnly + "DROP FUNCTION accounts.lock_user_v1(uuid) CASCADE;\n" + foot},
	{"small letters in Down", migrationCascade, upOnly + foot + "drop index accounts.users_a_idx /* x */ cascade;\n"},
	{"revoke", migrationCascade, upOnly + "REVOKE EXECUTE ON FUNCTION accounts.lock_user_v1(uuid) FROM accounts_write CASCADE;\n" + foot},
	{"index", uniqueIndexData, noTx + "CREATE UNIQUE INDEX CONCURRENTLY users_version_key ON accounts.users (version);\n" + noTxEnd +
		"DROP INDEX CONCURRENTLY accounts.users_version_key;\n"},
	{"INSERT", dictionarySeed, upOnly + "INSERT INTO accounts.contact_types (name, on_second) VALUES ('fax', 'allow');\n" + foot},
	{"UPDATE", dictionarySeed, upOnly + "UPDATE accounts.user_groups SET name = 'x' WHERE name = 'y';\n" + foot},
	{"recorded before", dictionarySeed, upOnly + "SELECT accounts.record_change_v1(ARRAY['d:contact_types'], '{}');\n" +
		"INSERT INTO accounts.contact_types (name, on_second) VALUES ('fax', 'allow');\n" + foot},
	{"column", downLosesData, upOnly + "ALTER TABLE accounts.users DROP COLUMN version;\n" + foot},
	{"table", downLosesData, upOnly + "DROP TABLE accounts.cache_outbox;\n" + foot},
	{"rows", downLosesData, upOnly + foot + "DELETE FROM accounts.users WHERE version = 1;\n"},
	{"another column", downLosesData, upOnly + "ALTER TABLE accounts.users ADD COLUMN note text;\n" + foot + "ALTER TABLE accounts.users DROP COLUMN version;\n"},
	{"type", downLosesData, upOnly + foot + "ALTER TABLE accounts.user_contacts ALTER COLUMN value TYPE varchar(10);\n"},
	{"fillfactor", storageOptions, upOnly + "ALTER TABLE accounts.users SET (fillfactor = 50);\n" + foot},
	{"autovacuum", storageOptions, upOnly + "ALTER TABLE accounts.users SET (autovacuum_enabled = off);\n" + foot},
	{"TOAST", storageOptions, upOnly + "ALTER TABLE accounts.users ALTER COLUMN profile SET STORAGE EXTERNAL;\n" + foot},
	{"unlogged", storageOptions, upOnly + "ALTER TABLE accounts.users SET UNLOGGED;\n" + foot},
	{"new and unlogged", storageOptions, upOnly + "CREATE UNLOGGED TABLE accounts.pets (id uuid);\n" + foot},
	{"column", typeSpelling, upOnly + "CREATE TABLE accounts.pets (at timestamp with time zone);\n" + foot},
	{"parameter", typeSpelling, upOnly + "CREATE FUNCTION accounts.feed_v1(p_at timestamp with time zone) RETURNS void LANGUAGE plpgsql AS 'BEGIN END';\n" + foot},
}
