-- A server asks the database itself whether every function that it needs is there.

-- +goose Up
SET LOCAL lock_timeout = '5s';

CREATE TABLE accounts.missing_function_v1 (
    signature text NOT NULL,
    CONSTRAINT missing_function_v1_is_a_contract CHECK (false) NO INHERIT
);
COMMENT ON TABLE accounts.missing_function_v1 IS
    'Contract: a function that the caller asked for and cannot call.';

-- +goose StatementBegin
CREATE FUNCTION accounts.list_missing_functions_v1(
    p_signatures text[]
)
RETURNS SETOF accounts.missing_function_v1
LANGUAGE plpgsql
STABLE PARALLEL SAFE ROWS 1
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
    SELECT s.signature
      FROM unnest(p_signatures) WITH ORDINALITY AS s (signature, ordinality)
     WHERE NOT EXISTS (
               -- Compared as text: to_regprocedure fails where a type is unknown. The name is
               -- repeated for the index.
               SELECT
                 FROM pg_proc AS p
                WHERE p.proname = split_part(split_part(s.signature, '(', 1), '.', 2)
                  AND p.pronamespace = 'accounts'::regnamespace
                  AND p.oid::regprocedure::text = s.signature
                  -- current_user is the owner here; the login is who calls.
                  AND has_function_privilege(session_user, p.oid, 'EXECUTE'))
     ORDER BY s.ordinality;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION accounts.list_missing_functions_v1(text[]) IS
    'Those of the signatures, written as db/needed.txt has them, that name no function or one that '
    'the login may not execute; in their order. No errors, no locks; may be repeated.';
GRANT EXECUTE ON FUNCTION accounts.list_missing_functions_v1(text[])
    TO accounts_read, accounts_write;

-- +goose Down
SET LOCAL lock_timeout = '5s';
DROP FUNCTION accounts.list_missing_functions_v1(text[]);
DROP TABLE accounts.missing_function_v1;
