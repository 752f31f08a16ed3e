package dbrules

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/db"
	"github.com/payment-services/accounts/internal/dbcatalog"
	"github.com/payment-services/accounts/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const root = "../.."

// fault is a rule and what breaks it and no other.
type fault struct {
	name  string
	rule  string
	plant string
}

// The next migration, as a developer would write it.
const (
	next = "db/migrations/90000_next.sql"
	head = "-- The next one.\n\n-- +goose Up\nSET LOCAL lock_timeout = '5s';\n"
	foot = "\n-- +goose Down\nSET LOCAL lock_timeout = '5s';\n"
)

// copyTree makes a copy of the SQL in which main has what is released, and a branch is checked out.
func copyTree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"db/migrations", "db/queries", "db/functions", "db/contract.txt", "internal/dbgen", "sqlc.yaml",
		"tools/squawk.toml"} {
		to := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(to), 0o755))
		if info, err := os.Stat(filepath.Join(root, name)); err == nil && info.IsDir() {
			require.NoError(t, os.CopyFS(to, os.DirFS(filepath.Join(root, name))))
			continue
		}
		text, err := os.ReadFile(filepath.Join(root, name))
		require.NoError(t, err)
		write(t, dir, name, string(text))
	}
	git(t, dir, "init", "-q", "-b", "main")
	commit(t, dir)
	git(t, dir, "checkout", "-q", "-b", "work")
	return dir
}

func commit(t *testing.T, dir string) {
	t.Helper()
	git(t, dir, "add", "-A")
	git(t, dir, "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-q", "-m", "x")
}

func git(t *testing.T, dir string, args ...string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "git", append([]string{"-C", dir}, args...)...).CombinedOutput()
	require.NoError(t, err, "%s", out)
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
}

func read(t *testing.T, dir, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, name))
	require.NoError(t, err)
	return string(text)
}

func readTree(t *testing.T, dir string) Tree {
	t.Helper()
	tree, err := ReadTree(dir)
	require.NoError(t, err)
	return tree
}

// tool builds a program as the Makefile does.
func tool(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "make", "-s", "-C", root, ".tools/"+name).CombinedOutput()
	require.NoError(t, err, "%s", out)
	path, err := filepath.Abs(filepath.Join(root, ".tools", name))
	require.NoError(t, err)
	return path
}

// squawk is empty where it cannot be installed.
func squawk(t *testing.T) string {
	t.Helper()
	if _, err := exec.LookPath("npm"); err != nil || runtime.GOARCH != "amd64" {
		return ""
	}
	return tool(t, "squawk")
}

