-- The schema and the privileges that everything in it starts with.

-- +goose Up
SET LOCAL lock_timeout = '5s';

-- allow migration-do: it only asks whether bootstrap.sql was run, and changes nothing
-- +goose StatementBegin
DO $$
DECLARE
    v_missing text;
BEGIN
    SELECT string_agg(r.name, ', ')
      INTO v_missing
      FROM unnest(ARRAY['accounts_owner', 'accounts_read', 'accounts_write']) AS r (name)
     WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_roles AS p WHERE p.rolname = r.name);
    IF v_missing IS NOT NULL OR current_user <> 'accounts_owner'
        OR pg_catalog.to_regprocedure('accounts_stats.received_timeline()') IS NULL
    THEN
        RAISE EXCEPTION 'this database is not prepared (missing roles: %, current user: %)',
            coalesce(v_missing, 'none'), current_user
            USING HINT = 'let a superuser run db/bootstrap.sql, then migrate as accounts_migrator';
    END IF;
END
$$;
-- +goose StatementEnd

-- PostgreSQL grants EXECUTE on every new function to PUBLIC; here each grant is explicit.
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;

CREATE SCHEMA accounts AUTHORIZATION accounts_owner;
COMMENT ON SCHEMA accounts IS
    'User accounts. The versioned functions are the API; tables are reached through them only.';
GRANT USAGE ON SCHEMA accounts TO accounts_read, accounts_write;

-- +goose Down
SET LOCAL lock_timeout = '5s';
DROP SCHEMA accounts;
ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO PUBLIC;
