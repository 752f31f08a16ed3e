-- What a superuser does once per cluster, connected to the database that the service will use:
--
--     createdb --template=template0 --encoding=UTF8 --locale=C.UTF-8 accounts
--     PGOPTIONS='-c accounts.migrator_password=... -c accounts.writer_password=... -c accounts.reader_password=...' \
--         psql -X -v ON_ERROR_STOP=1 -d accounts -f db/bootstrap.sql
--
-- Idempotent: run it again to change a password or after adding a database. A password that is not
-- given stays as it is. Roles belong to the cluster, so migrations only assert them.
--
--     accounts_owner      NOLOGIN  owns the database, the schema and everything in it
--     accounts_migrator   LOGIN    becomes accounts_owner at once; goose and `server migrate` only
--     accounts_read       NOLOGIN  may EXECUTE read functions
--     accounts_write      NOLOGIN  may EXECUTE read and write functions
--     accounts_reader     LOGIN    the read pool: accounts_read, and read-only besides
--     accounts_writer     LOGIN    the write pool: accounts_write

BEGIN;

-- Roles are shared by all databases, and so is the lock on their catalog: two bootstraps at once,
-- even of two databases, run one after the other instead of failing on each other's rows.
LOCK TABLE pg_catalog.pg_authid IN SHARE ROW EXCLUSIVE MODE;

DO $bootstrap$
DECLARE
    v_login record;
BEGIN
    IF pg_encoding_to_char((SELECT d.encoding FROM pg_database AS d
                             WHERE d.datname = current_database())) <> 'UTF8' THEN
        RAISE EXCEPTION 'database % is not UTF8', current_database()
            USING HINT = 'create it with --template=template0 --encoding=UTF8 --locale=C.UTF-8';
    END IF;

    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'accounts_owner') THEN
        CREATE ROLE accounts_owner NOLOGIN;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'accounts_read') THEN
        CREATE ROLE accounts_read NOLOGIN;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'accounts_write') THEN
        CREATE ROLE accounts_write NOLOGIN;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'accounts_migrator') THEN
        CREATE ROLE accounts_migrator LOGIN NOINHERIT;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'accounts_reader') THEN
        CREATE ROLE accounts_reader LOGIN;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'accounts_writer') THEN
        CREATE ROLE accounts_writer LOGIN;
    END IF;

    FOR v_login IN
        SELECT r.rolname, current_setting('accounts.' || r.suffix || '_password', true) AS password
          FROM (VALUES ('accounts_migrator', 'migrator'),
                       ('accounts_reader', 'reader'),
                       ('accounts_writer', 'writer')) AS r (rolname, suffix)
    LOOP
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
END
$bootstrap$;

GRANT accounts_owner TO accounts_migrator;
GRANT accounts_read TO accounts_reader;
GRANT accounts_write TO accounts_writer;

-- Without it get_replication_position_v1 cannot see the timeline that a standby receives.
GRANT pg_read_all_stats TO accounts_owner;

ALTER ROLE accounts_reader SET default_transaction_read_only = on;

-- A statement of the service that takes longer than this has been given up by its caller long ago.
ALTER ROLE accounts_reader SET statement_timeout = '15s';
ALTER ROLE accounts_writer SET statement_timeout = '60s';
ALTER ROLE accounts_writer SET idle_in_transaction_session_timeout = '30s';

COMMIT;
