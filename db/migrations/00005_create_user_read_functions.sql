-- Reading users. get_user_detail_v1 is the one place that builds a user with groups and contacts.

-- +goose Up
SET LOCAL lock_timeout = '5s';

CREATE TABLE accounts.user_detail_v1 (
    id uuid NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    is_active boolean NOT NULL,
    profile jsonb NOT NULL,
    version bigint NOT NULL,
    groups jsonb NOT NULL,
    contacts jsonb NOT NULL,
    identifiers text[] NOT NULL,
    dependencies text[] NOT NULL,
    CONSTRAINT user_detail_v1_is_a_contract CHECK (false) NO INHERIT
);
COMMENT ON TABLE accounts.user_detail_v1 IS
    'Contract: a user with active groups [{id,name}] by name and active contacts '
    '[{id,type,value}] by type, then creation. identifiers are the user''s active logical '
    'identifiers (<kind>:<canonical>), dependencies what a rename would change in it (g:<id>, '
    't:<id>).';

CREATE TABLE accounts.user_match_v1 (
    matched_by text NOT NULL,
    id uuid NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    is_active boolean NOT NULL,
    profile jsonb NOT NULL,
    version bigint NOT NULL,
    groups jsonb NOT NULL,
    contacts jsonb NOT NULL,
    identifiers text[] NOT NULL,
    dependencies text[] NOT NULL,
    CONSTRAINT user_match_v1_is_a_contract CHECK (false) NO INHERIT
);
COMMENT ON TABLE accounts.user_match_v1 IS
    'Contract: user_detail_v1 and the kind of identifier that matched (uuid, phone, email, '
    'second_login).';

CREATE TABLE accounts.user_v1 (
    id uuid NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    is_active boolean NOT NULL,
    profile jsonb NOT NULL,
    version bigint NOT NULL,
    CONSTRAINT user_v1_is_a_contract CHECK (false) NO INHERIT
);
COMMENT ON TABLE accounts.user_v1 IS
    'Contract: a user without groups and contacts, as lists give it.';

CREATE TABLE accounts.user_count_v1 (
    total bigint NOT NULL,
    estimated boolean NOT NULL,
    CONSTRAINT user_count_v1_is_a_contract CHECK (false) NO INHERIT
);
COMMENT ON TABLE accounts.user_count_v1 IS 'Contract: a number of users, exact or estimated.';

-- +goose StatementBegin
CREATE FUNCTION accounts.get_user_detail_v1(
    p_user_id uuid
)
RETURNS SETOF accounts.user_detail_v1
LANGUAGE plpgsql
STABLE PARALLEL SAFE ROWS 1
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
    SELECT u.id,
           u.created_at,
           u.updated_at,
           u.is_active,
           u.profile,
           u.version,
           coalesce(g.groups, '[]'),
           coalesce(c.contacts, '[]'),
           coalesce(c.identifiers, '{}'),
           coalesce(g.dependencies, '{}') || coalesce(c.dependencies, '{}')
      FROM accounts.users AS u
     CROSS JOIN LATERAL (
               SELECT jsonb_agg(jsonb_build_object('id', ug.id, 'name', ug.name)
                                ORDER BY ug.name) AS groups,
                      array_agg('g:' || ug.id ORDER BY ug.name) AS dependencies
                 FROM accounts.user_group_memberships AS m
                 JOIN accounts.user_groups AS ug ON ug.id = m.group_id
                WHERE m.user_id = u.id
                  AND m.is_active) AS g
     CROSS JOIN LATERAL (
               SELECT jsonb_agg(jsonb_build_object('id', uc.id, 'type', ct.name, 'value', uc.value)
                                ORDER BY ct.name, uc.created_at, uc.id) AS contacts,
                      array_agg(ct.name || ':' || uc.normalized
                                ORDER BY ct.name, uc.created_at, uc.id)
                          FILTER (WHERE ct.name IN ('phone', 'email', 'second_login'))
                          AS identifiers,
                      -- The three identifier types cannot be renamed, so nothing depends on them.
                      array_agg(DISTINCT 't:' || ct.id)
                          FILTER (WHERE ct.name NOT IN ('phone', 'email', 'second_login'))
                          AS dependencies
                 FROM accounts.user_contacts AS uc
                 JOIN accounts.contact_types AS ct ON ct.id = uc.contact_type_id
                WHERE uc.user_id = u.id
                  AND uc.is_active) AS c
     WHERE u.id = p_user_id;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION accounts.get_user_detail_v1(uuid) IS
    'The user with this id, active or not, with groups and contacts. A miss is zero rows. No '
    'errors, no locks; may be repeated.';
GRANT EXECUTE ON FUNCTION accounts.get_user_detail_v1(uuid) TO accounts_read, accounts_write;

-- +goose StatementBegin
CREATE FUNCTION accounts.get_user_by_identifier_v1(
    p_identifier text
)
RETURNS SETOF accounts.user_match_v1
LANGUAGE plpgsql
STABLE PARALLEL SAFE ROWS 1
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_text text := btrim(p_identifier);
    v_hex text := translate(v_text, '{}-', '');
    v_phone text := translate(v_text, ' ().-', '');
    v_kind text;
    v_type_id uuid;
    v_normalized text;
    v_user_id uuid;