// requireOnly wants violations of one rule and of no other.
func requireOnly(t *testing.T, rule string, found []Violation) {
	t.Helper()
	require.NotEmpty(t, found, "%s is not noticed", rule)
	for _, v := range found {
		require.Equal(t, rule, v.Rule, "%+v", v)
		require.NotEmpty(t, v.File)
	}
	var out bytes.Buffer
	Report{Violations: found}.Write(&out)
	for _, part := range []string{found[0].File, "rule: " + rule, "why:  " + find(rule).Why, "fix:  " + find(rule).Fix} {
		require.Contains(t, out.String(), part)
	}
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func execute(t *testing.T, conn *pgx.Conn, sql string) {
	t.Helper()
	_, err := conn.PgConn().Exec(t.Context(), sql).ReadAll()
	require.NoError(t, err)
}

// empty is a database on which bootstrap.sql was run, and nothing else.
func empty(t *testing.T) (migrate, super string) {
	t.Helper()
	d := pgtest.Shared(t)
	admin := connect(t, d.SuperURL)
	name := d.Name + "_empty"
	execute(t, admin, "CREATE DATABASE "+name+" TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C.UTF-8'")
	t.Cleanup(func() {
		_, err := admin.Exec(context.Background(), "DROP DATABASE "+name+" WITH (FORCE)")
		require.NoError(t, err)
	})
	to := func(url string) string { return strings.Replace(url, "/"+d.Name+"?", "/"+name+"?", 1) }
	require.NoError(t, db.Bootstrap(t.Context(), connect(t, to(d.SuperURL)), db.Passwords{}))
	return to(d.MigrateURL), to(d.SuperURL)
}

// The work tree itself, and with it the whole of Check, on the base that a developer's branch has.
func TestTheTreeKeepsTheRules(t *testing.T) {
	t.Parallel()
	migrate, super := empty(t)
	report, err := Check(t.Context(), Config{
		Root: copyTree(t), MigrateURL: migrate, SuperURL: super, SQLC: tool(t, "sqlc"), Squawk: squawk(t),
	})
	require.NoError(t, err)
	require.Empty(t, report.Violations)
	require.Equal(t, squawk(t) == "", len(report.Notes) == 1)
	require.Contains(t, report.Base.How, "where this branch left main")
}

// Every rule is planted somewhere below.
func TestEveryRuleHasAFault(t *testing.T) {
	t.Parallel()
	planted := map[string]bool{}
	for _, f := range slices.Concat(fileFaults, roundTripFaults, catalogFaults, queryFaults, generatedFaults, contractFaults) {
		planted[f.rule] = true
	}
	names := map[string]bool{}
	for _, r := range All() {
		require.True(t, planted[r.Name], "no test breaks %s", r.Name)
		require.False(t, names[r.Name], r.Name)
		require.NotEmpty(t, r.Why, r.Name)
		require.NotEmpty(t, r.Fix, r.Name)
		names[r.Name] = true
	}
}

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
	{"index", migrationLock, next + "\n" + head + "CREATE INDEX users_version_idx ON accounts.users (version);\n" + foot},
	{"check", migrationLock, next + "\n" + head + "ALTER TABLE accounts.users ADD CONSTRAINT users_x CHECK (version > 1);\n" + foot},
	{"not null", migrationLock, next + "\n" + head + "ALTER TABLE accounts.user_contacts ALTER COLUMN deactivated_at SET NOT NULL;\n" + foot},
	{"type", migrationLock, next + "\n" + head + "ALTER TABLE accounts.users ALTER COLUMN version TYPE numeric;\n" + foot},
	{"volatile default", migrationLock, next + "\n" + head +
		"ALTER TABLE accounts.users ADD COLUMN seen timestamptz DEFAULT clock_timestamp();\n" + foot},
	{"foreign key", migrationLock, next + "\n" + head + "ALTER TABLE accounts.import_rows ADD CONSTRAINT import_rows_user_id_fkey " +
		"FOREIGN KEY (user_id) REFERENCES accounts.users (id);\n" + foot},
	{"dropped column", migrationLock, next + "\n" + head + "ALTER TABLE accounts.users DROP COLUMN version;\n" + foot},
	{"lock", migrationLock, next + "\n" + head + "LOCK TABLE accounts.users IN EXCLUSIVE MODE;\n" + foot},
	{"every row", migrationLock, next + "\n" + head + "UPDATE accounts.users SET version = version + 1;\n" + foot},
	{"concurrently in a transaction", migrationLock, next + "\n" + head +
		"CREATE INDEX CONCURRENTLY users_version_idx ON accounts.users (version);\n" + foot},
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
	for _, f := range fileFaults {
		t.Run(f.rule+"/"+f.name, func(t *testing.T) {
			t.Parallel()
			if f.rule == migrationLock && squawk(t) == "" {
				t.Skip("squawk needs npm and x86_64")
			}
			dir := copyTree(t)
			name, text, found := strings.Cut(f.plant, "\n")
			if found {
				write(t, dir, name, text)
			} else {
				require.NoError(t, os.Remove(filepath.Join(dir, name)))
			}
			requireOnly(t, f.rule, checkFiles(t, dir))
		})
	}
}

