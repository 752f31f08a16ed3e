-- The two dictionaries: contact types and user groups.

-- +goose Up
SET LOCAL lock_timeout = '5s';

CREATE TABLE accounts.contact_type_v1 (
    id uuid NOT NULL,
    name text NOT NULL,
    on_second text NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    CONSTRAINT contact_type_v1_is_a_contract CHECK (false) NO INHERIT
);
COMMENT ON TABLE accounts.contact_type_v1 IS 'Contract: a contact type.';

CREATE TABLE accounts.contact_type_write_v1 (
    id uuid NOT NULL,
    name text NOT NULL,
    on_second text NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    touched text[] NOT NULL,
    outbox_id bigint,
    CONSTRAINT contact_type_write_v1_is_a_contract CHECK (false) NO INHERIT
);
COMMENT ON TABLE accounts.contact_type_write_v1 IS
    'Contract: contact_type_v1 after a write, the logical keys that the write touched, and its '
    'outbox row (NULL if nothing changed).';

CREATE TABLE accounts.user_group_v1 (
    id uuid NOT NULL,
    name text NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    CONSTRAINT user_group_v1_is_a_contract CHECK (false) NO INHERIT
);
COMMENT ON TABLE accounts.user_group_v1 IS 'Contract: a user group.';

CREATE TABLE accounts.user_group_write_v1 (
    id uuid NOT NULL,
    name text NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    touched text[] NOT NULL,
    outbox_id bigint,
    CONSTRAINT user_group_write_v1_is_a_contract CHECK (false) NO INHERIT
);
COMMENT ON TABLE accounts.user_group_write_v1 IS
    'Contract: user_group_v1 after a write, the logical keys that the write touched, and its '
    'outbox row (NULL if nothing changed).';

-- +goose StatementBegin
CREATE FUNCTION accounts.list_contact_types_v1()
RETURNS SETOF accounts.contact_type_v1
LANGUAGE plpgsql
STABLE PARALLEL SAFE ROWS 10
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
    SELECT t.id, t.name, t.on_second, t.created_at, t.updated_at
      FROM accounts.contact_types AS t
     ORDER BY t.name;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION accounts.list_contact_types_v1() IS
    'All contact types by name. No errors, no locks.';
GRANT EXECUTE ON FUNCTION accounts.list_contact_types_v1() TO accounts_read, accounts_write;

-- +goose StatementBegin
CREATE FUNCTION accounts.list_user_groups_v1()
RETURNS SETOF accounts.user_group_v1
LANGUAGE plpgsql
STABLE PARALLEL SAFE ROWS 100
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
    SELECT g.id, g.name, g.created_at, g.updated_at
      FROM accounts.user_groups AS g
     ORDER BY g.name;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION accounts.list_user_groups_v1() IS
    'All user groups by name. No errors, no locks.';
GRANT EXECUTE ON FUNCTION accounts.list_user_groups_v1() TO accounts_read, accounts_write;

-- +goose StatementBegin
CREATE FUNCTION accounts.create_contact_type_v1(
    p_name text,
    p_on_second text
)
RETURNS SETOF accounts.contact_type_write_v1
LANGUAGE plpgsql
VOLATILE ROWS 1
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_type accounts.contact_types;
    v_touched text[] := ARRAY['d:contact_types'];
BEGIN
    PERFORM accounts.take_named_lock_v1('contact_types');
    PERFORM accounts.check_limit_v1(
        'contact_types', 100, (SELECT count(*) + 1 FROM accounts.contact_types));
    INSERT INTO accounts.contact_types (name, on_second)
    VALUES (p_name, p_on_second)
    RETURNING * INTO v_type;
    RETURN QUERY
    SELECT v_type.id, v_type.name, v_type.on_second, v_type.created_at, v_type.updated_at,
           v_touched, accounts.record_change_v1(v_touched, '{}');
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION accounts.create_contact_type_v1(text, text) IS
    'Creates a contact type. UA004 if there are 100 (limit contact_types), 23505 '
    'contact_types_name_key; CHECKs contact_types_name_form, contact_types_on_second_known. One '
    'transaction at a time creates contact types. A repetition is refused.';
