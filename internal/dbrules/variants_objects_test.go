package dbrules

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// migrationVariants are Up and Down of the next migration.
var migrationVariants = []fault{
	{"DO in E string", migrationDo, head + "DO E'BEGIN NULL; END';\n" + foot},
	{"DO with a tag", migrationDo, head + "DO $x$ BEGIN UPDATE accounts.users SET version = 1; END $x$;\n" + foot},
	{"backfill through a CTE with MERGE", migrationBackfill, head + "ALTER TABLE accounts.users ADD COLUMN note text;\nMERGE INTO accounts.users AS u USING accounts.user_contacts AS c ON c.user_id = u.id WHEN MATCHED THEN UPDATE SET note = c.value;\n" + foot},
	{"UPDATE of users alone", anyRule, head + "UPDATE accounts.users AS u SET profile = '{}' WHERE u.version = 1;\n" + foot},
	{"UPDATE of contacts alone", anyRule, head + "UPDATE accounts.user_contacts AS c SET value = 'x' WHERE c.value = 'y';\n" + foot},
	{"lock_timeout 11s", migrationTimeout, "-- x\n\n-- +goose Up\nSET LOCAL lock_timeout = '11s';\n" + foot},
	{"lock_timeout with a space", migrationTimeout, "-- x\n\n-- +goose Up\nSET LOCAL lock_timeout = '1 h';\n" + foot},
	{"lock_timeout after", migrationTimeout, "-- x\n\n-- +goose Up\nCOMMENT ON TABLE accounts.users IS 'x';\nSET LOCAL lock_timeout = '5s';\n" + foot},
	{"lock_timeout in a comment", migrationTimeout, "-- x\n\n-- +goose Up\n-- SET LOCAL lock_timeout = '5s';\nCOMMENT ON TABLE accounts.users IS 'x';\n" + foot},
	{"lock_timeout by set_config first", migrationTimeout, "-- x\n\n-- +goose Up\nSELECT set_config('lock_timeout', '0', true);\n" + foot},
	{"SET SESSION in a transaction", anyRule, "-- x\n\n-- +goose Up\nSET lock_timeout = '5s';\nCOMMENT ON TABLE accounts.users IS 'x';\n" + foot},
	{"SET TIME ZONE", anyRule, head + "SET TIME ZONE 'UTC';\n" + foot},
	{"SET search_path", anyRule, head + "SET LOCAL search_path = accounts;\nCOMMENT ON TABLE accounts.users IS 'x';\n" + foot},
	{"SET ROLE", anyRule, head + "SET ROLE postgres;\n" + foot},
	{"SET statement_timeout 0", anyRule, head + "SET LOCAL statement_timeout = 0;\n" + foot},
	{"session_replication_role", anyRule, head + "SET LOCAL session_replication_role = replica;\n" + foot},
	{"quoted table without a schema", qualifiedNames, head + "ALTER TABLE \"users\" ADD COLUMN note text;\n" + foot},
	{"SEQUENCE without a schema", qualifiedNames, head + "CREATE SEQUENCE pet_ids;\n" + foot},
	{"REFERENCES without a schema", qualifiedNames, head + "CREATE TABLE accounts.pets (id uuid REFERENCES users (id));\n" + foot},
	{"view without a schema", qualifiedNames, head + "CREATE VIEW v AS SELECT 1 AS id;\n" + foot},
	{"type without a schema", qualifiedNames, head + "CREATE TYPE pet_kind AS ENUM ('cat');\n" + foot},
	{"domain without a schema", qualifiedNames, head + "CREATE DOMAIN pet_name AS text;\n" + foot},
	{"index name", anyRule, head + "ALTER INDEX users_pkey RENAME TO x;\n" + foot},
	{"cascade of a column", migrationCascade, head + "ALTER TABLE accounts.users DROP COLUMN version CASCADE;\n" + foot},
	{"cascade of a constraint", migrationCascade, head + "ALTER TABLE accounts.users DROP CONSTRAINT users_pkey CASCADE;\n" + foot},
	{"TRUNCATE CASCADE", migrationCascade, head + "TRUNCATE accounts.import_jobs CASCADE;\n" + foot},
	{"unique index lower case", uniqueIndexData, head + "create unique index concurrently x_key on accounts.users (version);\n" + foot},
	{"primary key later", uniqueIndexData, head + "ALTER TABLE accounts.cache_outbox ADD PRIMARY KEY (created_at);\n" + foot},
	{"column UNIQUE", "constraint-using-index", head + "ALTER TABLE accounts.users ADD COLUMN note text UNIQUE;\n" + foot},
	{"exclusion", anyRule, head + "ALTER TABLE accounts.users ADD CONSTRAINT x EXCLUDE USING hash (id WITH =);\n" + foot},
	{"seed recorded only in a comment", dictionarySeed, head + "INSERT INTO accounts.contact_types (name, on_second) VALUES ('fax', 'allow');\n-- SELECT accounts.record_change_v1(ARRAY['d:contact_types'], '{}');\n" + foot},
	{"seed in a CTE", dictionarySeed, head + "WITH x AS (INSERT INTO accounts.contact_types (name, on_second) VALUES ('fax', 'allow') RETURNING id) SELECT 1;\n" + foot},
	{"seed deleted in Down", downLosesData, head + "INSERT INTO accounts.contact_types (name, on_second) VALUES ('fax', 'allow');\nSELECT accounts.record_change_v1(ARRAY['d:contact_types'], '{}');\n" + foot + "DELETE FROM accounts.contact_types WHERE name = 'fax';\n"},
	{"TRUNCATE in Down", downLosesData, head + foot + "TRUNCATE accounts.cache_outbox;\n"},
	{"DROP TABLE IF EXISTS in Down", downLosesData, head + foot + "DROP TABLE IF EXISTS accounts.cache_outbox;\n"},
	{"two tables dropped", downLosesData, head + "DROP TABLE accounts.import_rows, accounts.import_jobs;\n" + foot},
	{"storage of an index", anyRule, head + "ALTER INDEX accounts.users_pkey SET (fillfactor = 50);\n" + foot},
	{"replica identity", storageOptions, head + "ALTER TABLE accounts.users REPLICA IDENTITY FULL;\n" + foot},
	{"compression", storageOptions, head + "ALTER TABLE accounts.users ALTER COLUMN profile SET COMPRESSION lz4;\n" + foot},
	{"statistics", storageOptions, head + "ALTER TABLE accounts.users ALTER COLUMN profile SET STATISTICS 1000;\n" + foot},
	{"timestamp with time zone spaces", typeSpelling, head + "CREATE TABLE accounts.pets (at TIMESTAMP   WITH\nTIME ZONE);\n" + foot},
	{"timestamp(3) with time zone", typeSpelling, head + "CREATE TABLE accounts.pets (at timestamp(3) with time zone);\n" + foot},
	{"add column timestamp with", typeSpelling, head + "ALTER TABLE accounts.users ADD COLUMN at timestamp with time zone;\n" + foot},
	{"missing Down text", migrationDown, "-- x\n\n-- +goose Up\nSET LOCAL lock_timeout = '5s';\n"},
	{"VACUUM", anyRule, "-- x\n\n-- +goose NO TRANSACTION\n-- +goose Up\nSET lock_timeout = '5s';\nVACUUM FULL accounts.users;\n-- +goose Down\nSET lock_timeout = '5s';\n"},
	{"REINDEX", anyRule, head + "REINDEX TABLE accounts.users;\n" + foot},
	{"LOCK quoted", anyRule, head + "LOCK TABLE \"accounts\".\"users\";\n" + foot},
	{"lock small", anyRule, head + "lock accounts . users in access exclusive mode;\n" + foot},
	{"CLUSTER", anyRule, head + "CLUSTER accounts.users USING users_pkey;\n" + foot},
	{"ALTER COLUMN DEFAULT volatile", anyRule, head + "ALTER TABLE accounts.users ADD COLUMN seen double precision NOT NULL DEFAULT random();\n" + foot},
	{"generated column", anyRule, head + "ALTER TABLE accounts.users ADD COLUMN seen text GENERATED ALWAYS AS (profile ->> 'x') STORED;\n" + foot},
	{"psql command", anyRule, head + "\\i other.sql\n" + foot},
	{"COMMIT in the middle", anyRule, head + "COMMIT;\nCOMMENT ON TABLE accounts.users IS 'x';\n" + foot},
	{"index not concurrently, quoted", anyRule, head + "CREATE INDEX \"x_idx\" ON \"accounts\".\"users\" (\"version\");\n" + foot},
	{"foreign key valid, small letters", anyRule, head + "alter table accounts.import_rows add foreign key (user_id) references accounts.users;\n" + foot},
	{"column with REFERENCES", anyRule, head + "ALTER TABLE accounts.users ADD COLUMN boss uuid REFERENCES accounts.users (id);\n" + foot},
}

