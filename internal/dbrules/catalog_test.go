package dbrules

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/pgtest"
)

// good is a function that keeps the rules; the plants change one thing of it.
const good = `CREATE FUNCTION accounts.get_pet_v1(p_id uuid) RETURNS SETOF accounts.user_group_v1 LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$ BEGIN RETURN QUERY SELECT g.* FROM accounts.list_user_groups_v1() AS g WHERE g.id = p_id; END $$;
COMMENT ON FUNCTION accounts.get_pet_v1(uuid) IS 'A pet.';
GRANT EXECUTE ON FUNCTION accounts.get_pet_v1(uuid) TO accounts_read, accounts_write;
`

func goodWith(old, new string) string {
	if !strings.Contains(good, old) {
		panic("good has no " + old)
	}
	return strings.ReplaceAll(good, old, new)
}

// goodBody is good with another body; the parameter is used in it.
func goodBody(body string) string {
	start, end := strings.Index(good, "$$")+2, strings.LastIndex(good, "$$")
	return good[:start] + " BEGIN IF p_id IS NULL THEN RETURN; END IF; " + body + " END " + good[end:]
}

const contract = `CREATE TABLE accounts.pet_v1 (id uuid NOT NULL, %s CONSTRAINT pet_v1_is_a_contract CHECK (false) NO INHERIT);
COMMENT ON TABLE accounts.pet_v1 IS 'Contract: a pet.';
`

func returning(columns string) string {
	return fmt.Sprintf(contract, columns) + strings.ReplaceAll(goodBody("RETURN QUERY SELECT p.* FROM accounts.pet_v1 AS p ORDER BY p.id LIMIT 10;"),
		"SETOF accounts.user_group_v1", "SETOF accounts.pet_v1")
}

const pets = `CREATE TABLE accounts.pets (id uuid NOT NULL, owner_id uuid NOT NULL, CONSTRAINT pets_pkey PRIMARY KEY (id));
COMMENT ON TABLE accounts.pets IS 'Pets.';
`

// usesPets makes the columns of pets used.
var usesPets = goodBody("PERFORM p.owner_id FROM accounts.pets AS p;")

const writer = `CREATE FUNCTION accounts.feed_v1() RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$ BEGIN UPDATE accounts.users SET version = version + 1 WHERE id = '00000000-0000-7000-8000-000000000001'; END $$;
COMMENT ON FUNCTION accounts.feed_v1() IS 'Feeds.';
`

const middle = `CREATE FUNCTION accounts.middle_v1() RETURNS void LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$ BEGIN PERFORM accounts.feed_v1(); END $$;
COMMENT ON FUNCTION accounts.middle_v1() IS 'In the middle.';
`

