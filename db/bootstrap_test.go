package db_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/db"
	"github.com/payment-services/accounts/internal/pgtest"
)

// privileges are the attributes and memberships of the roles that bootstrap.sql makes, and everything
// that a role of it has which it should not have.
func privileges(t *testing.T, super *pgx.Conn) []string {
	t.Helper()
	return column[string](t, super, `
		SELECT r.rolname || ' ' || r.rolcanlogin || ' ' || r.rolinherit
		       || CASE WHEN r.rolsuper OR r.rolcreaterole OR r.rolcreatedb OR r.rolreplication OR r.rolbypassrls
		               THEN ' PRIVILEGED' ELSE '' END
		  FROM pg_catalog.pg_roles AS r
		 WHERE r.rolname LIKE 'accounts%'
		 UNION ALL
		SELECT m.member::regrole || ' in ' || m.roleid::regrole
		  FROM pg_catalog.pg_auth_members AS m
		 WHERE m.member::regrole::text LIKE 'accounts%' OR m.roleid::regrole::text LIKE 'accounts%'
		 UNION ALL
		SELECT 'a superuser called ' || t.name FROM public.trapped AS t
		 ORDER BY 1`)
}

// The owner of the database may create functions, operators, tables and types in it, and may change its
// settings, before a superuser runs bootstrap.sql again. None of that may run as the superuser.
func TestBootstrap_InAHostileDatabase(t *testing.T) {
	t.Parallel()
	for name, variant := range map[string]struct {
		domains  []string // in the place of types of these names
		settings []string // of the database
	}{
		"functions_operators_views": {nil, []string{"search_path = public, pg_catalog"}},
		"types":                     {[]string{"regprocedure", "regnamespace", "record", "text", "integer"}, []string{"search_path = public, pg_catalog"}},
		"settings": {nil, []string{
			"default_transaction_read_only = on", "password_encryption = 'md5'", "transform_null_equals = on",
			"standard_conforming_strings = off", "check_function_bodies = off", "quote_all_identifiers = on",
		}},
		"role":    {nil, []string{"role = accounts_owner"}},
		"session": {nil, []string{"session_authorization = accounts_owner"}},
		"limits": {nil, []string{"lock_timeout = 1", "idle_in_transaction_session_timeout = 1", "row_security = off",
			"default_transaction_isolation = 'serializable'", "default_transaction_deferrable = on"}},
		"text": {nil, []string{"client_encoding = 'LATIN1'", "DateStyle = 'German'", "bytea_output = 'escape'", "xmloption = 'document'",
			"array_nulls = off", "extra_float_digits = -15", "escape_string_warning = off"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bootstrapInAHostileDatabase(t, variant.domains, variant.settings)
		})
	}
}

