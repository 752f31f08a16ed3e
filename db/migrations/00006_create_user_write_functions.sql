-- Writing users. Every write function locks the user first, raises version and updated_at once, and
-- records what it touched in the cache outbox.

-- +goose Up
SET LOCAL lock_timeout = '5s';

CREATE TABLE accounts.user_write_v1 (
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
    touched text[] NOT NULL,
    outbox_id bigint,
    CONSTRAINT user_write_v1_is_a_contract CHECK (false) NO INHERIT
);
COMMENT ON TABLE accounts.user_write_v1 IS
    'Contract: user_detail_v1 after a write, the logical keys that the write touched, and its '
    'outbox row (NULL if nothing changed).';

-- +goose StatementBegin
CREATE FUNCTION accounts.lock_user_v1(
    p_user_id uuid
)
RETURNS accounts.users
LANGUAGE plpgsql
VOLATILE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_user accounts.users;
BEGIN
    SELECT u.*
      INTO v_user
      FROM accounts.users AS u
     WHERE u.id = p_user_id
       FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING
            ERRCODE = 'UA001',
            MESSAGE = 'user not found',
            DETAIL = jsonb_build_object('entity', 'User', 'id', p_user_id)::text;
    END IF;
    RETURN v_user;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION accounts.lock_user_v1(uuid) IS
    'Internal: locks the user FOR NO KEY UPDATE until the end of the transaction, as every writer '
    'of a user, its contacts or its memberships does first, and returns it. UA001 if there is '
    'none.';

-- +goose StatementBegin
CREATE FUNCTION accounts.raise_user_version_v1(
    p_user_id uuid
)
RETURNS void
LANGUAGE plpgsql
VOLATILE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE accounts.users AS u
       SET version = u.version + 1,
           -- A clock that was set back must not set updated_at back.
           updated_at = greatest(clock_timestamp(), u.updated_at + interval '1 microsecond')
     WHERE u.id = p_user_id;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION accounts.raise_user_version_v1(uuid) IS
    'Internal: raises version by one and updated_at to now, for a change outside the row itself. '
    'The caller holds the lock of lock_user_v1.';

-- +goose StatementBegin
CREATE FUNCTION accounts.create_user_v1(
    p_is_active boolean,
    p_profile jsonb,
    p_contact_types text[],
    p_contact_values text[],
    p_contact_normalized text[],
    p_group_keys text[]
)
RETURNS SETOF accounts.user_write_v1
LANGUAGE plpgsql
VOLATILE ROWS 1
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_user_id uuid;
    v_errors jsonb;
    v_inserted integer[];
    v_touched text[];
    v_outbox_id bigint;
