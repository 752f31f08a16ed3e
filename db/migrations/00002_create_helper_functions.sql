-- Functions that other functions and column defaults call. No role may execute them directly: they
-- run with the privileges of the function that calls them.

-- +goose Up
SET LOCAL lock_timeout = '5s';

-- +goose StatementBegin
CREATE FUNCTION accounts.generate_uuid_v1()
RETURNS uuid
LANGUAGE plpgsql
VOLATILE PARALLEL SAFE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_unix_ms bigint := floor(extract(epoch FROM clock_timestamp()) * 1000);
    v_bytes bytea := overlay(
        uuid_send(gen_random_uuid()) PLACING substring(int8send(v_unix_ms) FROM 3) FROM 1 FOR 6);
BEGIN
    -- The version nibble of gen_random_uuid is 4 (0100); two more bits make it 7 (0111).
    RETURN encode(set_bit(set_bit(v_bytes, 52, 1), 53, 1), 'hex')::uuid;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION accounts.generate_uuid_v1() IS
    'A new UUIDv7 (RFC 9562, 5.7): 48 bits of Unix milliseconds, then 74 random bits, so that new '
    'keys arrive in index order. Not monotonic inside one millisecond. No errors, no locks.';

-- +goose StatementBegin
CREATE FUNCTION accounts.merge_patch_v1(
    p_target jsonb,
    p_patch jsonb
)
RETURNS jsonb
LANGUAGE plpgsql
IMMUTABLE PARALLEL SAFE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF jsonb_typeof(p_patch) IS DISTINCT FROM 'object' THEN
        RETURN p_patch;
    END IF;
    -- Set-based, level by level: a recursive call for each object of the patch takes 12 times as long
    -- where they nest. members are the members of the result, each with the position of its ancestors
    -- and its own as path; those whose patch is an object have members themselves.
    RETURN (
        WITH RECURSIVE members AS (
            SELECT '{}'::integer[] AS path, NULL::text AS key, p_target AS target, p_patch AS patch
             UNION ALL
            SELECT m.path || c.position, c.key, c.target, c.patch
              FROM members AS m
             CROSS JOIN LATERAL (
                       SELECT (row_number() OVER ())::integer AS position,
                              coalesce(p.key, t.key) AS key, t.value AS target, p.value AS patch
                         FROM jsonb_each(CASE WHEN jsonb_typeof(m.target) = 'object' THEN m.target
                                              ELSE '{}' END) AS t
                         FULL JOIN jsonb_each(m.patch) AS p ON p.key = t.key
                        WHERE p.key IS NULL
                           OR p.value <> 'null') AS c
             WHERE jsonb_typeof(m.patch) = 'object'
        )
        -- The text of the result: in the order of the paths an object is opened, followed by its
        -- members, and closed.
        SELECT string_agg(x.text, '' ORDER BY x.path)::jsonb
          FROM members AS m
         CROSS JOIN LATERAL (
                   SELECT m.path,
                          concat(CASE WHEN m.path[cardinality(m.path)] > 1 THEN ',' END,
                                 to_json(m.key) || ':',
                                 CASE WHEN jsonb_typeof(m.patch) = 'object' THEN '{'
                                      ELSE coalesce(m.patch, m.target)::text END) AS text
                    UNION ALL
                   SELECT m.path || 2147483647, '}'
                    WHERE jsonb_typeof(m.patch) = 'object') AS x);
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION accounts.merge_patch_v1(jsonb, jsonb) IS
    'MergePatch(Target, Patch) of RFC 7396, section 2 (jsonb || is shallow and keeps nulls). Time '
    'grows with the number of members of both arguments, not with the square of it. No errors for '
    'patches that the callers accept, no locks.';

-- +goose StatementBegin
CREATE FUNCTION accounts.require_version_v1(
    p_version bigint,
    p_expected_versions bigint[]
)
RETURNS void
LANGUAGE plpgsql
IMMUTABLE PARALLEL SAFE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT p_version = ANY (p_expected_versions) THEN
        RAISE EXCEPTION USING
            ERRCODE = 'UA003',
            MESSAGE = 'the row has another version',
            DETAIL = jsonb_build_object('version', p_version)::text;
    END IF;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION accounts.require_version_v1(bigint, bigint[]) IS
    'Internal: UA003 (DETAIL has the current version) unless p_version is one of '
    'p_expected_versions. NULL means no condition; an empty array matches no version. Lock the row '
    'before the call.';

-- +goose StatementBegin
CREATE FUNCTION accounts.require_unchanged_v1(
    p_updated_at timestamptz,
    p_expected_versions bigint[]
)
RETURNS void
LANGUAGE plpgsql
STABLE PARALLEL SAFE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM accounts.require_version_v1(
        (extract(epoch FROM p_updated_at) * 1000000)::bigint, p_expected_versions);
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION accounts.require_unchanged_v1(timestamptz, bigint[]) IS
    'Internal: require_version_v1 for a row without a version column. Its version is updated_at in '
    'microseconds since 1970; every update makes it greater.';

-- +goose Down
SET LOCAL lock_timeout = '5s';
DROP FUNCTION accounts.require_unchanged_v1(timestamptz, bigint[]);
DROP FUNCTION accounts.require_version_v1(bigint, bigint[]);
DROP FUNCTION accounts.merge_patch_v1(jsonb, jsonb);
DROP FUNCTION accounts.generate_uuid_v1();
