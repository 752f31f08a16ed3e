package dbrules

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/pgtest"
)

// heldOutMigrations are Up and Down of the next migration.
var heldOutMigrations = []fault{
	{"DO in E string", migrationDo, head + "DO E'BEGIN NULL; END';\n" + foot},
	{"DO with a tag", migrationDo, head + "DO $x$ BEGIN UPDATE accounts.users SET version = 1; END $x$;\n" + foot},
	{"CALL", "any", head + "CALL accounts.feed_v1();\n" + foot},
	{"SELECT of a function that writes", "any", head + "SELECT accounts.create_user_group_v1('x');\n" + foot},
	{"backfill through a CTE with MERGE", migrationBackfill, head + "ALTER TABLE accounts.users ADD COLUMN note text;\nMERGE INTO accounts.users AS u USING accounts.user_contacts AS c ON c.user_id = u.id WHEN MATCHED THEN UPDATE SET note = c.value;\n" + foot},
	{"UPDATE of users alone", "any", head + "UPDATE accounts.users AS u SET profile = '{}' WHERE u.version = 1;\n" + foot},
	{"UPDATE of contacts alone", "any", head + "UPDATE accounts.user_contacts AS c SET value = 'x' WHERE c.value = 'y';\n" + foot},
	{"COPY", "any", head + "COPY accounts.users FROM '/tmp/x';\n" + foot},
	{"lock_timeout 11s", migrationTimeout, "-- x\n\n-- +goose Up\nSET LOCAL lock_timeout = '11s';\n" + foot},
	{"lock_timeout with a space", migrationTimeout, "-- x\n\n-- +goose Up\nSET LOCAL lock_timeout = '1 h';\n" + foot},
	{"lock_timeout after", migrationTimeout, "-- x\n\n-- +goose Up\nCOMMENT ON TABLE accounts.users IS 'x';\nSET LOCAL lock_timeout = '5s';\n" + foot},
	{"lock_timeout in a comment", migrationTimeout, "-- x\n\n-- +goose Up\n-- SET LOCAL lock_timeout = '5s';\nCOMMENT ON TABLE accounts.users IS 'x';\n" + foot},
	{"lock_timeout by set_config first", migrationTimeout, "-- x\n\n-- +goose Up\nSELECT set_config('lock_timeout', '0', true);\n" + foot},
	{"SET SESSION in a transaction", "any", "-- x\n\n-- +goose Up\nSET lock_timeout = '5s';\nCOMMENT ON TABLE accounts.users IS 'x';\n" + foot},
	{"SET TIME ZONE", "any", head + "SET TIME ZONE 'UTC';\n" + foot},
	{"SET search_path", "any", head + "SET LOCAL search_path = accounts;\nCOMMENT ON TABLE accounts.users IS 'x';\n" + foot},
	{"SET ROLE", "any", head + "SET ROLE postgres;\n" + foot},
	{"SET statement_timeout 0", "any", head + "SET LOCAL statement_timeout = 0;\n" + foot},
	{"session_replication_role", "any", head + "SET LOCAL session_replication_role = replica;\n" + foot},
	{"quoted table without a schema", qualifiedNames, head + "ALTER TABLE \"users\" ADD COLUMN note text;\n" + foot},
	{"SEQUENCE without a schema", qualifiedNames, head + "CREATE SEQUENCE pet_ids;\n" + foot},
	{"REFERENCES without a schema", qualifiedNames, head + "CREATE TABLE accounts.pets (id uuid REFERENCES users (id));\n" + foot},
	{"view without a schema", qualifiedNames, head + "CREATE VIEW v AS SELECT 1 AS id;\n" + foot},
	{"type without a schema", qualifiedNames, head + "CREATE TYPE pet_kind AS ENUM ('cat');\n" + foot},
	{"domain without a schema", qualifiedNames, head + "CREATE DOMAIN pet_name AS text;\n" + foot},
	{"index name", "any", head + "ALTER INDEX users_pkey RENAME TO x;\n" + foot},
	{"cascade of a column", migrationCascade, head + "ALTER TABLE accounts.users DROP COLUMN version CASCADE;\n" + foot},
	{"cascade of a constraint", migrationCascade, head + "ALTER TABLE accounts.users DROP CONSTRAINT users_pkey CASCADE;\n" + foot},
	{"TRUNCATE CASCADE", migrationCascade, head + "TRUNCATE accounts.import_jobs CASCADE;\n" + foot},
	{"drop schema", "any", head + "DROP SCHEMA accounts;\n" + foot},
	{"unique index lower case", uniqueIndexData, head + "create unique index concurrently x_key on accounts.users (version);\n" + foot},
	{"primary key later", uniqueIndexData, head + "ALTER TABLE accounts.cache_outbox ADD PRIMARY KEY (created_at);\n" + foot},
	{"column UNIQUE", uniqueIndexData, head + "ALTER TABLE accounts.users ADD COLUMN note text UNIQUE;\n" + foot},
	{"exclusion", "any", head + "ALTER TABLE accounts.users ADD CONSTRAINT x EXCLUDE USING hash (id WITH =);\n" + foot},
	{"seed recorded only in a comment", dictionarySeed, head + "INSERT INTO accounts.contact_types (name, on_second) VALUES ('fax', 'allow');\n-- SELECT accounts.record_change_v1(ARRAY['d:contact_types'], '{}');\n" + foot},
	{"seed in a CTE", dictionarySeed, head + "WITH x AS (INSERT INTO accounts.contact_types (name, on_second) VALUES ('fax', 'allow') RETURNING id) SELECT 1;\n" + foot},
	{"seed deleted in Down", downLosesData, head + "INSERT INTO accounts.contact_types (name, on_second) VALUES ('fax', 'allow');\nSELECT accounts.record_change_v1(ARRAY['d:contact_types'], '{}');\n" + foot + "DELETE FROM accounts.contact_types WHERE name = 'fax';\n"},
	{"TRUNCATE in Down", downLosesData, head + foot + "TRUNCATE accounts.cache_outbox;\n"},
	{"DROP TABLE IF EXISTS in Down", downLosesData, head + foot + "DROP TABLE IF EXISTS accounts.cache_outbox;\n"},
	{"two tables dropped", downLosesData, head + "DROP TABLE accounts.import_rows, accounts.import_jobs;\n" + foot},
	{"storage of an index", "any", head + "ALTER INDEX accounts.users_pkey SET (fillfactor = 50);\n" + foot},
	{"replica identity", storageOptions, head + "ALTER TABLE accounts.users REPLICA IDENTITY FULL;\n" + foot},
	{"compression", storageOptions, head + "ALTER TABLE accounts.users ALTER COLUMN profile SET COMPRESSION lz4;\n" + foot},
	{"statistics", storageOptions, head + "ALTER TABLE accounts.users ALTER COLUMN profile SET STATISTICS 1000;\n" + foot},
	{"RLS", "any", head + "ALTER TABLE accounts.users ENABLE ROW LEVEL SECURITY;\n" + foot},
	{"disable triggers", "any", head + "ALTER TABLE accounts.users DISABLE TRIGGER ALL;\n" + foot},
	{"timestamp with time zone spaces", typeSpelling, head + "CREATE TABLE accounts.pets (at TIMESTAMP   WITH\nTIME ZONE);\n" + foot},
	{"timestamp(3) with time zone", typeSpelling, head + "CREATE TABLE accounts.pets (at timestamp(3) with time zone);\n" + foot},
	{"add column timestamp with", typeSpelling, head + "ALTER TABLE accounts.users ADD COLUMN at timestamp with time zone;\n" + foot},
	{"missing Down text", migrationDown, "-- x\n\n-- +goose Up\nSET LOCAL lock_timeout = '5s';\n"},
	{"VACUUM", "any", "-- x\n\n-- +goose NO TRANSACTION\n-- +goose Up\nSET lock_timeout = '5s';\nVACUUM FULL accounts.users;\n-- +goose Down\nSET lock_timeout = '5s';\n"},
	{"REINDEX", "any", head + "REINDEX TABLE accounts.users;\n" + foot},
	{"LOCK quoted", "any", head + "LOCK TABLE \"accounts\".\"users\";\n" + foot},
	{"lock small", "any", head + "lock accounts . users in access exclusive mode;\n" + foot},
	{"CLUSTER", "any", head + "CLUSTER accounts.users USING users_pkey;\n" + foot},
	{"ALTER SYSTEM", "any", head + "ALTER SYSTEM SET work_mem = '1GB';\n" + foot},
	{"ALTER COLUMN DEFAULT volatile", "any", head + "ALTER TABLE accounts.users ADD COLUMN seen double precision NOT NULL DEFAULT random();\n" + foot},
	{"generated column", "any", head + "ALTER TABLE accounts.users ADD COLUMN seen text GENERATED ALWAYS AS (profile ->> 'x') STORED;\n" + foot},
	{"serial column", "any", head + "ALTER TABLE accounts.users ADD COLUMN no bigserial;\n" + foot},
	{"default that writes", "any", head + "ALTER TABLE accounts.import_jobs ALTER COLUMN done SET DEFAULT accounts.create_user_group_v1('x');\n" + foot},
	{"psql command", "any", head + "\\i other.sql\n" + foot},
	{"COMMIT in the middle", "any", head + "COMMIT;\nCOMMENT ON TABLE accounts.users IS 'x';\n" + foot},
	{"SAVEPOINT", "any", head + "SAVEPOINT x;\nCOMMENT ON TABLE accounts.users IS 'x';\n" + foot},
	{"index not concurrently, quoted", "any", head + "CREATE INDEX \"x_idx\" ON \"accounts\".\"users\" (\"version\");\n" + foot},
	{"foreign key valid, small letters", "any", head + "alter table accounts.import_rows add foreign key (user_id) references accounts.users;\n" + foot},
	{"column with REFERENCES", "any", head + "ALTER TABLE accounts.users ADD COLUMN boss uuid REFERENCES accounts.users (id);\n" + foot},
	{"column with CHECK", "any", head + "ALTER TABLE accounts.users ADD COLUMN age integer CHECK (age > 0);\n" + foot},
	{"DROP CONSTRAINT", "any", head + "ALTER TABLE accounts.users DROP CONSTRAINT users_profile_object;\n" + foot},
	{"revoke of a function dropped", "any", head + "DROP FUNCTION accounts.get_contact_v1(uuid);\n" + foot},
}