BEGIN
    PERFORM accounts.check_limit_v1('active_contacts', 100, cardinality(p_contact_types));
    -- The types must not change until the commit; update_contact_type_v1 locks its row FOR UPDATE.
    PERFORM
       FROM accounts.contact_types AS t
      WHERE t.name = ANY (p_contact_types)
      ORDER BY t.id
        FOR KEY SHARE;

    SELECT jsonb_agg(jsonb_build_object('field', e.field, 'code', 'unknown') ORDER BY e.field)
      INTO v_errors
      FROM (SELECT format('contacts[%s].type', i.ordinality - 1)
              FROM unnest(p_contact_types) WITH ORDINALITY AS i (name, ordinality)
             WHERE NOT EXISTS (SELECT FROM accounts.contact_types AS t WHERE t.name = i.name)
             UNION ALL
            SELECT format('groups[%s]', i.ordinality - 1)
              FROM unnest(p_group_keys) WITH ORDINALITY AS i (key, ordinality)
             WHERE NOT EXISTS (SELECT FROM accounts.user_groups AS g WHERE g.name_key = i.key)
           ) AS e (field);
    IF v_errors IS NOT NULL THEN
        RAISE EXCEPTION USING
            ERRCODE = 'UA002',
            MESSAGE = 'unknown names',
            DETAIL = jsonb_build_object('errors', v_errors)::text;
    END IF;

    SELECT jsonb_agg(jsonb_build_object('field', format('contacts[%s].type', s.ordinality - 1),
                                        'code', 'second_of_type') ORDER BY s.ordinality)
      INTO v_errors
      FROM (SELECT i.ordinality,
                   row_number() OVER (PARTITION BY t.id ORDER BY i.ordinality) AS nth
              FROM unnest(p_contact_types) WITH ORDINALITY AS i (name, ordinality)
              JOIN accounts.contact_types AS t ON t.name = i.name
             WHERE t.single) AS s
     WHERE s.nth > 1;
    IF v_errors IS NOT NULL THEN
        RAISE EXCEPTION USING
            ERRCODE = 'unique_violation',
            MESSAGE = 'a user has one active contact of this type',
            DETAIL = jsonb_build_object('errors', v_errors)::text,
            SCHEMA = 'accounts', TABLE = 'user_contacts',
            CONSTRAINT = 'user_contacts_single_active_key';
    END IF;

    INSERT INTO accounts.users (is_active, profile)
    VALUES (p_is_active, p_profile)
    RETURNING id INTO v_user_id;

    -- In key order, so that two callers with the same contacts wait for, but never deadlock, each
    -- other. DO NOTHING, so that we know which one was taken and PostgreSQL logs no value.
    WITH inserted AS (
        INSERT INTO accounts.user_contacts
               (user_id, contact_type_id, value, normalized, single)
        SELECT v_user_id, t.id, i.value, i.normalized, t.single
          FROM unnest(p_contact_types, p_contact_values, p_contact_normalized)
               AS i (type, value, normalized)
          JOIN accounts.contact_types AS t ON t.name = i.type
         ORDER BY t.id, i.normalized COLLATE "C"
            ON CONFLICT DO NOTHING
        RETURNING contact_type_id, normalized, id
    ), numbered AS (
        SELECT n.id, n.contact_type_id, n.normalized,
               (SELECT min(i.ordinality)
                  FROM unnest(p_contact_types, p_contact_normalized)
                       WITH ORDINALITY AS i (type, normalized, ordinality)
                  JOIN accounts.contact_types AS t ON t.name = i.type
                 WHERE t.id = n.contact_type_id
                   AND i.normalized = n.normalized)::integer AS ordinality
          FROM inserted AS n
    )
    SELECT coalesce(array_agg(n.ordinality), '{}'),
           coalesce(array_agg('c:' || n.id ORDER BY n.id), '{}')
               || coalesce(array_agg('i:' || t.name || ':' || n.normalized ORDER BY n.id)
                               FILTER (WHERE t.name IN ('phone', 'email', 'second_login')), '{}')
      INTO v_inserted, v_touched
      FROM numbered AS n
      JOIN accounts.contact_types AS t ON t.id = n.contact_type_id;
    IF cardinality(v_inserted) < cardinality(p_contact_types) THEN
        SELECT jsonb_agg(jsonb_build_object('field', format('contacts[%s].value', i.n - 1),
                                            'code', 'taken') ORDER BY i.n)
          INTO v_errors
          FROM generate_series(1, cardinality(p_contact_types)) AS i (n)
         WHERE i.n <> ALL (v_inserted);
        RAISE EXCEPTION USING
            ERRCODE = 'unique_violation',
            MESSAGE = 'the value belongs to another active contact',
            DETAIL = jsonb_build_object('errors', v_errors)::text,
            SCHEMA = 'accounts', TABLE = 'user_contacts',
            CONSTRAINT = 'user_contacts_active_normalized_key';
    END IF;

    INSERT INTO accounts.user_group_memberships (user_id, group_id)
    SELECT v_user_id, g.id
      FROM accounts.user_groups AS g
     WHERE g.name_key = ANY (p_group_keys)
     ORDER BY g.id;

    v_touched := ARRAY['u:' || v_user_id] || v_touched;
    v_outbox_id := accounts.record_change_v1(v_touched, '{}');
    RETURN QUERY
    SELECT d.*, v_touched, v_outbox_id
      FROM accounts.get_user_detail_v1(v_user_id) AS d;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION accounts.create_user_v1(boolean, jsonb, text[], text[], text[], text[]) IS
    'Creates a user with contacts (type name, value, canonical value: three arrays of one length) '
    'and groups (by name_key), all or nothing, and returns it. UA002 for unknown types and groups, '
    'UA004 for more than 100 contacts (limit active_contacts), 23505 '
    'user_contacts_single_active_key for a second contact of a single type, 23505 '
    'user_contacts_active_normalized_key for values that are taken, each naming all fields; '
    'CHECKs for the form. Locks the types against change, and the contacts'' unique keys in key '
    'order. Not idempotent: a repetition with contacts is refused, one without creates another '
    'user.';
