package dbrules

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

const outsideSchema = "outside-schema"

// Outside is everything in a database and its cluster that does not lie in our schemas: what it is, and how
// it is defined and to whom it is granted.
type Outside map[string]string

// outsideQuery lists what is not ours. goose's own table is left out, and what belongs to an extension:
// the extension itself is listed.
const outsideQuery = `
WITH ours AS (
    SELECT n.oid FROM pg_namespace AS n WHERE n.nspname = ANY ($1) OR n.nspname ~ '^pg_(toast|temp_|toast_temp_)'
), objects AS (
    SELECT 'pg_namespace'::regclass AS class, n.oid, n.nspowner::regrole::text || ' ' || coalesce(n.nspacl::text, '') AS state
      FROM pg_namespace AS n WHERE n.oid NOT IN (SELECT o.oid FROM ours AS o)
    UNION ALL
    SELECT 'pg_proc'::regclass, p.oid, p::text FROM pg_proc AS p WHERE p.pronamespace NOT IN (SELECT o.oid FROM ours AS o)
    UNION ALL
    SELECT 'pg_class'::regclass, c.oid, concat_ws(' ', c.relowner, c.relacl::text, c.reloptions::text, c.relkind, c.relhastriggers,
                                                  c.relrowsecurity, c.relnatts)
      FROM pg_class AS c
     WHERE c.relnamespace NOT IN (SELECT o.oid FROM ours AS o) AND c.relname NOT LIKE 'goose_db_version%' AND c.relkind <> 'i'
    UNION ALL
    SELECT 'pg_type'::regclass, t.oid, concat_ws(' ', t.typowner, t.typacl::text, t.typtype)
      FROM pg_type AS t
     WHERE t.typnamespace NOT IN (SELECT o.oid FROM ours AS o) AND t.typname !~ '^_?goose_db_version'
       AND (t.typrelid = 0 OR EXISTS (SELECT FROM pg_class AS c WHERE c.oid = t.typrelid AND c.relkind = 'c'))
       AND NOT EXISTS (SELECT FROM pg_type AS e WHERE e.typarray = t.oid)
    UNION ALL SELECT 'pg_cast'::regclass, c.oid, c::text FROM pg_cast AS c
    UNION ALL SELECT 'pg_operator'::regclass, o.oid, o::text FROM pg_operator AS o
    UNION ALL SELECT 'pg_opclass'::regclass, o.oid, o::text FROM pg_opclass AS o
    UNION ALL SELECT 'pg_opfamily'::regclass, o.oid, o::text FROM pg_opfamily AS o
    UNION ALL SELECT 'pg_collation'::regclass, c.oid, concat_ws(' ', c.collname, c.collowner) FROM pg_collation AS c
    UNION ALL SELECT 'pg_conversion'::regclass, c.oid, c::text FROM pg_conversion AS c
    UNION ALL SELECT 'pg_ts_config'::regclass, t.oid, t::text FROM pg_ts_config AS t
    UNION ALL SELECT 'pg_ts_dict'::regclass, t.oid, t::text FROM pg_ts_dict AS t
    UNION ALL SELECT 'pg_ts_parser'::regclass, t.oid, t::text FROM pg_ts_parser AS t
    UNION ALL SELECT 'pg_ts_template'::regclass, t.oid, t::text FROM pg_ts_template AS t
    UNION ALL SELECT 'pg_language'::regclass, l.oid, l::text FROM pg_language AS l
    UNION ALL SELECT 'pg_transform'::regclass, t.oid, t::text FROM pg_transform AS t
    UNION ALL SELECT 'pg_am'::regclass, a.oid, a::text FROM pg_am AS a
    UNION ALL SELECT 'pg_event_trigger'::regclass, e.oid, e::text FROM pg_event_trigger AS e
    UNION ALL SELECT 'pg_extension'::regclass, e.oid, e::text FROM pg_extension AS e
    UNION ALL SELECT 'pg_publication'::regclass, p.oid, p::text FROM pg_publication AS p
    UNION ALL SELECT 'pg_publication_rel'::regclass, p.oid, p::text FROM pg_publication_rel AS p
    UNION ALL SELECT 'pg_subscription'::regclass, s.oid, s.subname::text FROM pg_subscription AS s
    UNION ALL SELECT 'pg_foreign_data_wrapper'::regclass, f.oid, f::text FROM pg_foreign_data_wrapper AS f
    UNION ALL SELECT 'pg_foreign_server'::regclass, f.oid, f::text FROM pg_foreign_server AS f
    UNION ALL SELECT 'pg_user_mapping'::regclass, u.oid, u.umuser::text FROM pg_user_mapping AS u
    UNION ALL SELECT 'pg_policy'::regclass, p.oid, p.polname::text FROM pg_policy AS p
    UNION ALL
    SELECT 'pg_statistic_ext'::regclass, s.oid, s.stxname::text FROM pg_statistic_ext AS s
     WHERE s.stxnamespace NOT IN (SELECT o.oid FROM ours AS o)
    UNION ALL
    SELECT 'pg_trigger'::regclass, t.oid, t.tgname::text FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = t.tgrelid
     WHERE NOT t.tgisinternal AND c.relnamespace NOT IN (SELECT o.oid FROM ours AS o)
    UNION ALL
    SELECT 'pg_authid'::regclass, r.oid,
           concat_ws(' ', r.rolsuper, r.rolinherit, r.rolcreaterole, r.rolcreatedb, r.rolcanlogin, r.rolreplication, r.rolbypassrls, r.rolconnlimit, r.rolvaliduntil)
      FROM pg_roles AS r
    UNION ALL
    SELECT 'pg_database'::regclass, d.oid, concat_ws(' ', d.datdba, d.datacl::text, d.datconnlimit, d.datallowconn)
      FROM pg_database AS d WHERE d.datname = current_database()
    UNION ALL
    SELECT 'pg_tablespace'::regclass, t.oid, t::text FROM pg_tablespace AS t
)
SELECT i.type || ' ' || i.identity, o.state
  FROM objects AS o
 CROSS JOIN LATERAL pg_identify_object(o.class, o.oid, 0) AS i
 WHERE NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.classid = o.class AND d.objid = o.oid AND d.deptype = 'e'
                      AND d.refobjid <> (SELECT e.oid FROM pg_extension AS e WHERE e.extname = 'plpgsql'))
 UNION ALL
SELECT 'large object ' || l.oid, '' FROM pg_largeobject_metadata AS l
 UNION ALL
SELECT concat_ws(' ', 'security label', l.provider, 'of', i.type, i.identity), l.label
  FROM pg_seclabel AS l CROSS JOIN LATERAL pg_identify_object(l.classoid, l.objoid, l.objsubid) AS i
 UNION ALL
SELECT concat_ws(' ', 'security label', l.provider, 'of', l.objoid), l.label FROM pg_shseclabel AS l
 UNION ALL
SELECT concat_ws(' ', 'setting of', 'role', r.rolname, 'in database', d.datname), s.setconfig::text
  FROM pg_db_role_setting AS s
  LEFT JOIN pg_roles AS r ON r.oid = s.setrole
  LEFT JOIN pg_database AS d ON d.oid = s.setdatabase
 WHERE s.setdatabase = 0 OR d.datname = current_database()
 UNION ALL
SELECT concat_ws(' ', 'membership of', m.member::regrole, 'in', m.roleid::regrole), m.admin_option::text FROM pg_auth_members AS m
 UNION ALL
-- That no role may execute a function until it is granted is a default that the first migration sets.
SELECT concat_ws(' ', 'default privileges of', a.defaclrole::regrole, 'on', a.defaclobjtype, a.defaclnamespace::regnamespace, 'for',
                 CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE g.grantee::regrole::text END), g.privilege_type
  FROM pg_default_acl AS a CROSS JOIN aclexplode(a.defaclacl) AS g
 WHERE g.grantee <> a.defaclrole
 UNION ALL
SELECT 'default privileges of accounts_owner on functions for PUBLIC', ''
 WHERE EXISTS (SELECT FROM pg_namespace AS n WHERE n.nspname = 'accounts')
   AND NOT EXISTS (SELECT FROM pg_default_acl AS a
                    WHERE a.defaclrole::regrole::text = 'accounts_owner' AND a.defaclobjtype = 'f' AND a.defaclnamespace = 0)
 UNION ALL
-- What is in our schemas is granted as function-grantee allows, and nothing but functions is.
SELECT concat_ws(' ', 'privilege', g.privilege_type, 'on', c.oid::regclass, 'for',
                 CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE g.grantee::regrole::text END), ''
  FROM pg_class AS c CROSS JOIN aclexplode(c.relacl) AS g
 WHERE c.relnamespace IN (SELECT o.oid FROM pg_namespace AS o WHERE o.nspname = ANY ($1)) AND g.grantee <> c.relowner
 UNION ALL
SELECT concat_ws(' ', 'privilege', g.privilege_type, 'on', c.oid::regclass || '.' || a.attname, 'for',
                 CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE g.grantee::regrole::text END), ''
  FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid CROSS JOIN aclexplode(a.attacl) AS g
 WHERE c.relnamespace IN (SELECT o.oid FROM pg_namespace AS o WHERE o.nspname = ANY ($1)) AND g.grantee <> c.relowner
 UNION ALL
SELECT concat_ws(' ', 'owner', c.relowner::regrole, 'of', c.oid::regclass), '' FROM pg_class AS c
 WHERE c.relnamespace IN (SELECT o.oid FROM pg_namespace AS o WHERE o.nspname = ANY ($1)) AND c.relowner::regrole::text <> 'accounts_owner'
 UNION ALL
SELECT concat_ws(' ', 'owner', n.nspowner::regrole, 'of schema', n.nspname), '' FROM pg_namespace AS n
 WHERE n.nspname = ANY ($1) AND n.nspowner::regrole::text <> 'accounts_owner'
 UNION ALL
SELECT concat_ws(' ', 'row security of', c.oid::regclass), '' FROM pg_class AS c
 WHERE c.relnamespace IN (SELECT o.oid FROM pg_namespace AS o WHERE o.nspname = ANY ($1)) AND (c.relrowsecurity OR c.relforcerowsecurity)
 UNION ALL
SELECT concat_ws(' ', 'disabled trigger of', c.oid::regclass), string_agg(t.tgenabled::text, '') FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = t.tgrelid
 WHERE c.relnamespace IN (SELECT o.oid FROM pg_namespace AS o WHERE o.nspname = ANY ($1)) AND t.tgisinternal AND t.tgenabled <> 'O'
 GROUP BY c.oid
 UNION ALL
SELECT concat_ws(' ', 'privilege', g.privilege_type, 'on schema', n.nspname, 'for',
                 CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE g.grantee::regrole::text END), ''
  FROM pg_namespace AS n CROSS JOIN aclexplode(n.nspacl) AS g
 WHERE n.nspname = ANY ($1) AND g.grantee <> n.nspowner
   AND NOT (g.grantee <> 0 AND g.privilege_type = 'USAGE' AND g.grantee::regrole::text IN ('accounts_read', 'accounts_write'))`

