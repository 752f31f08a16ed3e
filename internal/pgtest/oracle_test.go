package pgtest

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// plantedHead begins every planted function. Two users and two groups exist, user a is a member of group g
// and has a phone and a login.
const plantedHead = `CREATE FUNCTION accounts.planted_v1(
    p_a uuid, p_b uuid, p_group uuid, p_type uuid, p_contact uuid)
RETURNS TABLE (touched text[], outbox_id bigint) LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    v_user accounts.users;
    v_keys text[] := '{}';
    v_id bigint;
BEGIN
`

const plantedTail = `
    RETURN QUERY SELECT v_keys, v_id;
END $$;`

// Statements that planted functions are made of.
const (
	lockA   = "PERFORM accounts.lock_user_v1(p_a);\n"
	lockAB  = "PERFORM FROM accounts.users AS u WHERE u.id IN (p_a, p_b) ORDER BY u.id FOR NO KEY UPDATE;\n"
	changeA = `UPDATE accounts.users AS u SET profile = '{"x": 1}', version = u.version + 1,
        updated_at = greatest(clock_timestamp(), u.updated_at + interval '1 microsecond') WHERE u.id = p_a;` + "\n"
	raiseA   = "PERFORM accounts.raise_user_version_v1(p_a);\n"
	raiseB   = "PERFORM accounts.raise_user_version_v1(p_b);\n"
	recordA  = "v_keys := ARRAY['u:' || p_a]; v_id := accounts.record_change_v1(v_keys, '{}');\n"
	join     = "INSERT INTO accounts.user_group_memberships (user_id, group_id) VALUES (p_b, p_group);\n"
	newPhone = "UPDATE accounts.user_contacts AS c SET value = '+79990000009', normalized = '+79990000009' WHERE c.id = p_contact;\n"
	endPhone = "UPDATE accounts.user_contacts AS c SET is_active = false, deactivated_at = clock_timestamp() WHERE c.id = p_contact;\n"
)

func record(keys string) string {
	return "v_keys := ARRAY[" + keys + "]; v_id := accounts.record_change_v1(v_keys, '{}');\n"
}

