package dbrules

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/dbcatalog"
	"github.com/payment-services/accounts/internal/pgtest"
)

// The plant is the text of one more file of queries, in the folder that its first line names.
var queryFaults = []fault{
	{"a table", queryOneCall, "read\n-- name: ListThingsV1 :many\nSELECT id FROM accounts.users;\n"},
	{"a write", queryOneCall, "write\n-- name: DeleteThingsV1 :exec\nDELETE FROM accounts.users;\n"},
	{"a query around", queryOneCall, "read\n-- name: ListUserGroupsV1X :many\nSELECT * FROM accounts.list_user_groups_v1() ORDER BY 1;\n"},
	{"a query within", queryOneCall, "read\n-- name: IsCacheOutboxPendingV1 :one\nSELECT accounts.is_cache_outbox_pending_v1(p_id => (SELECT max(o.id) FROM accounts.cache_outbox AS o));\n"},
	{"by position", queryNamedArguments, "read\n-- name: GetUserDetailV1 :one\nSELECT * FROM accounts.get_user_detail_v1(@user_id);\n"},
	{"an expression", queryNamedArguments, "read\n-- name: LookupUsersV1 :many\nSELECT * FROM accounts.lookup_users_v1(p_identifiers => ARRAY[@a::text]::text[]);\n"},
	{"no such function", queryInvalid, "read\n-- name: GetNothingV1 :one\nSELECT * FROM accounts.get_nothing_v1(p_id => @id);\n"},
	{"a write among the reads", queryFolder, "read\n-- name: DeactivateContactV1 :one\nSELECT * FROM accounts.deactivate_contact_v1(p_contact_id => @contact_id, " +
		"p_expected_versions => sqlc.narg('expected_versions')::bigint[]);\n"},
	{"a read among the writes", queryFolder, "write\n-- name: ListUserGroupsV1 :many\nSELECT * FROM accounts.list_user_groups_v1();\n"},
	{"internal", queryFolder, "write\n-- name: MergePatchV1 :one\nSELECT accounts.merge_patch_v1(p_target => @target, p_patch => @patch);\n"},
	{"another", queryName, "read\n-- name: AllGroups :many\nSELECT * FROM accounts.list_user_groups_v1();\n"},
	{"none", queryArrayCast, "read\n-- name: LookupUsersV1 :many\nSELECT * FROM accounts.lookup_users_v1(p_identifiers => @identifiers);\n"},
	{":one for a list", queryCardinality, "read\n-- name: ListUserGroupsV1 :one\nSELECT * FROM accounts.list_user_groups_v1();\n"},
	{":exec for touched", queryCardinality, "write\n-- name: DeactivateContactV1 :exec\nSELECT * FROM accounts.deactivate_contact_v1(p_contact_id => @contact_id, " +
		"p_expected_versions => sqlc.narg('expected_versions')::bigint[]);\n"},
	{":exec for a scalar", queryCardinality, "read\n-- name: IsCacheOutboxPendingV1 :exec\nSELECT accounts.is_cache_outbox_pending_v1(p_id => @id);\n"},
	{":many for one row", queryCardinality, "read\n-- name: GetContactV1 :many\nSELECT * FROM accounts.get_contact_v1(p_contact_id => @contact_id);\n"},
	{"lost", queryNullable, "read\n-- name: CountUsersV1 :one\nSELECT * FROM accounts.count_users_v1(p_is_active => @is_active, p_group_id => sqlc.narg('group_id'), p_updated_since => sqlc.narg('updated_since'));\n"},
	{"sqlc.arg", queryNullable, "write\n-- name: UpdateContactV1 :one\nSELECT * FROM accounts.update_contact_v1(p_contact_id => @contact_id, p_value => sqlc.arg('value'), " +
		"p_normalized => sqlc.narg('normalized'), p_is_active => sqlc.narg('is_active'), p_expected_versions => sqlc.narg('expected_versions')::bigint[]);\n"},
	{"crossed", queryArgument, "write\n-- name: AddContactV1 :one\nSELECT * FROM accounts.add_contact_v1(p_user_id => @user_id, p_type => @type, p_value => @normalized, p_normalized => @value);\n"},
	{"another name", queryArgument, "read\n-- name: GetUserMembershipV1 :one\nSELECT * FROM accounts.get_user_membership_v1(p_user_id => @who, p_group_id => @group_id);\n"},
	{"no line", contractRenamed, "sqlc.yaml\n          accounts_user_group_v1: UserGroupV1\n"},
}

func TestFaultsOfQueries(t *testing.T) {
	t.Parallel()
	d := pgtest.Shared(t).RemoveOracle("the rules are about what the migrations make")
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
			requireOnly(t, f.rule, withoutConsequences(found))
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
	files, err := dbcatalog.Read(t.Context(), connect(t, pgtest.Shared(t).RemoveOracle("the rules are about what the migrations make").SuperURL))
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
	{"STRICT", contractFrozen, "ALTER FUNCTION accounts.get_contact_v1(uuid) STRICT"},
	{"LEAKPROOF", contractFrozen, "RESET ROLE; ALTER FUNCTION accounts.get_contact_v1(uuid) LEAKPROOF"},
	{"COST", contractFrozen, "ALTER FUNCTION accounts.get_contact_v1(uuid) COST 1"},
	{"ROWS", contractFrozen, "ALTER FUNCTION accounts.get_contact_v1(uuid) ROWS 1000"},
	{"PARALLEL", contractFrozen, "ALTER FUNCTION accounts.get_contact_v1(uuid) PARALLEL UNSAFE"},
	{"SECURITY", contractFrozen, "ALTER FUNCTION accounts.get_contact_v1(uuid) SECURITY INVOKER"},
	{"SET", contractFrozen, "ALTER FUNCTION accounts.get_contact_v1(uuid) SET work_mem = '1MB'"},
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
	dir, conn := copyTree(t), connect(t, pgtest.Shared(t).RemoveOracle("the rules are about what the migrations make").SuperURL)
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
	require.Empty(t, checkContract(t, connect(t, pgtest.Shared(t).RemoveOracle("the rules are about what the migrations make").SuperURL), dir, "DROP FUNCTION accounts.get_contact_v1(uuid);"+good+
		`CREATE OR REPLACE FUNCTION accounts.list_user_memberships_v1(p_user_id uuid)
		 RETURNS SETOF accounts.membership_v1 LANGUAGE plpgsql STABLE PARALLEL SAFE ROWS 5 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
		 AS 'BEGIN END'`))
}
