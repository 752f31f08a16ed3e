package dbrules

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/pgtest"
)

// writing is a write function with a body; the parameters are used.
func writing(body string) string { return writingAs("void", body) }

func writingAs(result, body string) string {
	declare, begin, found := strings.Cut(body, "BEGIN")
	if !found || !strings.HasPrefix(body, "DECLARE") {
		declare, begin = "", "\n"+body+"\n"
	} else {
		begin = strings.TrimSuffix(strings.TrimSpace(begin), "END")
	}
	return fmt.Sprintf(`CREATE FUNCTION accounts.feed_pet_v1(p_user_id uuid, p_other_id uuid, p_ids uuid[], p_flag boolean, p_text text)
RETURNS %s LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
%s
BEGIN
    IF p_user_id IS NULL OR p_other_id IS NULL OR p_ids IS NULL OR p_flag IS NULL OR p_text IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'serialization_failure', MESSAGE = 'again';
    END IF;
%s
END $$;
COMMENT ON FUNCTION accounts.feed_pet_v1(uuid, uuid, uuid[], boolean, text) IS 'Feeds a pet.';
GRANT EXECUTE ON FUNCTION accounts.feed_pet_v1(uuid, uuid, uuid[], boolean, text) TO accounts_write;
`, result, declare, begin)
}

// reading is a read function with a body that returns groups.
func reading(body string) string {
	declare, begin, found := strings.Cut(body, "BEGIN")
	if !found || !strings.HasPrefix(body, "DECLARE") {
		declare, begin = "", "\n"+body+"\n"
	} else {
		begin = strings.TrimSuffix(strings.TrimSpace(begin), "END")
	}
	return fmt.Sprintf(`CREATE FUNCTION accounts.find_pets_v1(p_id uuid, p_text text, p_limit integer, p_offset integer, p_ids uuid[], p_since timestamptz)
RETURNS SETOF accounts.user_v1 LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
%s
BEGIN
    IF p_id IS NULL OR p_text IS NULL OR p_limit IS NULL OR p_offset IS NULL OR p_ids IS NULL OR p_since IS NULL THEN
        RETURN;
    END IF;
%s
END $$;
COMMENT ON FUNCTION accounts.find_pets_v1(uuid, text, integer, integer, uuid[], timestamptz) IS 'Finds pets.';
GRANT EXECUTE ON FUNCTION accounts.find_pets_v1(uuid, text, integer, integer, uuid[], timestamptz) TO accounts_read, accounts_write;
`, declare, begin)
}

// helper is an internal function.
func helper(body string) string {
	return fmt.Sprintf(`CREATE FUNCTION accounts.groom_pet_v1(p_user_id uuid) RETURNS void LANGUAGE plpgsql VOLATILE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$ BEGIN %s END $$;
COMMENT ON FUNCTION accounts.groom_pet_v1(uuid) IS 'Internal: grooms a pet.';
`, body)
}

const (
	lock     = "PERFORM accounts.lock_user_v1(p_user_id);\n"
	raise    = "PERFORM accounts.raise_user_version_v1(p_user_id);\n"
	record   = "PERFORM accounts.record_change_v1(ARRAY['u:' || p_user_id], '{}');\n"
	setUser  = "UPDATE accounts.users AS u SET is_active = p_flag, version = u.version + 1 WHERE u.id = p_user_id;\n"
	contacts = "UPDATE accounts.user_contacts AS c SET value = p_text WHERE c.id = p_other_id;\n"
	page     = "RETURN QUERY SELECT u.id, u.created_at, u.updated_at, u.is_active, u.profile, u.version FROM accounts.users AS u "
)

