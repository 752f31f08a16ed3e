-- Three functions say why they build their SQL; nothing else of them changes.

-- +goose Up
SET LOCAL lock_timeout = '5s';

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION accounts.list_users_v1(
    p_limit integer,
    p_offset bigint,
    p_is_active boolean,
    p_group_id uuid,
    p_updated_since timestamptz
)
RETURNS SETOF accounts.user_v1
LANGUAGE plpgsql
STABLE PARALLEL SAFE ROWS 50
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- Dynamic because a filter that is NULL is left out: with "p IS NULL OR ..." a generic plan is
    -- up to 200 times slower. The pieces are constants, the values come by USING.
    -- allow list-offset: clients that show page numbers use it; list_users_after_v1 is for deep pages
    RETURN QUERY EXECUTE
        'SELECT u.id, u.created_at, u.updated_at, u.is_active, u.profile, u.version'
        '  FROM accounts.users AS u'
        ' WHERE ' || accounts.user_filter_v1(p_is_active, p_group_id, p_updated_since) ||
        ' ORDER BY u.id LIMIT $4 OFFSET $5'
        USING p_is_active, p_group_id, p_updated_since, p_limit, p_offset;
END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION accounts.count_users_v1(
    p_is_active boolean,
    p_group_id uuid,
    p_updated_since timestamptz
)
RETURNS SETOF accounts.user_count_v1
LANGUAGE plpgsql
STABLE PARALLEL RESTRICTED ROWS 1
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    c_exact_limit CONSTANT bigint := 100000;
    c_sample_rows CONSTANT real := 20000;
    v_filter text := accounts.user_filter_v1(p_is_active, p_group_id, p_updated_since);
    v_rows real;
    v_share float8;
    v_total bigint;
BEGIN
    -- Dynamic because a filter that is NULL is left out: with "p IS NULL OR ..." a generic plan is
    -- up to 200 times slower. The pieces are constants, the values come by USING.
    EXECUTE 'SELECT count(*) FROM (SELECT FROM accounts.users AS u WHERE ' || v_filter
            || ' LIMIT $4) AS l'
        INTO v_total
        USING p_is_active, p_group_id, p_updated_since, c_exact_limit + 1;
    IF v_total <= c_exact_limit THEN
        RETURN QUERY SELECT v_total, false;
        RETURN;
    END IF;

    SELECT greatest(c.reltuples, c_exact_limit)
      INTO v_rows
      FROM pg_class AS c
     WHERE c.oid = 'accounts.users'::regclass;
    -- Dynamic for the same reason.
    EXECUTE 'SELECT count(*) FILTER (WHERE ' || v_filter || ')::float8 / greatest(count(*), 1)'
            '  FROM accounts.users AS u TABLESAMPLE SYSTEM ($4) REPEATABLE (0)'
        INTO v_share
        USING p_is_active, p_group_id, p_updated_since, least(100, 100 * c_sample_rows / v_rows);
    RETURN QUERY
    SELECT greatest(v_total, (v_rows * v_share)::bigint), true;
END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION accounts.list_users_after_v1(
    p_limit integer,
    p_after_id uuid,
    p_is_active boolean,
    p_group_id uuid,
    p_updated_since timestamptz
)
RETURNS SETOF accounts.user_v1
LANGUAGE plpgsql
STABLE PARALLEL SAFE ROWS 50
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- The members of a group are walked in the index of the group, not filtered out of all users.
    v_from text := CASE
        WHEN p_group_id IS NULL THEN 'accounts.users AS u'
        ELSE 'accounts.user_group_memberships AS gm'
             ' JOIN accounts.users AS u'
             ' ON u.id = gm.user_id AND gm.group_id = $2 AND gm.is_active' END;
    v_key text := CASE WHEN p_group_id IS NULL THEN 'u.id' ELSE 'gm.user_id' END;
BEGIN
    -- Dynamic because a filter that is NULL is left out: with "p IS NULL OR ..." a generic plan is
    -- up to 200 times slower. The pieces are constants, the values come by USING.
    RETURN QUERY EXECUTE
        'SELECT u.id, u.created_at, u.updated_at, u.is_active, u.profile, u.version'
        '  FROM ' || v_from ||
        ' WHERE ' || accounts.user_filter_v1(p_is_active, NULL, p_updated_since) ||
        CASE WHEN p_after_id IS NULL THEN '' ELSE ' AND ' || v_key || ' > $5' END ||
        ' ORDER BY ' || v_key || ' LIMIT $4'
        USING p_is_active, p_group_id, p_updated_since, p_limit, p_after_id;