// objectVariants are run as accounts_owner, or as a superuser after RESET ROLE.
var objectVariants = []fault{
	{"trigger function elsewhere", anyRule, "RESET ROLE; CREATE FUNCTION public.t() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; CREATE CONSTRAINT TRIGGER x AFTER INSERT ON accounts.users DEFERRABLE FOR EACH ROW EXECUTE FUNCTION public.t();"},
	{"INSTEAD rule", "no-triggers", "CREATE RULE x AS ON UPDATE TO accounts.user_groups DO ALSO NOTHING;"},
	{"view with rule", anyRule, "CREATE VIEW accounts.v AS SELECT u.id FROM accounts.users AS u;"},
	{"materialized view", anyRule, "CREATE MATERIALIZED VIEW accounts.v AS SELECT 1 AS id;"},
	{"SQL function with BEGIN ATOMIC", "function-language", "CREATE FUNCTION accounts.get_pet_v1(p_id uuid) RETURNS uuid STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp BEGIN ATOMIC SELECT p_id; END; COMMENT ON FUNCTION accounts.get_pet_v1(uuid) IS 'x'; GRANT EXECUTE ON FUNCTION accounts.get_pet_v1(uuid) TO accounts_read, accounts_write;"},
	{"aggregate", "no-procedures", "CREATE AGGREGATE accounts.total_v1(bigint) (SFUNC = int8pl, STYPE = bigint);"},
	{"variadic", anyRule, "CREATE FUNCTION accounts.get_pet_v1(VARIADIC p_ids uuid[]) RETURNS uuid LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$ BEGIN RETURN p_ids[1]; END $$; COMMENT ON FUNCTION accounts.get_pet_v1(uuid[]) IS 'x'; GRANT EXECUTE ON FUNCTION accounts.get_pet_v1(uuid[]) TO accounts_read, accounts_write;"},
	{"OUT parameter", anyRule, "CREATE FUNCTION accounts.get_pet_v1(p_id uuid, OUT p_out uuid) LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$ BEGIN p_out := p_id; END $$; COMMENT ON FUNCTION accounts.get_pet_v1(uuid) IS 'x'; GRANT EXECUTE ON FUNCTION accounts.get_pet_v1(uuid) TO accounts_read, accounts_write;"},
	{"RETURNS TABLE", anyRule, "CREATE FUNCTION accounts.get_pet_v1(p_id uuid) RETURNS TABLE (id uuid) LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$ BEGIN RETURN QUERY SELECT p_id; END $$; COMMENT ON FUNCTION accounts.get_pet_v1(uuid) IS 'x'; GRANT EXECUTE ON FUNCTION accounts.get_pet_v1(uuid) TO accounts_read, accounts_write;"},
	{"polymorphic", anyRule, "CREATE FUNCTION accounts.get_pet_v1(p_id anyelement) RETURNS anyelement LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$ BEGIN RETURN p_id; END $$; COMMENT ON FUNCTION accounts.get_pet_v1(anyelement) IS 'x'; GRANT EXECUTE ON FUNCTION accounts.get_pet_v1(anyelement) TO accounts_read, accounts_write;"},
	{"search_path FROM CURRENT", "function-search-path", "SET LOCAL search_path = accounts, pg_temp; " + goodWith("SET search_path = pg_catalog, pg_temp", "SET search_path FROM CURRENT")},
	{"second SET", "function-search-path", goodWith("SET search_path = pg_catalog, pg_temp", "SET search_path = pg_catalog, pg_temp SET work_mem = '1GB'")},
	{"quoted search_path", "function-search-path", goodWith("SET search_path = pg_catalog, pg_temp", "SET search_path = 'pg_catalog, pg_temp'")},
	{"comment of spaces", "function-comment", goodWith("IS 'A pet.'", "IS '  '")},
	{"granted with grant option", anyRule, good + "GRANT EXECUTE ON FUNCTION accounts.get_pet_v1(uuid) TO accounts_read WITH GRANT OPTION;"},
	{"granted to a login", anyRule, good + "GRANT EXECUTE ON FUNCTION accounts.get_pet_v1(uuid) TO accounts_reader;"},
	{"all functions to write", anyRule, "GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA accounts TO accounts_write;"},
	{"all functions to PUBLIC", "function-public", "GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA accounts TO PUBLIC;"},
	{"table granted", anyRule, "GRANT SELECT ON ALL TABLES IN SCHEMA accounts TO accounts_read;"},
	{"sequence granted", anyRule, "CREATE SEQUENCE accounts.s; GRANT USAGE ON SEQUENCE accounts.s TO accounts_write;"},
	{"table owner", anyRule, "RESET ROLE; ALTER TABLE accounts.import_jobs OWNER TO accounts_migrator;"},
	{"schema owner", anyRule, "RESET ROLE; ALTER SCHEMA accounts OWNER TO accounts_migrator;"},
	{"table moved", anyRule, "RESET ROLE; ALTER TABLE accounts.import_jobs SET SCHEMA public;"},
	{"function moved", anyRule, "RESET ROLE; ALTER FUNCTION accounts.get_contact_v1(uuid) SET SCHEMA public;"},
	{"third schema", anyRule, "RESET ROLE; CREATE SCHEMA pets; CREATE FUNCTION pets.wipe() RETURNS void LANGUAGE sql SECURITY DEFINER AS 'DELETE FROM accounts.users';"},
	{"default privileges types", anyRule, "RESET ROLE; ALTER DEFAULT PRIVILEGES FOR ROLE accounts_migrator GRANT EXECUTE ON FUNCTIONS TO accounts_read;"},
	{"default privileges reset", anyRule, "RESET ROLE; ALTER DEFAULT PRIVILEGES FOR ROLE accounts_owner GRANT EXECUTE ON FUNCTIONS TO PUBLIC;"},
	{"role with createrole", anyRule, "RESET ROLE; ALTER ROLE accounts_migrator CREATEROLE;"},
	{"password valid until", anyRule, "RESET ROLE; ALTER ROLE accounts_writer VALID UNTIL '2030-01-01';"},
	{"role renamed", anyRule, "RESET ROLE; CREATE ROLE x; ALTER ROLE x RENAME TO pet_keeper;"},
	{"implicit cast", anyRule, "RESET ROLE; CREATE CAST (text AS uuid) WITH INOUT AS IMPLICIT;"},
	{"cast altered in ours", anyRule, "RESET ROLE; CREATE CAST (accounts.users AS text) WITH INOUT;"},
	{"operator in ours", anyRule, "CREATE OPERATOR accounts.=== (LEFTARG = uuid, RIGHTARG = uuid, FUNCTION = uuid_eq);"},
	{"operator class in ours", anyRule, "RESET ROLE; CREATE OPERATOR CLASS accounts.x FOR TYPE uuid USING hash AS OPERATOR 1 =, FUNCTION 1 uuid_hash(uuid);"},
	{"collation in ours", anyRule, `CREATE COLLATION accounts.x FROM "C";`},
	{"text search in ours", anyRule, "CREATE TEXT SEARCH CONFIGURATION accounts.x (COPY = pg_catalog.simple);"},
	{"conversion in ours", anyRule, "CREATE CONVERSION accounts.x FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8;"},
	{"publication of a schema", anyRule, "RESET ROLE; CREATE PUBLICATION x FOR TABLES IN SCHEMA accounts;"},
	{"all tables", anyRule, "RESET ROLE; CREATE PUBLICATION x FOR ALL TABLES;"},
	{"partition", anyRule, "CREATE TABLE accounts.p (id uuid NOT NULL, CONSTRAINT p_pkey PRIMARY KEY (id)) PARTITION BY HASH (id); COMMENT ON TABLE accounts.p IS 'x';"},
	{"inheritance", anyRule, "CREATE TABLE accounts.p (CONSTRAINT p_pkey PRIMARY KEY (id)) INHERITS (accounts.users); COMMENT ON TABLE accounts.p IS 'x';"},
	{"row level security", anyRule, "ALTER TABLE accounts.users ENABLE ROW LEVEL SECURITY;"},
	{"forced RLS", anyRule, "ALTER TABLE accounts.users FORCE ROW LEVEL SECURITY;"},
	{"disabled internal triggers", anyRule, "RESET ROLE; ALTER TABLE accounts.users DISABLE TRIGGER ALL;"},
	{"check that calls a read", anyRule, "ALTER TABLE accounts.import_jobs ADD CONSTRAINT import_jobs_x CHECK (accounts.get_schema_version_v1() IS NOT NULL);"},
	{"index on an expression that reads", anyRule, peek},
	{"index duplicate, included", "index-duplicate", "CREATE INDEX x_user_id_idx ON accounts.user_contacts (user_id) INCLUDE (value);"},
	{"unique text index", "text-key-collation", petsWith("ALTER TABLE accounts.pets ADD COLUMN code character varying; CREATE UNIQUE INDEX pets_code_key ON accounts.pets (owner_id, upper(code));")},
	{"xml", anyRule, petsWith("ALTER TABLE accounts.pets ADD COLUMN body xml;")},
	{"oid", anyRule, petsWith("ALTER TABLE accounts.pets ADD COLUMN body oid;")},
	{"return json", "column-type", "CREATE FUNCTION accounts.get_pet_v1(p_id uuid) RETURNS json LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$ BEGIN RETURN to_json(p_id); END $$; COMMENT ON FUNCTION accounts.get_pet_v1(uuid) IS 'x'; GRANT EXECUTE ON FUNCTION accounts.get_pet_v1(uuid) TO accounts_read, accounts_write;"},
	{"LEAKPROOF", anyRule, "RESET ROLE; " + good + "ALTER FUNCTION accounts.get_pet_v1(uuid) LEAKPROOF;"},
	{"PARALLEL SAFE write", anyRule, goodWith("STABLE", "VOLATILE PARALLEL SAFE")},
	{"a table without a schema", anyRule, writing("UPDATE user_groups AS g SET name = p_text WHERE g.id = p_other_id;")},
	{"LANGUAGE before the name", anyRule, "CREATE OR REPLACE FUNCTION accounts.get_pet_v1(p_id uuid) RETURNS bigint AS 'BEGIN UPDATE accounts.users SET version = 1 WHERE id = p_id; RETURN 1; END' LANGUAGE 'plpgsql' STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp; COMMENT ON FUNCTION accounts.get_pet_v1(uuid) IS 'x'; GRANT EXECUTE ON FUNCTION accounts.get_pet_v1(uuid) TO accounts_read, accounts_write;"},
	{"body in an E string", writeRecords, "CREATE FUNCTION accounts.feed_pet_v1(p_id uuid) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS E'BEGIN UPDATE accounts.user\\x5fgroups SET name = \\'x\\' WHERE id = p_id; END'; COMMENT ON FUNCTION accounts.feed_pet_v1(uuid) IS 'x'; GRANT EXECUTE ON FUNCTION accounts.feed_pet_v1(uuid) TO accounts_write;"},
	{"body with a tag", writeRecords, "create or replace function \"accounts\".\"feed_pet_v1\"(p_id uuid) returns void security definer set search_path to pg_catalog, pg_temp language plpgsql as $record_change_v1$ begin delete from accounts.user_groups where id = p_id; end $record_change_v1$; COMMENT ON FUNCTION accounts.feed_pet_v1(uuid) IS 'x'; GRANT EXECUTE ON FUNCTION accounts.feed_pet_v1(uuid) TO accounts_write;"},
}

