package dbrules

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/pgtest"
)

const (
	declareGroup = "DECLARE v_n bigint; v_id uuid; v_name text; v_row record; BEGIN "
	setGroup     = "UPDATE accounts.user_groups AS g SET name = p_text WHERE g.id = p_other_id;\n"
	recordGroup  = "PERFORM accounts.record_change_v1(ARRAY['d:user_groups'], '{}');\n"
)

var bodyVariants = []fault{
	// The call graph.
	{"GET DIAGNOSTICS of another statement", writeRecords, writing(declareGroup + setGroup + "PERFORM FROM accounts.users AS u WHERE u.id = p_user_id; GET DIAGNOSTICS v_n = ROW_COUNT; IF v_n > 0 THEN " + recordGroup + "END IF; END")},
	{"GET DIAGNOSTICS of PG_CONTEXT", writeRecords, writing(declareGroup + setGroup + "GET DIAGNOSTICS v_name = PG_CONTEXT; IF v_name IS NOT NULL THEN " + recordGroup + "END IF; END")},
	{"ROW_COUNT greater than one", writeRecords, writing(declareGroup + setGroup + "GET DIAGNOSTICS v_n = ROW_COUNT; IF v_n > 1 THEN " + recordGroup + "END IF; END")},
	{"ROW_COUNT and a flag", writeRecords, writing(declareGroup + setGroup + "GET DIAGNOSTICS v_n = ROW_COUNT; IF v_n > 0 AND p_flag THEN " + recordGroup + "END IF; END")},
	{"FOUND or not", writeRecords, writing(setGroup + "IF NOT FOUND THEN " + recordGroup + "END IF;")},
	{"FOUND after PERFORM", writeRecords, writing(setGroup + "PERFORM lower(p_text); IF FOUND THEN " + recordGroup + "END IF;")},
	{"FOUND after SELECT INTO", writeRecords, writing(declareGroup + setGroup + "SELECT g.id INTO v_id FROM accounts.user_groups AS g WHERE g.name = p_text; IF FOUND THEN " + recordGroup + "END IF; END")},
	{"nullable RETURNING", writeRecords, writing("DECLARE v_at timestamptz; BEGIN " + lock + "UPDATE accounts.user_contacts AS c SET value = p_text WHERE c.id = p_other_id RETURNING c.deactivated_at INTO v_at; IF v_at IS NOT NULL THEN " + raise + record + "END IF; END")},
	{"RETURNING true of one of two", writeRecords, writing(declareGroup + setGroup + "UPDATE accounts.user_groups AS g SET name = p_text WHERE g.id = p_user_id RETURNING g.id INTO v_id; IF v_id IS NOT NULL THEN " + recordGroup + "END IF; END")},
	{"inner block with EXCEPTION after it", writeRecords, writing("BEGIN " + setGroup + "PERFORM p_text::uuid; " + recordGroup + "EXCEPTION WHEN invalid_text_representation THEN " + setGroup + "END;")},
	{"change in a handler", writeRecords, writing("BEGIN PERFORM p_text::uuid; EXCEPTION WHEN invalid_text_representation THEN " + setGroup + "END;")},
	{"RETURN in nested block", writeRecords, writing("BEGIN " + setGroup + "IF p_flag THEN BEGIN RETURN; END; END IF; END;" + recordGroup)},
	{"RETURN in a loop", writeRecords, writing("DECLARE v_id uuid; BEGIN " + setGroup + "FOREACH v_id IN ARRAY p_ids LOOP IF v_id = p_user_id THEN RETURN; END IF; END LOOP; " + recordGroup + " END")},
	{"CONTINUE over it", writeRecords, writing("DECLARE v_id uuid; BEGIN FOREACH v_id IN ARRAY p_ids LOOP UPDATE accounts.user_groups AS g SET name = p_text WHERE g.id = v_id; CONTINUE WHEN p_flag; " + recordGroup + "END LOOP; END")},
	{"WHILE", writeRecords, writing("DECLARE v_i integer := 0; BEGIN " + setGroup + "WHILE v_i < 0 LOOP " + recordGroup + "v_i := v_i + 1; END LOOP; END")},
	{"FOR 1..0", writeRecords, writing(setGroup + "FOR i IN 1..0 LOOP " + recordGroup + "END LOOP;")},
	{"LOOP EXIT first", writeRecords, writing(setGroup + "LOOP EXIT WHEN p_flag; " + recordGroup + "EXIT; END LOOP;")},
	{"FOR over a query", writeRecords, writing("DECLARE v_row record; BEGIN " + setGroup + "FOR v_row IN SELECT u.id FROM accounts.users AS u WHERE u.id = p_user_id LOOP " + recordGroup + "END LOOP; END")},
	{"CASE without the branch", writeRecords, writing(setGroup + "CASE WHEN p_flag THEN " + recordGroup + "WHEN p_text = 'x' THEN NULL; ELSE " + recordGroup + "END CASE;")},
	{"ELSIF without it", writeRecords, writing("IF p_flag THEN " + setGroup + recordGroup + "ELSIF p_text = 'x' THEN " + setGroup + "ELSE " + setGroup + recordGroup + "END IF;")},
	{"after it via a helper", writeRecords, helper("UPDATE accounts.user_groups AS g SET name = 'x' WHERE g.id = p_user_id;") + writing(setGroup+recordGroup+"PERFORM accounts.groom_pet_v1(p_other_id);")},
	{"in the WHERE of a SELECT", writeRecords, helper("UPDATE accounts.user_groups AS g SET name = 'x' WHERE g.id = p_user_id;") + writing("PERFORM FROM accounts.users AS u WHERE accounts.groom_pet_v1(u.id) IS NOT NULL;")},
	{"in FROM", writeRecords, helper("UPDATE accounts.user_groups AS g SET name = 'x' WHERE g.id = p_user_id;") + writing("PERFORM FROM accounts.groom_pet_v1(p_other_id) AS x;")},
	{"in LATERAL", writeRecords, helper("UPDATE accounts.user_groups AS g SET name = 'x' WHERE g.id = p_user_id;") + writing("PERFORM FROM unnest(p_ids) AS i (id) CROSS JOIN LATERAL accounts.groom_pet_v1(i.id) AS x;")},
	{"in RETURNING", writeRecords, helper("UPDATE accounts.user_groups AS g SET name = 'x' WHERE g.id = p_user_id;") + writing("DELETE FROM accounts.import_jobs AS j WHERE j.id = p_other_id; UPDATE accounts.import_jobs AS j SET done = 1 WHERE j.id = p_other_id RETURNING accounts.groom_pet_v1(j.id);")},
	{"in ORDER BY", writeRecords, helper("UPDATE accounts.user_groups AS g SET name = 'x' WHERE g.id = p_user_id;") + writing("PERFORM FROM accounts.users AS u WHERE u.id = p_user_id ORDER BY accounts.groom_pet_v1(u.id);")},
	{"in a CASE expression", writeRecords, helper("UPDATE accounts.user_groups AS g SET name = 'x' WHERE g.id = p_user_id;") + writing("PERFORM CASE WHEN p_flag THEN accounts.groom_pet_v1(p_other_id) END;")},
	{"in a condition of IF", writeRecords, helper("UPDATE accounts.user_groups AS g SET name = 'x' WHERE g.id = p_user_id;") + writing("IF accounts.groom_pet_v1(p_other_id) IS NULL THEN RETURN; END IF;")},
	{"in the argument of another call", writeRecords, helper("UPDATE accounts.user_groups AS g SET name = 'x' WHERE g.id = p_user_id;") + writing("PERFORM concat(accounts.groom_pet_v1(p_other_id));")},
	{"in a subquery of SET", writeRecords, helper("UPDATE accounts.user_groups AS g SET name = 'x' WHERE g.id = p_user_id;") + writing("UPDATE accounts.import_jobs AS j SET done = (SELECT 1 FROM accounts.groom_pet_v1(p_other_id)) WHERE j.id = p_other_id;")},
	{"in EXECUTE USING", writeRecords, helper("UPDATE accounts.user_groups AS g SET name = 'x' WHERE g.id = p_user_id;") + writing("\n-- Dynamic for a test.\nEXECUTE 'SELECT $1' USING accounts.groom_pet_v1(p_other_id)::text;")},
	{"in a FOR bound", writeRecords, helper("UPDATE accounts.user_groups AS g SET name = 'x' WHERE g.id = p_user_id;") + writing("FOR i IN 1..coalesce(length(accounts.groom_pet_v1(p_other_id)::text), 1) LOOP NULL; END LOOP;")},
	{"in a cursor", writeRecords, writing("DECLARE v_c CURSOR FOR UPDATE accounts.user_groups AS g SET name = 'x' WHERE g.id = p_other_id RETURNING g.id; v_id uuid; BEGIN OPEN v_c; FETCH v_c INTO v_id; CLOSE v_c; PERFORM v_id; END")},
	{"cursor that calls", writeRecords, helper("UPDATE accounts.user_groups AS g SET name = 'x' WHERE g.id = p_user_id;") + writing("DECLARE v_c CURSOR FOR SELECT accounts.groom_pet_v1(p_other_id) AS x; v_row record; BEGIN FOR v_row IN v_c LOOP NULL; END LOOP; PERFORM v_row; END")},
	{"open cursor", writeRecords, helper("UPDATE accounts.user_groups AS g SET name = 'x' WHERE g.id = p_user_id;") + writing("DECLARE v_c CURSOR FOR SELECT accounts.groom_pet_v1(p_other_id) AS x; v_row record; BEGIN OPEN v_c; FETCH v_c INTO v_row; CLOSE v_c; PERFORM v_row; END")},
	{"refcursor", writeRecords, helper("UPDATE accounts.user_groups AS g SET name = 'x' WHERE g.id = p_user_id;") + writing("DECLARE v_c refcursor; v_row record; BEGIN OPEN v_c FOR SELECT accounts.groom_pet_v1(p_other_id) AS x; FETCH v_c INTO v_row; CLOSE v_c; PERFORM v_row; END")},
	{"in RETURN QUERY", writeRecords, writingAs("SETOF uuid", "RETURN QUERY UPDATE accounts.user_groups AS g SET name = p_text WHERE g.id = p_other_id RETURNING g.id;")},
	{"WITH in RETURN QUERY", writeRecords, writingAs("SETOF uuid", "RETURN QUERY WITH x AS (UPDATE accounts.user_groups AS g SET name = p_text WHERE g.id = p_other_id RETURNING g.id) SELECT x.id FROM x;")},
	{"in RETURN", writeRecords, helper("UPDATE accounts.user_groups AS g SET name = 'x' WHERE g.id = p_user_id;") + writing("PERFORM 1; RETURN; PERFORM 2;") + returningText("RETURN accounts.groom_pet_v1(p_id)::text;")},
	{"nested WITH", writeRecords, writing("WITH a AS (WITH b AS (SELECT 1) SELECT 1 FROM b), c AS (DELETE FROM accounts.user_groups AS g WHERE g.id = p_other_id RETURNING g.id) SELECT 1 FROM a;")},
	{"record in an unread WITH", writeRecords, writing(setGroup + "WITH r AS (SELECT accounts.record_change_v1(ARRAY['d:user_groups'], '{}') AS id) SELECT 1;")},
	{"record in WHERE", writeRecords, writing(setGroup + "PERFORM FROM accounts.users AS u WHERE u.id = p_user_id AND accounts.record_change_v1(ARRAY['d:user_groups'], '{}') > 0;")},
	{"record in EXISTS", writeRecords, writing(setGroup + "IF p_flag AND EXISTS (SELECT accounts.record_change_v1(ARRAY['d:user_groups'], '{}')) THEN RETURN; END IF;")},
	{"record in nullif of coalesce", writeRecords, writing(setGroup + "PERFORM coalesce(1, accounts.record_change_v1(ARRAY['d:user_groups'], '{}'));")},
	{"record with LIMIT 0", writeRecords, writing(setGroup + "PERFORM accounts.record_change_v1(ARRAY['d:user_groups'], '{}') LIMIT 0;")},
	{"record in JOIN", writeRecords, writing(setGroup + "PERFORM FROM accounts.users AS u JOIN LATERAL accounts.record_change_v1(ARRAY['d:user_groups'], '{}') AS r ON true WHERE u.id = p_user_id;")},
	{"record into a subtransaction", writeRecords, writing(setGroup + "BEGIN " + recordGroup + "RAISE EXCEPTION USING ERRCODE = 'serialization_failure', MESSAGE = 'x'; EXCEPTION WHEN serialization_failure THEN NULL; END;")},
	{"dynamic record behind a branch", writeRecords, writing(setGroup + "IF p_flag THEN\n-- Dynamic for a test.\nEXECUTE 'SELECT accounts.record_change_v1($1, $2)' USING ARRAY['d:user_groups'], '{}'::text[]; END IF;")},
	{"dynamic in format", writeRecords, writing("\n-- Dynamic for a test.\nEXECUTE format('UPDATE accounts.%I SET name = $1 WHERE id = $2', 'user_groups') USING p_text, p_other_id;")},
	{"dynamic table by CASE", writeRecords, writing("\n-- Dynamic for a test.\nEXECUTE 'DELETE FROM accounts.' || CASE WHEN p_flag THEN 'user_groups' ELSE 'contact_types' END || ' WHERE id = $1' USING p_other_id;")},
	{"dynamic by concat_ws", writeDecidable, writing("\n-- Dynamic for a test.\nEXECUTE concat_ws(' ', 'DELETE FROM', 'accounts.user_groups', 'WHERE id = $1') USING p_other_id;")},
	{"dynamic by replace", writeDecidable, writing("\n-- Dynamic for a test.\nEXECUTE replace('DELETE FROM accounts.x WHERE id = $1', 'x', 'user_groups') USING p_other_id;")},
	{"dynamic by chr", writeDecidable, writing("\n-- Dynamic for a test.\nEXECUTE 'DELETE FROM accounts.user' || chr(95) || 'groups WHERE id = $1' USING p_other_id;")},
	{"dynamic loop", writeRecords, writing("DECLARE v_row record; BEGIN\n-- Dynamic for a test.\nFOR v_row IN EXECUTE 'UPDATE accounts.user_groups SET name = $1 WHERE id = $2 RETURNING id' USING p_text, p_other_id LOOP PERFORM v_row.id; END LOOP; END")},
	{"dynamic from a table", writeDecidable, writing("DECLARE v_sql text; BEGIN SELECT g.name INTO v_sql FROM accounts.user_groups AS g WHERE g.id = p_other_id;\n-- Dynamic for a test.\nEXECUTE v_sql USING 1; END")},
	{"MERGE insert", writeRecords, writing("MERGE INTO accounts.user_groups AS g USING (SELECT p_other_id AS id) AS s ON g.id = s.id WHEN NOT MATCHED THEN INSERT (name, name_key) VALUES (p_text, p_text);")},
	{"INSERT DO NOTHING", writeRecords, writing("INSERT INTO accounts.user_groups (name, name_key) VALUES (p_text, lower(p_text)) ON CONFLICT DO NOTHING;")},
	{"INSERT SELECT", writeRecords, writing("INSERT INTO accounts.user_groups (name, name_key) SELECT i.id::text, i.id::text FROM unnest(p_ids) AS i (id);")},
	{"UPDATE ONLY", writeRecords, writing("UPDATE ONLY accounts.user_groups SET name = p_text WHERE id = p_other_id;")},
	{"quoted", writeRecords, writing("UPDATE \"accounts\".\"user_groups\" SET \"name\" = p_text WHERE id = p_other_id;")},
	{"unicode quoted", writeRecords, writing("UPDATE accounts.U&\"user\\005Fgroups\" SET name = p_text WHERE id = p_other_id;")},
	{"row assignment", writeRecords, writing("UPDATE accounts.user_groups AS g SET (name, name_key) = (p_text, p_text) WHERE g.id = p_other_id;")},
	{"row assignment without version", writeVersion, writing(lock + "UPDATE accounts.users AS u SET (is_active, profile) = (p_flag, '{}') WHERE u.id = p_user_id;" + record)},
	{"WHERE CURRENT OF", writeRecords, writing("DECLARE v_c CURSOR FOR SELECT g.id FROM accounts.user_groups AS g WHERE g.id = p_other_id FOR UPDATE; v_row record; BEGIN FOR v_row IN v_c LOOP UPDATE accounts.user_groups SET name = p_text WHERE CURRENT OF v_c; END LOOP; END")},
	{"TRUNCATE", updateWhere, writing("TRUNCATE TABLE ONLY accounts.user_groups;" + recordGroup)},
	{"another function of the same name", writeRecords, writing(setGroup + "PERFORM public.record_change_v1(ARRAY['d:user_groups'], '{}');")},
	{"without a schema", writeRecords, writing(setGroup + "PERFORM record_change_v1(ARRAY['d:user_groups'], '{}');")},
	{"recorded nothing", anyRule, writing(setGroup + "PERFORM accounts.record_change_v1('{}', '{}');")},
	{"recorded NULL", anyRule, writing(setGroup + "PERFORM accounts.record_change_v1(NULL, NULL);")},
	{"recorded an empty ARRAY", anyRule, writing(setGroup + "PERFORM accounts.record_change_v1(ARRAY[]::text[], '{}');")},
	{"recorded an empty variable", anyRule, writing("DECLARE v_touched text[] := '{}'; BEGIN " + setGroup + "PERFORM accounts.record_change_v1(v_touched, '{}'); END")},
	{"two levels", writeRecords, helper("UPDATE accounts.user_groups AS g SET name = 'x' WHERE g.id = p_user_id;") + brush + writing("PERFORM accounts.brush_pet_v1(p_other_id);")},
	{"mutual recursion", writeDecidable, mutual + writing("PERFORM accounts.brush_pet_v1(p_other_id);"+recordGroup)},

	// Locks and versions.
	{"FOR KEY SHARE", writeLocks, writing("PERFORM FROM accounts.users AS u WHERE u.id = p_user_id FOR KEY SHARE;" + contacts + raise + record)},
	{"SKIP LOCKED", writeLocks, writing("PERFORM FROM accounts.users AS u WHERE u.id = p_user_id FOR UPDATE SKIP LOCKED;" + contacts + raise + record)},
	{"lock in a condition", writeLocks, writing("IF p_flag AND accounts.lock_user_v1(p_user_id) IS NOT NULL THEN NULL; END IF;" + contacts + raise + record)},
	{"lock in a handler", writeLocks, writing("BEGIN " + lock + " EXCEPTION WHEN lock_not_available THEN NULL; END;" + contacts + raise + record)},
	{"lock of a contact only", writeLocks, writing("PERFORM FROM accounts.user_contacts AS c WHERE c.id = p_other_id FOR UPDATE;" + contacts + raise + record)},
	{"lock of the other table", writeLocks, writing("PERFORM FROM accounts.users AS u JOIN accounts.user_contacts AS c ON c.user_id = u.id WHERE c.id = p_other_id FOR UPDATE OF c;" + contacts + raise + record)},
	{"raise of a constant", anyRule, writing(lock + "UPDATE accounts.users AS u SET version = 1 WHERE u.id = p_user_id;" + record)},
	{"raise by two", anyRule, writing(lock + "UPDATE accounts.users AS u SET version = u.version + 2 WHERE u.id = p_user_id;" + record)},
	{"raise to itself", anyRule, writing(lock + "UPDATE accounts.users AS u SET is_active = p_flag, version = u.version WHERE u.id = p_user_id;" + record)},
	{"loop in the order of an array", lockOrder, writing("FOR i IN 1..cardinality(p_ids) LOOP PERFORM accounts.lock_user_v1(p_ids[i]); END LOOP;")},
	{"locks of two", lockOrder, writing("PERFORM accounts.lock_user_v1(p_user_id); PERFORM accounts.lock_user_v1(p_other_id);")},
	{"in SELECT of unnest", lockOrder, writing("PERFORM accounts.lock_user_v1(i.id) FROM unnest(p_ids) AS i (id);")},
	{"unordered of groups", lockOrder, writing("PERFORM FROM accounts.user_groups AS g WHERE g.id = ANY (p_ids) FOR NO KEY UPDATE;")},
	{"ordered descending in a loop", lockOrder, writing("DECLARE v_row record; BEGIN FOR v_row IN SELECT u.id FROM accounts.users AS u WHERE u.id = ANY (p_ids) ORDER BY u.id DESC LOOP PERFORM accounts.lock_user_v1(v_row.id); END LOOP; END")},
	{"ORDER BY a random order", lockOrder, writing("PERFORM FROM accounts.users AS u WHERE u.id = ANY (p_ids) ORDER BY md5(u.id::text) FOR UPDATE;")},

	// Lists.
	{"huge LIMIT", anyRule, reading(page + "ORDER BY u.id LIMIT 1000000000;")},
	{"LIMIT coalesce NULL", anyRule, reading(page + "ORDER BY u.id LIMIT nullif(p_limit, 0);")},
	{"LIMIT in the inner only", listLimit, reading("RETURN QUERY SELECT u.id, u.created_at, u.updated_at, u.is_active, u.profile, u.version FROM (SELECT x.id FROM accounts.users AS x ORDER BY x.id LIMIT 10) AS l CROSS JOIN accounts.users AS u;")},
	{"LIMIT CASE", anyRule, reading(page + "ORDER BY u.id LIMIT CASE WHEN p_limit > 0 THEN p_limit END;")},
	{"WITH TIES", anyRule, reading(page + "ORDER BY u.created_at FETCH FIRST 10 ROWS WITH TIES;")},
	{"random order", anyRule, reading(page + "ORDER BY random(), u.id LIMIT p_limit;")},
	{"nullable order", listOrder, reading(page + "ORDER BY u.profile ->> 'name' LIMIT p_limit;")},
	{"order by an expression of the key", listOrder, reading(page + "ORDER BY left(u.id::text, 3) LIMIT p_limit;")},
	{"order by output alias", listOrder, reading("RETURN QUERY SELECT u.id, u.created_at AS at, u.updated_at, u.is_active, u.profile, u.version FROM accounts.users AS u ORDER BY at LIMIT p_limit;")},
	{"OFFSET of an expression", listOffset, reading(page + "ORDER BY u.id LIMIT p_limit OFFSET (p_offset - 1) * p_limit;")},
	{"OFFSET in a subquery", listOffset, reading("RETURN QUERY SELECT s.id, s.created_at, s.updated_at, s.is_active, s.profile, s.version FROM (SELECT u.* FROM accounts.users AS u ORDER BY u.id OFFSET p_offset LIMIT p_limit) AS s ORDER BY s.id LIMIT 10;")},
	{"row_number paging", listOffset, reading("RETURN QUERY SELECT s.id, s.created_at, s.updated_at, s.is_active, s.profile, s.version FROM (SELECT u.id, u.created_at, u.updated_at, u.is_active, u.profile, u.version, row_number() OVER (ORDER BY u.id) AS n FROM accounts.users AS u) AS s WHERE s.n > p_offset ORDER BY s.id LIMIT p_limit;")},
	{"optional in HAVING or JOIN", optionalFilter, reading(page + "JOIN accounts.user_contacts AS c ON c.user_id = u.id AND (p_text IS NULL OR c.value = p_text) ORDER BY u.id LIMIT p_limit;")},
	{"optional by nullif", optionalFilter, reading(page + "WHERE (nullif(p_text, '') IS NULL OR u.profile ->> 'x' = p_text) ORDER BY u.id LIMIT p_limit;")},
	{"optional by empty text", optionalFilter, reading(page + "WHERE (p_text = '' OR u.profile ->> 'x' = p_text) ORDER BY u.id LIMIT p_limit;")},
	{"optional by cardinality", optionalFilter, reading(page + "WHERE (cardinality(p_ids) = 0 OR u.id = ANY (p_ids)) ORDER BY u.id LIMIT p_limit;")},
	{"optional by COALESCE to true", optionalFilter, reading(page + "WHERE coalesce(u.id = p_id, true) ORDER BY u.id LIMIT p_limit;")},
	{"optional by IS NOT DISTINCT", optionalFilter, reading(page + "WHERE u.id IS NOT DISTINCT FROM coalesce(p_id, u.id) ORDER BY u.id LIMIT p_limit;")},
	{"optional by LIKE", indexedColumn, reading(page + "WHERE u.id::text LIKE coalesce(p_text, '%') ORDER BY u.id LIMIT p_limit;")},
	{"optional on a variable", optionalFilter, reading("DECLARE v_id uuid := p_id; BEGIN " + page + "WHERE (v_id IS NULL OR u.id = v_id) ORDER BY u.id LIMIT p_limit; END")},
	{"optional in EXISTS", optionalFilter, reading(page + "WHERE EXISTS (SELECT FROM accounts.user_contacts AS c WHERE c.user_id = u.id AND (p_text IS NULL OR c.value = p_text)) ORDER BY u.id LIMIT p_limit;")},
	{"cast on BETWEEN", indexedColumn, reading(page + "WHERE u.id::text BETWEEN 'a' AND p_text ORDER BY u.id LIMIT p_limit;")},
	{"cast on IN", indexedColumn, reading(page + "WHERE u.id::text IN (p_text, 'x') ORDER BY u.id LIMIT p_limit;")},
	{"cast on ANY", indexedColumn, reading(page + "WHERE u.id::text = ANY (ARRAY[p_text]) ORDER BY u.id LIMIT p_limit;")},
	{"function in LIKE", indexedColumn, reading(page + "WHERE u.id::text LIKE p_text ORDER BY u.id LIMIT p_limit;")},
	{"arithmetic", indexedColumn, reading(page + "JOIN accounts.cache_outbox AS o ON true WHERE o.id + 1 > p_limit ORDER BY u.id, o.id LIMIT p_limit;")},
	{"function under OR", indexedColumn, reading(page + "WHERE (u.id::text = p_text OR u.id = p_id) ORDER BY u.id LIMIT p_limit;")},
	{"cast in a JOIN", indexedColumn, reading(page + "JOIN accounts.user_contacts AS c ON c.user_id::text = p_text ORDER BY u.id LIMIT p_limit;")},
	// Bodies.
	{"OTHERS quoted", whenOthers, writing("BEGIN PERFORM p_text::uuid; EXCEPTION WHEN \"others\" THEN NULL; END;")},
	{"class of conditions", anyRule, writing("BEGIN PERFORM p_text::uuid; EXCEPTION WHEN SQLSTATE '40000' THEN NULL; END;")},
	{"deadlock swallowed", anyRule, writing("BEGIN " + lock + "EXCEPTION WHEN deadlock_detected THEN NULL; END;")},
	{"cancel swallowed", anyRule, writing("BEGIN " + lock + "EXCEPTION WHEN query_canceled THEN NULL; END;")},
	{"serialization swallowed", anyRule, writing("BEGIN " + lock + "EXCEPTION WHEN serialization_failure THEN NULL; END;")},
	{"star in INSERT SELECT", selectStar, writing("INSERT INTO accounts.import_jobs SELECT * FROM accounts.import_jobs AS j WHERE j.id = p_other_id;")},
	{"TABLE command", selectStar, reading("RETURN QUERY TABLE accounts.users;")},
	{"INSERT without columns", anyRule, writing("INSERT INTO accounts.import_rows VALUES (p_other_id);")},
	{"= NULL of a variable", nullCompare, writing("IF NULL = p_text THEN RETURN; END IF;")},
	{"= ANY with NULL", nullCompare, writing("IF p_text = ANY (ARRAY['a', NULL]) THEN RETURN; END IF;")},
	{"NOT = ANY", notInNulls, reading(page + "WHERE NOT (u.id = ANY (SELECT c.user_id FROM accounts.user_contacts AS c)) ORDER BY u.id LIMIT p_limit;")},
	{"WHERE 1 = 1", updateWhere, writing("DELETE FROM accounts.import_jobs WHERE 1 = 1;")},
	{"WHERE id = id", updateWhere, writing("DELETE FROM accounts.import_jobs AS j WHERE j.id = j.id;")},
	{"WHERE NOT false", updateWhere, writing("DELETE FROM accounts.import_jobs WHERE NOT false;")},
	{"WHERE id IS NOT NULL", updateWhere, writing("DELETE FROM accounts.import_jobs AS j WHERE j.id IS NOT NULL;")},
	{"localtimestamp", readClock, reading(page + "WHERE u.created_at < LOCALTIMESTAMP ORDER BY u.id LIMIT p_limit;")},
	{"current_date", readClock, reading(page + "WHERE u.created_at < current_date ORDER BY u.id LIMIT p_limit;")},
	{"now in a helper variable", readClock, reading("DECLARE v_now timestamptz := pg_catalog.now(); BEGIN " + page + "WHERE u.created_at < v_now ORDER BY u.id LIMIT p_limit; END")},
	{"random in order", readClock, reading(page + "ORDER BY u.id, random() LIMIT p_limit;")},
	{"current_setting", anyRule, reading("PERFORM current_setting('x.y', true);" + page + "ORDER BY u.id LIMIT p_limit;")},
	{"session_user", anyRule, reading(page + "WHERE session_user = p_text ORDER BY u.id LIMIT p_limit;")},
	{"timestamp literal now", readClock, reading(page + "WHERE u.created_at < timestamptz 'NOW' ORDER BY u.id LIMIT p_limit;")},

	// Session state.
	{"RESET", sessionState, writing("RESET work_mem;")},
	{"SET ROLE", sessionState, writing("SET ROLE accounts_owner;")},
	{"set_config local of anything", anyRule, writing("PERFORM set_config('work_mem', '1GB', is_local => false);")},
	{"set_config NULL", sessionState, writing("PERFORM set_config('work_mem', '1GB', NULL);")},
	{"SET CONSTRAINTS", sessionState, writing("SET CONSTRAINTS ALL DEFERRED;")},
	{"LISTEN", sessionState, writing("LISTEN pets;")},
	{"PREPARE", sessionState, writing("PREPARE x AS SELECT 1;")},
	{"LOCK TABLE", anyRule, writing("LOCK TABLE accounts.users IN EXCLUSIVE MODE;")},
	{"advisory lock of a session in EXECUTE", sessionState, writing("\n-- Dynamic for a test.\nEXECUTE 'SELECT pg_advisory_lock($1)' USING 1;")},
	{"DECLARE WITH HOLD", sessionState, writing("\n-- Dynamic for a test.\nEXECUTE 'DECLARE x CURSOR WITH HOLD FOR SELECT $1' USING 1;")},
	{"SELECT INTO TEMP", anyRule, writing("\n-- Dynamic for a test.\nEXECUTE 'SELECT $1 AS a INTO TEMP pets' USING 1;")},
	{"COMMIT", anyRule, writing("COMMIT;")},
	{"sleep", sessionState, writing("PERFORM pg_sleep(1);")},
	{"NOTIFY dynamic", sessionState, writing("\n-- Dynamic for a test.\nEXECUTE format('NOTIFY %I', p_text);")},
	{"CREATE INDEX", sessionState, writing("CREATE INDEX ON accounts.users (version);")},
	{"GRANT", sessionState, writing("GRANT SELECT ON accounts.users TO accounts_read;")},
	{"session_replication_role", anyRule, writing("PERFORM set_config('session_replication_role', 'replica', true);")},
	{"statement_timeout local", anyRule, writing("PERFORM set_config('statement_timeout', '0', true);")},

	// Errors.
	{"default level with params", anyRule, writing("RAISE 'no pet %', p_text;")},
	{"RAISE by name", errorCode, writing("RAISE division_by_zero;")},
	{"by name, text code", errorCode, writing("RAISE EXCEPTION 'x' USING ERRCODE = 'no_data_found';")},
	{"small letters of the code", errorCode, writing("RAISE EXCEPTION USING ERRCODE = 'ua001', MESSAGE = 'x';")},
	{"code with a space", errorCode, writing("RAISE EXCEPTION USING ERRCODE = 'UA001 ', MESSAGE = 'x';")},
	{"built code", errorCode, writing("RAISE EXCEPTION USING ERRCODE = 'UA0' || '99', MESSAGE = 'x';")},
	{"code by CASE", errorCode, writing("RAISE EXCEPTION USING ERRCODE = CASE WHEN p_flag THEN '40001' ELSE 'UA099' END, MESSAGE = 'x';")},
	{"constraint from a variable", errorCode, writing("RAISE EXCEPTION USING ERRCODE = '23505', MESSAGE = 'x', CONSTRAINT = p_text;")},
	{"colon equals", errorCode, writing("RAISE EXCEPTION USING ERRCODE := 'UA099', MESSAGE := 'x';")},
	{"message from a variable", errorMessage, writing("DECLARE v_m text := 'a' || p_text; BEGIN RAISE serialization_failure USING MESSAGE = v_m; END")},
	{"message of concat", errorMessage, writing("RAISE serialization_failure USING MESSAGE = concat('a', p_text);")},
	{"HINT with a value", anyRule, writing("RAISE serialization_failure USING MESSAGE = 'a', HINT = p_text;")},
	{"variable level WARNING", raiseLog, writing("RAISE WARNING SQLSTATE '01000' USING MESSAGE = 'x';")},

	{"restricted write", parallelSafe, deletingAs("VOLATILE PARALLEL RESTRICTED")},
	{"immutable current_user", immutableReads, immutable("PERFORM current_user, p_user_id;")},
	{"immutable dynamic", immutableReads, immutable("\n-- Dynamic for a test.\nEXECUTE 'SELECT FROM accounts.users WHERE id = $1' USING p_user_id;")},
	{"immutable to_char", immutableReads, immutable("PERFORM p_user_id, 'now'::timestamptz;")},
}

