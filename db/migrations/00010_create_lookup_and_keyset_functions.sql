-- Many identifiers at once, and lists that cost the same on every page.

-- +goose Up
SET LOCAL lock_timeout = '5s';

CREATE TABLE accounts.user_lookup_v1 (
    item_no integer NOT NULL,
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
    CONSTRAINT user_lookup_v1_is_a_contract CHECK (false) NO INHERIT
);
COMMENT ON TABLE accounts.user_lookup_v1 IS
    'Contract: user_match_v1 and which of the given identifiers it answers, counted from 0.';

-- +goose StatementBegin
CREATE FUNCTION accounts.lookup_users_v1(
    p_identifiers text[]
)
RETURNS SETOF accounts.user_lookup_v1
LANGUAGE plpgsql
STABLE PARALLEL SAFE ROWS 100
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
    SELECT (i.ordinality - 1)::integer, u.*
      FROM unnest(p_identifiers) WITH ORDINALITY AS i (identifier, ordinality)
     CROSS JOIN LATERAL accounts.get_user_by_identifier_v1(i.identifier) AS u
     ORDER BY i.ordinality;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION accounts.lookup_users_v1(text[]) IS
    'get_user_by_identifier_v1 for each of the identifiers, in their order; what names nobody has '
    'no row. No errors, no locks; may be repeated.';
GRANT EXECUTE ON FUNCTION accounts.lookup_users_v1(text[]) TO accounts_read, accounts_write;

-- +goose StatementBegin
CREATE FUNCTION accounts.list_users_after_v1(
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
COMMENT ON FUNCTION accounts.list_users_after_v1(integer, uuid, boolean, uuid, timestamptz) IS
    'The users after p_after_id (NULL: from the first) in the order of their ids, which is the '
    'order of creation: stable under concurrent inserts, and every page costs the same. NULL '
    'leaves a filter out. p_updated_since reads the users up to a full page. No errors, no locks.';
GRANT EXECUTE ON FUNCTION accounts.list_users_after_v1(integer, uuid, boolean, uuid, timestamptz)
    TO accounts_read, accounts_write;

-- +goose StatementBegin
CREATE FUNCTION accounts.list_group_members_v1(
    p_limit integer,
    p_group_id uuid,
    p_after_user_id uuid
)
RETURNS SETOF accounts.membership_v1
LANGUAGE plpgsql
STABLE PARALLEL SAFE ROWS 50
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
    SELECT m.user_id, m.group_id, g.name, m.is_active, m.created_at, m.updated_at
      FROM accounts.user_groups AS g
      JOIN accounts.user_group_memberships AS m ON m.group_id = g.id
     WHERE g.id = p_group_id
       AND m.is_active
       -- The nil uuid sorts before every other.
       AND m.user_id > coalesce(p_after_user_id, '00000000-0000-0000-0000-000000000000')
     ORDER BY m.user_id
     LIMIT p_limit;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION accounts.list_group_members_v1(integer, uuid, uuid) IS
    'The active memberships of a group after p_after_user_id (NULL: from the first) by user id. '
    'Zero rows for an empty group and for no such group. No errors, no locks.';
GRANT EXECUTE ON FUNCTION accounts.list_group_members_v1(integer, uuid, uuid)
    TO accounts_read, accounts_write;

-- +goose Down
SET LOCAL lock_timeout = '5s';
DROP FUNCTION accounts.list_group_members_v1(integer, uuid, uuid);
DROP FUNCTION accounts.list_users_after_v1(integer, uuid, boolean, uuid, timestamptz);
DROP FUNCTION accounts.lookup_users_v1(text[]);
DROP TABLE accounts.user_lookup_v1;
