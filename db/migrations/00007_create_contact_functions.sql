-- Contacts of users.

-- +goose Up
SET LOCAL lock_timeout = '5s';

CREATE TABLE accounts.contact_v1 (
    id uuid NOT NULL,
    user_id uuid NOT NULL,
    type text NOT NULL,
    value text NOT NULL,
    is_active boolean NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    deactivated_at timestamptz,
    CONSTRAINT contact_v1_is_a_contract CHECK (false) NO INHERIT
);
COMMENT ON TABLE accounts.contact_v1 IS 'Contract: a contact; type is the name of its type.';

CREATE TABLE accounts.contact_write_v1 (
    id uuid NOT NULL,
    user_id uuid NOT NULL,
    type text NOT NULL,
    value text NOT NULL,
    is_active boolean NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    deactivated_at timestamptz,
    touched text[] NOT NULL,
    outbox_id bigint,
    CONSTRAINT contact_write_v1_is_a_contract CHECK (false) NO INHERIT
);
COMMENT ON TABLE accounts.contact_write_v1 IS
    'Contract: contact_v1 after a write, the logical keys that the write touched, and its outbox '
    'row (NULL if nothing changed).';

-- +goose StatementBegin
CREATE FUNCTION accounts.get_contact_v1(
    p_contact_id uuid
)
RETURNS SETOF accounts.contact_v1
LANGUAGE plpgsql
STABLE PARALLEL SAFE ROWS 1
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
    SELECT c.id, c.user_id, t.name, c.value, c.is_active, c.created_at, c.updated_at,
           c.deactivated_at
      FROM accounts.user_contacts AS c
      JOIN accounts.contact_types AS t ON t.id = c.contact_type_id
     WHERE c.id = p_contact_id;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION accounts.get_contact_v1(uuid) IS
    'The contact with this id, active or not. A miss is zero rows. No errors, no locks.';
GRANT EXECUTE ON FUNCTION accounts.get_contact_v1(uuid) TO accounts_read, accounts_write;

-- +goose StatementBegin
CREATE FUNCTION accounts.list_user_contacts_v1(
    p_user_id uuid,
    p_include_inactive boolean
)
RETURNS SETOF accounts.contact_v1
LANGUAGE plpgsql
STABLE PARALLEL SAFE ROWS 5
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- allow list-limit: the rows are the contacts of one user
    RETURN QUERY
    SELECT c.id, c.user_id, t.name, c.value, c.is_active, c.created_at, c.updated_at,
           c.deactivated_at
      FROM accounts.user_contacts AS c
      JOIN accounts.contact_types AS t ON t.id = c.contact_type_id
     WHERE c.user_id = p_user_id
       AND (c.is_active OR p_include_inactive)
     ORDER BY t.name, c.created_at, c.id;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION accounts.list_user_contacts_v1(uuid, boolean) IS
    'The contacts of a user by type, then creation; with p_include_inactive the history too. Zero '
    'rows for a user without contacts and for no such user. No errors, no locks.';
GRANT EXECUTE ON FUNCTION accounts.list_user_contacts_v1(uuid, boolean)
    TO accounts_read, accounts_write;

-- +goose StatementBegin
CREATE FUNCTION accounts.lock_contact_v1(
    p_contact_id uuid
)
RETURNS accounts.user_contacts
LANGUAGE plpgsql
VOLATILE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_contact accounts.user_contacts;
    v_user_id uuid := (SELECT c.user_id FROM accounts.user_contacts AS c WHERE c.id = p_contact_id);
BEGIN
    IF v_user_id IS NULL THEN
        RAISE EXCEPTION USING
            ERRCODE = 'UA001',
            MESSAGE = 'contact not found',
            DETAIL = jsonb_build_object('entity', 'Contact', 'id', p_contact_id)::text;
    END IF;
    -- The user first, as everywhere; a contact never moves to another user, but it may have changed
    -- while we waited, so it is read after that.
    PERFORM accounts.lock_user_v1(v_user_id);
    SELECT c.* INTO v_contact FROM accounts.user_contacts AS c WHERE c.id = p_contact_id;
    RETURN v_contact;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION accounts.lock_contact_v1(uuid) IS
    'Internal: locks the user of the contact and returns the contact as it then is. UA001 if '
    'there is none.';