// Each of these breaks the rule, or, where several rules may find it, any.
func TestBodies_VariantsAreFound(t *testing.T) {
	t.Parallel()
	tables, err := readTables(t.Context(), connect(t, pgtest.Shared(t).RemoveOracle("the rules are about what the migrations make").SuperURL))
	require.NoError(t, err)
	for _, f := range bodyVariants {
		t.Run(f.rule+"/"+f.name, func(t *testing.T) {
			requireFound(t, f.rule, ofPlant(t, tables, f.plant))
		})
	}
}

const anyRule = "any"

func requireFound(t *testing.T, rule string, found []Violation) {
	t.Helper()
	require.NotEmpty(t, found, "no rule finds it")
	if rule != anyRule {
		require.Contains(t, rulesOf(found), rule)
	}
}

func returningText(body string) string {
	return strings.NewReplacer("feed_pet_v1", "brush_pet_v1", "RETURNS void", "RETURNS text", "PERFORM 1;", body, "p_user_id uuid, p_other_id", "p_id uuid, p_other_id", "IF p_user_id IS", "IF p_id IS").Replace(writing("PERFORM 1;"))
}

const brush = `CREATE FUNCTION accounts.brush_pet_v1(p_user_id uuid) RETURNS void LANGUAGE plpgsql VOLATILE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$ BEGIN PERFORM accounts.groom_pet_v1(p_user_id); END $$;
COMMENT ON FUNCTION accounts.brush_pet_v1(uuid) IS 'Internal: brushes a pet.';
`

var mutual = helper("PERFORM accounts.brush_pet_v1(p_user_id); UPDATE accounts.user_groups AS g SET name = 'x' WHERE g.id = p_user_id;") + brush

func deletingAs(v string) string {
	return strings.Replace(writing("DELETE FROM accounts.import_jobs AS j WHERE j.id = p_user_id;"), "VOLATILE", v, 1)
}

func immutable(body string) string {
	return strings.Replace(helper(body), "VOLATILE", "IMMUTABLE", 1) + writing("PERFORM accounts.groom_pet_v1(p_user_id);")
}
