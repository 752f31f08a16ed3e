-- Many users at once, set by set.

-- +goose Up
SET LOCAL lock_timeout = '5s';

CREATE TABLE accounts.bulk_user_result_v1 (
    row_no integer NOT NULL,
    status text NOT NULL,
    code text,
    field text,
    user_id uuid,
    touched text[] NOT NULL,
    outbox_id bigint,
    CONSTRAINT bulk_user_result_v1_is_a_contract CHECK (false) NO INHERIT
);
COMMENT ON TABLE accounts.bulk_user_result_v1 IS
    'Contract: what became of one row of a bulk call: created, exists, merged, conflict or '
    'invalid, why, which user, the logical keys that it touched, and the one outbox row of the '
    'call.';

-- +goose StatementBegin
CREATE FUNCTION accounts.profile_fault_v1(
    p_profile jsonb
)
RETURNS text
LANGUAGE plpgsql
IMMUTABLE PARALLEL SAFE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN CASE
        WHEN p_profile IS NULL OR p_profile = '{}' THEN NULL
        WHEN jsonb_typeof(p_profile) <> 'object' THEN 'not_an_object'
        WHEN octet_length(p_profile::text) > 16384 THEN 'too_large'
        WHEN jsonb_path_exists(
                 p_profile, 'strict $.**{32} ? (@.type() == "object" || @.type() == "array")')
            THEN 'too_deep' END;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION accounts.profile_fault_v1(jsonb) IS
    'Internal: which of the CHECKs of users.profile this profile would violate (not_an_object, '
    'too_large, too_deep), or NULL. A bulk call asks before it writes, so that one bad row is one '
    'bad row.';

CREATE TABLE accounts.group_key_v1 (
    name_key text NOT NULL,
    group_id uuid NOT NULL,
    CONSTRAINT group_key_v1_is_a_contract CHECK (false) NO INHERIT
);
COMMENT ON TABLE accounts.group_key_v1 IS
    'Contract: the name_key of a group, and the group.';

-- +goose StatementBegin
CREATE FUNCTION accounts.match_group_keys_v1(
    p_keys text[]
)
RETURNS SETOF accounts.group_key_v1
LANGUAGE plpgsql
STABLE PARALLEL SAFE ROWS 100
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
    -- allow list-limit: at most one row for each key, and a call has few
    SELECT g.name_key, g.id
      FROM accounts.user_groups AS g
     WHERE g.name_key = ANY (p_keys);
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION accounts.match_group_keys_v1(text[]) IS
    'Internal: one row for each distinct name_key in p_keys that a group has. Bulk calls and imports '
    'match groups here and nowhere else. No errors, no locks.';