-- +goose StatementBegin
CREATE FUNCTION accounts.make_room_for_contact_v1(
    p_user_id uuid,
    p_type accounts.contact_types,
    p_normalized text,
    p_contact_id uuid
)
RETURNS text[]
LANGUAGE plpgsql
VOLATILE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_touched text[] := '{}';
    v_active bigint;
    v_all bigint;
BEGIN
    IF p_type.on_second = 'replace' THEN
        WITH replaced AS (
            UPDATE accounts.user_contacts AS c
               SET is_active = false,
                   updated_at = greatest(
                       clock_timestamp(), c.updated_at + interval '1 microsecond'),
                   deactivated_at = clock_timestamp()
             WHERE c.user_id = p_user_id
               AND c.contact_type_id = p_type.id
               AND c.is_active
               AND c.id IS DISTINCT FROM p_contact_id
            RETURNING c.id, c.normalized
        )
        SELECT coalesce(array_agg('c:' || r.id), '{}')
                   || accounts.identifier_keys_v1(
                          p_type.name,
                          array_agg(r.normalized) FILTER (WHERE r.normalized <> p_normalized))
          INTO v_touched
          FROM replaced AS r;
    ELSIF p_type.single
        AND EXISTS (SELECT
                      FROM accounts.user_contacts AS c
                     WHERE c.user_id = p_user_id
                       AND c.contact_type_id = p_type.id
                       AND c.is_active
                       AND c.id IS DISTINCT FROM p_contact_id) THEN
        RAISE EXCEPTION USING
            ERRCODE = 'unique_violation',
            MESSAGE = 'a user has one active contact of this type',
            DETAIL = '{"errors": [{"field": "type", "code": "second_of_type"}]}',
            SCHEMA = 'accounts', TABLE = 'user_contacts',
            CONSTRAINT = 'user_contacts_single_active_key';
    END IF;

    -- The unique index decides; asking first keeps the value out of PostgreSQL's own error.
    IF EXISTS (SELECT
                 FROM accounts.user_contacts AS c
                WHERE c.contact_type_id = p_type.id
                  AND c.normalized = p_normalized
                  AND c.is_active
                  AND c.id IS DISTINCT FROM p_contact_id) THEN
        RAISE EXCEPTION USING
            ERRCODE = 'unique_violation',
            MESSAGE = 'the value belongs to another active contact',
            DETAIL = '{"errors": [{"field": "value", "code": "taken"}]}',
            SCHEMA = 'accounts', TABLE = 'user_contacts',
            CONSTRAINT = 'user_contacts_active_normalized_key';
    END IF;

    -- After a replacement, which frees the place that the new contact takes.
    SELECT count(*) FILTER (WHERE c.is_active AND c.id IS DISTINCT FROM p_contact_id) + 1,
           count(*) FILTER (WHERE c.id IS DISTINCT FROM p_contact_id) + 1
      INTO v_active, v_all
      FROM accounts.user_contacts AS c
     WHERE c.user_id = p_user_id;
    PERFORM accounts.check_limit_v1('active_contacts', 100, v_active);
    PERFORM accounts.check_limit_v1('contacts', 1000, v_all);
    RETURN v_touched;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION accounts.make_room_for_contact_v1(uuid, accounts.contact_types, text, uuid) IS
    'Internal: prepares a user whose lock is held for one more active contact (p_contact_id if it '
    'exists already) as on_second of the type decides, and returns the logical keys of what it '
    'deactivated. 23505 user_contacts_single_active_key or user_contacts_active_normalized_key, '
    'UA004 if the user would have more than 100 active contacts (limit active_contacts) or more '
    'than 1,000 with the deactivated ones (limit contacts).';