GRANT EXECUTE ON FUNCTION accounts.create_contact_type_v1(text, text) TO accounts_write;

-- +goose StatementBegin
CREATE FUNCTION accounts.update_contact_type_v1(
    p_contact_type_id uuid,
    p_name text,
    p_on_second text,
    p_expected_versions bigint[]
)
RETURNS SETOF accounts.contact_type_write_v1
LANGUAGE plpgsql
VOLATILE ROWS 1
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_old accounts.contact_types;
    v_new accounts.contact_types;
    v_keys text[] := '{}';
    v_deps text[] := '{}';
    v_outbox_id bigint;
BEGIN
    SELECT t.*
      INTO v_old
      FROM accounts.contact_types AS t
     WHERE t.id = p_contact_type_id
       FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING
            ERRCODE = 'UA001',
            MESSAGE = 'contact type not found',
            DETAIL = jsonb_build_object('entity', 'ContactType', 'id', p_contact_type_id)::text;
    END IF;
    PERFORM accounts.require_unchanged_v1(v_old.updated_at, p_expected_versions);

    v_new := v_old;
    v_new.name := coalesce(p_name, v_old.name);
    v_new.on_second := coalesce(p_on_second, v_old.on_second);
    IF (v_new.name, v_new.on_second) IS DISTINCT FROM (v_old.name, v_old.on_second) THEN
        IF (v_new.on_second <> 'allow') <> v_old.single THEN
            -- The foreign key copies single to all contacts of the type, while new ones wait.
            PERFORM accounts.check_limit_v1(
                'contacts_of_type', 2000,
                (SELECT count(*)
                   FROM (SELECT
                           FROM accounts.user_contacts AS c
                          WHERE c.contact_type_id = p_contact_type_id
                          LIMIT 2001) AS l));
        END IF;
        UPDATE accounts.contact_types AS t
           SET name = v_new.name,
               on_second = v_new.on_second,
               updated_at = greatest(clock_timestamp(), t.updated_at + interval '1 microsecond')
         WHERE t.id = p_contact_type_id
        RETURNING t.* INTO v_new;
        v_keys := ARRAY['d:contact_types'];
        IF v_new.name <> v_old.name THEN
            v_deps := ARRAY['t:' || p_contact_type_id];
        END IF;
        v_outbox_id := accounts.record_change_v1(v_keys, v_deps);
    END IF;
    RETURN QUERY
    SELECT v_new.id, v_new.name, v_new.on_second, v_new.created_at, v_new.updated_at,
           v_keys || v_deps, v_outbox_id;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION accounts.update_contact_type_v1(uuid, text, text, bigint[]) IS
    'Renames a contact type or changes on_second; NULL leaves a part as it is. From allow to '
    'another on_second it is 23505 user_contacts_single_active_key while a user has two active '
    'contacts of the type. A change from or to allow rewrites all contacts of the type: UA004 if '
    'there are more than 2,000, deactivated ones included (limit contacts_of_type). With p_expected_versions not NULL the type must have one of these versions '
    '(updated_at in microseconds). UA001, UA003 another version (DETAIL has the current one), '
    '23505 contact_types_name_key; CHECKs, contact_types_identifier_name_fixed among them. Locks '
    'the type against new contacts. May be repeated unless a version is expected.';
GRANT EXECUTE ON FUNCTION accounts.update_contact_type_v1(uuid, text, text, bigint[])
    TO accounts_write;

-- +goose StatementBegin
CREATE FUNCTION accounts.create_user_group_v1(
    p_name text,
    p_name_key text
)
RETURNS SETOF accounts.user_group_write_v1
LANGUAGE plpgsql
VOLATILE ROWS 1
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_group accounts.user_groups;
    v_touched text[] := ARRAY['d:user_groups'];