func bootstrapInAHostileDatabase(t *testing.T, domains, settings []string) {
	s := pgtest.Private(t) // roles belong to the whole server
	super := connect(t, s.SuperURL)
	execute(t, super, "CREATE TABLE public.trapped (name text)")
	execute(t, super, "GRANT ALL ON public.trapped TO PUBLIC")
	before := privileges(t, super)
	require.Len(t, before, 7+4)

	migrator := connect(t, s.MigrateURL)
	execute(t, migrator, `CREATE FUNCTION public.trap(p_name text) RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog AS $$
		BEGIN
			IF (SELECT r.rolsuper FROM pg_catalog.pg_roles AS r WHERE r.rolname = current_user) THEN
				INSERT INTO public.trapped VALUES (p_name);
				ALTER ROLE accounts_migrator SUPERUSER CREATEROLE;
				GRANT pg_read_all_data TO accounts_owner;
			END IF;
			RETURN '';
		END $$`)
	// Functions that match better than, or stand before, those of pg_catalog.
	for signature, result := range map[string][2]string{
		"format(text, name)":                             {"text", "pg_catalog.format($1, VARIADIC ARRAY[$2::text])"},
		"format(text, text)":                             {"text", "pg_catalog.format($1, VARIADIC ARRAY[$2])"},
		"format(text, name, name)":                       {"text", "pg_catalog.format($1, VARIADIC ARRAY[$2::text, $3::text])"},
		"format(text, name, text)":                       {"text", "pg_catalog.format($1, VARIADIC ARRAY[$2::text, $3])"},
		"format(text, text, name)":                       {"text", "pg_catalog.format($1, VARIADIC ARRAY[$2, $3::text])"},
		"format(text, text, text)":                       {"text", "pg_catalog.format($1, VARIADIC ARRAY[$2, $3])"},
		"format(text, regprocedure)":                     {"text", "pg_catalog.format($1, VARIADIC ARRAY[$2::text])"},
		"current_setting(text)":                          {"text", "pg_catalog.current_setting($1)"},
		"current_setting(text, boolean)":                 {"text", "pg_catalog.current_setting($1, $2)"},
		"set_config(text, text, boolean)":                {"text", "pg_catalog.set_config($1, $2, $3)"},
		"pg_encoding_to_char(integer)":                   {"name", "pg_catalog.pg_encoding_to_char($1)"},
		"current_database()":                             {"name", "pg_catalog.current_database()"},
		"unnest(text[])":                                 {"SETOF text", "pg_catalog.unnest($1)"},
		"pg_has_role(name, name, text)":                  {"boolean", "pg_catalog.pg_has_role($1, $2, $3)"},
		"pg_has_role(text, text, text)":                  {"boolean", "pg_catalog.pg_has_role($1::name, $2::name, $3)"},
		"pg_stat_get_wal_receiver(OUT received_tli int)": {"integer", "NULL::integer"},
	} {
		execute(t, migrator, fmt.Sprintf(`CREATE FUNCTION public.%s RETURNS %s LANGUAGE sql AS $$
			SELECT public.trap('%[1]s'); SELECT %[3]s $$`, signature, result[0], result[1]))
	}
	for _, operator := range []struct{ name, left, right, result, call string }{
		{"=", "name", "text", "boolean", "$1::text OPERATOR(pg_catalog.=) $2"},
		{"=", "name", "name", "boolean", "$1 OPERATOR(pg_catalog.=) $2"},
		{"=", "oid", "regnamespace", "boolean", "$1 OPERATOR(pg_catalog.=) $2::oid"},
		{"<>", "name", "text", "boolean", "$1::text OPERATOR(pg_catalog.<>) $2"},
		{"<>", "text", "text", "boolean", "$1 OPERATOR(pg_catalog.<>) $2"},
		{"||", "text", "text", "text", "$1 OPERATOR(pg_catalog.||) $2"},
		{"~", "name", "text", "boolean", "$1 OPERATOR(pg_catalog.~) $2"},
		{"~~*", "text", "text", "boolean", "$1 OPERATOR(pg_catalog.~~*) $2"},
		{">=", "integer", "integer", "boolean", "$1 OPERATOR(pg_catalog.>=) $2"},
	} {
		name := fmt.Sprintf("op_%x_%s_%s", operator.name, operator.left, operator.right)
		execute(t, migrator, fmt.Sprintf(`CREATE FUNCTION public.%s(%s, %s) RETURNS %s LANGUAGE sql AS $$
			SELECT public.trap('operator %s'); SELECT %s $$`, name, operator.left, operator.right, operator.result, operator.name, operator.call))
		execute(t, migrator, fmt.Sprintf("CREATE OPERATOR public.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = public.%s)",
			operator.name, operator.left, operator.right, name))
	}
	// Views in the place of catalogs, and types in the place of types.
	for _, catalog := range []string{"pg_roles", "pg_database", "pg_namespace", "pg_proc", "pg_db_role_setting", "pg_authid"} {
		execute(t, migrator, fmt.Sprintf("CREATE VIEW public.%s AS SELECT c.*, public.trap('%[1]s') FROM pg_catalog.%[1]s AS c", catalog))
	}
	for _, name := range domains {
		execute(t, migrator, fmt.Sprintf(`CREATE DOMAIN public.%q AS pg_catalog.text CHECK (public.trap('%[1]s') IS NOT NULL)`, name))
	}
	for _, setting := range settings {
		execute(t, migrator, fmt.Sprintf("ALTER DATABASE %s SET %s", s.Name, setting))
	}
	// What the logins may change about themselves.
	reader := connect(t, s.PrimaryReadURL)
	execute(t, reader, "SET default_transaction_read_only = off")
	execute(t, reader, "ALTER ROLE accounts_reader SET statement_timeout = 0")
	execute(t, reader, "ALTER ROLE accounts_reader SET default_transaction_read_only = off")

	const odd = `it's \ "odd" $1`
	require.NoError(t, db.Bootstrap(t.Context(), connect(t, s.SuperURL), db.Passwords{Reader: odd}))

	execute(t, super, "SET search_path = pg_catalog")
	require.Equal(t, before, privileges(t, super))
	require.Equal(t, "SCRAM-SHA-256", value[string](t, super, "SELECT left(rolpassword, 13) FROM pg_authid WHERE rolname = 'accounts_reader'"))
	config, err := pgx.ParseConfig(s.PrimaryReadURL)
	require.NoError(t, err)
	config.Password = odd
	reader, err = pgx.ConnectConfig(t.Context(), config)
	require.NoError(t, err)
	defer reader.Close(t.Context())
	require.Equal(t, "15s on", value[string](t, reader,
		"SELECT pg_catalog.concat(pg_catalog.current_setting('statement_timeout'), ' ', pg_catalog.current_setting('default_transaction_read_only'))"))
}