func TestOracle_PlantedMistakes(t *testing.T) {
	t.Parallel()
	const phoneKeys = "'u:' || p_a, 'c:' || p_contact, 'i:phone:+79990000001'"
	for name, planted := range map[string]struct {
		body string
		rule string // empty: the function is correct
		with string // what else the message contains
		also string // SQL before the function: helpers
	}{
		"correct profile change":   {body: lockA + changeA + recordA},
		"correct: changes nothing": {body: lockA},
		"correct: nothing changes in an UPDATE": {
			body: lockA + "UPDATE accounts.user_contacts AS c SET is_active = c.is_active WHERE c.id = p_contact;"},
		"correct membership":                         {body: "PERFORM accounts.lock_user_v1(p_b);" + join + raiseB + record("'u:' || p_b")},
		"correct end of a phone":                     {body: lockA + endPhone + raiseA + record(phoneKeys)},
		"correct change of a phone":                  {body: lockA + newPhone + raiseA + record(phoneKeys+", 'i:phone:+79990000009'")},
		"correct: display value only":                {body: lockA + "UPDATE accounts.user_contacts AS c SET value = '+7 999' WHERE c.id = p_contact;" + raiseA + record("'u:' || p_a, 'c:' || p_contact")},
		"correct lock in a subtransaction":           {body: "BEGIN " + lockA + " EXCEPTION WHEN unique_violation THEN NULL; END;" + changeA + recordA},
		"correct write in a subtransaction":          {body: lockA + "BEGIN " + changeA + " EXCEPTION WHEN unique_violation THEN NULL; END;" + recordA},
		"correct subtransaction that is rolled back": {body: "BEGIN " + lockA + changeA + " RAISE unique_violation; EXCEPTION WHEN unique_violation THEN NULL; END;"},
		"correct deactivation of a user": {body: lockA + `UPDATE accounts.users AS u SET is_active = false, version = u.version + 1, updated_at = clock_timestamp() WHERE u.id = p_a;` +
			record("'u:' || p_a, 'i:phone:+79990000001', 'i:second_login:ann'")},
		"correct: two users": {body: lockAB + changeA + raiseB + record("'u:' || p_a, 'u:' || p_b")},
		"correct rename of a group": {body: `UPDATE accounts.user_groups AS g SET name = 'x', name_key = 'x', updated_at = clock_timestamp() WHERE g.id = p_group;
			v_keys := ARRAY['d:user_groups', 'g:' || p_group]; v_id := accounts.record_change_v1(v_keys[:1], v_keys[2:]);`},
		"correct change of on_second": {body: `UPDATE accounts.contact_types AS t SET on_second = 'reject', updated_at = clock_timestamp() WHERE t.id = p_type;` + record("'d:contact_types'")},
		"correct hard delete": {
			body: lockA + "DELETE FROM accounts.user_contacts AS c WHERE c.id = p_contact;" + raiseA + record(phoneKeys),
			also: "COMMENT ON FUNCTION accounts.planted_v1(uuid, uuid, uuid, uuid, uuid) IS 'Hard-deletes a contact.';"},

		"invalidates nothing":       {body: lockA + changeA, rule: "key-missing", with: "does not contain u:"},
		"membership, nothing":       {body: "PERFORM accounts.lock_user_v1(p_b);" + join + raiseB, rule: "key-missing", with: "function accounts.planted_v1, table user_group_memberships"},
		"invalidates another user":  {body: lockA + changeA + record("'u:' || p_b"), rule: "key-missing"},
		"and one user too many":     {body: lockA + changeA + record("'u:' || p_a, 'u:' || p_b"), rule: "key-extra"},
		"on one branch only":        {body: lockA + changeA + "IF p_a = p_b THEN " + recordA + "END IF;", rule: "key-missing"},
		"returns before it records": {body: lockA + changeA + "RETURN;" + recordA, rule: "key-missing"},
		"through a helper": {body: lockA + "PERFORM accounts.planted_helper_v1(p_a);", rule: "key-missing", with: "accounts.planted_v1 > accounts.planted_helper_v1",
			also: `CREATE FUNCTION accounts.planted_helper_v1(p_a uuid) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog AS $$ BEGIN ` + changeA + ` END $$`},
		"through a function in SQL": {body: lockA + "PERFORM accounts.planted_helper_v1(p_a);", rule: "key-missing", with: "accounts.planted_v1",
			also: `CREATE FUNCTION accounts.planted_helper_v1(p_a uuid) RETURNS void LANGUAGE sql AS $$ ` + changeA + ` $$`},
		"through a CTE":                {body: lockA + "WITH w AS (" + strings.TrimSuffix(changeA, ";\n") + " RETURNING u.id) SELECT NULL INTO v_id FROM w;", rule: "key-missing"},
		"through dynamic SQL":          {body: lockA + "EXECUTE format('UPDATE accounts.%I SET profile = ''{\"y\": 2}'', version = version + 1, updated_at = clock_timestamp() WHERE id = $1', 'users') USING p_a;", rule: "key-missing"},
		"does not lock":                {body: changeA + recordA, rule: "lock", with: "accounts.planted_v1"},
		"does not lock for contacts":   {body: endPhone + raiseA + record(phoneKeys), rule: "lock", with: "table user_contacts"},
		"does not lock for groups":     {body: join + raiseB + record("'u:' || p_b"), rule: "lock", with: "table user_group_memberships"},
		"locks another user":           {body: "PERFORM accounts.lock_user_v1(p_b);" + changeA + recordA, rule: "lock"},
		"locks too weakly":             {body: "PERFORM FROM accounts.users AS u WHERE u.id = p_a FOR SHARE;" + changeA + recordA, rule: "lock"},
		"locks in the same statement":  {body: "UPDATE accounts.users AS u SET version = u.version + 1, updated_at = clock_timestamp() WHERE u.id IN (SELECT o.id FROM accounts.users AS o WHERE o.id = p_a FOR NO KEY UPDATE);" + recordA, rule: "lock"},
		"locks after the change":       {body: endPhone + lockA + raiseA + record(phoneKeys), rule: "lock"},
		"locks one of two":             {body: lockA + changeA + raiseB + record("'u:' || p_a, 'u:' || p_b"), rule: "lock"},
		"after its outbox row":         {body: recordA + changeA, rule: "lock"},
		"does not raise":               {body: lockA + "UPDATE accounts.users AS u SET profile = '{\"x\": 1}' WHERE u.id = p_a;" + recordA, rule: "version"},
		"does not raise for a contact": {body: lockA + endPhone + record(phoneKeys), rule: "version"},
		"raises twice":                 {body: lockA + changeA + raiseA + recordA, rule: "version"},
		"raises by two":                {body: lockA + "UPDATE accounts.users AS u SET version = u.version + 2, updated_at = clock_timestamp() WHERE u.id = p_a;" + recordA, rule: "version"},
		"leaves updated_at":            {body: lockA + "UPDATE accounts.users AS u SET version = u.version + 1 WHERE u.id = p_a;" + recordA, rule: "updated-at"},
		"begins at version 2":          {body: "INSERT INTO accounts.users AS u (version) VALUES (2) RETURNING u.* INTO v_user;" + record("'u:' || v_user.id"), rule: "version"},
		"creates a user silently":      {body: "INSERT INTO accounts.users (is_active) VALUES (true);", rule: "key-missing"},
		"touched lacks a key":          {body: lockA + newPhone + raiseA + record(phoneKeys+", 'i:phone:+79990000009'") + "v_keys := v_keys[:2];", rule: "touched"},
		"touched has more":             {body: lockA + changeA + recordA + "v_keys := v_keys || ('u:' || p_b);", rule: "touched"},
		"touched without a row":        {body: lockA + changeA + recordA + "v_id := NULL;", rule: "touched"},
		"touched, nothing changed":     {body: lockA + "v_keys := ARRAY['u:' || p_a];", rule: "touched"},
		"touched is NULL":              {body: lockA + "v_keys := NULL;", rule: "touched"},
		"forgets the old phone":        {body: lockA + newPhone + raiseA + record("'u:' || p_a, 'c:' || p_contact, 'i:phone:+79990000009'"), rule: "key-missing", with: "i:phone:+79990000001"},
		"forgets the new phone":        {body: lockA + newPhone + raiseA + record(phoneKeys), rule: "key-missing", with: "i:phone:+79990000009"},
		"forgets the contact":          {body: lockA + endPhone + raiseA + record("'u:' || p_a, 'i:phone:+79990000001'"), rule: "key-missing", with: "c:"},
		"forgets identifiers of a user that it deactivates": {body: lockA + `UPDATE accounts.users AS u SET is_active = false, version = u.version + 1, updated_at = clock_timestamp() WHERE u.id = p_a;` + recordA,
			rule: "key-missing", with: "i:"},
		"forgets the second user of a phone that moves": {
			body: lockAB + endPhone + `INSERT INTO accounts.user_contacts AS c (user_id, contact_type_id, value, normalized, single)
			SELECT p_b, o.contact_type_id, o.value, o.normalized, o.single FROM accounts.user_contacts AS o WHERE o.id = p_contact RETURNING ARRAY['c:' || c.id] INTO v_keys;` +
				raiseA + raiseB + "v_keys := v_keys || ARRAY[" + phoneKeys + "]; v_id := accounts.record_change_v1(v_keys, '{}');",
			rule: "key-missing", with: "u:"},
		"forgets the dictionary": {body: `UPDATE accounts.user_groups AS g SET name = 'x', name_key = 'x', updated_at = clock_timestamp() WHERE g.id = p_group;
			v_keys := ARRAY['g:' || p_group]; v_id := accounts.record_change_v1('{}', v_keys);`, rule: "key-missing", with: "d:user_groups"},
		"forgets the dependency":            {body: `UPDATE accounts.contact_types AS t SET name = 'x', updated_at = clock_timestamp() WHERE t.id = p_type;` + record("'d:contact_types'"), rule: "key-missing", with: "t:"},
		"creates a group silently":          {body: "INSERT INTO accounts.user_groups (name, name_key) VALUES ('silent', 'silent');", rule: "key-missing", with: "d:user_groups"},
		"a dependency among the keys":       {body: `UPDATE accounts.user_groups AS g SET name = 'x', name_key = 'x', updated_at = clock_timestamp() WHERE g.id = p_group;` + record("'d:user_groups', 'g:' || p_group"), rule: "key-place"},
		"declares too much":                 {body: lockA + record("'u:' || p_a"), rule: "key-extra"},
		"declares an unknown kind":          {body: lockA + changeA + record("'u:' || p_a, 'x:' || p_a"), rule: "key-extra"},
		"declares an identifier that stays": {body: lockA + changeA + record("'u:' || p_a, 'i:phone:+79990000001'"), rule: "key-extra"},
		"writes an empty outbox row":        {body: "v_id := accounts.record_change_v1('{}', '{}');", rule: "key-extra"},
		"writes two outbox rows":            {body: lockA + changeA + recordA + recordA, rule: "one-outbox-row"},
		"hard-deletes a contact":            {body: lockA + "DELETE FROM accounts.user_contacts AS c WHERE c.id = p_contact;" + raiseA + record(phoneKeys), rule: "hard-delete", with: "table user_contacts"},
		"hard-deletes a user":               {body: "PERFORM accounts.lock_user_v1(p_b); DELETE FROM accounts.users AS u WHERE u.id = p_b;" + record("'u:' || p_b"), rule: "hard-delete", with: "table users"},
		"truncates":                         {body: "TRUNCATE accounts.user_contacts;", rule: "hard-delete"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := Shared(t)
			super := connect(t, d.UncheckedURL("the rows that planted functions change"))
			_, err := super.Exec(t.Context(), `
				CREATE TEMPORARY TABLE args (a uuid, b uuid, g uuid, t uuid, c uuid);
				INSERT INTO args SELECT (accounts.create_user_v1(true, '{}', '{phone,second_login}', '{+79990000001,ann}', '{+79990000001,ann}', '{}')).id;
				UPDATE args SET b = (SELECT u.id FROM accounts.create_user_v1(true, '{}', '{}', '{}', '{}', '{}') AS u),
				                g = (SELECT g.id FROM accounts.create_user_group_v1('drivers', 'drivers') AS g),
				                t = (SELECT t.id FROM accounts.create_contact_type_v1('telegram', 'allow') AS t);
				UPDATE args SET c = (SELECT c.id FROM accounts.list_user_contacts_v1(a, false) AS c WHERE c.type = 'phone')`,
				pgx.QueryExecModeSimpleProtocol)
			require.NoError(t, err)
			var args [5]any
			require.NoError(t, super.QueryRow(t.Context(), "SELECT a, b, g, t, c FROM args").Scan(&args[0], &args[1], &args[2], &args[3], &args[4]))
			sql := plantedHead + planted.body + plantedTail +
				"ALTER FUNCTION accounts.planted_v1(uuid, uuid, uuid, uuid, uuid) OWNER TO accounts_owner;" +
				"GRANT EXECUTE ON FUNCTION accounts.planted_v1(uuid, uuid, uuid, uuid, uuid) TO accounts_write;"
			_, err = super.Exec(t.Context(), sql+planted.also, pgx.QueryExecModeSimpleProtocol)
			require.NoError(t, err)
			if strings.HasPrefix(planted.also, "CREATE") {
				_, err = super.Exec(t.Context(), "GRANT EXECUTE ON FUNCTION accounts.planted_helper_v1(uuid) TO accounts_owner")
				require.NoError(t, err)
			}

			writer := CheckTouched(connect(t, d.WriteURL))
			var touched []string
			var outbox *int64
			err = writer.QueryRow(t.Context(), "SELECT * FROM accounts.planted_v1($1, $2, $3, $4, $5)", args[:]...).Scan(&touched, &outbox)
			if planted.rule == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, "rule "+planted.rule+":")
			require.ErrorContains(t, err, planted.with)
		})
	}
}