-- +goose StatementBegin
CREATE FUNCTION accounts.classify_bulk_rows_v1(
    p_row_nos integer[],
    p_phones_normalized text[],
    p_profiles jsonb[],
    p_group_row_nos integer[],
    p_group_keys text[],
    p_on_conflict text
)
RETURNS SETOF accounts.bulk_user_result_v1
LANGUAGE plpgsql
VOLATILE ROWS 1000
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    c_phone CONSTANT uuid := '00000000-0000-7000-8000-000000000001';
BEGIN
    RETURN QUERY
    WITH unknown_groups AS MATERIALIZED (
        SELECT DISTINCT n.row_no
          FROM unnest(p_group_row_nos, p_group_keys) AS n (row_no, name_key)
          LEFT JOIN accounts.match_group_keys_v1(p_group_keys) AS g ON g.name_key = n.name_key
         WHERE g.name_key IS NULL
    ), input AS (
        SELECT i.row_no, i.profile, c.user_id,
               -- With merge, a user with two phones in the call gets the patch of the first row only.
               row_number() OVER (
                   PARTITION BY coalesce(
                       CASE p_on_conflict WHEN 'merge' THEN c.user_id::text END, i.normalized)
                   ORDER BY i.row_no) AS nth
          FROM unnest(p_row_nos, p_phones_normalized, p_profiles)
               AS i (row_no, normalized, profile)
          LEFT JOIN accounts.user_contacts AS c
            ON c.contact_type_id = c_phone AND c.normalized = i.normalized AND c.is_active
    ), checked AS MATERIALIZED (
        SELECT i.row_no, i.user_id,
               CASE WHEN g.row_no IS NOT NULL THEN 'unknown_group'
                    WHEN f.code IS NOT NULL THEN f.code
                    WHEN i.nth > 1 THEN 'duplicate'
                    WHEN i.user_id IS NOT NULL AND p_on_conflict = 'error' THEN 'taken' END AS code
          FROM input AS i
          LEFT JOIN unknown_groups AS g ON g.row_no = i.row_no
         -- OFFSET 0 keeps the planner from calling the function twice.
         CROSS JOIN LATERAL (SELECT accounts.profile_fault_v1(i.profile) AS code OFFSET 0) AS f
    )
    SELECT c.row_no,
           CASE WHEN c.code IN ('duplicate', 'taken') THEN 'conflict'
                WHEN c.code IS NOT NULL THEN 'invalid'
                WHEN c.user_id IS NOT NULL THEN 'exists'
                ELSE 'created' END,
           c.code,
           CASE WHEN c.code IN ('duplicate', 'taken') THEN 'phone'
                WHEN c.code = 'unknown_group' THEN 'user_groups'
                WHEN c.code IS NOT NULL THEN 'profile' END,
           CASE WHEN c.user_id IS NULL AND c.code IS NULL THEN accounts.generate_uuid_v1()
                ELSE c.user_id END,
           '{}'::text[], NULL::bigint
      FROM checked AS c
     ORDER BY c.row_no;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION accounts.classify_bulk_rows_v1(
    integer[], text[], jsonb[], integer[], text[], text) IS
    'Internal: the result of each row of bulk_create_users_v1 before anything is written. A row to '
    'be created has the id of the new user; with merge, a row of an existing user is exists until '
    'classify_bulk_merges_v1 has compared it with the user. No errors, no locks.';

-- +goose StatementBegin
CREATE FUNCTION accounts.classify_bulk_merges_v1(
    p_results accounts.bulk_user_result_v1[],
    p_row_nos integer[],
    p_profiles jsonb[],
    p_group_row_nos integer[],
    p_group_keys text[]
)
RETURNS SETOF accounts.bulk_user_result_v1
LANGUAGE plpgsql
STABLE ROWS 1000
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
    WITH new_groups AS MATERIALIZED (
        SELECT DISTINCT r.row_no
          FROM unnest(p_results) AS r
          JOIN unnest(p_group_row_nos, p_group_keys) AS n (row_no, name_key) USING (row_no)
          JOIN accounts.match_group_keys_v1(p_group_keys) AS g ON g.name_key = n.name_key
          LEFT JOIN accounts.user_group_memberships AS m
            ON m.user_id = r.user_id AND m.group_id = g.group_id AND m.is_active
         WHERE r.status = 'exists'
           AND m.user_id IS NULL
    ), merges AS MATERIALIZED (
        SELECT r.row_no,
               accounts.profile_fault_v1(p.merged) AS fault,
               p.merged <> u.profile OR n.row_no IS NOT NULL AS changes
          FROM unnest(p_results) AS r
          JOIN unnest(p_row_nos, p_profiles) AS i (row_no, profile) USING (row_no)
          JOIN accounts.users AS u ON u.id = r.user_id
          LEFT JOIN new_groups AS n ON n.row_no = r.row_no
         -- OFFSET 0 keeps the planner from calling the function more than once.
         CROSS JOIN LATERAL (
               SELECT accounts.merge_patch_v1(u.profile, i.profile) AS merged OFFSET 0) AS p
         WHERE r.status = 'exists'
    )
    SELECT r.row_no,
           CASE WHEN m.fault IS NOT NULL THEN 'invalid'
                WHEN m.changes THEN 'merged'
                ELSE r.status END,
           coalesce(m.fault, r.code),
           CASE WHEN m.fault IS NOT NULL THEN 'profile' ELSE r.field END,
           r.user_id, r.touched, r.outbox_id
      FROM unnest(p_results) AS r
      LEFT JOIN merges AS m USING (row_no)
     ORDER BY r.row_no;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION accounts.classify_bulk_merges_v1(
    accounts.bulk_user_result_v1[], integer[], jsonb[], integer[], text[]) IS
    'Internal: the results of classify_bulk_rows_v1 in which each row of an existing user is '
    'merged if its groups or its profile change the user, invalid if the merged profile violates a '
    'CHECK of users.profile, and exists otherwise. No errors, no locks: the caller locks the users '
    'before.';