// The plant is run as accounts_owner, and is the text of one more migration.
var catalogFaults = []fault{
	{"none", "function-version", strings.ReplaceAll(good, "get_pet_v1", "get_pet")},
	{"leading zero", "function-version", strings.ReplaceAll(good, "get_pet_v1", "get_pet_v01")},
	{"two", "function-overloaded", good +
		strings.NewReplacer("p_id uuid", "p_id uuid, p_x text", "(uuid)", "(uuid, text)", "g.id = p_id", "g.id = p_id AND g.name = p_x").Replace(good)},
	{"none", "function-comment", goodWith("IS 'A pet.'", "IS NULL")},
	{"the caller's rights", "function-security-definer", goodWith("SECURITY DEFINER", "")},
	{"none", "function-search-path", goodWith("SET search_path = pg_catalog, pg_temp", "")},
	{"public", "function-search-path", goodWith("pg_catalog, pg_temp", "pg_catalog, public, pg_temp")},
	{"a superuser's", "function-owner", good + "RESET ROLE; ALTER FUNCTION accounts.get_pet_v1(uuid) OWNER TO postgres;"},
	{"sql", "function-language", strings.NewReplacer("plpgsql", "sql", "BEGIN RETURN QUERY", "", "END $$", "$$").Replace(good)},
	{"without p_", "parameter-name", goodWith("p_id", "id_wanted")},
	{"without a name", "parameter-name", strings.NewReplacer("p_id uuid", "uuid", "p_id", "$1").Replace(good)},
	{"one", "function-defaults", goodWith("p_id uuid", "p_id uuid DEFAULT NULL")},
	{"granted", "function-public", good + "GRANT EXECUTE ON FUNCTION accounts.get_pet_v1(uuid) TO PUBLIC;"},
	{"another group", "function-grantee", good + "GRANT EXECUTE ON FUNCTION accounts.get_pet_v1(uuid) TO pg_monitor;"},
	{"declared", "read-volatile", goodWith("STABLE", "VOLATILE")},
	{"declared", "write-stable", goodWith("TO accounts_read, accounts_write", "TO accounts_write")},
	{"not to write", "read-grants", goodWith("TO accounts_read, accounts_write", "TO accounts_read") + "GRANT EXECUTE ON FUNCTION accounts.get_pet_v1(uuid) TO accounts_read;"},
	{"a table", "function-result", strings.NewReplacer("SETOF accounts.user_group_v1", "SETOF accounts.contact_types",
		"accounts.list_user_groups_v1()", "accounts.contact_types").Replace(good)},
	{"one row of NULLs", "function-result", strings.NewReplacer("SETOF accounts.user_group_v1", "accounts.user_group_v1",
		"RETURN QUERY SELECT g.*", "RETURN (SELECT g").Replace(strings.ReplaceAll(good, "g.id = p_id;", "g.id = p_id);"))},
	{"none", "table-comment", pets + "COMMENT ON TABLE accounts.pets IS NULL;"},
	{"none", "table-primary-key", "CREATE TABLE accounts.pets (id uuid); COMMENT ON TABLE accounts.pets IS 'Pets.';"},
	{"takes rows", "contract-empty", returning("") + "ALTER TABLE accounts.pet_v1 DROP CONSTRAINT pet_v1_is_a_contract;"},
	{"by no function", "contract-used", fmt.Sprintf(contract, "")},
	{"array", "contract-nullable", returning("names text[],")},
	{"interval", "contract-nullable", returning("age interval,")},
	{"none", "foreign-key-index", pets + usesPets +
		"ALTER TABLE accounts.pets ADD CONSTRAINT pets_owner_id_fkey FOREIGN KEY (owner_id) REFERENCES accounts.users (id);"},
	{"of other columns first", "foreign-key-index", pets + usesPets +
		"ALTER TABLE accounts.pets ADD CONSTRAINT pets_owner_id_fkey FOREIGN KEY (owner_id) REFERENCES accounts.users (id);" +
		"CREATE INDEX pets_id_owner_id_idx ON accounts.pets (id, owner_id);"},
	{"by no function", "foreign-key-used", pets + "CREATE INDEX pets_owner_id_idx ON accounts.pets (owner_id);" +
		"ALTER TABLE accounts.pets ADD CONSTRAINT pets_owner_id_fkey FOREIGN KEY (owner_id) REFERENCES accounts.users (id);"},
	{"twice", "foreign-key-used", "ALTER TABLE accounts.user_contacts " +
		"ADD CONSTRAINT user_contacts_again_fkey FOREIGN KEY (user_id) REFERENCES accounts.users (id);"},
	{"failed", "index-valid", "CREATE INDEX users_version_idx ON accounts.users (version); RESET ROLE;" +
		"UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'accounts.users_version_idx'::regclass;"},
	{"trigger", "no-triggers", "CREATE TRIGGER users_same BEFORE UPDATE ON accounts.users FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();"},
	{"rule", "no-triggers", "CREATE RULE users_kept AS ON DELETE TO accounts.users DO INSTEAD NOTHING;"},
	{"check", constraintNamed, "ALTER TABLE accounts.users ADD CHECK (version > -1);"},
	{"unique", constraintNamed, "ALTER TABLE accounts.user_groups ADD UNIQUE (name, id);"},
	{"index", indexNamed, "CREATE INDEX ON accounts.users (version);"},
	{"unknown column", plpgsqlCheck, goodBody("PERFORM u.no_such_column FROM accounts.users AS u;")},
	{"another shape", plpgsqlCheck, goodBody("RETURN QUERY SELECT u.id FROM accounts.users AS u WHERE u.id = p_id;")},
	{"unused variable", plpgsqlCheck, goodWith("BEGIN", "DECLARE v_x text; BEGIN")},
	{"UPDATE", readWrites, goodBody("UPDATE accounts.users SET version = 1 WHERE id = p_id;")},
	{"FOR UPDATE", readWrites, goodBody("PERFORM FROM accounts.users AS u WHERE u.id = p_id FOR UPDATE;")},
	{"through a callee", readWrites, writer + goodBody("PERFORM accounts.feed_v1();")},
	{"through two", readWrites, writer + middle + goodBody("PERFORM accounts.middle_v1();")},
	{"hidden", readWrites, writer + goodBody("\n-- Dynamic for a test.\nEXECUTE 'SELECT accounts.feed_v1(), $1' USING 1;")},
	{"hidden UPDATE", readWrites, goodBody("\n-- Dynamic for a test.\nEXECUTE 'UPDATE accounts.users SET version = $1 WHERE id = $2' USING 1, p_id;")},
	{"sequence", readWrites, "CREATE SEQUENCE accounts.pet_ids;" + goodBody("PERFORM nextval('accounts.pet_ids');")},
	{"lock", readWrites, goodBody("PERFORM pg_advisory_xact_lock(1);")},
	{"no reason", dynamicSQL, goodBody("\nEXECUTE 'SELECT $1' USING p_id;")},
	{"no quoting", dynamicSQL, goodBody("\n-- Dynamic for a test.\nEXECUTE 'SELECT 1';")},
	{"format without names", dynamicSQL, goodBody("\n-- Dynamic for a test.\nEXECUTE format('SELECT %s', 1);")},
	{"injection", plpgsqlCheck, strings.NewReplacer("p_id uuid", "p_id text", "(uuid)", "(text)").Replace(
		goodBody("\n-- Dynamic for a test.\nEXECUTE 'SELECT $1 ' || p_id USING 1;"))},
}