// ReadOutside lists what is not ours: conn is a superuser's.
func ReadOutside(ctx context.Context, conn *pgx.Conn) (Outside, error) {
	rows, err := conn.Query(ctx, outsideQuery, ourSchemas)
	if err != nil {
		return nil, err
	}
	all := Outside{}
	var object, state string
	_, err = pgx.ForEachRow(rows, []any{&object, &state}, func() error {
		all[object] += state + "\n"
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read what is not in our schemas: %w", err)
	}
	return all, nil
}

// Changed reports what the migrations changed outside our schemas.
func (before Outside) Changed(after Outside, tree Tree) (found []Violation) {
	// Made by CREATE TYPE and CREATE TABLE along with it.
	for _, object := range slices.Sorted(maps.Keys(after)) {
		was, there := before[object]
		switch {
		case !there:
			found = append(found, outside(object, "is new", tree))
		case was != after[object]:
			found = append(found, outside(object, "has changed", tree))
		}
	}
	for _, object := range slices.Sorted(maps.Keys(before)) {
		if _, there := after[object]; !there {
			found = append(found, outside(object, "is gone", tree))
		}
	}
	return found
}

func outside(object, what string, tree Tree) Violation {
	words := strings.FieldsFunc(object, func(r rune) bool { return strings.ContainsRune(" .(),[]\"", r) })
	file, line := migrationsFolder, 0
	// The schema and the kind stand in many places: the rarest word leads to the statement.
	for i := len(words) - 1; i >= 0 && line == 0; i-- {
		if words[i] != "public" && !slices.Contains([]string{"function", "table", "text", "uuid", "integer", "PUBLIC", "for", "on", "role"}, words[i]) {
			file, line = tree.lastNaming([]string{words[i]})
		}
	}
	return Violation{outsideSchema, file, line, object + " " + what}
}
