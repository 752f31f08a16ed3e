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

-- +goose StatementBegin
CREATE FUNCTION accounts.bulk_create_users_v1(
    p_row_nos integer[],
    p_phones text[],
    p_phones_normalized text[],
    p_group_names text[],
    p_profiles jsonb[],
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
    v_refused boolean;
    v_outbox_id bigint;
    v_lost bigint;
BEGIN
    -- What stands against a row by itself, and who has its phone already.
    SELECT array_agg(ROW(i.row_no,
                         CASE WHEN s.code IN ('duplicate', 'taken') THEN 'conflict'
                              WHEN s.code IS NOT NULL THEN 'invalid'
                              WHEN i.user_id IS NOT NULL THEN 'exists'
                              ELSE 'created' END,
                         s.code,
                         CASE WHEN s.code IN ('duplicate', 'taken') THEN 'phone'
                              WHEN s.code = 'unknown_group' THEN 'user_groups'
                              WHEN s.code IS NOT NULL THEN 'profile' END,
                         i.user_id, '{}', NULL)::accounts.bulk_user_result_v1 ORDER BY i.row_no)
      INTO v_results
      FROM (SELECT u.*, c.user_id,
                   -- A user may have several phones, and takes one patch.
                   row_number() OVER (
                       PARTITION BY coalesce(
                           CASE p_on_conflict WHEN 'merge' THEN c.user_id::text END, u.normalized)
                       ORDER BY u.row_no) AS nth
              FROM unnest(p_row_nos, p_phones_normalized, p_group_names, p_profiles)
                   AS u (row_no, normalized, group_names, profile)
              LEFT JOIN accounts.user_contacts AS c
                ON c.contact_type_id = c_phone AND c.normalized = u.normalized AND c.is_active) AS i
     CROSS JOIN LATERAL (
               SELECT CASE WHEN EXISTS (SELECT
                                          FROM string_to_table(i.group_names, ',') AS n (name)
                                         WHERE NOT EXISTS (SELECT
                                                             FROM accounts.user_groups AS g
                                                            WHERE g.name_key = n.name))
                                THEN 'unknown_group'
                           WHEN accounts.profile_fault_v1(i.profile) IS NOT NULL
                                THEN accounts.profile_fault_v1(i.profile)
                           WHEN i.nth > 1 THEN 'duplicate'
                           WHEN i.user_id IS NOT NULL AND p_on_conflict = 'error' THEN 'taken'
                      END AS code
               OFFSET 0 -- a fence: evaluated once, not wherever code is used
           ) AS s;
    SELECT p_on_conflict = 'error' AND bool_or(r.status = 'conflict')
      INTO v_refused
      FROM unnest(v_results) AS r;

    IF p_on_conflict = 'merge' THEN
        IF NOT p_dry_run THEN
            PERFORM FROM accounts.users AS u
              WHERE u.id IN (SELECT r.user_id FROM unnest(v_results) AS r WHERE r.status = 'exists')
              ORDER BY u.id
                FOR NO KEY UPDATE;
        END IF;
        -- A statement of its own, so that it sees the users as they are now that they are locked.
        SELECT array_agg(ROW(r.row_no,
                             CASE WHEN m.fault IS NOT NULL THEN 'invalid'
                                  WHEN m.changes THEN 'merged'
                                  ELSE r.status END,
                             coalesce(m.fault, r.code),
                             CASE WHEN m.fault IS NOT NULL THEN 'profile' ELSE r.field END,
                             r.user_id, r.touched, r.outbox_id)
                             ::accounts.bulk_user_result_v1 ORDER BY r.row_no)
          INTO v_results
          FROM unnest(v_results) AS r
          JOIN unnest(p_row_nos, p_group_names, p_profiles) AS i (row_no, group_names, profile)
         USING (row_no)
          LEFT JOIN LATERAL (
               SELECT accounts.profile_fault_v1(
                          accounts.merge_patch_v1(u.profile, i.profile)) AS fault,
                      accounts.merge_patch_v1(u.profile, i.profile) <> u.profile
                      OR EXISTS (SELECT
                                   FROM string_to_table(i.group_names, ',') AS n (name)
                                   JOIN accounts.user_groups AS g ON g.name_key = n.name
                                  WHERE NOT EXISTS (SELECT
                                                      FROM accounts.user_group_memberships AS m
                                                     WHERE m.user_id = u.id
                                                       AND m.group_id = g.id
                                                       AND m.is_active)) AS changes
                 FROM accounts.users AS u
                WHERE r.status = 'exists'
                  AND u.id = r.user_id
               OFFSET 0) AS m ON true;
    END IF;

    IF NOT p_dry_run AND NOT v_refused
        AND EXISTS (SELECT FROM unnest(v_results) AS r WHERE r.status IN ('created', 'merged'))
    THEN
        SELECT array_agg(ROW(r.row_no, r.status, r.code, r.field,
                             CASE r.status WHEN 'created' THEN accounts.generate_uuid_v1()
                                           ELSE r.user_id END,
                             r.touched, r.outbox_id)
                             ::accounts.bulk_user_result_v1 ORDER BY r.row_no)
          INTO v_results
          FROM unnest(v_results) AS r;

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
            -- Somebody took a phone since we looked. Rare: the whole call starts again.
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

        INSERT INTO accounts.user_group_memberships AS m (user_id, group_id)
        SELECT DISTINCT r.user_id, g.id
          FROM unnest(v_results) AS r
          JOIN unnest(p_row_nos, p_group_names) AS i (row_no, group_names) USING (row_no)
         CROSS JOIN string_to_table(i.group_names, ',') AS n (name)
          JOIN accounts.user_groups AS g ON g.name_key = n.name
         WHERE r.status IN ('created', 'merged')
         ORDER BY r.user_id, g.id
            ON CONFLICT (user_id, group_id) DO UPDATE
           SET is_active = true,
               updated_at = greatest(clock_timestamp(), m.updated_at + interval '1 microsecond')
         WHERE NOT m.is_active;

        v_outbox_id := accounts.record_change_v1(
            (SELECT array_agg(k.key)
               FROM unnest(v_results) AS r
              CROSS JOIN unnest(r.touched) AS k (key)), '{}');
    END IF;

    RETURN QUERY
    SELECT r.row_no, r.status, r.code, r.field, r.user_id, r.touched, v_outbox_id
      FROM unnest(v_results) AS r
     ORDER BY r.row_no;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION accounts.bulk_create_users_v1(
    integer[], text[], text[], text[], jsonb[], text, boolean) IS
    'Creates a user with a phone, groups (their name_key: "client,driver") and a profile for each row; all arrays '
    'have one length, row numbers are distinct, one call takes one or two thousand rows. Returns '
    'one row per row: created; exists (skip); merged (merge: union of groups, merge patch of the '
    'profile); conflict (duplicate: the phone, with merge also its user, comes twice in the call; '
    'or with p_on_conflict = error taken, and then nothing at all is written); invalid '
    '(unknown_group, or what profile_fault_v1 says). With '
    'p_dry_run the same code says what would happen and writes nothing. 40001 when a phone is '
    'taken meanwhile: repeat the call. CHECKs for phones and profiles. Locks merged users in '
    'primary-key order. May be repeated: what exists is not created again.';
GRANT EXECUTE ON FUNCTION accounts.bulk_create_users_v1(
    integer[], text[], text[], text[], jsonb[], text, boolean) TO accounts_write;

-- +goose Down
SET LOCAL lock_timeout = '5s';
DROP FUNCTION accounts.bulk_create_users_v1(
    integer[], text[], text[], text[], jsonb[], text, boolean);
DROP FUNCTION accounts.profile_fault_v1(jsonb);
DROP TABLE accounts.bulk_user_result_v1;