BEGIN
    IF length(v_hex) = 32 AND v_hex ~* '^[0-9a-f]{32}$' THEN
        v_kind := 'uuid';
        v_user_id := v_hex::uuid;
    ELSIF v_phone ~ '^\+?[0-9]{7,15}$' THEN
        v_kind := 'phone';
        v_type_id := '00000000-0000-7000-8000-000000000001';
        v_normalized := v_phone;
    ELSIF strpos(v_text, '@') > 0 THEN
        v_kind := 'email';
        v_type_id := '00000000-0000-7000-8000-000000000002';
        v_normalized := lower(v_text);
    ELSE
        v_kind := 'second_login';
        v_type_id := '00000000-0000-7000-8000-000000000003';
        v_normalized := lower(v_text);
    END IF;

    IF v_user_id IS NULL THEN
        SELECT c.user_id
          INTO v_user_id
          FROM accounts.user_contacts AS c
         WHERE c.contact_type_id = v_type_id
           AND c.normalized = v_normalized
           AND c.is_active;
    END IF;

    RETURN QUERY
    SELECT v_kind, d.*
      FROM accounts.get_user_detail_v1(v_user_id) AS d
     WHERE d.is_active;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION accounts.get_user_by_identifier_v1(text) IS
    'The active user whom one text names: a uuid, else by form a phone, an email or a '
    'second_login. The service passes canonical text; from psql only uuid spellings, separators '
    'in an E.164 number and case are folded. A miss is zero rows. No errors, no locks; may be '
    'repeated.';
GRANT EXECUTE ON FUNCTION accounts.get_user_by_identifier_v1(text) TO accounts_read, accounts_write;

-- +goose StatementBegin
CREATE FUNCTION accounts.user_filter_v1(
    p_is_active boolean,
    p_group_id uuid,
    p_updated_since timestamptz
)
RETURNS text
LANGUAGE plpgsql
IMMUTABLE PARALLEL SAFE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN concat_ws(' AND ',
        'true',
        CASE WHEN p_is_active IS NOT NULL THEN 'u.is_active = $1' END,
        CASE WHEN p_group_id IS NOT NULL THEN
            'EXISTS (SELECT FROM accounts.user_group_memberships AS m'
            ' WHERE m.user_id = u.id AND m.group_id = $2 AND m.is_active)' END,
        CASE WHEN p_updated_since IS NOT NULL THEN 'u.updated_at >= $3' END);
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION accounts.user_filter_v1(boolean, uuid, timestamptz) IS
    'Internal: the condition of a user list as SQL text over users AS u, with the three filters '
    'as $1, $2 and $3. Constant pieces only. A filter that is NULL is left out: "p IS NULL OR '
    '..." made a generic plan up to 200 times slower.';

-- +goose StatementBegin
CREATE FUNCTION accounts.list_users_v1(
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
COMMENT ON FUNCTION accounts.list_users_v1(integer, bigint, boolean, uuid, timestamptz) IS
    'One page of users in the order of their ids, which is the order of creation. NULL leaves a '
    'filter out. Costs p_offset rows: deep pages belong to the keyset list. No errors, no locks.';
GRANT EXECUTE ON FUNCTION accounts.list_users_v1(integer, bigint, boolean, uuid, timestamptz)
    TO accounts_read, accounts_write;

-- +goose StatementBegin
CREATE FUNCTION accounts.count_users_v1(
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
    EXECUTE 'SELECT count(*) FROM (SELECT FROM '
            || CASE WHEN p_group_id IS NOT NULL AND p_is_active IS NULL AND p_updated_since IS NULL
                    -- The index of the group is enough: 30 times as fast as with the users.
                    THEN 'accounts.user_group_memberships AS m WHERE m.group_id = $2 AND m.is_active'
                    ELSE 'accounts.users AS u WHERE ' || v_filter END
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
COMMENT ON FUNCTION accounts.count_users_v1(boolean, uuid, timestamptz) IS
    'How many users a list with these filters has: exact up to 100,000, beyond that estimated '
    'from a sample of about 20,000 rows. NULL leaves a filter out. No errors, no locks; may be '
    'repeated.';
GRANT EXECUTE ON FUNCTION accounts.count_users_v1(boolean, uuid, timestamptz)
    TO accounts_read, accounts_write;

-- +goose Down
SET LOCAL lock_timeout = '5s';
DROP FUNCTION accounts.count_users_v1(boolean, uuid, timestamptz);
DROP FUNCTION accounts.list_users_v1(integer, bigint, boolean, uuid, timestamptz);
DROP FUNCTION accounts.user_filter_v1(boolean, uuid, timestamptz);
DROP FUNCTION accounts.get_user_by_identifier_v1(text);
DROP FUNCTION accounts.get_user_detail_v1(uuid);
DROP TABLE accounts.user_count_v1;
DROP TABLE accounts.user_v1;
DROP TABLE accounts.user_match_v1;
DROP TABLE accounts.user_detail_v1;