// What the owner of the database would decide for the superuser is refused.
func TestBootstrap_Refuses(t *testing.T) {
	t.Parallel()
	s := pgtest.Private(t)
	super := connect(t, s.SuperURL)
	again := func() error { return db.Bootstrap(t.Context(), connect(t, s.SuperURL), db.Passwords{}) }
	require.NoError(t, again())

	_, err := connect(t, s.MigrateURL).Exec(t.Context(), "ALTER DATABASE "+s.Name+" SET accounts.writer_password = 'known'")
	requireState(t, err, denied, "", "") // PostgreSQL itself refuses it

	execute(t, super, "DROP SCHEMA accounts_stats CASCADE")
	migrator := connect(t, s.MigrateURL)
	execute(t, migrator, "CREATE SCHEMA accounts_stats")
	require.ErrorContains(t, again(), "the schema accounts_stats was not created by a superuser")
	execute(t, migrator, "DROP SCHEMA accounts_stats")
	require.NoError(t, again())
}

// A role may have been created, and granted, before bootstrap.sql is run; and a schema may be gone.
func TestBootstrap_RemovesForeignMemberships(t *testing.T) {
	t.Parallel()
	s := pgtest.Private(t)
	super := connect(t, s.SuperURL)
	execute(t, super, "CREATE TABLE public.trapped (name text)") // of privileges
	before := privileges(t, super)
	for _, grant := range []string{
		"CREATE ROLE stranger", "GRANT accounts_stats TO stranger", "GRANT accounts_stats TO accounts_migrator WITH ADMIN OPTION",
		"GRANT pg_read_all_stats TO accounts_owner", "GRANT pg_read_server_files TO accounts_read", "GRANT accounts_owner TO accounts_write",
		"GRANT pg_write_all_data TO accounts_stats", "ALTER ROLE accounts_read LOGIN CREATEROLE", "ALTER ROLE accounts_stats LOGIN SUPERUSER",
	} {
		execute(t, super, grant)
	}
	require.NoError(t, db.Bootstrap(t.Context(), connect(t, s.SuperURL), db.Passwords{}))
	require.Equal(t, before, privileges(t, super))

	execute(t, connect(t, s.MigrateURL), "DROP SCHEMA public CASCADE") // the owner of the database may
	require.NoError(t, db.Bootstrap(t.Context(), connect(t, s.SuperURL), db.Passwords{}))
}

func TestBootstrap_PasswordsAreNotLogged(t *testing.T) {
	t.Parallel()
	s := pgtest.Private(t)
	super := connect(t, s.SuperURL)
	for _, setting := range []string{
		"log_statement = 'all'", "log_min_duration_statement = 0", "log_error_verbosity = 'verbose'", "log_min_error_statement = 'debug5'",
		"log_min_messages = 'debug1'", "log_parameter_max_length_on_error = -1", "log_transaction_sample_rate = 1",
	} {
		execute(t, super, "ALTER SYSTEM SET "+setting)
	}
	execute(t, super, "SELECT pg_reload_conf()")
	conn := connect(t, s.SuperURL)
	require.Equal(t, "all", value[string](t, conn, "SHOW log_statement"))
	execute(t, conn, "SELECT 'before the bootstrap'")
	require.NoError(t, db.Bootstrap(t.Context(), conn, db.Passwords{Migrator: "secret-of-migrator", Reader: "secret-of-reader", Writer: "secret-of-writer"}))
	require.Equal(t, "all", value[string](t, conn, "SHOW log_statement"), "the settings are as before")
	require.Empty(t, value[string](t, conn, "SELECT current_setting('accounts.migrator_password')"))
	execute(t, conn, "SELECT 'after the bootstrap'")

	log, err := os.ReadFile(value[string](t, super, "SHOW data_directory") + ".log")
	require.NoError(t, err)
	require.Contains(t, string(log), "before the bootstrap")
	require.Contains(t, string(log), "after the bootstrap")
	require.NotContains(t, string(log), "secret-of-")
}

// The owner learns the received timeline and nothing else that pg_read_all_stats shows.
func TestOwner_CannotReadStatementsOfOthers(t *testing.T) {
	t.Parallel()
	s := pgtest.Private(t)
	migrator := connect(t, s.MigrateURL)
	other := connect(t, s.SuperURL)
	execute(t, other, "SELECT 'secret'")
	require.NotContains(t, column[string](t, migrator, "SELECT coalesce(query, '') FROM pg_stat_activity WHERE usename = 'postgres'"), "SELECT 'secret'")
	_, err := migrator.Exec(t.Context(), "SET ROLE accounts_stats")
	requireState(t, err, denied, "", "")
	require.Nil(t, value[*int](t, migrator, "SELECT accounts_stats.received_timeline()"), "a primary receives nothing")
	for _, attempt := range []string{
		"CREATE OR REPLACE FUNCTION accounts_stats.received_timeline() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
		"CREATE FUNCTION accounts_stats.more() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
		"ALTER FUNCTION accounts_stats.received_timeline() RESET ALL",
		"DROP SCHEMA accounts_stats CASCADE",
	} {
		_, err := migrator.Exec(t.Context(), attempt)
		requireState(t, err, denied, "", "")
	}
	for _, url := range []string{s.WriteURL, s.PrimaryReadURL} {
		_, err := connect(t, url).Exec(t.Context(), "SELECT accounts_stats.received_timeline()")
		requireState(t, err, denied, "", "")
	}
}
