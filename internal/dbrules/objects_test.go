package dbrules

import "strings"

const alone = `CREATE FUNCTION accounts.alone_v1() RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$ BEGIN NULL; END $$;
COMMENT ON FUNCTION accounts.alone_v1() IS 'Alone.';
`

func petsWith(statements string) string { return pets + usesPets + statements }

// objectFaults are planted like catalogFaults.
var objectFaults = []fault{
	{"trigger function", "no-triggers", "CREATE FUNCTION accounts.on_pet_v1() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp " +
		"AS $$ BEGIN RETURN NEW; END $$; COMMENT ON FUNCTION accounts.on_pet_v1() IS 'x'; CREATE TRIGGER users_pet AFTER INSERT ON accounts.users FOR EACH ROW EXECUTE FUNCTION accounts.on_pet_v1();"},
	{"procedure", "no-procedures", "CREATE PROCEDURE accounts.feed_v1() LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$ BEGIN NULL; END $$;" +
		"COMMENT ON PROCEDURE accounts.feed_v1() IS 'Feeds.';"},
	{"procedure that commits", "no-procedures", "CREATE PROCEDURE accounts.feed_v1() LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$ BEGIN NULL; END $$;"},
	{"view", "object-kind", "CREATE VIEW accounts.pet_names AS SELECT 1 AS id;"},
	{"enum", "object-kind", "CREATE TYPE accounts.pet_kind AS ENUM ('cat');"},
	{"domain", "object-kind", "CREATE DOMAIN accounts.pet_name AS uuid;"},
	{"composite type", "object-kind", "CREATE TYPE accounts.pet_pair AS (a uuid, b uuid);"},
	{"declared", "function-strict", goodWith("STABLE", "STABLE STRICT")},
	{"null input", "function-strict", goodWith("STABLE", "STABLE RETURNS NULL ON NULL INPUT")},
	{"to a group", "helper-granted", "GRANT EXECUTE ON FUNCTION accounts.raise_user_version_v1(uuid) TO accounts_write;"},
	{"with a row of a table", "helper-granted", "GRANT EXECUTE ON FUNCTION accounts.lock_user_v1(uuid) TO accounts_write;"},
	{"same columns", "index-duplicate", "CREATE INDEX user_contacts_user_id_2_idx ON accounts.user_contacts (user_id);"},
	{"first columns", "index-duplicate", "CREATE INDEX user_group_memberships_user_id_idx ON accounts.user_group_memberships (user_id);"},
	{"of a unique one", "index-duplicate", "CREATE INDEX user_groups_name_key_idx ON accounts.user_groups (name_key);"},
	{"column", "text-key-collation", petsWith("ALTER TABLE accounts.pets ADD COLUMN name text; CREATE UNIQUE INDEX pets_name_key ON accounts.pets (name);")},
	{"constraint", "text-key-collation", petsWith("ALTER TABLE accounts.pets ADD COLUMN name varchar(5); ALTER TABLE accounts.pets ADD CONSTRAINT pets_name_key UNIQUE (id, name);")},
	{"expression", "text-key-collation", petsWith("ALTER TABLE accounts.pets ADD COLUMN name text; CREATE UNIQUE INDEX pets_name_key ON accounts.pets (lower(name));")},
	{"json", "column-type", petsWith("ALTER TABLE accounts.pets ADD COLUMN body json;")},
	{"float4", "column-type", petsWith("ALTER TABLE accounts.pets ADD COLUMN weight float4;")},
	{"char", "column-type", petsWith("ALTER TABLE accounts.pets ADD COLUMN code char(3);")},
	{"timestamp", "column-type", petsWith("ALTER TABLE accounts.pets ADD COLUMN born timestamp without time zone;")},
	{"array", "column-type", petsWith("ALTER TABLE accounts.pets ADD COLUMN bodies json[];")},
	{"parameter", "column-type", strings.NewReplacer("p_id uuid", "p_id json", "(uuid)", "(json)", "g.id = p_id", "p_id IS NOT NULL").Replace(good)},
	{"nothing calls it", helperUsed, alone},
	{"calls itself", helperUsed, strings.ReplaceAll(alone, "NULL;", "PERFORM accounts.alone_v1();")},
	{"name in a comment", helperUsed, alone + goodBody("/* accounts.alone_v1() */ NULL;")},
}