-- +goose StatementBegin
CREATE FUNCTION accounts.identifier_keys_v1(
    p_type_name text,
    p_normalized text[]
)
RETURNS text[]
LANGUAGE plpgsql
IMMUTABLE PARALLEL SAFE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF p_type_name NOT IN ('phone', 'email', 'second_login') THEN
        RETURN '{}';
    END IF;
    RETURN (SELECT coalesce(array_agg('i:' || p_type_name || ':' || n.value), '{}')
              FROM unnest(p_normalized) AS n (value));
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION accounts.identifier_keys_v1(text, text[]) IS
    'Internal: the logical keys i:<kind>:<canonical> of these values, none for a type that is no '
    'identifier.';

-- +goose StatementBegin
CREATE FUNCTION accounts.add_contact_v1(
    p_user_id uuid,
    p_type text,
    p_value text,
    p_normalized text
)
RETURNS SETOF accounts.contact_write_v1
LANGUAGE plpgsql
VOLATILE ROWS 1
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_type accounts.contact_types;
    v_contact_id uuid;
    v_touched text[];
    v_outbox_id bigint;
BEGIN
    PERFORM accounts.lock_user_v1(p_user_id);
    -- on_second must not change until the commit; update_contact_type_v1 locks its row FOR UPDATE.
    SELECT t.* INTO v_type FROM accounts.contact_types AS t WHERE t.name = p_type FOR KEY SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING
            ERRCODE = 'UA002',
            MESSAGE = 'unknown names',
            DETAIL = '{"errors": [{"field": "type", "code": "unknown"}]}';
    END IF;

    v_touched := accounts.make_room_for_contact_v1(p_user_id, v_type, p_normalized, NULL);
    INSERT INTO accounts.user_contacts (user_id, contact_type_id, value, normalized, single)
    VALUES (p_user_id, v_type.id, p_value, p_normalized, v_type.single)
    RETURNING id INTO v_contact_id;
    PERFORM accounts.raise_user_version_v1(p_user_id);

    v_touched := ARRAY['u:' || p_user_id, 'c:' || v_contact_id]
        || accounts.identifier_keys_v1(v_type.name, ARRAY[p_normalized]) || v_touched;
    v_outbox_id := accounts.record_change_v1(v_touched, '{}');
    RETURN QUERY
    SELECT c.*, v_touched, v_outbox_id
      FROM accounts.get_contact_v1(v_contact_id) AS c;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION accounts.add_contact_v1(uuid, text, text, text) IS
    'Adds an active contact to a user. A second active one of a type with on_second = replace '
    'deactivates the first in the same call; with reject it is 23505 '
    'user_contacts_single_active_key. 23505 user_contacts_active_normalized_key for a value that '
    'another active contact has, UA001 no such user, UA002 no such type, UA004 too many contacts '
    '(limits active_contacts, contacts), CHECKs for the form. Locks the user. A repetition replaces '
    'again or is refused.';
GRANT EXECUTE ON FUNCTION accounts.add_contact_v1(uuid, text, text, text) TO accounts_write;

-- +goose StatementBegin
CREATE FUNCTION accounts.update_contact_v1(
    p_contact_id uuid,
    p_value text,
    p_normalized text,
    p_is_active boolean,
    p_expected_versions bigint[]
)
RETURNS SETOF accounts.contact_write_v1
LANGUAGE plpgsql
VOLATILE ROWS 1
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_old accounts.user_contacts := accounts.lock_contact_v1(p_contact_id);
    v_type accounts.contact_types;
    v_value text := coalesce(p_value, v_old.value);
    v_normalized text := coalesce(p_normalized, v_old.normalized);
    v_is_active boolean := coalesce(p_is_active, v_old.is_active);
    v_touched text[] := '{}';
    v_outbox_id bigint;