// planted runs the plant in a transaction, and check on what it made.
func planted(t *testing.T, conn *pgx.Conn, plant string, check func()) {
	t.Helper()
	execute(t, conn, "BEGIN; SET LOCAL ROLE accounts_owner;"+plant+";RESET ROLE")
	defer execute(t, conn, "ROLLBACK")
	check()
}

// catalogConn has the extension already: within each transaction it would take its time.
func catalogConn(t *testing.T) *pgx.Conn {
	t.Helper()
	conn := connect(t, pgtest.Shared(t).RemoveOracle("the rules are about what the migrations make").SuperURL)
	execute(t, conn, "CREATE EXTENSION plpgsql_check SCHEMA public")
	return conn
}

func TestFaultsOfTheCatalog(t *testing.T) {
	t.Parallel()
	conn := catalogConn(t)
	for _, f := range slices.Concat(catalogFaults, objectFaults) {
		t.Run(f.rule+"/"+f.name, func(t *testing.T) {
			tree := readTree(t, root)
			tree.migrations = append(tree.migrations, newMigration(filepath.Base(next), f.plant))
			planted(t, conn, f.plant, func() {
				found, err := Catalog(t.Context(), conn, tree)
				require.NoError(t, err)
				requireOnly(t, f.rule, withoutConsequences(found))
			})
		})
	}
}

func TestWhatFunctionsMayDo(t *testing.T) {
	t.Parallel()
	conn := catalogConn(t)
	plant := goodBody("\n-- Dynamic because the table is not known.\nEXECUTE format('SELECT FROM accounts.%I WHERE id = $1', 'users') USING p_id;")
	tree := readTree(t, root)
	tree.migrations = append(tree.migrations, newMigration(filepath.Base(next), plant))
	planted(t, conn, plant, func() {
		found, err := Catalog(t.Context(), conn, tree)
		require.NoError(t, err)
		require.Empty(t, found)
	})
}