// heldOutObjects are run as accounts_owner, or as a superuser after RESET ROLE.
var heldOutObjects = []fault{
	{"trigger function elsewhere", "any", "RESET ROLE; CREATE FUNCTION public.t() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; CREATE CONSTRAINT TRIGGER x AFTER INSERT ON accounts.users DEFERRABLE FOR EACH ROW EXECUTE FUNCTION public.t();"},
	{"INSTEAD rule", "no-triggers", "CREATE RULE x AS ON UPDATE TO accounts.user_groups DO ALSO NOTHING;"},
	{"view with rule", "any", "CREATE VIEW accounts.v AS SELECT u.id FROM accounts.users AS u;"},
	{"materialized view", "any", "CREATE MATERIALIZED VIEW accounts.v AS SELECT 1 AS id;"},
	{"SQL function with BEGIN ATOMIC", "function-language", "CREATE FUNCTION accounts.get_pet_v1(p_id uuid) RETURNS uuid STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp BEGIN ATOMIC SELECT p_id; END; COMMENT ON FUNCTION accounts.get_pet_v1(uuid) IS 'x'; GRANT EXECUTE ON FUNCTION accounts.get_pet_v1(uuid) TO accounts_read, accounts_write;"},
	{"aggregate", "no-procedures", "CREATE AGGREGATE accounts.total_v1(bigint) (SFUNC = int8pl, STYPE = bigint);"},
	{"variadic", "any", "CREATE FUNCTION accounts.get_pet_v1(VARIADIC p_ids uuid[]) RETURNS uuid LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$ BEGIN RETURN p_ids[1]; END $$; COMMENT ON FUNCTION accounts.get_pet_v1(uuid[]) IS 'x'; GRANT EXECUTE ON FUNCTION accounts.get_pet_v1(uuid[]) TO accounts_read, accounts_write;"},
	{"OUT parameter", "any", "CREATE FUNCTION accounts.get_pet_v1(p_id uuid, OUT p_out uuid) LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$ BEGIN p_out := p_id; END $$; COMMENT ON FUNCTION accounts.get_pet_v1(uuid) IS 'x'; GRANT EXECUTE ON FUNCTION accounts.get_pet_v1(uuid) TO accounts_read, accounts_write;"},
	{"RETURNS TABLE", "any", "CREATE FUNCTION accounts.get_pet_v1(p_id uuid) RETURNS TABLE (id uuid) LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$ BEGIN RETURN QUERY SELECT p_id; END $$; COMMENT ON FUNCTION accounts.get_pet_v1(uuid) IS 'x'; GRANT EXECUTE ON FUNCTION accounts.get_pet_v1(uuid) TO accounts_read, accounts_write;"},
	{"polymorphic", "any", "CREATE FUNCTION accounts.get_pet_v1(p_id anyelement) RETURNS anyelement LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$ BEGIN RETURN p_id; END $$; COMMENT ON FUNCTION accounts.get_pet_v1(anyelement) IS 'x'; GRANT EXECUTE ON FUNCTION accounts.get_pet_v1(anyelement) TO accounts_read, accounts_write;"},
	{"search_path FROM CURRENT", "function-search-path", "SET LOCAL search_path = accounts, pg_temp; " + goodWith("SET search_path = pg_catalog, pg_temp", "SET search_path FROM CURRENT")},
	{"second SET", "function-search-path", goodWith("SET search_path = pg_catalog, pg_temp", "SET search_path = pg_catalog, pg_temp SET work_mem = '1GB'")},
	{"quoted search_path", "function-search-path", goodWith("SET search_path = pg_catalog, pg_temp", "SET search_path = 'pg_catalog, pg_temp'")},
	{"comment of spaces", "function-comment", goodWith("IS 'A pet.'", "IS '  '")},
	{"granted with grant option", "any", good + "GRANT EXECUTE ON FUNCTION accounts.get_pet_v1(uuid) TO accounts_read WITH GRANT OPTION;"},
	{"granted to a login", "any", good + "GRANT EXECUTE ON FUNCTION accounts.get_pet_v1(uuid) TO accounts_reader;"},
	{"all functions to write", "any", "GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA accounts TO accounts_write;"},
	{"all functions to PUBLIC", "function-public", "GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA accounts TO PUBLIC;"},
	{"table granted", "any", "GRANT SELECT ON ALL TABLES IN SCHEMA accounts TO accounts_read;"},
	{"sequence granted", "any", "CREATE SEQUENCE accounts.s; GRANT USAGE ON SEQUENCE accounts.s TO accounts_write;"},
	{"table owner", "any", "RESET ROLE; ALTER TABLE accounts.import_jobs OWNER TO accounts_migrator;"},
	{"schema owner", "any", "RESET ROLE; ALTER SCHEMA accounts OWNER TO accounts_migrator;"},
	{"table moved", "any", "RESET ROLE; ALTER TABLE accounts.import_jobs SET SCHEMA public;"},
	{"function moved", "any", "RESET ROLE; ALTER FUNCTION accounts.get_contact_v1(uuid) SET SCHEMA public;"},
	{"third schema", "any", "RESET ROLE; CREATE SCHEMA pets; CREATE FUNCTION pets.wipe() RETURNS void LANGUAGE sql SECURITY DEFINER AS 'DELETE FROM accounts.users';"},
	{"temporary function", "any", "CREATE FUNCTION pg_temp.wipe() RETURNS void LANGUAGE sql AS 'DELETE FROM accounts.users';"},
	{"temporary table", "any", "CREATE TEMP TABLE pets (id uuid);"},
	{"default privileges types", "any", "RESET ROLE; ALTER DEFAULT PRIVILEGES FOR ROLE accounts_migrator GRANT EXECUTE ON FUNCTIONS TO accounts_read;"},
	{"default privileges reset", "any", "RESET ROLE; ALTER DEFAULT PRIVILEGES FOR ROLE accounts_owner GRANT EXECUTE ON FUNCTIONS TO PUBLIC;"},
	{"role with createrole", "any", "RESET ROLE; ALTER ROLE accounts_migrator CREATEROLE;"},
	{"password valid until", "any", "RESET ROLE; ALTER ROLE accounts_writer VALID UNTIL '2030-01-01';"},
	{"role renamed", "any", "RESET ROLE; CREATE ROLE x; ALTER ROLE x RENAME TO pet_keeper;"},
	{"implicit cast", "any", "RESET ROLE; CREATE CAST (text AS uuid) WITH INOUT AS IMPLICIT;"},
	{"cast altered in ours", "any", "RESET ROLE; CREATE CAST (accounts.users AS text) WITH INOUT;"},
	{"operator in ours", "any", "CREATE OPERATOR accounts.=== (LEFTARG = uuid, RIGHTARG = uuid, FUNCTION = uuid_eq);"},
	{"operator class in ours", "any", "RESET ROLE; CREATE OPERATOR CLASS accounts.x FOR TYPE uuid USING hash AS OPERATOR 1 =, FUNCTION 1 uuid_hash(uuid);"},
	{"collation in ours", "any", `CREATE COLLATION accounts.x FROM "C";`},
	{"statistics in ours", "any", "CREATE STATISTICS accounts.x ON is_active, version FROM accounts.users;"},
	{"text search in ours", "any", "CREATE TEXT SEARCH CONFIGURATION accounts.x (COPY = pg_catalog.simple);"},
	{"conversion in ours", "any", "CREATE CONVERSION accounts.x FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8;"},
	{"publication of a schema", "any", "RESET ROLE; CREATE PUBLICATION x FOR TABLES IN SCHEMA accounts;"},
	{"all tables", "any", "RESET ROLE; CREATE PUBLICATION x FOR ALL TABLES;"},
	{"partition", "any", "CREATE TABLE accounts.p (id uuid NOT NULL, CONSTRAINT p_pkey PRIMARY KEY (id)) PARTITION BY HASH (id); COMMENT ON TABLE accounts.p IS 'x';"},
	{"inheritance", "any", "CREATE TABLE accounts.p (CONSTRAINT p_pkey PRIMARY KEY (id)) INHERITS (accounts.users); COMMENT ON TABLE accounts.p IS 'x';"},
	{"row level security", "any", "ALTER TABLE accounts.users ENABLE ROW LEVEL SECURITY;"},
	{"forced RLS", "any", "ALTER TABLE accounts.users FORCE ROW LEVEL SECURITY;"},
	{"disabled internal triggers", "any", "RESET ROLE; ALTER TABLE accounts.users DISABLE TRIGGER ALL;"},
	{"unlogged", "any", "ALTER TABLE accounts.import_rows SET UNLOGGED;"},
	{"default that writes", "any", "ALTER TABLE accounts.import_jobs ALTER COLUMN done SET DEFAULT length(accounts.create_user_group_v1('x')::text);"},
	{"check that calls a read", "any", "ALTER TABLE accounts.import_jobs ADD CONSTRAINT import_jobs_x CHECK (accounts.get_schema_version_v1() IS NOT NULL);"},
	{"index on an expression that reads", "any", strings7a},
	{"index duplicate, included", "index-duplicate", "CREATE INDEX x_user_id_idx ON accounts.user_contacts (user_id) INCLUDE (value);"},
	{"unique text index", "text-key-collation", petsWith("ALTER TABLE accounts.pets ADD COLUMN code character varying; CREATE UNIQUE INDEX pets_code_key ON accounts.pets (owner_id, upper(code));")},
	{"exclusion of text", "any", petsWith("ALTER TABLE accounts.pets ADD COLUMN code text; ALTER TABLE accounts.pets ADD CONSTRAINT pets_code_excl EXCLUDE (code WITH =);")},
	{"serial", "any", petsWith("ALTER TABLE accounts.pets ADD COLUMN no serial;")},
	{"xml", "any", petsWith("ALTER TABLE accounts.pets ADD COLUMN body xml;")},
	{"oid", "any", petsWith("ALTER TABLE accounts.pets ADD COLUMN body oid;")},
	{"json in a body", "any", writing("DECLARE v_x json := '{}'; BEGIN PERFORM v_x; END")},
	{"return json", "column-type", "CREATE FUNCTION accounts.get_pet_v1(p_id uuid) RETURNS json LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$ BEGIN RETURN to_json(p_id); END $$; COMMENT ON FUNCTION accounts.get_pet_v1(uuid) IS 'x'; GRANT EXECUTE ON FUNCTION accounts.get_pet_v1(uuid) TO accounts_read, accounts_write;"},
	{"LEAKPROOF", "any", "RESET ROLE; " + good + "ALTER FUNCTION accounts.get_pet_v1(uuid) LEAKPROOF;"},
	{"PARALLEL SAFE write", "any", goodWith("STABLE", "VOLATILE PARALLEL SAFE")},
	{"a table without a schema", "any", writing("UPDATE user_groups AS g SET name = p_text WHERE g.id = p_other_id;")},
	{"LANGUAGE before the name", "any", "CREATE OR REPLACE FUNCTION accounts.get_pet_v1(p_id uuid) RETURNS bigint AS 'BEGIN UPDATE accounts.users SET version = 1 WHERE id = p_id; RETURN 1; END' LANGUAGE 'plpgsql' STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp; COMMENT ON FUNCTION accounts.get_pet_v1(uuid) IS 'x'; GRANT EXECUTE ON FUNCTION accounts.get_pet_v1(uuid) TO accounts_read, accounts_write;"},
	{"body in an E string", writeRecords, "CREATE FUNCTION accounts.feed_pet_v1(p_id uuid) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS E'BEGIN UPDATE accounts.user\\x5fgroups SET name = \\'x\\' WHERE id = p_id; END'; COMMENT ON FUNCTION accounts.feed_pet_v1(uuid) IS 'x'; GRANT EXECUTE ON FUNCTION accounts.feed_pet_v1(uuid) TO accounts_write;"},
	{"body with a tag", writeRecords, "create or replace function \"accounts\".\"feed_pet_v1\"(p_id uuid) returns void security definer set search_path to pg_catalog, pg_temp language plpgsql as $record_change_v1$ begin delete from accounts.user_groups where id = p_id; end $record_change_v1$; COMMENT ON FUNCTION accounts.feed_pet_v1(uuid) IS 'x'; GRANT EXECUTE ON FUNCTION accounts.feed_pet_v1(uuid) TO accounts_write;"},
	{"replaced by one that does not record", writeRecords, "CREATE OR REPLACE FUNCTION accounts.create_user_group_v1(p_name text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$ BEGIN INSERT INTO accounts.user_groups (name, name_key) VALUES (p_name, p_name); END $$; COMMENT ON FUNCTION accounts.create_user_group_v1(text) IS 'x'; GRANT EXECUTE ON FUNCTION accounts.create_user_group_v1(text) TO accounts_write;"},
}

