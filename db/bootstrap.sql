-- What a superuser runs once per database, connected to the database that the service will use:
--
--     createdb --template=template0 --encoding=UTF8 --locale=C.UTF-8 accounts
--     PGOPTIONS='-c accounts.migrator_password=... -c accounts.writer_password=... -c accounts.reader_password=...' \
--         psql -X -v ON_ERROR_STOP=1 -d accounts -f db/bootstrap.sql
--
-- Idempotent: run it again to change a password, after adding a database, and after a major upgrade
-- of PostgreSQL (new system functions must be revoked too). A password that is not given is not
-- changed. Roles belong to the cluster, so migrations only check that they exist.
--
--     accounts_owner      NOLOGIN  owns the database, the schema and everything in it
--     accounts_migrator   LOGIN    becomes accounts_owner at login; for goose and `server migrate` only
--     accounts_read       NOLOGIN  may EXECUTE read functions
--     accounts_write      NOLOGIN  may EXECUTE read and write functions
--     accounts_reader     LOGIN    the read pool: a member of accounts_read, read-only by default
--     accounts_writer     LOGIN    the write pool: a member of accounts_write
--     accounts_stats      NOLOGIN  owns the one function that reads the state of the WAL receiver
--
-- When the script is run again, accounts_owner may have created functions, operators, tables and
-- schemas, and may have changed settings of the database, to make a superuser run its code. So the
-- script runs with a search_path that only superusers can write to, and depends on no setting that
-- the owner of a database can change.

BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;
SET LOCAL idle_in_transaction_session_timeout = 0;
SET LOCAL statement_timeout = 0;
SET LOCAL lock_timeout = '1min';
SET LOCAL search_path = pg_catalog, pg_temp;
SET LOCAL ROLE NONE;
SET LOCAL client_encoding = 'UTF8';
SET LOCAL plpgsql.extra_errors = 'none';
SET LOCAL plpgsql.extra_warnings = 'none';
SET LOCAL password_encryption = 'scram-sha-256';
SET LOCAL transform_null_equals = off;
SET LOCAL check_function_bodies = on;
-- No log and no view may contain a password: pg_stat_statements.track = all and the context of an
-- error contain statements inside a DO.
SET LOCAL log_statement = 'none';
SET LOCAL log_min_duration_statement = -1;
SET LOCAL log_min_duration_sample = -1;
SET LOCAL log_transaction_sample_rate = 0;
SET LOCAL log_error_verbosity = 'terse';
SET LOCAL pg_stat_statements.track = 'none';

-- Roles are shared by all databases, and so is the lock on their catalog: two bootstraps at once,
-- even of two databases, run one after the other instead of failing on each other's rows.
LOCK TABLE pg_catalog.pg_authid IN SHARE ROW EXCLUSIVE MODE;

DO $bootstrap$
DECLARE
    v_name text;
    v_login record;
    v_function regprocedure;
