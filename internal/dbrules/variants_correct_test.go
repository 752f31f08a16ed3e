package dbrules

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/pgtest"
)

// correctVariants are correct functions that resemble those of bodyVariants.
var correctVariants = []fault{
	{name: "FOUND of the change", plant: writing(setGroup + "IF FOUND THEN " + recordGroup + "END IF;")},
	{name: "ROW_COUNT of the change", plant: writing(declareGroup + setGroup + "GET DIAGNOSTICS v_n = ROW_COUNT; IF v_n >= 1 THEN " + recordGroup + "END IF; END")},
	{name: "FOUND kept in a variable", plant: writing("DECLARE v_done boolean; BEGIN " + setGroup + "v_done := FOUND; PERFORM lower(p_text); IF v_done THEN " + recordGroup + "END IF; END")},
	{name: "early return before the change", plant: writing("IF p_flag THEN RETURN; END IF;" + setGroup + recordGroup)},
	{name: "RETURNING INTO a key", plant: writing(declareGroup + "DELETE FROM accounts.user_groups AS g WHERE g.id = p_other_id RETURNING g.id INTO v_id; IF v_id IS NULL THEN RETURN; END IF;" + recordGroup + "END")},
	{name: "recorded on each branch", plant: writing(setGroup + "IF p_flag THEN " + recordGroup + "ELSE " + recordGroup + "END IF;")},
	{name: "recorded with a cast", plant: writing(setGroup + "PERFORM accounts.record_change_v1(ARRAY['d:user_groups']::text[], '{}'::text[]);")},
	{name: "recorded from a variable that is filled later", plant: writing("DECLARE v_touched text[] := '{}'; BEGIN " + setGroup + "v_touched := v_touched || 'd:user_groups'::text; PERFORM accounts.record_change_v1(v_touched, '{}'); END")},
	{name: "SELECT INTO of the recording", plant: writing("DECLARE v_outbox_id bigint; BEGIN " + setGroup + "SELECT accounts.record_change_v1(ARRAY['d:user_groups'], '{}') INTO v_outbox_id; PERFORM v_outbox_id; END")},
	{name: "a loop over positions under the locks", plant: writing("PERFORM FROM accounts.users AS u WHERE u.id = ANY (p_ids) ORDER BY u.id FOR NO KEY UPDATE;" +
		"FOR i IN 1..cardinality(p_ids) LOOP PERFORM accounts.raise_user_version_v1(p_ids[i]); PERFORM accounts.record_change_v1(ARRAY['u:' || p_ids[i]], '{}'); END LOOP;")},
	{name: "a cursor that reads", plant: writing("DECLARE v_c CURSOR FOR SELECT g.id FROM accounts.user_groups AS g WHERE g.name = p_text; v_row record; BEGIN FOR v_row IN v_c LOOP PERFORM v_row.id; END LOOP; END")},
	{name: "a cursor that is opened", plant: writing("DECLARE v_c CURSOR FOR SELECT g.id FROM accounts.user_groups AS g WHERE g.name = p_text; v_id uuid; BEGIN OPEN v_c; FETCH v_c INTO v_id; CLOSE v_c; PERFORM v_id; END")},
	{name: "one user locked twice", plant: writing(lock + lock + "UPDATE accounts.users AS u SET version = u.version + 1, is_active = p_flag WHERE u.id = p_user_id;" + record)},
	{name: "one of two users", plant: writing("IF p_flag THEN PERFORM accounts.lock_user_v1(p_user_id); ELSE PERFORM accounts.lock_user_v1(p_other_id); END IF;")},
	{name: "row assignment of the version", plant: writing(lock + "UPDATE accounts.users AS u SET (version, is_active) = (u.version + 1, p_flag) WHERE u.id = p_user_id;" + record)},
	{name: "locks in the order of a subquery", plant: writing("PERFORM accounts.lock_user_v1(l.id) FROM (SELECT i.id FROM unnest(p_ids) AS i (id) ORDER BY i.id) AS l;")},
	{name: "another condition", plant: writing("BEGIN PERFORM p_text::uuid; EXCEPTION WHEN invalid_text_representation OR foreign_key_violation THEN RETURN; END;")},
	{name: "INSERT of named columns", plant: writing("INSERT INTO accounts.import_jobs (on_conflict, dry_run) VALUES ('skip', p_flag);")},
	{name: "default values", plant: writing("DELETE FROM accounts.import_jobs AS j WHERE j.id = p_other_id AND j.id IS NOT NULL;")},
	{name: "a local setting", plant: writing("PERFORM set_config('work_mem', '16MB', true);")},
	{name: "LIMIT of least", plant: reading(page + "ORDER BY u.id LIMIT least(p_limit, 100);")},
	{name: "LIMIT of coalesce", plant: reading(page + "ORDER BY u.id LIMIT coalesce(p_limit, 100);")},
	{name: "LIMIT of CASE with ELSE", plant: reading(page + "ORDER BY u.id LIMIT CASE WHEN p_limit > 100 THEN 100 ELSE p_limit END;")},
	{name: "OR of columns", plant: reading(page + "WHERE (u.is_active OR u.version > p_limit) ORDER BY u.id LIMIT p_limit;")},
	{name: "OR with a flag", plant: reading(page + "WHERE (u.is_active OR p_limit > 5) ORDER BY u.id LIMIT p_limit;")},
	{name: "keyset of two columns", plant: reading(page + "WHERE (u.created_at, u.id) > (p_since, p_id) ORDER BY u.created_at, u.id LIMIT p_limit;")},
	{name: "keyset written out", plant: reading(page + "WHERE (u.created_at > p_since OR u.created_at = p_since AND u.id > p_id) ORDER BY u.created_at, u.id LIMIT p_limit;")},
	{name: "the first of each group", plant: reading("RETURN QUERY SELECT s.id, s.created_at, s.updated_at, s.is_active, s.profile, s.version FROM (SELECT u.id, u.created_at, u.updated_at, " +
		"u.is_active, u.profile, u.version, row_number() OVER (PARTITION BY u.is_active ORDER BY u.id) AS n FROM accounts.users AS u ORDER BY u.id LIMIT 100) AS s WHERE s.n = 1 ORDER BY s.id LIMIT p_limit;")},
	{name: "IN of constants", plant: reading(page + "WHERE u.version IN (1, 2) AND u.id = ANY (p_ids) ORDER BY u.id LIMIT p_limit;")},
	{name: "tags, capitals and E strings", plant: writing("UPDATE Accounts.User_Groups g SET name = E'a\\'b' || p_text WHERE g.id = p_other_id;\n/* no; */ Perform accounts.Record_Change_V1(Array['d:user_groups'], '{}');")},
}

func TestBodies_CorrectVariantsBreakNoRule(t *testing.T) {
	t.Parallel()
	tables, err := readTables(t.Context(), connect(t, pgtest.Shared(t).RemoveOracle("the rules are about what the migrations make").SuperURL))
	require.NoError(t, err)
	for _, f := range correctVariants {
		t.Run(f.name, func(t *testing.T) {
			require.Empty(t, ofPlant(t, tables, f.plant))
		})
	}
}