const strings7a = `CREATE FUNCTION accounts.peek_v1(p_id uuid) RETURNS boolean LANGUAGE plpgsql IMMUTABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$ BEGIN RETURN EXISTS (SELECT FROM accounts.users AS u WHERE u.id = p_id); END $$; COMMENT ON FUNCTION accounts.peek_v1(uuid) IS 'Internal: x.';
CREATE INDEX import_rows_peek_idx ON accounts.import_rows (accounts.peek_v1(user_id));`

func TestHeldOutMigrations(t *testing.T) {
	t.Parallel()
	for _, f := range heldOutMigrations {
		tree := Tree{root: root, migrations: []migration{newMigration(filepath.Base(next), f.plant)}}
		found := Migrations(tree)
		if s := squawk(t); s != "" {
			more, err := Locks(t.Context(), tree, s)
			require.NoError(t, err)
			found = append(found, more...)
		}
		verdict(t, f, found)
	}
}

func verdict(t *testing.T, f fault, found []Violation) {
	t.Helper()
	found = withoutConsequences(found)
	rules := map[string]bool{}
	msg := ""
	for _, v := range found {
		rules[v.Rule] = true
		msg = v.Message
	}
	switch {
	case len(found) == 0:
		t.Logf("MISSED  %-20s %s", f.rule, f.name)
	case !rules[f.rule] && f.rule != "any":
		t.Logf("OTHER   %-20s %s: %v %s", f.rule, f.name, rules, msg)
	default:
		t.Logf("found   %-20s %s: %v %s", f.rule, f.name, rules, msg)
	}
}

func TestHeldOutObjects(t *testing.T) {
	t.Parallel()
	conn := catalogConn(t)
	before, err := ReadOutside(t.Context(), conn)
	require.NoError(t, err)
	for _, f := range heldOutObjects {
		tree := readTree(t, root)
		tree.migrations = append(tree.migrations, newMigration(filepath.Base(next), f.plant))
		if _, err := conn.PgConn().Exec(t.Context(), "BEGIN; SET LOCAL ROLE accounts_owner;"+f.plant+";RESET ROLE").ReadAll(); err != nil {
			t.Logf("REFUSED %s: %v", f.name, err)
			execute(t, conn, "ROLLBACK")
			continue
		}
		found, err := Catalog(t.Context(), conn, tree)
		if err != nil {
			t.Logf("ERROR   %s: %v", f.name, err)
			execute(t, conn, "ROLLBACK")
			continue
		}
		after, err := ReadOutside(t.Context(), conn)
		require.NoError(t, err)
		verdict(t, f, append(found, before.Changed(after, tree)...))
		execute(t, conn, "ROLLBACK")
	}
}

var _ = pgtest.Shared