END
$$;
-- +goose StatementEnd

-- +goose Down
SET LOCAL lock_timeout = '5s';

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION accounts.list_users_after_v1(
    p_limit integer,
    p_after_id uuid,
    p_is_active boolean,
    p_group_id uuid,
    p_updated_since timestamptz
)
RETURNS SETOF accounts.user_v1
LANGUAGE plpgsql
STABLE PARALLEL SAFE ROWS 50
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- The members of a group are walked in the index of the group, not filtered out of all users.
    v_from text := CASE
        WHEN p_group_id IS NULL THEN 'accounts.users AS u'
        ELSE 'accounts.user_group_memberships AS gm'
             ' JOIN accounts.users AS u'
             ' ON u.id = gm.user_id AND gm.group_id = $2 AND gm.is_active' END;
    v_key text := CASE WHEN p_group_id IS NULL THEN 'u.id' ELSE 'gm.user_id' END;
BEGIN
    RETURN QUERY EXECUTE
        'SELECT u.id, u.created_at, u.updated_at, u.is_active, u.profile, u.version'
        '  FROM ' || v_from ||
        ' WHERE ' || accounts.user_filter_v1(p_is_active, NULL, p_updated_since) ||
        CASE WHEN p_after_id IS NULL THEN '' ELSE ' AND ' || v_key || ' > $5' END ||
        ' ORDER BY ' || v_key || ' LIMIT $4'
        USING p_is_active, p_group_id, p_updated_since, p_limit, p_after_id;
END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION accounts.count_users_v1(
    p_is_active boolean,
    p_group_id uuid,
    p_updated_since timestamptz
)
RETURNS SETOF accounts.user_count_v1
LANGUAGE plpgsql
STABLE PARALLEL RESTRICTED ROWS 1
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    c_exact_limit CONSTANT bigint := 100000;
    c_sample_rows CONSTANT real := 20000;
    v_filter text := accounts.user_filter_v1(p_is_active, p_group_id, p_updated_since);
    v_rows real;
    v_share float8;
    v_total bigint;
BEGIN
    EXECUTE 'SELECT count(*) FROM (SELECT FROM accounts.users AS u WHERE ' || v_filter
            || ' LIMIT $4) AS l'
        INTO v_total
        USING p_is_active, p_group_id, p_updated_since, c_exact_limit + 1;
    IF v_total <= c_exact_limit THEN
        RETURN QUERY SELECT v_total, false;
        RETURN;
    END IF;

    SELECT greatest(c.reltuples, c_exact_limit)
      INTO v_rows
      FROM pg_class AS c
     WHERE c.oid = 'accounts.users'::regclass;
    EXECUTE 'SELECT count(*) FILTER (WHERE ' || v_filter || ')::float8 / greatest(count(*), 1)'
            '  FROM accounts.users AS u TABLESAMPLE SYSTEM ($4) REPEATABLE (0)'
        INTO v_share
        USING p_is_active, p_group_id, p_updated_since, least(100, 100 * c_sample_rows / v_rows);
    RETURN QUERY
    SELECT greatest(v_total, (v_rows * v_share)::bigint), true;
END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION accounts.list_users_v1(
    p_limit integer,
    p_offset bigint,
    p_is_active boolean,
    p_group_id uuid,
    p_updated_since timestamptz
)
RETURNS SETOF accounts.user_v1
LANGUAGE plpgsql
STABLE PARALLEL SAFE ROWS 50
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY EXECUTE
        'SELECT u.id, u.created_at, u.updated_at, u.is_active, u.profile, u.version'
        '  FROM accounts.users AS u'
        ' WHERE ' || accounts.user_filter_v1(p_is_active, p_group_id, p_updated_since) ||
        ' ORDER BY u.id LIMIT $4 OFFSET $5'
        USING p_is_active, p_group_id, p_updated_since, p_limit, p_offset;
END
$$;
-- +goose StatementEnd
