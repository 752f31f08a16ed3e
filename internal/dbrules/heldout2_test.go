package dbrules

import "strings"

func strings4(body string) string {
	return strings.NewReplacer("feed_pet_v1", "brush_pet_v1", "RETURNS void", "RETURNS text", "PERFORM 1;", body, "p_user_id uuid, p_other_id", "p_id uuid, p_other_id", "IF p_user_id IS", "IF p_id IS").Replace(writing("PERFORM 1;"))
}

const brush = `CREATE FUNCTION accounts.brush_pet_v1(p_user_id uuid) RETURNS void LANGUAGE plpgsql VOLATILE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$ BEGIN PERFORM accounts.groom_pet_v1(p_user_id); END $$;
COMMENT ON FUNCTION accounts.brush_pet_v1(uuid) IS 'Internal: brushes a pet.';
`

var strings5 = brush
var mutual = helper("PERFORM accounts.brush_pet_v1(p_user_id); UPDATE accounts.user_groups AS g SET name = 'x' WHERE g.id = p_user_id;") + brush

func strings6(v string) string {
	return strings.Replace(writing("DELETE FROM accounts.import_jobs AS j WHERE j.id = p_user_id;"), "VOLATILE", v, 1)
}

func strings7(body string) string {
	return strings.Replace(helper(body), "VOLATILE", "IMMUTABLE", 1) + writing("PERFORM accounts.groom_pet_v1(p_user_id);")
}