BEGIN
    PERFORM accounts.take_named_lock_v1('user_groups');
    PERFORM accounts.check_limit_v1(
        'user_groups', 1000, (SELECT count(*) + 1 FROM accounts.user_groups));
    INSERT INTO accounts.user_groups (name, name_key)
    VALUES (p_name, p_name_key)
    RETURNING * INTO v_group;
    RETURN QUERY
    SELECT v_group.id, v_group.name, v_group.created_at, v_group.updated_at,
           v_touched, accounts.record_change_v1(v_touched, '{}');
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION accounts.create_user_group_v1(text, text) IS
    'Creates a user group with a name in canonical form; p_name_key is the name without regard to '
    'case (in psql lower(p_name) for ASCII and Russian). UA004 if there are 1,000 (limit '
    'user_groups), 23505 user_groups_name_key; CHECKs user_groups_name_form, '
    'user_groups_name_key_agrees. One transaction at a time creates groups. A repetition is refused.';
GRANT EXECUTE ON FUNCTION accounts.create_user_group_v1(text, text) TO accounts_write;

-- +goose StatementBegin
CREATE FUNCTION accounts.update_user_group_v1(
    p_group_id uuid,
    p_name text,
    p_name_key text,
    p_expected_versions bigint[]
)
RETURNS SETOF accounts.user_group_write_v1
LANGUAGE plpgsql
VOLATILE ROWS 1
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_group accounts.user_groups;
    v_keys text[] := '{}';
    v_deps text[] := '{}';
    v_outbox_id bigint;
BEGIN
    SELECT g.*
      INTO v_group
      FROM accounts.user_groups AS g
     WHERE g.id = p_group_id
       FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING
            ERRCODE = 'UA001',
            MESSAGE = 'group not found',
            DETAIL = jsonb_build_object('entity', 'Group', 'id', p_group_id)::text;
    END IF;
    PERFORM accounts.require_unchanged_v1(v_group.updated_at, p_expected_versions);

    IF p_name <> v_group.name THEN
        UPDATE accounts.user_groups AS g
           SET name = p_name,
               name_key = p_name_key,
               updated_at = greatest(clock_timestamp(), g.updated_at + interval '1 microsecond')
         WHERE g.id = p_group_id
        RETURNING g.* INTO v_group;
        v_keys := ARRAY['d:user_groups'];
        v_deps := ARRAY['g:' || p_group_id];
        v_outbox_id := accounts.record_change_v1(v_keys, v_deps);
    END IF;
    RETURN QUERY
    SELECT v_group.id, v_group.name, v_group.created_at, v_group.updated_at,
           v_keys || v_deps, v_outbox_id;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION accounts.update_user_group_v1(uuid, text, text, bigint[]) IS
    'Renames a user group; p_name and p_name_key are as in create_user_group_v1, both NULL or the '
    'same name changes and touches nothing. Its members see the new name without a new version of '
    'their own. With p_expected_versions not NULL the group must have one of these versions '
    '(updated_at in microseconds). UA001, UA003 another version (DETAIL has the current one), 23505 '
    'user_groups_name_key; CHECKs user_groups_name_form, user_groups_name_key_agrees. Locks the '
    'group. May be repeated unless a version is expected.';
GRANT EXECUTE ON FUNCTION accounts.update_user_group_v1(uuid, text, text, bigint[])
    TO accounts_write;

-- +goose Down
SET LOCAL lock_timeout = '5s';
DROP FUNCTION accounts.update_user_group_v1(uuid, text, text, bigint[]);
DROP FUNCTION accounts.create_user_group_v1(text, text);
DROP FUNCTION accounts.update_contact_type_v1(uuid, text, text, bigint[]);
DROP FUNCTION accounts.create_contact_type_v1(text, text);
DROP FUNCTION accounts.list_user_groups_v1();
DROP FUNCTION accounts.list_contact_types_v1();
DROP TABLE accounts.user_group_write_v1;
DROP TABLE accounts.user_group_v1;
DROP TABLE accounts.contact_type_write_v1;
DROP TABLE accounts.contact_type_v1;
