package dbrules

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	writeHead = "LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$\n"
	readHead  = "LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$\n"
)

// operation is a function with its comment and grants.
func operation(name, parameters, types, result, head, body, grant string) string {
	text := "CREATE FUNCTION accounts." + name + "(" + parameters + ") RETURNS " + result + "\n" + head + body + "\n$$;\n" +
		"COMMENT ON FUNCTION accounts." + name + "(" + types + ") IS '"
	if grant == "" {
		return text + "Internal: for a test.';\n"
	}
	return text + "For a test.';\nGRANT EXECUTE ON FUNCTION accounts." + name + "(" + types + ") TO " + grant + ";\n"
}

func writes(name, parameters, types, result, body string) string {
	return operation(name, parameters, types, result, writeHead, body, "accounts_write")
}

func readsGroups(name, parameters, types, body string) string {
	return operation(name, parameters, types, "SETOF accounts.user_group_v1", readHead, body, "accounts_read, accounts_write")
}

// correct are five tables and more than twenty functions, in the ways that people write them.
var correct = []string{
	// Tables.
	`CREATE TABLE accounts.pets (
    id uuid NOT NULL DEFAULT accounts.generate_uuid_v1(),
    owner_id uuid NOT NULL,
    name text COLLATE "C" NOT NULL,
    short_name text COLLATE "C" GENERATED ALWAYS AS (left(name, 10)) STORED,
    born_at timestamptz,
    weight numeric(6, 2) NOT NULL DEFAULT 0,
    CONSTRAINT pets_pkey PRIMARY KEY (id),
    CONSTRAINT pets_owner_id_fkey FOREIGN KEY (owner_id) REFERENCES accounts.users (id),
    CONSTRAINT pets_name_length CHECK (char_length(name) BETWEEN 1 AND 50)
);
COMMENT ON TABLE accounts.pets IS 'Pets.';
CREATE INDEX pets_owner_id_idx ON accounts.pets (owner_id);
CREATE UNIQUE INDEX pets_owner_id_name_key ON accounts.pets (owner_id, name) WHERE born_at IS NULL;
CREATE INDEX pets_lower_name_idx ON accounts.pets (lower(name));
`,
	`CREATE TABLE accounts.cages (
    no bigint GENERATED ALWAYS AS IDENTITY,
    labels text[] NOT NULL DEFAULT '{}',
    size double precision NOT NULL,
    CONSTRAINT cages_pkey PRIMARY KEY (no)
) WITH (fillfactor = 80);
COMMENT ON TABLE accounts.cages IS 'Cages.';
CREATE INDEX cages_labels_idx ON accounts.cages USING gin (labels);
`,
	`CREATE TABLE accounts.pet_cages (
    pet_id uuid NOT NULL,
    cage_no bigint NOT NULL,
    CONSTRAINT pet_cages_pkey PRIMARY KEY (pet_id, cage_no),
    CONSTRAINT pet_cages_pet_id_fkey FOREIGN KEY (pet_id) REFERENCES accounts.pets (id) ON DELETE CASCADE,
    CONSTRAINT pet_cages_cage_no_fkey FOREIGN KEY (cage_no) REFERENCES accounts.cages (no)
);
COMMENT ON TABLE accounts.pet_cages IS 'Which pet is in which cage.';
CREATE INDEX pet_cages_cage_no_idx ON accounts.pet_cages (cage_no, pet_id);
`,
	`CREATE TABLE accounts.pet_events (
    pet_id uuid NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    body jsonb NOT NULL,
    CONSTRAINT pet_events_pkey PRIMARY KEY (pet_id, at),
    CONSTRAINT pet_events_pet_id_fkey FOREIGN KEY (pet_id) REFERENCES accounts.pets (id)
) WITH (autovacuum_vacuum_scale_factor = 0.01);
COMMENT ON TABLE accounts.pet_events IS 'What happened to pets.';
`,
	`CREATE TABLE accounts.pet_v1 (
    id uuid NOT NULL,
    owner_id uuid NOT NULL,
    name text NOT NULL,
    born_at timestamptz,
    CONSTRAINT pet_v1_is_a_contract CHECK (false) NO INHERIT
);
COMMENT ON TABLE accounts.pet_v1 IS 'Contract: a pet.';
`,
	// Reads.
	operation("get_pet_v1", "p_id uuid", "uuid", "SETOF accounts.pet_v1", readHead, `BEGIN
    RETURN QUERY SELECT p.id, p.owner_id, p.name, p.born_at FROM accounts.pets AS p WHERE p.id = p_id;
END`, "accounts_read, accounts_write"),
	operation("list_pets_v1", "p_owner_id uuid, p_after_id uuid, p_limit integer", "uuid, uuid, integer", "SETOF accounts.pet_v1", readHead, `BEGIN
    IF p_after_id IS NULL THEN
        RETURN QUERY
        SELECT p.id, p.owner_id, p.name, p.born_at FROM accounts.pets AS p
         WHERE p.owner_id = p_owner_id ORDER BY p.id LIMIT p_limit;
        RETURN;
    END IF;
    RETURN QUERY
    SELECT p.id, p.owner_id, p.name, p.born_at FROM accounts.pets AS p
     WHERE p.owner_id = p_owner_id AND p.id > p_after_id ORDER BY p.id LIMIT p_limit;
END`, "accounts_read, accounts_write"),
	operation("list_pets_by_name_v1", "p_after_name text, p_after_id uuid, p_limit integer", "text, uuid, integer", "SETOF accounts.pet_v1", readHead, `BEGIN
    RETURN QUERY
    SELECT p.id, p.owner_id, p.name, p.born_at FROM accounts.pets AS p
     WHERE (p.name, p.id) > (p_after_name, p_after_id) ORDER BY p.name, p.id LIMIT p_limit;
END`, "accounts_read, accounts_write"),
	operation("list_pets_of_day_v1", "p_day timestamptz, p_limit integer", "timestamptz, integer", "SETOF accounts.pet_v1", readHead, `BEGIN
    RETURN QUERY
    SELECT p.id, p.owner_id, p.name, p.born_at FROM accounts.pets AS p
     WHERE p.born_at >= p_day AND p.born_at < p_day + interval '1 day' AND lower(p.name) <> '' ORDER BY p.born_at DESC, p.id DESC LIMIT least(p_limit, 100);
END`, "accounts_read, accounts_write"),
	operation("lookup_pets_v1", "p_ids uuid[]", "uuid[]", "SETOF accounts.pet_v1", readHead, `BEGIN
    RETURN QUERY
    SELECT p.id, p.owner_id, p.name, p.born_at FROM unnest(p_ids) WITH ORDINALITY AS i (id, n)
      JOIN accounts.pets AS p ON p.id = i.id ORDER BY i.n;
END`, "accounts_read, accounts_write"),
	operation("find_pets_v1", "p_kind text, p_id uuid, p_limit integer", "text, uuid, integer", "SETOF accounts.pet_v1", readHead, `DECLARE
    v_column text := CASE p_kind WHEN 'owner' THEN 'owner_id' ELSE 'id' END;
BEGIN
    -- Dynamic because each column has an index of its own, and one plan for both would use neither.
    RETURN QUERY EXECUTE format(
        'SELECT p.id, p.owner_id, p.name, p.born_at FROM accounts.pets AS p WHERE p.%I = $1 ORDER BY p.id LIMIT $2', v_column)
        USING p_id, p_limit;
END`, "accounts_read, accounts_write"),
	operation("count_pets_v1", "p_owner_id uuid", "uuid", "bigint", readHead, `DECLARE
    v_total bigint;
BEGIN
    SELECT count(*) INTO v_total FROM (SELECT FROM accounts.pets AS p WHERE p.owner_id = p_owner_id LIMIT 1000) AS l;
    RETURN v_total;
END`, "accounts_read, accounts_write"),
	operation("is_pet_caged_v1", "p_id uuid", "uuid", "boolean", readHead, `BEGIN
    RETURN EXISTS (SELECT FROM accounts.pet_cages AS c JOIN accounts.cages AS k ON k.no = c.cage_no WHERE c.pet_id = p_id AND k.size > 0)
        AND NOT EXISTS (SELECT FROM accounts.pet_events AS e WHERE e.pet_id = p_id AND e.body ->> 'kind' = 'escaped');
END`, "accounts_read, accounts_write"),
	readsGroups("list_groups_of_pets_v1", "", "", `BEGIN
    RETURN QUERY SELECT g.id, g.name, g.created_at, g.updated_at FROM accounts.user_groups AS g WHERE g.name <> ALL (ARRAY['a', 'b']) ORDER BY g.name;
END`),
	operation("describe_pet_v1", "p_name text, p_age integer", "text, integer", "text",
		"LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$\n", `BEGIN
    RETURN CASE WHEN p_age IS NULL THEN p_name ELSE format('%s (%s)', p_name, p_age) END;
END`, ""),
	operation("get_pet_name_v1", "p_id uuid", "uuid", "text", readHead, `DECLARE
    v_pet accounts.pets;
BEGIN
    SELECT p.* INTO v_pet FROM accounts.pets AS p WHERE p.id = p_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'UA001', MESSAGE = 'pet not found',
            DETAIL = jsonb_build_object('entity', 'Pet', 'id', p_id)::text;
    END IF;
    v_pet.name := upper(v_pet.name);
    RETURN accounts.describe_pet_v1(v_pet.name, 3);
END`, "accounts_read, accounts_write"),
	// Writes that change nothing of the cache.
	writes("create_pet_v1", "p_owner_id uuid, p_name text", "uuid, text", "uuid", `DECLARE
    v_id uuid;
BEGIN
    INSERT INTO accounts.pets (owner_id, name) VALUES (p_owner_id, p_name) RETURNING id INTO v_id;
    RETURN v_id;
END`),
	writes("move_pets_v1", "p_ids uuid[], p_cage_no bigint", "uuid[], bigint", "void", `BEGIN
    PERFORM FROM accounts.pets AS p WHERE p.id = ANY (p_ids) ORDER BY p.id FOR NO KEY UPDATE;
    DELETE FROM accounts.pet_cages AS c WHERE c.pet_id = ANY (p_ids) AND c.cage_no <> p_cage_no;
    INSERT INTO accounts.pet_cages (pet_id, cage_no) SELECT i.id, p_cage_no FROM unnest(p_ids) AS i (id) ORDER BY i.id ON CONFLICT DO NOTHING;
END`),
	// Writes that record.
	writes("activate_user_v1", "p_user_id uuid, p_is_active boolean", "uuid, boolean", "SETOF accounts.membership_result_v1", `DECLARE
    v_user accounts.users := accounts.lock_user_v1(p_user_id);
    v_touched text[] := '{}';
    v_outbox_id bigint;
BEGIN
    IF v_user.is_active = p_is_active THEN
        RETURN QUERY SELECT p_user_id, 'unchanged', v_touched, v_outbox_id;
        RETURN;
    END IF;
    UPDATE accounts.users AS u
       SET is_active = p_is_active, version = u.version + 1,
           updated_at = greatest(clock_timestamp(), u.updated_at + interval '1 microsecond')
     WHERE u.id = p_user_id;
    v_touched := ARRAY['u:' || p_user_id];
    v_outbox_id := accounts.record_change_v1(v_touched, '{}');
    RETURN QUERY SELECT p_user_id, 'changed', v_touched, v_outbox_id;
END`),
	writes("forget_contacts_v1", "p_user_id uuid", "uuid", "bigint", `DECLARE
    v_count bigint;
BEGIN
    PERFORM FROM accounts.users AS u WHERE u.id = p_user_id FOR NO KEY UPDATE;
    UPDATE accounts.user_contacts AS c SET is_active = false, deactivated_at = clock_timestamp() WHERE c.user_id = p_user_id AND c.is_active;
    GET DIAGNOSTICS v_count = ROW_COUNT;
    IF v_count > 0 THEN
        PERFORM accounts.raise_user_version_v1(p_user_id);
        PERFORM accounts.record_change_v1(ARRAY['u:' || p_user_id], '{}');
    END IF;
    RETURN v_count;
END`),
	writes("rename_group_v1", "p_group_id uuid, p_name text", "uuid, text", "boolean", `BEGIN
    UPDATE accounts.user_groups AS g SET name = p_name WHERE g.id = p_group_id AND g.name <> p_name;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM accounts.record_change_v1(ARRAY['d:user_groups'], ARRAY['g:' || p_group_id]);
    RETURN true;
END`),
	writes("leave_groups_v1", "p_user_id uuid", "uuid", "SETOF accounts.membership_result_v1", `DECLARE
    v_left uuid[];
    v_touched text[] := '{}';
    v_outbox_id bigint;
BEGIN
    PERFORM accounts.lock_user_v1(p_user_id);
    WITH ended AS (
        UPDATE accounts.user_group_memberships AS m SET is_active = false, updated_at = clock_timestamp()
         WHERE m.user_id = p_user_id AND m.is_active
        RETURNING m.group_id
    )
    SELECT coalesce(array_agg(e.group_id), '{}') INTO v_left FROM ended AS e;
    IF cardinality(v_left) > 0 THEN
        PERFORM accounts.raise_user_version_v1(p_user_id);
        v_touched := ARRAY['u:' || p_user_id];
        v_outbox_id := accounts.record_change_v1(v_touched, '{}');
    END IF;
    RETURN QUERY SELECT p_user_id, 'left', v_touched, v_outbox_id;
END`),
	writes("deactivate_users_v1", "p_ids uuid[]", "uuid[]", "integer", `DECLARE
    v_ids uuid[];
BEGIN
    SELECT coalesce(array_agg(l.id), '{}') INTO v_ids
      FROM (SELECT u.id FROM accounts.users AS u WHERE u.id = ANY (p_ids) AND u.is_active ORDER BY u.id FOR NO KEY UPDATE) AS l;
    IF cardinality(v_ids) = 0 THEN
        RETURN 0;
    END IF;
    UPDATE accounts.users AS u SET is_active = false, version = u.version + 1, updated_at = clock_timestamp() WHERE u.id = ANY (v_ids);
    PERFORM accounts.record_change_v1((SELECT array_agg('u:' || i.id) FROM unnest(v_ids) AS i (id)), '{}');
    RETURN cardinality(v_ids);
END`),
	writes("touch_users_v1", "p_ids uuid[]", "uuid[]", "void", `DECLARE
    v_id uuid;
BEGIN
    PERFORM FROM accounts.users AS u WHERE u.id = ANY (p_ids) ORDER BY u.id FOR NO KEY UPDATE;
    FOREACH v_id IN ARRAY p_ids LOOP
        CONTINUE WHEN v_id IS NULL;
        PERFORM accounts.raise_user_version_v1(v_id);
        PERFORM accounts.record_change_v1(ARRAY['u:' || v_id], '{}');
    END LOOP;
END`),
	writes("replace_contacts_v1", "p_user_id uuid, p_values text[]", "uuid, text[]", "boolean", `DECLARE
    v_id uuid;
    v_keys text[] := '{}';
BEGIN
    PERFORM accounts.lock_user_v1(p_user_id);
    FOR v_id IN
        UPDATE accounts.user_contacts AS c SET value = c.value || '!' WHERE c.user_id = p_user_id AND c.value = ANY (p_values) RETURNING c.id
    LOOP
        v_keys := v_keys || ('c:' || v_id);
    END LOOP;
    PERFORM accounts.raise_user_version_v1(p_user_id);
    PERFORM accounts.record_change_v1(v_keys || ('u:' || p_user_id), '{}');
    RETURN true;
END`),
	operation("shelve_user_v1", "p_user_id uuid, p_reason text", "uuid, text", "text[]", writeHead, `BEGIN
    PERFORM accounts.lock_user_v1(p_user_id);
    UPDATE accounts.users AS u SET is_active = false, version = u.version + 1 WHERE u.id = p_user_id AND u.profile ->> 'reason' <> p_reason;
    DELETE FROM accounts.user_group_memberships AS m WHERE m.user_id = p_user_id;
    PERFORM accounts.raise_user_version_v1(p_user_id);
    RETURN ARRAY['u:' || p_user_id];
END`, ""),
	operation("finish_v1", "p_keys text[]", "text[]", "bigint", writeHead, `BEGIN
    RETURN accounts.record_change_v1(p_keys, '{}');
END`, ""),
	writes("shelve_users_v1", "p_first_id uuid, p_reason text", "uuid, text", "bigint", `DECLARE
    v_keys text[];
BEGIN
    CASE p_reason
        WHEN 'spam', 'fraud' THEN
            v_keys := accounts.shelve_user_v1(p_first_id, p_reason);
        WHEN 'other' THEN
            RETURN NULL;
        ELSE
            RAISE EXCEPTION USING ERRCODE = 'UA002', MESSAGE = 'unknown names',
                DETAIL = '{"errors": [{"field": "reason", "code": "unknown"}]}';
    END CASE;
    RETURN accounts.finish_v1(v_keys);
END`),
	writes("rename_type_v1", "p_type_id uuid, p_name text", "uuid, text", "void", `BEGIN
    BEGIN
        -- Dynamic because the test wants it.
        EXECUTE 'UPDATE accounts.contact_types SET name = $1 WHERE id = $2' USING p_name, p_type_id;
    EXCEPTION WHEN unique_violation THEN
        RETURN;
    END;
    PERFORM accounts.record_change_v1(ARRAY['d:contact_types'], ARRAY['t:' || p_type_id]);
END`),
	writes("rename_type_if_v1", "p_type_id uuid, p_name text, p_really boolean", "uuid, text, boolean", "void", `DECLARE
    v_done boolean;
BEGIN
    IF p_really AND p_name IS NOT NULL THEN
        UPDATE accounts.contact_types AS t SET name = p_name WHERE t.id = p_type_id;
        v_done := FOUND;
    END IF;
    IF v_done THEN
        PERFORM accounts.record_change_v1(ARRAY['d:contact_types'], ARRAY['t:' || p_type_id]);
    END IF;
END`),
	writes("ensure_group_v1", "p_name text", "text", "uuid", `DECLARE
    v_id uuid;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtextextended(p_name, 0)) THEN
        RAISE EXCEPTION USING ERRCODE = 'lock_not_available', MESSAGE = 'the group is being created';
    END IF;
    INSERT INTO accounts.user_groups (name, name_key) VALUES (p_name, lower(p_name)) ON CONFLICT (name_key) DO NOTHING RETURNING id INTO v_id;
    IF v_id IS NOT NULL THEN
        PERFORM accounts.record_change_v1(ARRAY['d:user_groups'], '{}');
        RETURN v_id;
    END IF;
    RETURN (SELECT g.id FROM accounts.user_groups AS g WHERE g.name = p_name);
END`),
	writes("claim_pet_v1", "p_limit integer", "integer", "bigint", `DECLARE
    v_pet record;
    v_done bigint := 0;
BEGIN
    FOR v_pet IN SELECT p.id FROM accounts.pets AS p WHERE p.weight = 0 ORDER BY p.id LIMIT p_limit FOR UPDATE SKIP LOCKED LOOP
        INSERT INTO accounts.pet_events (pet_id, body) VALUES (v_pet.id, '{"kind": "claimed"}');
        v_done := v_done + 1;
        EXIT WHEN v_done >= 10;
    END LOOP;
    WHILE v_done < 0 LOOP
        v_done := v_done + 1;
    END LOOP;
    RETURN v_done;
END`),
}

func TestCatalog_CorrectSQLBreaksNoRule(t *testing.T) {
	t.Parallel()
	conn := catalogConn(t)
	text := ""
	for _, plant := range correct {
		text += plant
	}
	tree := readTree(t, root)
	m := newMigration(filepath.Base(next), head+text+foot)
	tree.migrations = append(tree.migrations, m)
	planted(t, conn, text, func() {
		found, err := Catalog(t.Context(), conn, tree)
		require.NoError(t, err)
		require.Empty(t, found)
	})
	require.Empty(t, schemaRules(Tree{migrations: []migration{m}}))
}