BEGIN
    PERFORM accounts.require_unchanged_v1(v_old.updated_at, p_expected_versions);
    IF (v_value, v_normalized, v_is_active)
        IS DISTINCT FROM (v_old.value, v_old.normalized, v_old.is_active)
    THEN
        IF NOT v_old.is_active AND NOT v_is_active THEN
            RAISE EXCEPTION USING
                ERRCODE = 'UA002',
                MESSAGE = 'a deactivated contact is history',
                DETAIL = '{"errors": [{"field": "value", "code": "deactivated"}]}';
        END IF;
        SELECT t.*
          INTO v_type
          FROM accounts.contact_types AS t
         WHERE t.id = v_old.contact_type_id
           FOR KEY SHARE;
        IF v_is_active THEN
            v_touched := accounts.make_room_for_contact_v1(
                v_old.user_id, v_type, v_normalized, p_contact_id);
        END IF;
        UPDATE accounts.user_contacts AS c
           SET value = v_value,
               normalized = v_normalized,
               is_active = v_is_active,
               updated_at = greatest(clock_timestamp(), c.updated_at + interval '1 microsecond'),
               deactivated_at = CASE WHEN NOT v_is_active THEN clock_timestamp() END
         WHERE c.id = p_contact_id;
        PERFORM accounts.raise_user_version_v1(v_old.user_id);

        v_touched := ARRAY['u:' || v_old.user_id, 'c:' || p_contact_id]
            -- What named the user before or names it now, but not both.
            || accounts.identifier_keys_v1(v_type.name, ARRAY(
                   SELECT i.normalized
                     FROM (VALUES (v_old.normalized, v_old.is_active), (v_normalized, v_is_active))
                          AS i (normalized, is_active)
                    WHERE i.is_active
                    GROUP BY i.normalized
                   HAVING count(*) = 1))
            || v_touched;
        v_outbox_id := accounts.record_change_v1(v_touched, '{}');
    END IF;
    RETURN QUERY
    SELECT c.*, v_touched, v_outbox_id
      FROM accounts.get_contact_v1(p_contact_id) AS c;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION accounts.update_contact_v1(uuid, text, text, boolean, bigint[]) IS
    'Changes the value of an active contact (p_value together with p_normalized), deactivates or '
    'reactivates it; NULL leaves a part as it is. A reactivation obeys on_second like '
    'add_contact_v1. With p_expected_versions not NULL the contact must have one of these versions '
    '(updated_at in microseconds). A call that changes nothing touches nothing. UA001 no such '
    'contact, UA002 a new value for a deactivated contact, UA003 another version (DETAIL has the '
    'current one), UA004 and 23505 as in add_contact_v1, CHECKs for the form. Locks the user. May be '
    'repeated unless a version is expected.';
GRANT EXECUTE ON FUNCTION accounts.update_contact_v1(uuid, text, text, boolean, bigint[])
    TO accounts_write;

-- +goose StatementBegin
CREATE FUNCTION accounts.deactivate_contact_v1(
    p_contact_id uuid,
    p_expected_versions bigint[]
)
RETURNS SETOF accounts.contact_write_v1
LANGUAGE plpgsql
VOLATILE ROWS 1
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
    SELECT c.*
      FROM accounts.update_contact_v1(p_contact_id, NULL, NULL, false, p_expected_versions) AS c;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION accounts.deactivate_contact_v1(uuid, bigint[]) IS
    'Deactivates a contact: it stays as history and its value is free again. One that is '
    'deactivated already stays as it is and touches nothing. With p_expected_versions not NULL the '
    'contact must have one of these versions. UA001 no such contact, UA003 another version (DETAIL '
    'has the current one). Locks the user. May be repeated unless a version is expected.';
GRANT EXECUTE ON FUNCTION accounts.deactivate_contact_v1(uuid, bigint[]) TO accounts_write;

-- +goose Down
SET LOCAL lock_timeout = '5s';
DROP FUNCTION accounts.deactivate_contact_v1(uuid, bigint[]);
DROP FUNCTION accounts.update_contact_v1(uuid, text, text, boolean, bigint[]);
DROP FUNCTION accounts.add_contact_v1(uuid, text, text, text);
DROP FUNCTION accounts.identifier_keys_v1(text, text[]);
DROP FUNCTION accounts.make_room_for_contact_v1(uuid, accounts.contact_types, text, uuid);
DROP FUNCTION accounts.lock_contact_v1(uuid);
DROP FUNCTION accounts.list_user_contacts_v1(uuid, boolean);
DROP FUNCTION accounts.get_contact_v1(uuid);
DROP TABLE accounts.contact_write_v1;
DROP TABLE accounts.contact_v1;