-- +goose StatementBegin
CREATE FUNCTION accounts.add_bulk_memberships_v1(
    p_results accounts.bulk_user_result_v1[],
    p_group_row_nos integer[],
    p_group_keys text[]
)
RETURNS void
LANGUAGE plpgsql
VOLATILE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO accounts.user_group_memberships AS m (user_id, group_id)
    SELECT DISTINCT r.user_id, g.group_id
      FROM unnest(p_results) AS r
      JOIN unnest(p_group_row_nos, p_group_keys) AS n (row_no, name_key) USING (row_no)
      JOIN accounts.match_group_keys_v1(p_group_keys) AS g ON g.name_key = n.name_key
     WHERE r.status IN ('created', 'merged')
     ORDER BY r.user_id, g.group_id
        ON CONFLICT (user_id, group_id) DO UPDATE
       SET is_active = true,
           updated_at = greatest(clock_timestamp(), m.updated_at + interval '1 microsecond')
     WHERE NOT m.is_active;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION accounts.add_bulk_memberships_v1(
    accounts.bulk_user_result_v1[], integer[], text[]) IS
    'Internal: makes the users of created and merged rows active members of the groups of these '
    'rows. No errors. Locks the memberships in primary-key order.';

-- +goose StatementBegin
CREATE FUNCTION accounts.bulk_create_users_v1(
    p_row_nos integer[],
    p_phones text[],
    p_phones_normalized text[],
    p_profiles jsonb[],
    p_group_row_nos integer[],
    p_group_keys text[],
    p_on_conflict text,
    p_dry_run boolean
)
RETURNS SETOF accounts.bulk_user_result_v1
LANGUAGE plpgsql
VOLATILE ROWS 1000
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    c_phone CONSTANT uuid := '00000000-0000-7000-8000-000000000001';
    v_single boolean := (SELECT t.single FROM accounts.contact_types AS t WHERE t.id = c_phone);
    v_results accounts.bulk_user_result_v1[];
    v_write boolean;
    v_lost bigint;
    v_outbox_id bigint;