// Several calls in one transaction are each compared with an outbox row of their own.
func TestOracle_SeveralCallsInOneTransaction(t *testing.T) {
	t.Parallel()
	d := Shared(t)
	conn := connect(t, d.WriteURL)
	create := "SELECT accounts.create_user_group_v1($1, $1)"
	tx, err := conn.Begin(t.Context())
	require.NoError(t, err)
	for _, name := range []string{"one", "two"} {
		_, err = tx.Exec(t.Context(), create, name)
		require.NoError(t, err)
	}
	require.NoError(t, tx.Commit(t.Context()))
}

// A statement by hand is checked like a function, unless a superuser says that it should not be.
func TestOracle_StatementsByHand(t *testing.T) {
	t.Parallel()
	d := Shared(t)
	const insert = "INSERT INTO accounts.user_groups (name, name_key) VALUES ('by hand', 'by hand')"
	_, err := connect(t, d.SuperURL).Exec(t.Context(), insert)
	require.ErrorContains(t, err, "rule key-missing: a statement outside functions, table user_groups")
	_, err = connect(t, d.MigrateURL+"&oracle.off=not+for+this+login").Exec(t.Context(), insert)
	require.ErrorContains(t, err, "rule key-missing")
	_, err = connect(t, d.UncheckedURL("this test")).Exec(t.Context(), insert)
	require.NoError(t, err)
}

