package db_test

import (
	"io/fs"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/db"
	"github.com/payment-services/accounts/internal/dbrules"
	"github.com/payment-services/accounts/internal/pgtest"
)

func migrationFiles(t *testing.T) []string {
	t.Helper()
	names, err := fs.Glob(db.Migrations(), "*.sql")
	require.NoError(t, err)
	return names
}

// migrationText is the Up part of every migration.
func migrationText(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	for _, name := range migrationFiles(t) {
		text, err := fs.ReadFile(db.Migrations(), name)
		require.NoError(t, err)
		up, _, found := strings.Cut(string(text), "-- +goose Down")
		require.True(t, found, "%s has no Down", name)
		all.WriteString(up)
	}
	return all.String()
}

// Names, rights, heads, comments, bodies, shapes, keys: internal/dbrules says which, and why. make check
// runs the rules about files and queries too.
func TestCatalogRules(t *testing.T) {
	t.Parallel()
	pgtest.NeedServers(t)
	tree, err := dbrules.ReadTree("..")
	require.NoError(t, err)
	a := open(t)
	a.RemoveOracle("the rules are about what the migrations make")
	violations, err := dbrules.Catalog(t.Context(), a.super, tree)
	require.NoError(t, err)
	require.Empty(t, violations)
}

func TestContractsStayEmpty(t *testing.T) {
	t.Parallel()
	a := open(t)
	contracts := column[string](t, a.super, `SELECT c.relname::text FROM pg_class AS c
		WHERE c.relnamespace = 'accounts'::regnamespace AND c.relkind = 'r' AND c.relname ~ '_v[1-9][0-9]*$'`)
	require.Contains(t, contracts, "user_detail_v1")
	for _, contract := range contracts {
		require.Zero(t, a.count(contract))
		// The owner fails too: on the CHECK, with every column given its type's own text of nothing.
		var columns, values string
		err := a.super.QueryRow(t.Context(), `
			SELECT string_agg(quote_ident(t.attname), ', ' ORDER BY t.attnum),
			       string_agg(CASE WHEN t.atttypid::regtype::text LIKE '%[]' THEN quote_literal('{}')
			                       WHEN t.atttypid = 'uuid'::regtype THEN quote_literal('00000000-0000-0000-0000-000000000000')
			                       WHEN t.atttypid = 'jsonb'::regtype THEN quote_literal('{}')
			                       WHEN t.atttypid = 'timestamptz'::regtype THEN quote_literal('epoch')
			                       ELSE quote_literal('0') END, ', ' ORDER BY t.attnum)
			  FROM pg_attribute AS t
			 WHERE t.attrelid = ('accounts.' || $1)::regclass AND t.attnum > 0`, contract).Scan(&columns, &values)
		require.NoError(t, err)
		_, err = connect(t, a.MigrateURL).Exec(t.Context(), "INSERT INTO accounts."+contract+" ("+columns+") VALUES ("+values+")")
		requireState(t, err, check, contract+"_is_a_contract", "")
	}
}

// The migrations raise no SQLSTATE that the rest of the project does not know.
func TestOwnSQLSTATEs(t *testing.T) {
	t.Parallel()
	found := map[string]bool{}
	for _, m := range regexp.MustCompile(`ERRCODE = '([^']+)'`).FindAllStringSubmatch(migrationText(t), -1) {
		found[m[1]] = true
	}
	require.Equal(t, map[string]bool{
		notFound: true, invalid: true, otherVersion: true, limitReached: true, "unique_violation": true, "check_violation": true, "serialization_failure": true,
	}, found)
	require.NotContains(t, migrationText(t), "WHEN OTHERS")
}
