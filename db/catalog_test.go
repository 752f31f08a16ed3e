package db_test

import (
	"io/fs"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/db"
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
		require.Contains(t, up, "SET LOCAL lock_timeout", name)
		all.WriteString(up)
	}
	return all.String()
}

// Each query lists what breaks a rule.
func TestCatalogRules(t *testing.T) {
	t.Parallel()
	a := open(t)
	const functions = " FROM pg_proc AS p WHERE p.pronamespace = 'accounts'::regnamespace AND "
	for rule, query := range map[string]string{
		"a function has a version":       `SELECT p.oid::regprocedure::text` + functions + `p.proname !~ '^[a-z]+(_[a-z]+)*_v[1-9][0-9]*$'`,
		"a function is not overloaded":   `SELECT p.proname::text` + functions + `true GROUP BY p.proname HAVING count(*) > 1`,
		"a function has a COMMENT":       `SELECT p.oid::regprocedure::text` + functions + `obj_description(p.oid, 'pg_proc') IS NULL`,
		"a function is SECURITY DEFINER": `SELECT p.oid::regprocedure::text` + functions + `NOT p.prosecdef`,
		"a function pins its search_path": `SELECT p.oid::regprocedure::text` + functions +
			`p.proconfig IS DISTINCT FROM ARRAY['search_path=pg_catalog, pg_temp']`,
		"a function belongs to accounts_owner": `SELECT p.oid::regprocedure::text` + functions + `p.proowner <> 'accounts_owner'::regrole`,
		"a function is PL/pgSQL": `SELECT p.oid::regprocedure::text` + functions +
			`p.prolang <> (SELECT l.oid FROM pg_language AS l WHERE l.lanname = 'plpgsql')`,
		"a parameter is called p_": `SELECT p.oid::regprocedure || ' ' || i.name FROM pg_proc AS p CROSS JOIN unnest(p.proargnames) AS i (name)
			WHERE p.pronamespace = 'accounts'::regnamespace AND i.name !~ '^p_[a-z]'`,
		"every parameter has a name": `SELECT p.oid::regprocedure::text` + functions + `cardinality(coalesce(p.proargnames, '{}')) <> p.pronargs`,
		"a function has no defaults": `SELECT p.oid::regprocedure::text` + functions + `p.pronargdefaults > 0`,
		"PUBLIC executes nothing": `SELECT p.oid::regprocedure::text` + functions +
			`EXISTS (SELECT FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS g WHERE g.grantee = 0)`,
		"what accounts_read may execute is STABLE": `SELECT p.oid::regprocedure::text` + functions +
			`has_function_privilege('accounts_read', p.oid, 'EXECUTE') AND p.provolatile <> 's'`,
		"what accounts_write alone may execute is VOLATILE": `SELECT p.oid::regprocedure::text` + functions +
			`has_function_privilege('accounts_write', p.oid, 'EXECUTE') AND p.provolatile <> 'v'
			 AND NOT has_function_privilege('accounts_read', p.oid, 'EXECUTE')`,
		"what accounts_read may execute accounts_write may too": `SELECT p.oid::regprocedure::text` + functions +
			`has_function_privilege('accounts_read', p.oid, 'EXECUTE') AND NOT has_function_privilege('accounts_write', p.oid, 'EXECUTE')`,
		"rights are granted to the two groups only": `SELECT p.oid::regprocedure || ' ' || g.grantee::regrole FROM pg_proc AS p
			CROSS JOIN aclexplode(p.proacl) AS g WHERE p.pronamespace = 'accounts'::regnamespace
			AND g.grantee::regrole::text NOT IN ('accounts_owner', 'accounts_read', 'accounts_write')`,
		"a granted function returns a contract or a scalar": `SELECT p.oid::regprocedure::text FROM pg_proc AS p
			JOIN pg_type AS y ON y.oid = p.prorettype LEFT JOIN pg_class AS c ON c.oid = y.typrelid
			WHERE p.pronamespace = 'accounts'::regnamespace AND has_function_privilege('accounts_write', p.oid, 'EXECUTE')
			AND NOT CASE WHEN c.oid IS NULL THEN NOT p.proretset AND y.typtype = ANY ('{b,p}')
			             ELSE p.proretset AND c.relname ~ '_v[1-9][0-9]*$' END`,
		"a table has a COMMENT": `SELECT c.oid::regclass::text FROM pg_class AS c WHERE c.relnamespace = 'accounts'::regnamespace
			AND c.relkind = 'r' AND obj_description(c.oid, 'pg_class') IS NULL`,
		"a contract refuses every row": `SELECT c.oid::regclass::text FROM pg_class AS c WHERE c.relnamespace = 'accounts'::regnamespace
			AND c.relname ~ '_v[1-9][0-9]*$' AND c.relkind = 'r' AND NOT EXISTS (
			SELECT FROM pg_constraint AS k WHERE k.conrelid = c.oid AND k.conname = c.relname || '_is_a_contract'
			AND k.contype = 'c' AND k.connoinherit AND pg_get_constraintdef(k.oid) = 'CHECK (false) NO INHERIT')`,
		"a contract is returned by a function": `SELECT c.oid::regclass::text FROM pg_class AS c WHERE c.relnamespace = 'accounts'::regnamespace
			AND c.relname ~ '_v[1-9][0-9]*$' AND c.relkind = 'r' AND NOT EXISTS (SELECT FROM pg_proc AS p WHERE p.prorettype = c.reltype)`,
		"a foreign key has an index that begins with its columns": `SELECT k.conname::text FROM pg_constraint AS k
			WHERE k.connamespace = 'accounts'::regnamespace AND k.contype = 'f' AND NOT EXISTS (
			SELECT FROM pg_index AS i WHERE i.indrelid = k.conrelid AND i.indisvalid AND i.indpred IS NULL
			AND (i.indkey::smallint[])[0:cardinality(k.conkey) - 1] = k.conkey)`,
		"an index is valid": `SELECT i.indexrelid::regclass::text FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
			WHERE c.relnamespace = 'accounts'::regnamespace AND NOT i.indisvalid`,
		"a table has a primary key": `SELECT c.oid::regclass::text FROM pg_class AS c WHERE c.relnamespace = 'accounts'::regnamespace
			AND c.relkind = 'r' AND c.relname !~ '_v[1-9][0-9]*$'
			AND NOT EXISTS (SELECT FROM pg_constraint AS k WHERE k.conrelid = c.oid AND k.contype = 'p')`,
		"there are no triggers and no rules": `SELECT t.tgname::text FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = t.tgrelid
			WHERE c.relnamespace = 'accounts'::regnamespace AND NOT t.tgisinternal
			UNION ALL SELECT r.rulename::text FROM pg_rewrite AS r JOIN pg_class AS c ON c.oid = r.ev_class
			WHERE c.relnamespace = 'accounts'::regnamespace`,
	} {
		require.Empty(t, column[string](t, a.super, query), rule)
	}
}

func TestEveryConstraintAndIndexIsNamedInTheMigrations(t *testing.T) {
	t.Parallel()
	a := open(t)
	text := migrationText(t)
	// Since PostgreSQL 18 NOT NULL is a constraint too; no error of it reaches a client.
	names := column[string](t, a.super, `
		SELECT k.conname::text FROM pg_constraint AS k WHERE k.connamespace = 'accounts'::regnamespace AND k.contype <> 'n'`)
	require.Contains(t, names, "user_contacts_phone_canonical")
	for _, name := range names {
		require.Regexp(t, `CONSTRAINT `+regexp.QuoteMeta(name)+`\b`, text)
	}
	for _, name := range column[string](t, a.super, `
		SELECT c.relname::text FROM pg_class AS c
		 WHERE c.relnamespace = 'accounts'::regnamespace AND c.relkind = 'i'
		   AND NOT EXISTS (SELECT FROM pg_constraint AS k WHERE k.conindid = c.oid)`) {
		require.Regexp(t, `INDEX `+name+`\b`, text)
	}
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
		notFound: true, invalid: true, otherVersion: true, "unique_violation": true, "serialization_failure": true,
	}, found)
	require.NotContains(t, migrationText(t), "WHEN OTHERS")
}