// When there is a journal, each changed user has one row with its version and what changed.
func TestOracle_Journal(t *testing.T) {
	t.Parallel()
	d := Shared(t)
	super := connect(t, d.SuperURL)
	var missing bool
	require.NoError(t, super.QueryRow(t.Context(), "SELECT to_regclass('accounts.journal') IS NULL").Scan(&missing))
	if missing { // the columns that the oracle reads
		_, err := super.Exec(t.Context(), `CREATE TABLE accounts.journal (id bigint GENERATED ALWAYS AS IDENTITY, user_id uuid, version bigint, changed text[]);
			SELECT oracle.watch('journal', 'id')`, pgx.QueryExecModeSimpleProtocol)
		require.NoError(t, err)
	}
	user := value(t, d.UncheckedURL("a user without a journal row"), "SELECT id FROM accounts.create_user_v1(true, '{}', '{}', '{}', '{}', '{}')")
	for name, journal := range map[string]struct{ row, want string }{
		"no row":           {"", "0 journal rows for version"},
		"two rows":         {"INSERT INTO accounts.journal (user_id, version, changed) SELECT u.id, u.version, '{profile}' FROM accounts.users AS u, generate_series(1, 2) WHERE u.id = v_id;", "2 journal rows"},
		"another version":  {"INSERT INTO accounts.journal (user_id, version, changed) SELECT u.id, 99, '{profile}' FROM accounts.users AS u WHERE u.id = v_id;", "0 journal rows"},
		"another change":   {"INSERT INTO accounts.journal (user_id, version, changed) SELECT u.id, u.version, '{groups}' FROM accounts.users AS u WHERE u.id = v_id;", "changed is {groups}, not {profile}"},
		"another user too": {"INSERT INTO accounts.journal (user_id, version, changed) SELECT i, u.version, '{profile}' FROM accounts.users AS u, unnest(ARRAY[u.id, gen_random_uuid()]) AS i WHERE u.id = v_id;", "did not change"},
		"the right row":    {"INSERT INTO accounts.journal (user_id, version, changed) SELECT u.id, u.version, '{profile}' FROM accounts.users AS u WHERE u.id = v_id;", ""},
	} {
		_, err := super.Exec(t.Context(), `DO $$ DECLARE v_id uuid := '`+user+`'; BEGIN
			PERFORM accounts.lock_user_v1(v_id);
			UPDATE accounts.users AS u SET profile = u.profile || jsonb_build_object('n', u.version), version = u.version + 1, updated_at = clock_timestamp() WHERE u.id = v_id;
			PERFORM accounts.record_change_v1(ARRAY['u:' || v_id], '{}');
			`+journal.row+` END $$`)
		if journal.want == "" {
			require.NoError(t, err, name)
		} else {
			require.ErrorContains(t, err, "rule journal:", name)
			require.ErrorContains(t, err, journal.want, name)
		}
	}
}
