package db_test

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Only CI installs the extension plpgsql_check (scripts/install-deps --ci):
//
//	go test -tags ci -run TestPlpgsqlCheck ./db
func TestPlpgsqlCheck(t *testing.T) {
	t.Parallel()
	a := open(t)
	_, err := a.super.Exec(t.Context(), "CREATE EXTENSION plpgsql_check SCHEMA public")
	require.NoError(t, err, "plpgsql_check is missing: run scripts/install-deps --ci")

	require.Empty(t, column[string](t, a.super, `
		SELECT concat_ws(' ', p.oid::regprocedure, 'line', c.lineno, c.level, c.sqlstate, c.message, c.detail)
		  FROM pg_proc AS p
		 CROSS JOIN LATERAL public.plpgsql_check_function_tb(
		           p.oid, fatal_errors => false, extra_warnings => true, security_warnings => true) AS c
		 WHERE p.pronamespace = 'accounts'::regnamespace
		   AND coalesce(c.detail, '') NOT LIKE 'cast "text" value to %' -- a literal, cast once
		 ORDER BY 1`))

	// It does see something.
	execute(t, a.super, `CREATE FUNCTION accounts.wrong_v1() RETURNS void LANGUAGE plpgsql AS 'BEGIN PERFORM no_such_column FROM accounts.users; END'`)
	require.NotEmpty(t, column[string](t, a.super, `SELECT message FROM public.plpgsql_check_function_tb('accounts.wrong_v1()')`))
}