BEGIN
    IF pg_encoding_to_char((SELECT d.encoding FROM pg_database AS d
                             WHERE d.datname = current_database())) <> 'UTF8' THEN
        RAISE EXCEPTION 'database % is not UTF8', current_database()
            USING HINT = 'create it with --template=template0 --encoding=UTF8 --locale=C.UTF-8';
    END IF;
    IF EXISTS (SELECT
                 FROM pg_namespace AS n
                 JOIN pg_roles AS r ON r.oid = n.nspowner
                WHERE n.nspname = 'accounts_stats'
                  AND NOT r.rolsuper) THEN
        RAISE EXCEPTION 'the schema accounts_stats was not created by a superuser'
            USING HINT = 'look at what it contains, then drop it and run this script again';
    END IF;

    FOREACH v_name IN ARRAY ARRAY['accounts_owner', 'accounts_read', 'accounts_write',
                                  'accounts_stats', 'accounts_migrator', 'accounts_reader',
                                  'accounts_writer'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles AS r WHERE r.rolname = v_name) THEN
            -- Dynamic because the name of a role is no parameter; it is one of the seven above.
            EXECUTE format('CREATE ROLE %I', v_name);
        END IF;
        EXECUTE format('ALTER ROLE %I NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION '
                       'NOBYPASSRLS', v_name);
    END LOOP;

    FOR v_login IN
        SELECT r.rolname, current_setting('accounts.' || r.suffix || '_password', true) AS password
          FROM (VALUES ('accounts_migrator', 'migrator'),
                       ('accounts_reader', 'reader'),
                       ('accounts_writer', 'writer')) AS r (rolname, suffix)
    LOOP
        -- A login may change its own settings: remove them.
        EXECUTE format('ALTER ROLE %I RESET ALL', v_login.rolname);
        EXECUTE format('ALTER ROLE %I IN DATABASE %I RESET ALL',
                       v_login.rolname, current_database());
        IF v_login.password <> '' THEN
            -- Dynamic because a password is no parameter of ALTER ROLE.
            EXECUTE format('ALTER ROLE %I PASSWORD %L', v_login.rolname, v_login.password);
        END IF;
    END LOOP;

    -- Dynamic because the name of the database is not known here.
    EXECUTE format('ALTER DATABASE %I OWNER TO accounts_owner', current_database());
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO accounts_migrator, accounts_reader, '
                   'accounts_writer', current_database());
    EXECUTE format('ALTER ROLE accounts_migrator IN DATABASE %I SET role = accounts_owner',
                   current_database());

    -- PostgreSQL lets every role execute these. On the primary they write large objects and WAL,
    -- use up transaction ids, end sessions of the same role, or take locks that others wait for.
    -- The privileges are those of this database only. accounts_owner keeps them: goose takes an
    -- advisory lock, pg_dump --jobs exports a snapshot.
    FOR v_function IN
        SELECT p.oid
          FROM pg_proc AS p
         WHERE p.pronamespace = 'pg_catalog'::regnamespace
           AND (p.proname ~ '^(lo_|pg_(try_)?advisory_)'
                OR p.proname IN ('loread', 'lowrite', 'pg_logical_emit_message',
                                 'txid_current', 'pg_current_xact_id', 'pg_export_snapshot',
                                 'pg_cancel_backend', 'pg_terminate_backend'))
           AND p.proname NOT IN ('lo_import', 'lo_export') -- of superusers only
         ORDER BY p.oid
    LOOP
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', v_function);
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO accounts_owner', v_function);
    END LOOP;

    -- Roles may have existed before, with memberships that other roles must not have through them:
    -- accounts_stats reads the statements of all databases; accounts_owner had pg_read_all_stats from
    -- an earlier version of this script.
    FOR v_login IN
        SELECT m.roleid::regrole AS role, m.member::regrole AS member, m.grantor::regrole AS grantor
          FROM pg_auth_members AS m
         WHERE m.roleid = 'accounts_stats'::regrole
            OR m.member IN ('accounts_owner'::regrole, 'accounts_read'::regrole,
                            'accounts_write'::regrole)
            OR m.member = 'accounts_stats'::regrole AND m.roleid <> 'pg_read_all_stats'::regrole
    LOOP
        -- Dynamic because the names of roles are no parameters; regrole quotes them.
        EXECUTE format('REVOKE %s FROM %s', v_login.role, v_login.member)
            || CASE WHEN current_setting('server_version_num')::integer >= 160000
                    -- From there on each grantor has a grant.
                    THEN format(' GRANTED BY %s CASCADE', v_login.grantor) ELSE '' END;
    END LOOP;
    -- Databases that were created before PostgreSQL 15 let every role create objects here.
    IF to_regnamespace('public') IS NOT NULL THEN
        REVOKE CREATE ON SCHEMA public FROM PUBLIC;
    END IF;

    ALTER ROLE accounts_writer SET statement_timeout = '60s';
    ALTER ROLE accounts_writer SET idle_in_transaction_session_timeout = '30s';
    IF current_setting('server_version_num')::integer >= 170000 THEN
        -- The overlap that updated_since needs (README.md) depends on this limit.
        EXECUTE 'ALTER ROLE accounts_writer SET transaction_timeout = ''60s''';
    END IF;
END
$bootstrap$;

ALTER ROLE accounts_owner NOLOGIN INHERIT;
ALTER ROLE accounts_read NOLOGIN INHERIT;
ALTER ROLE accounts_write NOLOGIN INHERIT;
ALTER ROLE accounts_stats NOLOGIN INHERIT;
ALTER ROLE accounts_migrator LOGIN NOINHERIT;
ALTER ROLE accounts_reader LOGIN INHERIT;
ALTER ROLE accounts_writer LOGIN INHERIT;

GRANT accounts_owner TO accounts_migrator;
GRANT accounts_read TO accounts_reader;
GRANT accounts_write TO accounts_writer;

ALTER ROLE accounts_reader SET default_transaction_read_only = on;
-- The service asks for shorter limits itself; these are for people who log in with psql.
ALTER ROLE accounts_reader SET statement_timeout = '15s';
ALTER ROLE accounts_reader SET idle_in_transaction_session_timeout = '30s';

-- The timeline that a standby receives is visible to members of pg_read_all_stats only, and that
-- role also reads the statements of all databases. So one function has it, not a role that logs in.
CREATE SCHEMA IF NOT EXISTS accounts_stats;
GRANT pg_read_all_stats TO accounts_stats;
CREATE OR REPLACE FUNCTION accounts_stats.received_timeline()
RETURNS integer
LANGUAGE plpgsql
STABLE PARALLEL RESTRICTED
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (SELECT r.received_tli FROM pg_catalog.pg_stat_get_wal_receiver() AS r);
END
$$;
COMMENT ON FUNCTION accounts_stats.received_timeline() IS
    'The timeline that the WAL receiver of this standby gets; NULL without one.';
ALTER FUNCTION accounts_stats.received_timeline() OWNER TO accounts_stats;
REVOKE ALL ON SCHEMA accounts_stats FROM PUBLIC;
REVOKE ALL ON FUNCTION accounts_stats.received_timeline() FROM PUBLIC;
GRANT USAGE ON SCHEMA accounts_stats TO accounts_owner;
GRANT EXECUTE ON FUNCTION accounts_stats.received_timeline() TO accounts_owner;

COMMIT;
