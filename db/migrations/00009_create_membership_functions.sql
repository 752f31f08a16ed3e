-- Memberships of users in groups.

-- +goose Up
SET LOCAL lock_timeout = '5s';

CREATE TABLE accounts.membership_v1 (
    user_id uuid NOT NULL,
    group_id uuid NOT NULL,
    group_name text NOT NULL,
    is_active boolean NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    CONSTRAINT membership_v1_is_a_contract CHECK (false) NO INHERIT
);
COMMENT ON TABLE accounts.membership_v1 IS 'Contract: the membership of a user in a group.';

CREATE TABLE accounts.membership_write_v1 (
    user_id uuid NOT NULL,
    group_id uuid NOT NULL,
    group_name text NOT NULL,
    is_active boolean NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    touched text[] NOT NULL,
    outbox_id bigint,
    CONSTRAINT membership_write_v1_is_a_contract CHECK (false) NO INHERIT
);
COMMENT ON TABLE accounts.membership_write_v1 IS
    'Contract: membership_v1 after a write, the logical keys that the write touched, and its '
    'outbox row (NULL if nothing changed).';

CREATE TABLE accounts.membership_result_v1 (
    user_id uuid NOT NULL,
    result text NOT NULL,
    touched text[] NOT NULL,
    outbox_id bigint,
    CONSTRAINT membership_result_v1_is_a_contract CHECK (false) NO INHERIT
);
COMMENT ON TABLE accounts.membership_result_v1 IS
    'Contract: what set_memberships_v1 did for one user (changed, unchanged, user_not_found), the '
    'logical keys that it touched for that user, and the one outbox row of the call.';

-- +goose StatementBegin
CREATE FUNCTION accounts.list_user_memberships_v1(
    p_user_id uuid
)
RETURNS SETOF accounts.membership_v1
LANGUAGE plpgsql
STABLE PARALLEL SAFE ROWS 5
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- allow list-limit: the rows are the groups of one user
    RETURN QUERY
    SELECT m.user_id, m.group_id, g.name, m.is_active, m.created_at, m.updated_at
      FROM accounts.user_group_memberships AS m
      JOIN accounts.user_groups AS g ON g.id = m.group_id
     WHERE m.user_id = p_user_id
       AND m.is_active
     ORDER BY g.name;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION accounts.list_user_memberships_v1(uuid) IS
    'The active memberships of a user by group name. Zero rows for a user without any and for no '
    'such user. No errors, no locks.';
GRANT EXECUTE ON FUNCTION accounts.list_user_memberships_v1(uuid) TO accounts_read, accounts_write;

-- +goose StatementBegin
CREATE FUNCTION accounts.get_user_membership_v1(
    p_user_id uuid,
    p_group_id uuid
)
RETURNS SETOF accounts.membership_v1
LANGUAGE plpgsql
STABLE PARALLEL SAFE ROWS 1
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
    SELECT m.user_id, m.group_id, g.name, m.is_active, m.created_at, m.updated_at
      FROM accounts.user_group_memberships AS m
      JOIN accounts.user_groups AS g ON g.id = m.group_id
     WHERE m.user_id = p_user_id
       AND m.group_id = p_group_id;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION accounts.get_user_membership_v1(uuid, uuid) IS
    'The membership of a user in a group, active or not. A miss is zero rows. No errors, no '
    'locks.';
GRANT EXECUTE ON FUNCTION accounts.get_user_membership_v1(uuid, uuid)
    TO accounts_read, accounts_write;

-- +goose StatementBegin
CREATE FUNCTION accounts.set_memberships_v1(
    p_group_id uuid,
    p_user_ids uuid[],
    p_is_active boolean
)
RETURNS SETOF accounts.membership_result_v1
LANGUAGE plpgsql
VOLATILE ROWS 100
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_user_ids uuid[];
    v_changed uuid[];
    v_outbox_id bigint;
BEGIN
    PERFORM FROM accounts.user_groups AS g WHERE g.id = p_group_id FOR KEY SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING
            ERRCODE = 'UA001',
            MESSAGE = 'group not found',
            DETAIL = jsonb_build_object('entity', 'Group', 'id', p_group_id)::text;
    END IF;

    -- In primary-key order, so that two calls for overlapping users cannot deadlock.
    SELECT coalesce(array_agg(l.id), '{}')
      INTO v_user_ids
      FROM (SELECT u.id
              FROM accounts.users AS u
             WHERE u.id = ANY (p_user_ids)
             ORDER BY u.id
               FOR NO KEY UPDATE) AS l;

    WITH changed AS (
        INSERT INTO accounts.user_group_memberships AS m (user_id, group_id, is_active)
        SELECT i.id, p_group_id, true
          FROM unnest(v_user_ids) AS i (id)
         WHERE p_is_active
            ON CONFLICT (user_id, group_id) DO UPDATE
           SET is_active = true,
               updated_at = greatest(clock_timestamp(), m.updated_at + interval '1 microsecond')
         WHERE NOT m.is_active
        RETURNING m.user_id
    ), ended AS (
        UPDATE accounts.user_group_memberships AS m
           SET is_active = false,
               updated_at = greatest(clock_timestamp(), m.updated_at + interval '1 microsecond')
         WHERE NOT p_is_active
           AND m.group_id = p_group_id
           AND m.user_id = ANY (v_user_ids)
           AND m.is_active
        RETURNING m.user_id
    ), raised AS (
        UPDATE accounts.users AS u
           SET version = u.version + 1,
               updated_at = greatest(clock_timestamp(), u.updated_at + interval '1 microsecond')
         WHERE u.id IN (SELECT c.user_id FROM changed AS c
                         UNION ALL
                        SELECT e.user_id FROM ended AS e)
        RETURNING u.id
    )
    SELECT coalesce(array_agg(r.id ORDER BY r.id), '{}') INTO v_changed FROM raised AS r;

    IF cardinality(v_changed) > 0 THEN
        v_outbox_id := accounts.record_change_v1(
            (SELECT array_agg('u:' || c.id) FROM unnest(v_changed) AS c (id)), '{}');
    END IF;
    RETURN QUERY
    SELECT i.id,
           CASE WHEN i.id = ANY (v_changed) THEN 'changed'
                WHEN i.id = ANY (v_user_ids) THEN 'unchanged'
                ELSE 'user_not_found' END,
           CASE WHEN i.id = ANY (v_changed) THEN ARRAY['u:' || i.id] ELSE '{}' END,
           v_outbox_id
      FROM (SELECT p.id, min(p.ordinality) AS ordinality
              FROM unnest(p_user_ids) WITH ORDINALITY AS p (id, ordinality)
             GROUP BY p.id) AS i
     ORDER BY i.ordinality;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION accounts.set_memberships_v1(uuid, uuid[], boolean) IS
    'Makes users members of a group, or ends their memberships, and returns one row per distinct '
    'user id in the order given. Users that do not exist and states that are already so are '
    'reported, not errors; version rises for changed users only. UA001 no such group. Locks the '
    'users in primary-key order. May be repeated.';