const peek = `CREATE FUNCTION accounts.peek_v1(p_id uuid) RETURNS boolean LANGUAGE plpgsql IMMUTABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$ BEGIN RETURN EXISTS (SELECT FROM accounts.users AS u WHERE u.id = p_id); END $$; COMMENT ON FUNCTION accounts.peek_v1(uuid) IS 'Internal: x.';
CREATE INDEX import_rows_peek_idx ON accounts.import_rows (accounts.peek_v1(user_id));`

func TestMigrations_VariantsAreFound(t *testing.T) {
	t.Parallel()
	for _, f := range migrationVariants {
		t.Run(f.rule+"/"+f.name, func(t *testing.T) {
			tree := Tree{root: root, migrations: []migration{newMigration(filepath.Base(next), f.plant)}}
			found := Migrations(tree)
			if s := squawk(t); s != "" {
				more, err := Locks(t.Context(), tree, s)
				require.NoError(t, err)
				found = append(found, more...)
			}
			requireFound(t, f.rule, found)
		})
	}
}

func TestCatalog_VariantsAreFound(t *testing.T) {
	t.Parallel()
	conn := catalogConn(t)
	before, err := ReadOutside(t.Context(), conn)
	require.NoError(t, err)
	for _, f := range objectVariants {
		t.Run(f.rule+"/"+f.name, func(t *testing.T) {
			tree := readTree(t, root)
			tree.migrations = append(tree.migrations, newMigration(filepath.Base(next), f.plant))
			planted(t, conn, f.plant, func() {
				found, err := Catalog(t.Context(), conn, tree)
				require.NoError(t, err)
				after, err := ReadOutside(t.Context(), conn)
				require.NoError(t, err)
				requireFound(t, f.rule, append(found, before.Changed(after, tree)...))
			})
		})
	}
}