BEGIN
    v_results := ARRAY(
        SELECT r
          FROM accounts.classify_bulk_rows_v1(
                   p_row_nos, p_phones_normalized, p_profiles, p_group_row_nos, p_group_keys,
                   p_on_conflict) AS r);
    v_write := NOT p_dry_run
               AND NOT (p_on_conflict = 'error'
                        AND EXISTS (SELECT FROM unnest(v_results) AS r WHERE r.status = 'conflict'));

    IF p_on_conflict = 'merge' THEN
        IF v_write THEN
            PERFORM FROM accounts.users AS u
              WHERE u.id IN (SELECT r.user_id FROM unnest(v_results) AS r WHERE r.status = 'exists')
              ORDER BY u.id
                FOR NO KEY UPDATE;
        END IF;
        -- This is a separate statement, so its snapshot shows the users as they are now, locked.
        v_results := ARRAY(
            SELECT r
              FROM accounts.classify_bulk_merges_v1(
                       v_results, p_row_nos, p_profiles, p_group_row_nos, p_group_keys) AS r);
    END IF;

    IF v_write
        AND EXISTS (SELECT FROM unnest(v_results) AS r WHERE r.status IN ('created', 'merged'))
    THEN
        INSERT INTO accounts.users (id, profile)
        SELECT r.user_id, i.profile
          FROM unnest(v_results) AS r
          JOIN unnest(p_row_nos, p_profiles) AS i (row_no, profile) USING (row_no)
         WHERE r.status = 'created';

        WITH inserted AS (
            INSERT INTO accounts.user_contacts
                   (user_id, contact_type_id, value, normalized, single)
            SELECT r.user_id, c_phone, i.phone, i.normalized, v_single
              FROM unnest(v_results) AS r
              JOIN unnest(p_row_nos, p_phones, p_phones_normalized)
                   AS i (row_no, phone, normalized) USING (row_no)
             WHERE r.status = 'created'
             ORDER BY i.normalized COLLATE "C"
                ON CONFLICT DO NOTHING
            RETURNING id, user_id, normalized
        )
        SELECT array_agg(ROW(r.row_no, r.status, r.code, r.field, r.user_id,
                             CASE r.status
                                 WHEN 'created' THEN ARRAY['u:' || r.user_id, 'c:' || n.id,
                                                           'i:phone:' || n.normalized]
                                 WHEN 'merged' THEN ARRAY['u:' || r.user_id]
                                 ELSE '{}' END,
                             r.outbox_id)::accounts.bulk_user_result_v1 ORDER BY r.row_no),
               count(*) FILTER (WHERE r.status = 'created' AND n.id IS NULL)
          INTO v_results, v_lost
          FROM unnest(v_results) AS r
          LEFT JOIN inserted AS n ON n.user_id = r.user_id AND r.status = 'created';
        IF v_lost > 0 THEN
            -- Another transaction took a phone after this call had looked for it. This is rare, so the
            -- caller repeats the whole call.
            RAISE EXCEPTION USING
                ERRCODE = 'serialization_failure',
                MESSAGE = 'a phone was taken while the call ran';
        END IF;

        UPDATE accounts.users AS u
           SET profile = accounts.merge_patch_v1(u.profile, i.profile),
               version = u.version + 1,
               updated_at = greatest(clock_timestamp(), u.updated_at + interval '1 microsecond')
          FROM unnest(v_results) AS r
          JOIN unnest(p_row_nos, p_profiles) AS i (row_no, profile) USING (row_no)
         WHERE r.status = 'merged'
           AND u.id = r.user_id;

        PERFORM accounts.add_bulk_memberships_v1(v_results, p_group_row_nos, p_group_keys);

        v_outbox_id := accounts.record_change_v1(
            (SELECT array_agg(k.key)
               FROM unnest(v_results) AS r
              CROSS JOIN unnest(r.touched) AS k (key)), '{}');
    END IF;

    RETURN QUERY
    SELECT r.row_no, r.status, r.code, r.field,
           CASE WHEN v_write OR r.status <> 'created' THEN r.user_id END,
           r.touched, v_outbox_id
      FROM unnest(v_results) AS r
     ORDER BY r.row_no;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION accounts.bulk_create_users_v1(
    integer[], text[], text[], jsonb[], integer[], text[], text, boolean) IS
    'Creates a user with a phone, a profile and groups for each row. The first four arrays have one '
    'element for each row, and row numbers are distinct; p_group_row_nos and p_group_keys are '
    'pairs of a row number and the name_key of a group. One call takes one or two thousand rows. '
    'Returns one row per row: created; exists (skip); merged (merge: union of groups, merge patch '
    'of the profile); conflict (duplicate: the phone, with merge also its user, comes twice in the '
    'call; or with p_on_conflict = error taken, and then nothing at all is written); invalid '
    '(unknown_group, or the code of profile_fault_v1). With p_dry_run the same code returns what '
    'would happen and writes nothing. 40001 if another transaction takes a phone during the call: '
    'repeat the call. CHECKs for phones and profiles. Locks merged users in primary-key order. May '
    'be repeated: users that exist are not created again.';
GRANT EXECUTE ON FUNCTION accounts.bulk_create_users_v1(
    integer[], text[], text[], jsonb[], integer[], text[], text, boolean) TO accounts_write;

-- +goose Down
SET LOCAL lock_timeout = '5s';
DROP FUNCTION accounts.bulk_create_users_v1(
    integer[], text[], text[], jsonb[], integer[], text[], text, boolean);
DROP FUNCTION accounts.add_bulk_memberships_v1(
    accounts.bulk_user_result_v1[], integer[], text[]);
DROP FUNCTION accounts.classify_bulk_merges_v1(
    accounts.bulk_user_result_v1[], integer[], jsonb[], integer[], text[]);
DROP FUNCTION accounts.classify_bulk_rows_v1(
    integer[], text[], jsonb[], integer[], text[], text);
DROP FUNCTION accounts.match_group_keys_v1(text[]);
DROP TABLE accounts.group_key_v1;
DROP FUNCTION accounts.profile_fault_v1(jsonb);
DROP TABLE accounts.bulk_user_result_v1;