GRANT EXECUTE ON FUNCTION accounts.set_memberships_v1(uuid, uuid[], boolean) TO accounts_write;

-- +goose StatementBegin
CREATE FUNCTION accounts.set_membership_v1(
    p_user_id uuid,
    p_group_id uuid,
    p_is_active boolean
)
RETURNS SETOF accounts.membership_write_v1
LANGUAGE plpgsql
VOLATILE ROWS 1
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_result accounts.membership_result_v1;
BEGIN
    PERFORM accounts.lock_user_v1(p_user_id);
    SELECT r.*
      INTO v_result
      FROM accounts.set_memberships_v1(p_group_id, ARRAY[p_user_id], p_is_active) AS r;
    -- A statement of its own: in the one above, a STABLE function would not see the change.
    RETURN QUERY
    SELECT m.*, v_result.touched, v_result.outbox_id
      FROM accounts.get_user_membership_v1(p_user_id, p_group_id) AS m;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION accounts.set_membership_v1(uuid, uuid, boolean) IS
    'Makes a user a member of a group, or ends the membership, and returns it. Zero rows when a '
    'membership that never was is ended. A state that is already so touches nothing. UA001 no '
    'such user or group. Locks the user. May be repeated.';
GRANT EXECUTE ON FUNCTION accounts.set_membership_v1(uuid, uuid, boolean) TO accounts_write;

-- +goose StatementBegin
CREATE FUNCTION accounts.update_membership_v1(
    p_user_id uuid,
    p_group_id uuid,
    p_is_active boolean,
    p_expected_versions bigint[]
)
RETURNS SETOF accounts.membership_write_v1
LANGUAGE plpgsql
VOLATILE ROWS 1
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_old accounts.membership_v1;
    v_result accounts.membership_result_v1;
BEGIN
    PERFORM accounts.lock_user_v1(p_user_id);
    SELECT m.* INTO v_old FROM accounts.get_user_membership_v1(p_user_id, p_group_id) AS m;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING
            ERRCODE = 'UA001',
            MESSAGE = 'membership not found',
            DETAIL = jsonb_build_object(
                'entity', 'Membership', 'id', p_user_id || '/' || p_group_id)::text;
    END IF;
    PERFORM accounts.require_unchanged_v1(v_old.updated_at, p_expected_versions);

    IF p_is_active <> v_old.is_active THEN
        SELECT r.*
          INTO v_result
          FROM accounts.set_memberships_v1(p_group_id, ARRAY[p_user_id], p_is_active) AS r;
    END IF;
    -- A separate statement: in the one above, a STABLE function would not see the change.
    RETURN QUERY
    SELECT m.*, coalesce(v_result.touched, '{}'), v_result.outbox_id
      FROM accounts.get_user_membership_v1(p_user_id, p_group_id) AS m;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION accounts.update_membership_v1(uuid, uuid, boolean, bigint[]) IS
    'Ends a membership or begins it again, and returns it; NULL leaves is_active as it is. With '
    'p_expected_versions not NULL the membership must have one of these versions (updated_at in '
    'microseconds). A state that is already so touches nothing. UA001 no such user or membership, '
    'UA003 another version (DETAIL has the current one). Locks the user. May be repeated unless a '
    'version is expected.';
GRANT EXECUTE ON FUNCTION accounts.update_membership_v1(uuid, uuid, boolean, bigint[])
    TO accounts_write;

-- +goose Down
SET LOCAL lock_timeout = '5s';
DROP FUNCTION accounts.update_membership_v1(uuid, uuid, boolean, bigint[]);
DROP FUNCTION accounts.set_membership_v1(uuid, uuid, boolean);
DROP FUNCTION accounts.set_memberships_v1(uuid, uuid[], boolean);
DROP FUNCTION accounts.get_user_membership_v1(uuid, uuid);
DROP FUNCTION accounts.list_user_memberships_v1(uuid);
DROP TABLE accounts.membership_result_v1;
DROP TABLE accounts.membership_write_v1;
DROP TABLE accounts.membership_v1;