GRANT EXECUTE ON FUNCTION accounts.create_user_v1(boolean, jsonb, text[], text[], text[], text[])
    TO accounts_write;

-- +goose StatementBegin
CREATE FUNCTION accounts.update_user_v1(
    p_user_id uuid,
    p_profile_patch jsonb,
    p_is_active boolean,
    p_expected_versions bigint[]
)
RETURNS SETOF accounts.user_write_v1
LANGUAGE plpgsql
VOLATILE ROWS 1
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_user accounts.users := accounts.lock_user_v1(p_user_id);
    v_profile jsonb;
    v_is_active boolean;
    v_touched text[] := '{}';
    v_outbox_id bigint;
BEGIN
    PERFORM accounts.require_version_v1(v_user.version, p_expected_versions);

    -- The result has every member of the patch that is not null, so what is too large can be refused
    -- before it is merged. The first limit bounds the members that are null.
    IF pg_column_size(p_profile_patch) > 131072
        OR octet_length(jsonb_strip_nulls(p_profile_patch)::text) > 16384
    THEN
        RAISE EXCEPTION USING
            ERRCODE = 'check_violation',
            MESSAGE = 'the merge patch is larger than any that fits',
            SCHEMA = 'accounts', TABLE = 'users', CONSTRAINT = 'users_profile_size';
    END IF;
    v_is_active := coalesce(p_is_active, v_user.is_active);
    v_profile := CASE WHEN p_profile_patch IS NULL THEN v_user.profile
                      ELSE accounts.merge_patch_v1(v_user.profile, p_profile_patch) END;
    IF (v_profile, v_is_active) IS DISTINCT FROM (v_user.profile, v_user.is_active) THEN
        UPDATE accounts.users AS u
           SET profile = v_profile,
               is_active = v_is_active,
               version = u.version + 1,
               updated_at = greatest(clock_timestamp(), u.updated_at + interval '1 microsecond')
         WHERE u.id = p_user_id;

        v_touched := ARRAY['u:' || p_user_id];
        IF v_is_active <> v_user.is_active THEN
            -- Only active users are found by identifier: the answer for each of them changes.
            v_touched := v_touched || (
                SELECT coalesce(array_agg('i:' || i.name ORDER BY i.name), '{}')
                  FROM accounts.get_user_detail_v1(p_user_id) AS d
                 CROSS JOIN LATERAL unnest(d.identifiers) AS i (name));
        END IF;
        v_outbox_id := accounts.record_change_v1(v_touched, '{}');
    END IF;
    RETURN QUERY
    SELECT d.*, v_touched, v_outbox_id
      FROM accounts.get_user_detail_v1(p_user_id) AS d;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION accounts.update_user_v1(uuid, jsonb, boolean, bigint[]) IS
    'Applies a merge patch (RFC 7396) to the profile and sets is_active; NULL leaves either as it '
    'is. With p_expected_versions not NULL the user must have one of these versions. A patch that '
    'changes nothing raises no version and touches nothing. UA001 no such user, UA003 another '
    'version (DETAIL has the current one), CHECKs for the profile, users_profile_size also for a '
    'patch of more than 128 KiB in binary form, or whose members that are not null are too large. Locks the user. May be repeated unless a version is '
    'expected.';
GRANT EXECUTE ON FUNCTION accounts.update_user_v1(uuid, jsonb, boolean, bigint[])
    TO accounts_write;

-- +goose Down
SET LOCAL lock_timeout = '5s';
DROP FUNCTION accounts.update_user_v1(uuid, jsonb, boolean, bigint[]);
DROP FUNCTION accounts.create_user_v1(boolean, jsonb, text[], text[], text[], text[]);
DROP FUNCTION accounts.raise_user_version_v1(uuid);
DROP FUNCTION accounts.lock_user_v1(uuid);
DROP TABLE accounts.user_write_v1;