// What is no fault: all of it on a table of the migration's own, or as squawk wants it.
func TestWhatMigrationsMayDo(t *testing.T) {
	t.Parallel()
	dir := copyTree(t)
	write(t, dir, next, head+`CREATE TABLE accounts.pets (
    id uuid NOT NULL,
    CONSTRAINT pets_pkey PRIMARY KEY (id)
);
CREATE INDEX pets_id_idx ON accounts.pets (id);
UPDATE accounts.pets SET id = id;
ALTER TABLE accounts.users ADD COLUMN note text NOT NULL DEFAULT '';
ALTER TABLE accounts.users ADD CONSTRAINT users_x CHECK (version > 1) NOT VALID;
-- long lock: a dictionary of ten rows
UPDATE accounts.contact_types SET updated_at = updated_at;
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
	return fmt.Sprintf(contract, columns) + strings.ReplaceAll(goodBody("RETURN QUERY SELECT p.* FROM accounts.pet_v1 AS p;"),
		"SETOF accounts.user_group_v1", "SETOF accounts.pet_v1")
}

const pets = `CREATE TABLE accounts.pets (id uuid NOT NULL, owner_id uuid NOT NULL, CONSTRAINT pets_pkey PRIMARY KEY (id));
COMMENT ON TABLE accounts.pets IS 'Pets.';
`

// usesPets makes the columns of pets used.
var usesPets = goodBody("PERFORM p.owner_id FROM accounts.pets AS p;")

const writer = `CREATE FUNCTION accounts.feed_v1() RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$ BEGIN UPDATE accounts.users SET version = version + 1; END $$;
COMMENT ON FUNCTION accounts.feed_v1() IS 'Feeds.';
CREATE FUNCTION accounts.middle_v1() RETURNS void LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$ BEGIN PERFORM accounts.%s(); END $$;
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
	{"by nobody", "contract-used", fmt.Sprintf(contract, "")},
	{"array", "contract-nullable", returning("names text[],")},
	{"interval", "contract-nullable", returning("age interval,")},
	{"none", "foreign-key-index", pets + usesPets +
		"ALTER TABLE accounts.pets ADD CONSTRAINT pets_owner_id_fkey FOREIGN KEY (owner_id) REFERENCES accounts.users (id);"},
	{"of other columns first", "foreign-key-index", pets + usesPets +
		"ALTER TABLE accounts.pets ADD CONSTRAINT pets_owner_id_fkey FOREIGN KEY (owner_id) REFERENCES accounts.users (id);" +
		"CREATE INDEX pets_id_owner_id_idx ON accounts.pets (id, owner_id);"},
	{"by nobody", "foreign-key-used", pets + "CREATE INDEX pets_owner_id_idx ON accounts.pets (owner_id);" +
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
	{"another shape", plpgsqlCheck, goodBody("RETURN QUERY SELECT u.id FROM accounts.users AS u;")},
	{"unused variable", plpgsqlCheck, goodWith("BEGIN", "DECLARE v_x text; BEGIN")},
	{"UPDATE", readWrites, goodBody("UPDATE accounts.users SET version = 1;")},
	{"FOR UPDATE", readWrites, goodBody("PERFORM FROM accounts.users AS u FOR UPDATE;")},
	{"through a callee", readWrites, fmt.Sprintf(writer, "feed_v1") + goodBody("PERFORM accounts.feed_v1();")},
	{"through two", readWrites, fmt.Sprintf(writer, "feed_v1") + goodBody("PERFORM accounts.middle_v1();")},
	{"hidden", readWrites, fmt.Sprintf(writer, "feed_v1") + goodBody("\n-- Dynamic for a test.\nEXECUTE 'SELECT accounts.feed_v1(), $1' USING 1;")},
	{"hidden UPDATE", readWrites, goodBody("\n-- Dynamic for a test.\nEXECUTE 'UPDATE accounts.users SET version = $1' USING 1;")},
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
	conn := connect(t, pgtest.Shared(t).SuperURL)
	execute(t, conn, "CREATE EXTENSION plpgsql_check SCHEMA public")
	return conn
}

func TestFaultsOfTheCatalog(t *testing.T) {
	t.Parallel()
	conn := catalogConn(t)
	for _, f := range catalogFaults {
		t.Run(f.rule+"/"+f.name, func(t *testing.T) {
			tree := readTree(t, root)
			tree.migrations = append(tree.migrations, newMigration(filepath.Base(next), f.plant))
			planted(t, conn, f.plant, func() {
				found, err := Catalog(t.Context(), conn, tree)
				require.NoError(t, err)
				requireOnly(t, f.rule, found)
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

// The plant is the text of one more file of queries, in the folder that its first line names.
var queryFaults = []fault{
	{"a table", queryOneCall, "read\n-- name: ListThingsV1 :many\nSELECT id FROM accounts.users;\n"},
	{"a write", queryOneCall, "write\n-- name: DeleteThingsV1 :exec\nDELETE FROM accounts.users;\n"},
	{"a query around", queryOneCall, "read\n-- name: ListUserGroupsV1X :many\nSELECT * FROM accounts.list_user_groups_v1() ORDER BY 1;\n"},
	{"a query within", queryOneCall, "read\n-- name: IsCacheOutboxPendingV1 :one\nSELECT accounts.is_cache_outbox_pending_v1(p_id => (SELECT max(o.id) FROM accounts.cache_outbox AS o));\n"},
	{"by position", queryNamedArguments, "read\n-- name: GetUserDetailV1 :one\nSELECT * FROM accounts.get_user_detail_v1(@user_id);\n"},
	{"an expression", queryNamedArguments, "read\n-- name: LookupUsersV1 :many\nSELECT * FROM accounts.lookup_users_v1(p_identifiers => ARRAY[@a::text]::text[]);\n"},
	{"no such function", queryInvalid, "read\n-- name: GetNothingV1 :one\nSELECT * FROM accounts.get_nothing_v1(p_id => @id);\n"},
	{"a write among the reads", queryFolder, "read\n-- name: DeactivateContactV1 :one\nSELECT * FROM accounts.deactivate_contact_v1(p_contact_id => @contact_id);\n"},
	{"a read among the writes", queryFolder, "write\n-- name: ListUserGroupsV1 :many\nSELECT * FROM accounts.list_user_groups_v1();\n"},
	{"internal", queryFolder, "write\n-- name: MergePatchV1 :one\nSELECT accounts.merge_patch_v1(p_target => @target, p_patch => @patch);\n"},
	{"another", queryName, "read\n-- name: AllGroups :many\nSELECT * FROM accounts.list_user_groups_v1();\n"},
	{"none", queryArrayCast, "read\n-- name: LookupUsersV1 :many\nSELECT * FROM accounts.lookup_users_v1(p_identifiers => @identifiers);\n"},
	{"no line", contractRenamed, "sqlc.yaml\n          accounts_user_group_v1: UserGroupV1\n"},
}

func TestFaultsOfQueries(t *testing.T) {
	t.Parallel()
	d := pgtest.Shared(t)
	for _, f := range queryFaults {
		t.Run(f.rule+"/"+f.name, func(t *testing.T) {
			t.Parallel()
			dir := copyTree(t)
			folder, text, _ := strings.Cut(f.plant, "\n")
			if folder == sqlcFile { // a text to be removed
				require.Contains(t, read(t, dir, sqlcFile), text)
				write(t, dir, sqlcFile, strings.ReplaceAll(read(t, dir, sqlcFile), text, ""))
			} else {
				// A file of its own: sqlc wants names once, and stops at the first file that it does not understand.
				require.NoError(t, os.RemoveAll(filepath.Join(dir, queriesFolder, folder)))
				require.NoError(t, os.MkdirAll(filepath.Join(dir, queriesFolder, folder), 0o755))
				write(t, dir, filepath.Join(queriesFolder, folder, "x.sql"), text)
			}
			found, err := Queries(t.Context(), connect(t, d.SuperURL), readTree(t, dir), tool(t, "sqlc"))
			require.NoError(t, err)
			if f.name == "a query around" { // its name is an invention too
				found = slices.DeleteFunc(found, func(v Violation) bool { return v.Rule == queryName })
			}
			requireOnly(t, f.rule, found)
		})
	}
}

// The plant is a file that was edited.
var generatedFaults = []fault{
	{"function", generated, "db/functions/list_user_groups_v1.sql"},
	{"contract", generated, "db/contract.txt"},
	{"Go", generated, "internal/dbgen/read/users.sql.go"},
}

func TestFaultsOfWhatIsGenerated(t *testing.T) {
	t.Parallel()
	files, err := dbcatalog.Read(t.Context(), connect(t, pgtest.Shared(t).SuperURL))
	require.NoError(t, err)
	for _, f := range generatedFaults {
		t.Run(f.name, func(t *testing.T) {
			dir := copyTree(t)
			write(t, dir, f.plant, read(t, dir, f.plant)+"\n-- edited\n")
			found, err := Generated(t.Context(), readTree(t, dir), files, tool(t, "sqlc"))
			require.NoError(t, err)
			requireOnly(t, f.rule, found)
		})
	}
}

// The plant changes a released function.
var contractFaults = []fault{
	{"signature", contractFrozen, `DROP FUNCTION accounts.get_contact_v1(uuid);
		CREATE FUNCTION accounts.get_contact_v1(p_contact_id uuid, p_all boolean) RETURNS SETOF accounts.contact_v1 LANGUAGE plpgsql STABLE AS 'BEGIN END';
		GRANT EXECUTE ON FUNCTION accounts.get_contact_v1(uuid, boolean) TO accounts_read, accounts_write`},
	{"name of a parameter", contractFrozen, `DROP FUNCTION accounts.list_user_memberships_v1(uuid);
		CREATE FUNCTION accounts.list_user_memberships_v1(p_id uuid) RETURNS SETOF accounts.membership_v1 LANGUAGE plpgsql STABLE PARALLEL SAFE AS 'BEGIN END';
		GRANT EXECUTE ON FUNCTION accounts.list_user_memberships_v1(uuid) TO accounts_read, accounts_write`},
	{"default", contractFrozen, `CREATE OR REPLACE FUNCTION accounts.list_user_memberships_v1(p_user_id uuid DEFAULT NULL)
		RETURNS SETOF accounts.membership_v1 LANGUAGE plpgsql STABLE PARALLEL SAFE AS 'BEGIN END'`},
	{"shape", contractFrozen, "ALTER TABLE accounts.user_count_v1 ADD COLUMN sampled boolean NOT NULL"},
	{"NULL in the shape", contractFrozen, "ALTER TABLE accounts.user_count_v1 ALTER COLUMN total DROP NOT NULL"},
	{"order of the shape", contractFrozen, `ALTER TABLE accounts.user_count_v1 DROP COLUMN total;
		ALTER TABLE accounts.user_count_v1 ADD COLUMN total bigint NOT NULL`},
	{"volatility", contractFrozen, "ALTER FUNCTION accounts.list_user_groups_v1() VOLATILE"},
	{"grants", contractFrozen, "REVOKE EXECUTE ON FUNCTION accounts.list_user_groups_v1() FROM accounts_read"},
	{"called", contractRemoved, "DROP FUNCTION accounts.list_user_groups_v1()"},
	{"no longer granted", contractRemoved, "REVOKE EXECUTE ON FUNCTION accounts.list_user_groups_v1() FROM accounts_read, accounts_write"},
}

func checkContract(t *testing.T, conn *pgx.Conn, dir, plant string) (found []Violation) {
	t.Helper()
	planted(t, conn, plant, func() {
		files, err := dbcatalog.Read(t.Context(), conn)
		require.NoError(t, err)
		base, err := FindBase(t.Context(), dir)
		require.NoError(t, err)
		found, err = Contract(t.Context(), readTree(t, dir), base, files[dbcatalog.ContractFile])
		require.NoError(t, err)
	})
	return found
}

func TestFaultsOfTheContract(t *testing.T) {
	t.Parallel()
	dir, conn := copyTree(t), connect(t, pgtest.Shared(t).SuperURL)
	for _, f := range contractFaults {
		t.Run(f.rule+"/"+f.name, func(t *testing.T) {
			requireOnly(t, f.rule, checkContract(t, conn, dir, f.plant))
		})
	}
}

// A body may change, a function may be new, and one that no query of the base calls may go.
func TestWhatTheContractAllows(t *testing.T) {
	t.Parallel()
	dir := copyTree(t)
	git(t, dir, "checkout", "-q", "main")
	text := read(t, dir, "db/queries/read/contacts.sql")
	_, without, _ := strings.Cut(text, "\n\n") // the first query, of get_contact_v1
	write(t, dir, "db/queries/read/contacts.sql", without)
	commit(t, dir)
	git(t, dir, "checkout", "-q", "-B", "work")
	require.Empty(t, checkContract(t, connect(t, pgtest.Shared(t).SuperURL), dir, "DROP FUNCTION accounts.get_contact_v1(uuid);"+good+
		`CREATE OR REPLACE FUNCTION accounts.list_user_memberships_v1(p_user_id uuid)
		 RETURNS SETOF accounts.membership_v1 LANGUAGE plpgsql STABLE PARALLEL SAFE AS 'BEGIN END'`))
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