// bodyFaults are functions with one mistake.
var bodyFaults = []fault{
	{"never", writeRecords, writing(lock + setUser)},
	{"before the change", writeRecords, writing(lock + record + setUser)},
	{"after one of two changes", writeRecords, writing(lock + setUser + record + contacts + "PERFORM accounts.raise_user_version_v1(p_user_id);")},
	{"in one branch", writeRecords, writing(lock + setUser + "IF p_flag THEN " + record + "END IF;")},
	{"in one branch of CASE", writeRecords, writing(lock + setUser + "CASE p_text WHEN 'a' THEN " + record + " ELSE NULL; END CASE;")},
	{"not before an early return", writeRecords, writing(lock + setUser + "IF p_flag THEN RETURN; END IF;\n" + record)},
	{"in a loop that may not run", writeRecords, writing("DECLARE v_id uuid; BEGIN " + lock + setUser +
		"FOREACH v_id IN ARRAY p_ids LOOP PERFORM accounts.record_change_v1(ARRAY['u:' || v_id], '{}'); END LOOP; END")},
	{"in a handler only", writeRecords, writing(lock + "BEGIN " + setUser + " EXCEPTION WHEN unique_violation THEN " + record + " END;")},
	{"not in a handler", writeRecords, writing(lock + setUser + "BEGIN " + record + " EXCEPTION WHEN unique_violation THEN NULL; END;")},
	{"in an expression that may be left out", writeRecords, writing("DECLARE v_id bigint; BEGIN " + lock + setUser +
		"v_id := CASE WHEN p_flag THEN accounts.record_change_v1(ARRAY['u:' || p_user_id], '{}') END; PERFORM v_id; END")},
	{"behind OR", writeRecords, writing(lock + setUser + "PERFORM p_flag OR accounts.record_change_v1(ARRAY['u:' || p_user_id], '{}') > 0;")},
	{"for each row of nothing", writeRecords, writing(lock + setUser +
		"PERFORM accounts.record_change_v1(ARRAY['u:' || i.id], '{}') FROM unnest(p_ids) AS i (id);")},
	{"under another condition", writeRecords, writing("DECLARE v_n bigint; BEGIN " + lock + setUser +
		"SELECT count(*) INTO v_n FROM unnest(p_ids) AS i (id); IF v_n > 0 THEN " + record + "END IF; END")},
	{"FOUND of another statement", writeRecords, writing(lock + setUser +
		"PERFORM FROM accounts.user_groups AS g WHERE g.id = p_other_id; IF FOUND THEN " + record + "END IF;")},
	{"the variable is set again", writeRecords, writing("DECLARE v_id uuid; BEGIN " + lock +
		"UPDATE accounts.users AS u SET is_active = p_flag, version = u.version + 1 WHERE u.id = p_user_id RETURNING u.id INTO v_id;" +
		"v_id := NULL; IF v_id IS NOT NULL THEN " + record + "END IF; END")},
	{"the condition changes", writeRecords, writing("DECLARE v_do boolean := p_flag; BEGIN " + lock + "IF v_do THEN " + setUser +
		"END IF; v_do := false; IF v_do THEN " + record + "END IF; END")},
	{"a comment with the name", writeRecords, writing(lock + setUser + "-- accounts.record_change_v1(ARRAY['u:' || p_user_id], '{}')")},
	{"a literal with the name", writeRecords, writing(lock + setUser + "PERFORM 'accounts.record_change_v1()';")},
	{"capitals and spaces", writeRecords, writing(lock + "update  ACCOUNTS . \"users\" /* x */ set is_active = p_flag, version = version + 1 where id = p_user_id;")},
	{"through a helper", writeRecords, helper("UPDATE accounts.users AS u SET is_active = true, version = u.version + 1 WHERE u.id = p_user_id;") +
		writing(lock+"PERFORM accounts.groom_pet_v1(p_user_id);")},
	{"through a helper that records on one path", writeRecords, helper("IF p_user_id IS NULL THEN RETURN; END IF; "+record) +
		writing(lock+setUser+"PERFORM accounts.groom_pet_v1(p_user_id);")},
	{"in WITH", writeRecords, writing(lock + "WITH changed AS (UPDATE accounts.users AS u SET is_active = p_flag, version = u.version + 1 " +
		"WHERE u.id = p_user_id RETURNING u.id) SELECT FROM changed;")},
	{"dynamic", writeRecords, writing(lock + "\n-- Dynamic for a test.\nEXECUTE 'UPDATE accounts.users SET is_active = $1, version = version + 1 WHERE id = $2' USING p_flag, p_user_id;")},
	{"dynamic in a variable", writeRecords, writing("DECLARE v_sql text; BEGIN v_sql := 'DELETE FROM accounts.user_groups WHERE id = $1';" +
		"\n-- Dynamic for a test.\nEXECUTE v_sql USING p_other_id; END")},
	{"MERGE", writeRecords, writing(lock + "MERGE INTO accounts.user_groups AS g USING (SELECT p_other_id AS id) AS s ON g.id = s.id WHEN MATCHED THEN DELETE;")},
	{"ON CONFLICT", writeRecords, writing("INSERT INTO accounts.user_groups (name) VALUES (p_text) ON CONFLICT (name) DO UPDATE SET name = excluded.name;")},
	{"another write function", writeRecords, writing(lock + setUser + "PERFORM accounts.create_user_group_v1(p_text);")},
	{"in a declaration", writeRecords, helper(setUser[:strings.Index(setUser, "is_active")]+"version = u.version + 1 WHERE u.id = p_user_id;") +
		strings.Replace(writing("NULL;"), "$$\n", "$$\nDECLARE v_x text := accounts.groom_pet_v1(p_user_id)::text;", 1)},

	{"unknown", writeDecidable, writing("\n-- Dynamic for a test.\nEXECUTE p_text USING p_user_id;")},
	{"unknown part", writeDecidable, writing("\n-- Dynamic for a test.\nEXECUTE format('SELECT %s', p_text) USING p_user_id;")},
	{"built up", writeDecidable, writing("DECLARE v_sql text := 'SELECT 1'; BEGIN v_sql := v_sql || p_text;\n-- Dynamic for a test.\nEXECUTE v_sql USING 1; END")},
	{"recursion", writeDecidable, helper("IF p_user_id IS NOT NULL THEN PERFORM accounts.groom_pet_v1(NULL); END IF; UPDATE accounts.user_groups SET name = 'x' WHERE id = p_user_id;") +
		writing(lock+"PERFORM accounts.groom_pet_v1(p_user_id);"+record)},

	{"contacts", writeVersion, writing(lock + contacts + record)},
	{"memberships", writeVersion, writing(lock + "DELETE FROM accounts.user_group_memberships AS m WHERE m.user_id = p_user_id;" + record)},
	{"in one branch", writeVersion, writing(lock + contacts + "IF p_flag THEN " + raise + " END IF;" + record)},
	{"the row itself", writeVersion, writing(lock + "UPDATE accounts.users AS u SET is_active = p_flag WHERE u.id = p_user_id;" + record)},

	{"never", writeLocks, writing(contacts + raise + record)},
	{"too late", writeLocks, writing(contacts + lock + raise + record)},
	{"in one branch", writeLocks, writing("IF p_flag THEN " + lock + "END IF;" + contacts + raise + record)},
	{"FOR SHARE", writeLocks, writing("PERFORM FROM accounts.users AS u WHERE u.id = p_user_id FOR SHARE;" + contacts + raise + record)},
	{"through a helper", writeLocks, helper("UPDATE accounts.user_contacts AS c SET value = 'x' WHERE c.user_id = p_user_id;"+raise) +
		writing("PERFORM accounts.groom_pet_v1(p_user_id);"+record)},

	{"no order", lockOrder, writing("PERFORM FROM accounts.users AS u WHERE u.id = ANY (p_ids) FOR NO KEY UPDATE;")},
	{"another order", lockOrder, writing("PERFORM FROM accounts.users AS u WHERE u.id = ANY (p_ids) ORDER BY u.created_at FOR UPDATE;")},
	{"descending", lockOrder, writing("PERFORM FROM accounts.users AS u WHERE u.id = ANY (p_ids) ORDER BY u.id DESC FOR UPDATE;")},
	{"ordered outside", lockOrder, writing("PERFORM FROM (SELECT u.id FROM accounts.users AS u WHERE u.id = ANY (p_ids) FOR UPDATE) AS l ORDER BY l.id;")},
	{"in a loop", lockOrder, writing("DECLARE v_id uuid; BEGIN FOREACH v_id IN ARRAY p_ids LOOP PERFORM accounts.lock_user_v1(v_id); END LOOP; END")},
	{"two", lockOrder, writing("PERFORM FROM accounts.user_groups AS g WHERE g.id IN (p_user_id, p_other_id) FOR SHARE;")},
	{"UPDATE of many", lockOrder, writing("UPDATE accounts.users AS u SET version = u.version + 1 WHERE u.id = ANY (p_ids);" + record)},

	{"another variable", touchedAgrees, writingAs("SETOF accounts.membership_result_v1", "DECLARE v_touched text[] := ARRAY['u:' || p_user_id]; v_all text[] := '{}'; v_id bigint; BEGIN "+
		lock+setUser+"v_id := accounts.record_change_v1(v_touched, '{}'); RETURN QUERY SELECT p_user_id, p_text, v_all, v_id; END")},
	{"a constant", touchedAgrees, writingAs("SETOF accounts.membership_result_v1", "DECLARE v_touched text[] := ARRAY['u:' || p_user_id]; v_id bigint; BEGIN "+
		lock+setUser+"v_id := accounts.record_change_v1(v_touched, '{}'); RETURN QUERY SELECT p_user_id, p_text, '{}'::text[], v_id; END")},
	{"changed after it was recorded", touchedAgrees, writingAs("SETOF accounts.membership_result_v1", "DECLARE v_touched text[] := ARRAY['u:' || p_user_id]; v_id bigint; BEGIN "+
		lock+setUser+"v_id := accounts.record_change_v1(v_touched, '{}'); v_touched := v_touched || 'x'; RETURN QUERY SELECT p_user_id, p_text, v_touched, v_id; END")},
	{"a key more", touchedAgrees, writingAs("SETOF accounts.membership_result_v1", "DECLARE v_touched text[] := ARRAY['u:' || p_user_id]; v_id bigint; BEGIN "+
		lock+setUser+"v_id := accounts.record_change_v1(v_touched, '{}'); RETURN QUERY SELECT p_user_id, p_text, v_touched || ('c:' || p_other_id), v_id; END")},
	{"no outbox row", touchedAgrees, writingAs("SETOF accounts.membership_result_v1", "DECLARE v_touched text[] := ARRAY['u:' || p_user_id]; BEGIN "+
		lock+setUser+"PERFORM accounts.record_change_v1(v_touched, '{}'); RETURN QUERY SELECT p_user_id, p_text, v_touched, NULL::bigint; END")},

	{"none", listLimit, reading(page + "WHERE u.is_active ORDER BY u.id;")},
	{"NULL", listLimit, reading(page + "WHERE u.is_active ORDER BY u.id LIMIT NULL;")},
	{"ALL", listLimit, reading(page + "ORDER BY u.id LIMIT ALL;")},
	{"dynamic", listLimit, reading("\n-- Dynamic for a test.\nRETURN QUERY EXECUTE 'SELECT u.id, u.created_at, u.updated_at, u.is_active, u.profile, u.version " +
		"FROM accounts.users AS u WHERE u.id > $1 ORDER BY u.id' USING p_id;")},
	{"UNION", listLimit, reading("RETURN QUERY SELECT u.id, u.created_at, u.updated_at, u.is_active, u.profile, u.version FROM accounts.users AS u " +
		"UNION ALL SELECT u.id, u.created_at, u.updated_at, u.is_active, u.profile, u.version FROM accounts.users AS u;")},
	{"WITH", listLimit, reading("RETURN QUERY WITH x AS (SELECT u.id, u.created_at, u.updated_at, u.is_active, u.profile, u.version FROM accounts.users AS u) " +
		"SELECT x.id, x.created_at, x.updated_at, x.is_active, x.profile, x.version FROM x;")},
	{"RETURN NEXT", listLimit, reading("DECLARE v_u accounts.user_v1; BEGIN FOR v_u IN SELECT u.id, u.created_at, u.updated_at, u.is_active, u.profile, u.version " +
		"FROM accounts.users AS u LOOP RETURN NEXT v_u; END LOOP; END")},
	{"left by EXIT before it", writeRecords, writing("DECLARE v_id uuid; BEGIN FOREACH v_id IN ARRAY p_ids LOOP UPDATE accounts.user_groups AS g SET name = p_text " +
		"WHERE g.id = v_id; EXIT WHEN p_flag; " + record + " END LOOP; END")},
	{"with the rows of a SELECT", writeRecords, writing(lock + setUser + "PERFORM accounts.record_change_v1(ARRAY['u:' || u.id], '{}') FROM accounts.users AS u WHERE u.id = p_other_id;")},
	{"no order", listOrder, reading(page + "LIMIT p_limit;")},
	{"no order in a variable", listOrder, reading("DECLARE v_id uuid; BEGIN SELECT u.id INTO v_id FROM accounts.users AS u LIMIT 1; PERFORM v_id; END")},
	{"not unique", listOrder, reading(page + "ORDER BY u.created_at LIMIT p_limit;")},
	{"by number", listOrder, reading(page + "ORDER BY 2 LIMIT p_limit;")},
	{"parameter", listOffset, reading(page + "ORDER BY u.id LIMIT p_limit OFFSET p_offset;")},
	{"FETCH", listOffset, reading(page + "ORDER BY u.id OFFSET p_offset ROWS FETCH FIRST 10 ROWS ONLY;")},
	{"OR", optionalFilter, reading(page + "WHERE (p_id IS NULL OR u.id = p_id) ORDER BY u.id LIMIT p_limit;")},
	{"OR, the other way round", optionalFilter, reading(page + "WHERE (u.id = p_id or P_ID is /* x */ null) ORDER BY u.id LIMIT p_limit;")},
	{"coalesce", optionalFilter, reading(page + "WHERE u.id = coalesce(p_id, u.id) ORDER BY u.id LIMIT p_limit;")},
	{"CASE", optionalFilter, reading(page + "WHERE CASE WHEN p_id IS NULL THEN true ELSE u.id = p_id END ORDER BY u.id LIMIT p_limit;")},
	{"NOT AND", optionalFilter, reading(page + "WHERE NOT (p_id IS NOT NULL AND u.id <> p_id) ORDER BY u.id LIMIT p_limit;")},
	{"a cast", optionalFilter, reading(page + "WHERE (p_id::text IS NULL OR u.id = p_id) ORDER BY u.id LIMIT p_limit;")},
	{"cast", indexedColumn, reading(page + "WHERE u.id::text = p_text ORDER BY u.id LIMIT p_limit;")},
	{"function", indexedColumn, reading(page + "JOIN accounts.user_contacts AS c ON c.user_id = u.id WHERE md5(c.user_id::text) = p_text ORDER BY u.id LIMIT p_limit;")},
	{"left of the parameter", indexedColumn, reading(page + "WHERE p_text = CAST(u.id AS text) ORDER BY u.id LIMIT p_limit;")},

	{"plain", whenOthers, writing("BEGIN PERFORM p_text::uuid; EXCEPTION WHEN OTHERS THEN NULL; END;")},
	{"small", whenOthers, writing("BEGIN PERFORM p_text::uuid; EXCEPTION when /* x */ others then NULL; END;")},
	{"second", whenOthers, writing("BEGIN PERFORM p_text::uuid; EXCEPTION WHEN unique_violation OR others THEN NULL; END;")},
	{"star", selectStar, reading("RETURN QUERY SELECT * FROM accounts.users AS u WHERE u.id = p_id;")},
	{"star of a table", selectStar, reading("RETURN QUERY SELECT u.* FROM accounts.users AS u WHERE u.id = p_id;")},
	{"within", selectStar, reading("PERFORM x.id FROM (SELECT * FROM accounts.users AS u WHERE u.id = p_id) AS x;")},
	{"=", nullCompare, reading(page + "WHERE u.profile = NULL ORDER BY u.id LIMIT p_limit;")},
	{"<>", nullCompare, writing("IF p_text <> null THEN RETURN; END IF;")},
	{"cast", nullCompare, writing("IF p_text = NULL::text THEN RETURN; END IF;")},
	{"IN", nullCompare, writing("IF p_text IN ('a', NULL) THEN RETURN; END IF;")},
	{"subquery", notInNulls, reading(page + "WHERE u.id NOT IN (SELECT c.user_id FROM accounts.user_contacts AS c) ORDER BY u.id LIMIT p_limit;")},
	{"ALL", notInNulls, reading(page + "WHERE u.id <> ALL (SELECT c.user_id FROM accounts.user_contacts AS c) ORDER BY u.id LIMIT p_limit;")},
	{"NOT x IN", notInNulls, reading(page + "WHERE NOT u.id IN (SELECT c.user_id FROM accounts.user_contacts AS c) ORDER BY u.id LIMIT p_limit;")},
	{"list", notInNulls, writing("IF p_text NOT IN ('a', NULL) THEN RETURN; END IF;")},
	{"UPDATE", updateWhere, writing("UPDATE accounts.import_jobs SET done = 0;")},
	{"DELETE", updateWhere, writing("delete from accounts.import_jobs as j;")},
	{"DELETE in WITH", updateWhere, writing("WITH gone AS (DELETE FROM accounts.import_jobs AS j RETURNING j.id) SELECT count(*) FROM gone;")},
	{"WHERE true", updateWhere, writing("DELETE FROM accounts.import_jobs AS j WHERE true;")},
	{"TRUNCATE", updateWhere, writing("TRUNCATE accounts.import_rows;")},
	{"%I in a call", dynamicSQL, reading("\n-- Dynamic for a test.\nEXECUTE format('SELECT accounts.%I($1)', p_text) USING p_id;")},
	{"%I for a table", dynamicSQL, reading("\n-- Dynamic for a test.\nEXECUTE format('SELECT FROM accounts.%I WHERE id = $1', p_text) USING p_id;")},
	{"quote_ident", dynamicSQL, reading("\n-- Dynamic for a test.\nEXECUTE 'SELECT FROM accounts.' || quote_ident(p_text) || ' WHERE id = $1' USING p_id;")},
	{"now", readClock, reading(page + "WHERE u.created_at < now() ORDER BY u.id LIMIT p_limit;")},
	{"current_timestamp", readClock, reading(page + "WHERE u.created_at < CURRENT_TIMESTAMP ORDER BY u.id LIMIT p_limit;")},
	{"text", readClock, reading(page + "WHERE u.created_at < 'now'::timestamptz ORDER BY u.id LIMIT p_limit;")},
	{"random", readClock, reading(page + "WHERE u.version > random() ORDER BY u.id LIMIT p_limit;")},

	{"set_config", sessionState, writing("PERFORM set_config('work_mem', '1GB', false);")},
	{"set_config with a parameter", sessionState, writing("PERFORM pg_catalog.\"set_config\"('work_mem', p_text, p_flag);")},
	{"SET", sessionState, writing("SET work_mem = '1GB';")},
	{"synchronous_commit", sessionState, writing("PERFORM set_config('synchronous_commit', 'off', true);")},
	{"SET LOCAL", sessionState, writing("SET LOCAL synchronous_commit = off;")},
	{"advisory lock", sessionState, writing("PERFORM pg_advisory_lock(1);")},
	{"try advisory lock", sessionState, writing("IF pg_try_advisory_lock(1) THEN RETURN; END IF;")},
	{"temporary table", sessionState, writing("CREATE TEMPORARY TABLE pets (id uuid);")},
	{"temporary table AS", sessionState, writing("CREATE TEMP TABLE pets AS SELECT 1;")},
	{"NOTIFY", sessionState, writing("NOTIFY pets;")},
	{"pg_notify", sessionState, writing("PERFORM pg_notify('pets', p_text);")},

	{"text alone", errorCode, writing("RAISE EXCEPTION 'no such pet';")},
	{"no level", errorCode, writing("RAISE 'no such pet';")},
	{"P0001", errorCode, writing("RAISE EXCEPTION USING ERRCODE = 'P0001', MESSAGE = 'no such pet';")},
	{"another class", errorCode, writing("RAISE EXCEPTION USING ERRCODE = 'UA099', MESSAGE = 'no such pet';")},
	{"condition", errorCode, writing("RAISE foreign_key_violation USING MESSAGE = 'no such pet';")},
	{"SQLSTATE", errorCode, writing("raise sqlstate 'XX001' using message = 'no such pet';")},
	{"E literal", errorCode, writing("RAISE EXCEPTION USING ERRCODE = E'UA0\\x39\\x39', MESSAGE = 'no such pet';")},
	{"constraint", errorCode, writing("RAISE EXCEPTION USING ERRCODE = 'unique_violation', MESSAGE = 'taken', CONSTRAINT = 'pets_name_key';")},
	{"no constraint", errorCode, writing("RAISE EXCEPTION USING ERRCODE = '23505', MESSAGE = 'taken';")},
	{"no DETAIL", errorCode, writing("RAISE EXCEPTION USING ERRCODE = 'UA001', MESSAGE = 'no such pet';")},
	{"variable", errorCode, writing("RAISE EXCEPTION USING ERRCODE = p_text, MESSAGE = 'no such pet';")},
	{"ASSERT", errorCode, writing("ASSERT p_flag, 'no such pet';")},
	{"STRICT", errorCode, writing("DECLARE v_id uuid; BEGIN SELECT u.id INTO STRICT v_id FROM accounts.users AS u WHERE u.id = p_user_id; PERFORM v_id; END")},
	{"concatenation", errorMessage, writing("RAISE EXCEPTION USING ERRCODE = 'serialization_failure', MESSAGE = 'no pet ' || p_text;")},
	{"parameters", errorMessage, writing("RAISE EXCEPTION 'no pet %', p_text USING ERRCODE = 'serialization_failure';")},
	{"format", errorMessage, writing("RAISE serialization_failure USING MESSAGE = format('no pet %s', p_text);")},
	{"NOTICE", raiseLog, writing("RAISE NOTICE 'a pet';")},
	{"LOG", raiseLog, writing("raise log 'a pet %', p_text;")},
	{"WARNING", raiseLog, writing("RAISE WARNING USING MESSAGE = 'a pet';")},
	{"DEBUG", raiseLog, writing("RAISE DEBUG 'a pet';")},
	{"INFO", raiseLog, writing("RAISE INFO 'a pet';")},

	{"write", parallelSafe, strings.Replace(writing("DELETE FROM accounts.import_jobs AS j WHERE j.id = p_user_id;"), "VOLATILE", "VOLATILE PARALLEL SAFE", 1)},
	{"calls a write", parallelSafe, strings.Replace(writing("PERFORM accounts.create_user_group_v1(p_text);"), "VOLATILE", "VOLATILE PARALLEL SAFE", 1)},
	{"table", immutableReads, strings.Replace(helper("PERFORM FROM accounts.users AS u WHERE u.id = p_user_id;"), "VOLATILE", "IMMUTABLE", 1) +
		writing("PERFORM accounts.groom_pet_v1(p_user_id);")},
	{"clock", immutableReads, strings.Replace(helper("PERFORM now(), p_user_id;"), "VOLATILE", "IMMUTABLE", 1) + writing("PERFORM accounts.groom_pet_v1(p_user_id);")},
	{"calls a STABLE one", immutableReads, strings.Replace(helper("PERFORM accounts.get_user_detail_v1(p_user_id);"), "VOLATILE", "IMMUTABLE", 1) +
		writing("PERFORM accounts.groom_pet_v1(p_user_id);")},
}

// ofPlant is what the rules for bodies find in a plant.
func ofPlant(t *testing.T, tables map[name]table, plant string) (found []Violation) {
	t.Helper()
	tree := readTree(t, root)
	m := newMigration(filepath.Base(next), head+plant+foot)
	_, err := parseSQL(m.up)
	require.NoError(t, err)
	tree.migrations = append(tree.migrations, m)
	routines := staticRoutines(tree)
	for _, v := range slices.Concat(statementRules(routines, tables), callGraph(routines), touchedRules(routines), effects(routines)) {
		if v.File == next {
			found = append(found, v)
		}
	}
	return withoutConsequences(found)
}

func TestBodies_EachMistakeIsFound(t *testing.T) {
	t.Parallel()
	tables, err := readTables(t.Context(), connect(t, pgtest.Shared(t).RemoveOracle("the rules are about what the migrations make").SuperURL))
	require.NoError(t, err)
	for _, f := range bodyFaults {
		t.Run(f.rule+"/"+f.name, func(t *testing.T) {
			requireOnly(t, f.rule, ofPlant(t, tables, f.plant))
		})
	}
}
