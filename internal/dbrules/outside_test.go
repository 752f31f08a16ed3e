package dbrules

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/pgtest"
)

// The plant is run as a superuser: what the migrator may do is less.
var outsideFaults = []fault{
	{"function", outsideSchema, "CREATE FUNCTION public.wipe() RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN UPDATE accounts.users SET version = 1; END'"},
	{"function granted", outsideSchema, "GRANT EXECUTE ON FUNCTION pg_catalog.pg_read_file(text) TO PUBLIC"},
	{"function of PostgreSQL changed", outsideSchema, "ALTER FUNCTION pg_catalog.now() VOLATILE"},
	{"table", outsideSchema, "CREATE TABLE public.pets (id uuid)"},
	{"view", outsideSchema, "CREATE VIEW public.pets AS SELECT 1 AS id"},
	{"sequence", outsideSchema, "CREATE SEQUENCE public.pet_ids"},
	{"type", outsideSchema, "CREATE TYPE public.pet_kind AS ENUM ('cat')"},
	{"domain", outsideSchema, "CREATE DOMAIN public.pet_name AS text"},
	{"composite type", outsideSchema, "CREATE TYPE public.pet_pair AS (a uuid)"},
	{"schema", outsideSchema, "CREATE SCHEMA pets"},
	{"privilege on a schema", outsideSchema, "GRANT CREATE ON SCHEMA public TO PUBLIC"},
	{"privilege on our schema", outsideSchema, "GRANT CREATE ON SCHEMA accounts TO accounts_write"},
	{"PUBLIC in our schema", outsideSchema, "GRANT USAGE ON SCHEMA accounts TO PUBLIC"},
	{"privilege on a table", outsideSchema, "GRANT SELECT ON accounts.users TO accounts_read"},
	{"privilege on a column", outsideSchema, "GRANT UPDATE (version) ON accounts.users TO PUBLIC"},
	{"privilege on the database", outsideSchema, "DO $$ BEGIN EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO PUBLIC', current_database()); END $$"},
	{"default privileges", outsideSchema, "ALTER DEFAULT PRIVILEGES FOR ROLE accounts_owner IN SCHEMA accounts GRANT SELECT ON TABLES TO accounts_read"},
	{"default privileges of functions", outsideSchema, "ALTER DEFAULT PRIVILEGES FOR ROLE accounts_owner GRANT EXECUTE ON FUNCTIONS TO PUBLIC"},
	{"cast", outsideSchema, "CREATE CAST (uuid AS bytea) WITH INOUT"},
	{"operator", outsideSchema, "CREATE OPERATOR public.=== (LEFTARG = uuid, RIGHTARG = uuid, FUNCTION = uuid_eq)"},
	{"extension", outsideSchema, "CREATE EXTENSION plpgsql_check SCHEMA public"},
	{"event trigger", outsideSchema, "CREATE FUNCTION accounts.on_ddl() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; " +
		"CREATE EVENT TRIGGER pets ON ddl_command_end EXECUTE FUNCTION accounts.on_ddl()"},
	{"publication", outsideSchema, "CREATE PUBLICATION pets FOR TABLE accounts.users"},
	{"foreign data wrapper", outsideSchema, "CREATE FOREIGN DATA WRAPPER pets"},
	{"policy", outsideSchema, "CREATE POLICY users_pets ON accounts.users USING (true)"},
	{"large object", outsideSchema, "SELECT lo_create(0)"},
	{"setting of a role", outsideSchema, "ALTER ROLE accounts_writer SET search_path = public"},
	{"setting of the database", outsideSchema, "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET work_mem = %L', current_database(), '1GB'); END $$"},
	{"role", outsideSchema, "CREATE ROLE pet_keeper"},
	{"attribute of a role", outsideSchema, "ALTER ROLE accounts_reader BYPASSRLS"},
	{"membership", outsideSchema, "GRANT accounts_owner TO accounts_writer"},
	{"language", outsideSchema, "ALTER LANGUAGE plpgsql OWNER TO accounts_owner"},
	{"text search", outsideSchema, "CREATE TEXT SEARCH CONFIGURATION public.pets (COPY = simple)"},
	{"collation", outsideSchema, `CREATE COLLATION public.pets FROM "C"`},
}

func TestOutside_EachObjectIsFound(t *testing.T) {
	t.Parallel()
	conn := connect(t, pgtest.Shared(t).RemoveOracle("the rules are about what the migrations make").SuperURL)
	tree := readTree(t, root)
	before, err := ReadOutside(t.Context(), conn)
	require.NoError(t, err)
	for _, f := range outsideFaults {
		t.Run(f.name, func(t *testing.T) {
			tree := tree
			tree.migrations = append(tree.migrations[:len(tree.migrations):len(tree.migrations)], newMigration(filepath.Base(next), f.plant))
			planted(t, conn, "RESET ROLE; "+f.plant, func() {
				after, err := ReadOutside(t.Context(), conn)
				require.NoError(t, err)
				requireOnly(t, f.rule, before.Changed(after, tree))
			})
		})
	}
}

func TestOutside_OurSchemasAndGooseAreFree(t *testing.T) {
	t.Parallel()
	conn := connect(t, pgtest.Shared(t).RemoveOracle("the rules are about what the migrations make").SuperURL)
	before, err := ReadOutside(t.Context(), conn)
	require.NoError(t, err)
	planted(t, conn, pets+good+"CREATE SCHEMA contract; CREATE TABLE contract.pet_v1 (id uuid); GRANT USAGE ON SCHEMA contract TO accounts_read;"+
		"ALTER TABLE public.goose_db_version ADD COLUMN note text;", func() {
		after, err := ReadOutside(t.Context(), conn)
		require.NoError(t, err)
		require.Empty(t, before.Changed(after, readTree(t, root)))
	})
}
