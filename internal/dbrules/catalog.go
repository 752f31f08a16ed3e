package dbrules

import (
	"context"
	"fmt"
	"regexp"
	"slices"

	"github.com/jackc/pgx/v5"
)

// catalogRule asks PostgreSQL's catalog. The query returns what breaks the rule: the name of the
// object, which is looked up in the migrations, and what is wrong.
type catalogRule struct {
	Rule
	query string
}

const (
	// functions begins a query about functions, AS p.
	functions = `SELECT p.oid::regprocedure::text, %s FROM pg_proc AS p WHERE p.pronamespace::regnamespace::text = ANY ('{accounts,contract}') AND `
	// contractName is the form of the name of a contract table.
	contractName = `_v[1-9][0-9]*$`
	// mayRead and mayWrite are conditions on functions.
	mayRead  = `has_function_privilege('accounts_read', p.oid, 'EXECUTE')`
	mayWrite = `has_function_privilege('accounts_write', p.oid, 'EXECUTE')`
	// notInternal leaves out what its comment calls internal.
	notInternal = `coalesce(obj_description(p.oid, 'pg_proc'), '') NOT LIKE 'Internal:%'`
	isOurs      = ` WHERE c.relnamespace::regnamespace::text = ANY ('{accounts,contract}') AND c.relkind = 'r' AND `
)

func about(what, condition string) string {
	return fmt.Sprintf(functions, "'"+what+"'") + condition
}

// wrongTypes are the types that column-type refuses, and their arrays.
const wrongTypes = `'{json,real,money,bpchar,timestamp,timetz,xml,oid,json[],real[],money[],bpchar[],timestamp[],timetz[]}'::regtype[]::oid[]`

var catalogRules = []catalogRule{
	{Rule{"function-version", "a caller names the version that it was written for; without a version, a changed function cannot exist beside the old one",
		"call it accounts.<verb>_<noun>_v1"},
		about("has no version in its name", `p.proname !~ '^[a-z]+(_[a-z]+)*_v[1-9][0-9]*$'`)},
	{Rule{"function-overloaded", "which of two functions is called would depend on the types of the arguments",
		"give each function one name and parameters of exact types: another name, or the next version"},
		`SELECT 'accounts.' || p.proname, 'exists ' || count(*) || ' times' FROM pg_proc AS p
		  WHERE p.pronamespace::regnamespace::text = ANY ('{accounts,contract}') GROUP BY p.proname HAVING count(*) > 1
		  UNION ALL ` + about("has a VARIADIC or polymorphic parameter", `(p.provariadic <> 0 OR p.proargtypes::oid[] &&
		      '{anyelement,anyarray,anynonarray,anyenum,anyrange,anycompatible,anycompatiblearray}'::regtype[]::oid[])`)},
	{Rule{"function-comment", "the comment is the contract: what is guaranteed, the errors, the locks, whether it may be repeated",
		"COMMENT ON FUNCTION ... IS '...'; in the same migration"},
		about("has no COMMENT", `coalesce(btrim(obj_description(p.oid, 'pg_proc')), '') = ''`)},
	{Rule{"function-security-definer", "its callers have no right on any table: it runs with the owner's, or it fails",
		"add SECURITY DEFINER to its head"},
		about("is not SECURITY DEFINER", `NOT p.prosecdef`)},
	{Rule{"function-search-path", "the function runs with the owner's rights, and a caller could create an object that the function finds before the intended one",
		"add SET search_path = pg_catalog, pg_temp to its head"},
		about("does not pin its search_path", `p.proconfig IS DISTINCT FROM ARRAY['search_path=pg_catalog, pg_temp']`)},
	{Rule{"function-owner", "SECURITY DEFINER runs with the owner's rights, which must be those of accounts_owner and no more",
		"migrate as accounts_migrator, and leave the owner alone"},
		`SELECT p.oid::regprocedure::text, 'belongs to ' || p.proowner::regrole FROM pg_proc AS p
		  WHERE p.pronamespace::regnamespace::text = ANY ('{accounts,contract}') AND p.proowner <> 'accounts_owner'::regrole`},
	{Rule{"function-language", "SECURITY DEFINER forbids inlining, and PostgreSQL plans LANGUAGE sql again at every call: it takes twice as long",
		"write it in LANGUAGE plpgsql: BEGIN RETURN QUERY ...; END"},
		`SELECT p.oid::regprocedure::text, 'is LANGUAGE ' || l.lanname FROM pg_proc AS p JOIN pg_language AS l ON l.oid = p.prolang
		  WHERE p.pronamespace::regnamespace::text = ANY ('{accounts,contract}') AND l.lanname <> 'plpgsql'`},
	{Rule{"parameter-name", "queries name their arguments, and in a body a parameter must not be mistaken for a column",
		"begin its name with p_"},
		`SELECT p.oid::regprocedure::text, CASE WHEN i.name IS NULL THEN 'has a parameter without a name'
		        ELSE 'has the parameter ' || i.name END
		   FROM pg_proc AS p LEFT JOIN LATERAL unnest(p.proargnames) AS i (name) ON true
		  WHERE p.pronamespace::regnamespace::text = ANY ('{accounts,contract}')
		    AND (i.name !~ '^p_[a-z]' OR cardinality(coalesce(p.proargnames, '{}')) <> p.pronargs)`},
	{Rule{"function-defaults", "a default that changes later is a change that no caller sees",
		"let the caller pass every argument (sqlc.narg where NULL is meant)"},
		about("has parameters with defaults", `p.pronargdefaults > 0`)},
	{Rule{"function-public", "every login of the cluster could call it, with the owner's rights",
		"REVOKE ALL ON FUNCTION ... FROM PUBLIC, and grant it to accounts_read and accounts_write"},
		about("may be executed by PUBLIC", `EXISTS (SELECT FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS g WHERE g.grantee = 0)`)},
	{Rule{"function-grantee", "the service logs in with two groups; no test covers the rights of a third one",
		"grant to accounts_read and accounts_write only"},
		`SELECT p.oid::regprocedure::text, 'is granted to ' || g.grantee::regrole FROM pg_proc AS p CROSS JOIN aclexplode(p.proacl) AS g
		  WHERE p.pronamespace::regnamespace::text = ANY ('{accounts,contract}') AND g.grantee NOT IN (0, p.proowner)
		    AND (g.is_grantable OR g.grantee::regrole::text NOT IN ('accounts_owner', 'accounts_read', 'accounts_write'))`},
	{Rule{"read-volatile", "a read may run on a replica, where a function that writes fails, and the cache relies on reads that change nothing",
		"declare it STABLE, or grant it to accounts_write alone"},
		about("is granted to accounts_read and not STABLE", mayRead+` AND p.provolatile <> 's'`)},
	{Rule{"write-stable", "in the snapshot of a STABLE function its own changes are invisible, and PostgreSQL refuses them",
		"declare it VOLATILE, or grant it to accounts_read as well if it only reads"},
		about("is granted to accounts_write alone and not VOLATILE", mayWrite+` AND NOT `+mayRead+` AND p.provolatile <> 'v'`)},
	{Rule{"read-grants", "a read falls back to the primary's pool, as accounts_write, when the replica is gone or too old",
		"grant it to accounts_read, accounts_write"},
		about("is granted to accounts_read and not to accounts_write", mayRead+` AND NOT `+mayWrite)},
	{Rule{"function-result", "sqlc knows types and NULLs exactly for contract tables and scalars only, and a miss must be zero rows",
		"return SETOF accounts.<shape>_v1, where the shape is a contract table, or one scalar"},
		`SELECT p.oid::regprocedure::text, 'returns ' || pg_get_function_result(p.oid) FROM pg_proc AS p
		   JOIN pg_type AS y ON y.oid = p.prorettype LEFT JOIN pg_class AS c ON c.oid = y.typrelid
		  WHERE p.pronamespace::regnamespace::text = ANY ('{accounts,contract}') AND ` + mayWrite + ` AND ` + notInternal + `
		    AND NOT CASE WHEN c.oid IS NULL THEN NOT p.proretset AND y.typtype = ANY ('{b,p}') AND p.prorettype <> 'record'::regtype
		                 ELSE p.proretset AND c.relname ~ '` + contractName + `' END`},
	{Rule{"table-comment", "the comment tells readers what the rows of the table are", "COMMENT ON TABLE ... IS '...';"},
		`SELECT c.oid::regclass::text, 'has no COMMENT' FROM pg_class AS c` + isOurs + `obj_description(c.oid, 'pg_class') IS NULL`},
	{Rule{"table-primary-key", "rows that cannot be told apart cannot be locked in order, updated or replicated one by one",
		"CONSTRAINT <table>_pkey PRIMARY KEY (...)"},
		`SELECT c.oid::regclass::text, 'has no primary key' FROM pg_class AS c` + isOurs + `c.relname !~ '` + contractName + `'
		    AND NOT EXISTS (SELECT FROM pg_constraint AS k WHERE k.conrelid = c.oid AND k.contype = 'p')`},
	{Rule{"contract-empty", "a contract table is the shape of a result; a row in it would mean nothing",
		"CONSTRAINT <table>_is_a_contract CHECK (false) NO INHERIT"},
		`SELECT c.oid::regclass::text, 'does not refuse every row' FROM pg_class AS c` + isOurs + `c.relname ~ '` + contractName + `'
		    AND NOT EXISTS (SELECT FROM pg_constraint AS k WHERE k.conrelid = c.oid AND k.conname = c.relname || '_is_a_contract'
		        AND k.contype = 'c' AND k.connoinherit AND pg_get_constraintdef(k.oid) = 'CHECK (false) NO INHERIT')`},
	{Rule{"contract-used", "an unused shape looks like one that is needed, and stays",
		"drop it in the migration that drops its last function"},
		`SELECT c.oid::regclass::text, 'is returned by no function' FROM pg_class AS c` + isOurs + `c.relname ~ '` + contractName + `'
		    AND NOT EXISTS (SELECT FROM pg_proc AS p WHERE p.prorettype = c.reltype)`},
	{Rule{"contract-nullable", "Go gets NULL as a nil pointer only for the types that sqlc.yaml and sqlc know; in others it is lost or an error",
		"mark the column NOT NULL (an empty array for none), or use uuid, text, boolean, an integer, a float, timestamptz or jsonb"},
		`SELECT c.oid::regclass::text, 'has the nullable column ' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod)
		   FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped` + isOurs + `
		    c.relname ~ '` + contractName + `' AND NOT a.attnotnull AND a.atttypid <> ALL (
		    '{uuid,text,boolean,smallint,integer,bigint,real,double precision,timestamptz,jsonb}'::regtype[])`},
	{Rule{"foreign-key-index", "a delete or a change of the row that is referred to reads the whole table while it holds locks",
		"CREATE INDEX (CONCURRENTLY on a live table) that begins with its columns"},
		`SELECT k.conname::text, 'has no index that begins with its columns' FROM pg_constraint AS k
		  WHERE k.connamespace::regnamespace::text = ANY ('{accounts,contract}') AND k.contype = 'f' AND NOT EXISTS (
		 SELECT FROM pg_index AS i WHERE i.indrelid = k.conrelid AND i.indisvalid AND i.indpred IS NULL
		    AND (i.indkey::smallint[])[0:cardinality(k.conkey) - 1] = k.conkey)`},
	{Rule{"foreign-key-used", "a reference that no function follows or sets costs a lock on every write and tells nothing",
		"use its columns in a function, or drop it"},
		`SELECT k.conname::text, 'is a copy of another foreign key, or no function names its columns' FROM pg_constraint AS k
		   JOIN pg_class AS c ON c.oid = k.conrelid
		  WHERE k.connamespace::regnamespace::text = ANY ('{accounts,contract}') AND k.contype = 'f' AND (NOT EXISTS (
		 SELECT FROM pg_proc AS p WHERE p.pronamespace = k.connamespace AND p.prosrc ~ ('accounts\.' || c.relname || '\M')
		    AND NOT EXISTS (SELECT FROM pg_attribute AS a WHERE a.attrelid = c.oid AND a.attnum = ANY (k.conkey)
		                       AND p.prosrc !~ ('\m' || a.attname || '\M')))
		     OR EXISTS (SELECT FROM pg_constraint AS o WHERE o.contype = 'f' AND o.conrelid = k.conrelid AND o.oid < k.oid
		                   AND o.conkey = k.conkey AND o.confrelid = k.confrelid))`},
	{Rule{"index-valid", "a CREATE INDEX CONCURRENTLY that failed leaves an index that costs writes and that no query uses",
		"DROP INDEX CONCURRENTLY IF EXISTS first, then create it again"},
		`SELECT c.relname::text, 'is not valid' FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
		  WHERE c.relnamespace::regnamespace::text = ANY ('{accounts,contract}') AND NOT i.indisvalid`},
	{Rule{"no-triggers", "what a write does must be read in the function that writes", "do it in the functions"},
		`SELECT c.oid::regclass::text, 'has the trigger ' || t.tgname FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = t.tgrelid
		  WHERE c.relnamespace::regnamespace::text = ANY ('{accounts,contract}') AND NOT t.tgisinternal
		  UNION ALL SELECT c.oid::regclass::text, 'has the rule ' || r.rulename FROM pg_rewrite AS r JOIN pg_class AS c ON c.oid = r.ev_class
		  WHERE c.relnamespace::regnamespace::text = ANY ('{accounts,contract}') AND r.rulename <> '_RETURN'
		  UNION ALL SELECT c.oid::regclass::text, 'has a constraint or default that calls ' || p.oid::regprocedure
		   FROM pg_depend AS d JOIN pg_proc AS p ON d.refclassid = 'pg_proc'::regclass AND p.oid = d.refobjid
		   LEFT JOIN pg_constraint AS k ON d.classid = 'pg_constraint'::regclass AND k.oid = d.objid
		   LEFT JOIN pg_attrdef AS a ON d.classid = 'pg_attrdef'::regclass AND a.oid = d.objid
		   JOIN pg_class AS c ON c.oid = coalesce(k.conrelid, a.adrelid)
		  WHERE p.pronamespace::regnamespace::text = ANY ('{accounts,contract}')
		    AND (k.oid IS NOT NULL AND p.provolatile <> 'i' OR a.oid IS NOT NULL AND ` + mayWrite + ` AND ` + notInternal + `)`},
	{Rule{"no-procedures", "the service calls functions; a procedure may end the transaction of its caller, and an aggregate has no body to check",
		"write CREATE FUNCTION ... RETURNS ... LANGUAGE plpgsql"},
		`SELECT 'accounts.' || p.proname, 'is ' || CASE p.prokind WHEN 'p' THEN 'a procedure' WHEN 'a' THEN 'an aggregate' ELSE 'a window function' END
		   FROM pg_proc AS p WHERE p.pronamespace::regnamespace::text = ANY ('{accounts,contract}') AND p.prokind <> 'f'`},
	{Rule{"object-kind", "the rules know tables, indexes and functions; a view, a type or a domain hides what a function reads or returns",
		"write the query in the function; use a contract table for a result and a CHECK for a set of values"},
		`SELECT c.oid::regclass::text, 'is ' || CASE c.relkind WHEN 'v' THEN 'a view' WHEN 'm' THEN 'a materialized view' WHEN 'f' THEN 'a foreign table'
		        WHEN 'p' THEN 'a partitioned table' ELSE 'a composite type' END
		   FROM pg_class AS c WHERE c.relnamespace::regnamespace::text = ANY ('{accounts,contract}') AND c.relkind = ANY ('{v,m,f,p,c}')
		  UNION ALL
		 SELECT c.oid::regclass::text, 'inherits from ' || i.inhparent::regclass FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
		  WHERE c.relnamespace::regnamespace::text = ANY ('{accounts,contract}') AND c.relkind = 'r'
		  UNION ALL
		 SELECT t.oid::regtype::text, 'is ' || CASE t.typtype WHEN 'e' THEN 'an enum type' WHEN 'd' THEN 'a domain' ELSE 'a range type' END
		   FROM pg_type AS t WHERE t.typnamespace::regnamespace::text = ANY ('{accounts,contract}') AND t.typtype = ANY ('{e,d,r}')`},
	{Rule{"function-strict", "a STRICT function is not run when an argument is NULL: it returns NULL or zero rows, which looks like a miss or a success",
		"remove STRICT (RETURNS NULL ON NULL INPUT), and handle NULL in the body"},
		about("is STRICT", `p.proisstrict`)},
	{Rule{"helper-granted", "a helper trusts its caller to hold locks and to record what it changes; a login could call it alone",
		"REVOKE EXECUTE ON FUNCTION ... FROM accounts_read, accounts_write; or make it a whole operation, and describe it without \"Internal:\""},
		`SELECT p.oid::regprocedure::text, 'is internal and granted to ' || string_agg(g.grantee::regrole::text, ', ' ORDER BY g.grantee::regrole::text)
		   FROM pg_proc AS p CROSS JOIN aclexplode(p.proacl) AS g
		  WHERE p.pronamespace::regnamespace::text = ANY ('{accounts,contract}') AND g.grantee NOT IN (0, p.proowner) AND NOT (` + notInternal + `)
		  GROUP BY p.oid`},
	{Rule{"index-duplicate", "every write pays for both indexes, and no query needs the second",
		"drop the index whose columns are the first columns of the other"},
		`SELECT c.relname::text, 'has the same first columns as ' || o.indexrelid::regclass
		   FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
		   JOIN pg_index AS o ON o.indrelid = i.indrelid AND o.indexrelid <> i.indexrelid
		  WHERE c.relnamespace::regnamespace::text = ANY ('{accounts,contract}') AND NOT i.indisunique
		    AND (o.indkey::smallint[])[0:i.indnkeyatts - 1] = (i.indkey::smallint[])[0:i.indnkeyatts - 1]
		    AND (o.indclass::oid[])[0:i.indnkeyatts - 1] = (i.indclass::oid[])[0:i.indnkeyatts - 1]
		    AND (o.indcollation::oid[])[0:i.indnkeyatts - 1] = (i.indcollation::oid[])[0:i.indnkeyatts - 1]
		    AND i.indpred IS NOT DISTINCT FROM o.indpred AND i.indexprs IS NOT DISTINCT FROM o.indexprs
		    AND (o.indnkeyatts > i.indnkeyatts OR o.indisunique OR o.indexrelid < i.indexrelid)
		  UNION
		 SELECT c.relname::text, 'is a copy of ' || o.indexrelid::regclass
		   FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
		   JOIN pg_index AS o ON o.indrelid = i.indrelid AND o.indexrelid < i.indexrelid AND o.indisunique
		  WHERE c.relnamespace::regnamespace::text = ANY ('{accounts,contract}') AND i.indisunique AND o.indkey::text = i.indkey::text
		    AND o.indclass::text = i.indclass::text AND i.indpred IS NOT DISTINCT FROM o.indpred AND i.indexprs IS NOT DISTINCT FROM o.indexprs`},
	{Rule{"text-key-collation", "the order of a locale changes with the operating system: after an upgrade a unique index finds duplicates or misses rows",
		"declare the column text COLLATE \"C\""},
		`SELECT c.relname::text, 'has the text column ' || pg_get_indexdef(c.oid, k.n::integer, true) || ' without COLLATE "C"'
		   FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
		  CROSS JOIN LATERAL unnest(i.indcollation::oid[]) WITH ORDINALITY AS k (collation_id, n)
		   JOIN pg_collation AS l ON l.oid = k.collation_id
		  WHERE c.relnamespace::regnamespace::text = ANY ('{accounts,contract}') AND i.indisunique AND l.collname NOT IN ('C', 'POSIX')`},
	{Rule{"column-type", "json keeps duplicate keys and has no equality, real and money round, char(n) pads, and a timestamp without a zone " +
		"means another moment in another session",
		"use jsonb, numeric or double precision, text with a CHECK, and timestamptz"},
		`SELECT c.oid::regclass::text, 'has the column ' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod)
		   FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
		  WHERE c.relnamespace::regnamespace::text = ANY ('{accounts,contract}') AND c.relkind = 'r' AND a.atttypid = ANY (` + wrongTypes + `)
		  UNION ALL
		 SELECT p.oid::regprocedure::text, 'has the type ' || format_type(t.oid, NULL)
		   FROM pg_proc AS p CROSS JOIN LATERAL unnest(p.proargtypes::oid[] || p.prorettype) AS t (oid)
		  WHERE p.pronamespace::regnamespace::text = ANY ('{accounts,contract}') AND t.oid = ANY (` + wrongTypes + `)`},
	// Since PostgreSQL 18 NOT NULL is a constraint too; no error of it reaches a client.
	{Rule{constraintNamed, "the name is what an error of PostgreSQL tells the service (docs/errors.md); one that PostgreSQL chose may change",
		"CONSTRAINT <table>_<what> CHECK/UNIQUE/FOREIGN KEY ..."},
		`SELECT k.conname::text, 'on ' || k.conrelid::regclass || ' has a name of PostgreSQL''s choice' FROM pg_constraint AS k
		  WHERE k.connamespace::regnamespace::text = ANY ('{accounts,contract}') AND k.contype <> 'n'`},
	{Rule{indexNamed, "Down and later migrations name it; a name that PostgreSQL chose may be another one elsewhere",
		"CREATE INDEX <table>_<columns>_idx ON ..."},
		`SELECT c.relname::text, 'has a name of PostgreSQL''s choice' FROM pg_class AS c
		  WHERE c.relnamespace::regnamespace::text = ANY ('{accounts,contract}') AND c.relkind = 'i'
		    AND NOT EXISTS (SELECT FROM pg_constraint AS k WHERE k.conindid = c.oid)`},
}

const (
	constraintNamed = "constraint-named"
	indexNamed      = "index-named"
)

// Catalog checks what the migrations have made of the database: conn is a superuser's.
func Catalog(ctx context.Context, conn *pgx.Conn, tree Tree) ([]Violation, error) {
	up := tree.up()
	// These two queries list everything; the text of the migrations has the names that were given.
	given := map[string]string{constraintNamed: `CONSTRAINT\s+`, indexNamed: `INDEX (CONCURRENTLY )?(IF NOT EXISTS )?`}
	var found []Violation
	for _, rule := range catalogRules {
		rows, err := conn.Query(ctx, rule.query)
		if err != nil {
			return nil, fmt.Errorf("rule %s: %w", rule.Name, err)
		}
		var object, message string
		_, err = pgx.ForEachRow(rows, []any{&object, &message}, func() error {
			if before, listed := given[rule.Name]; listed &&
				regexp.MustCompile(before+regexp.QuoteMeta(object)+`\b`).MatchString(up) {
				return nil
			}
			file, line := tree.place(object)
			found = append(found, Violation{rule.Name, file, line, object + " " + message})
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("rule %s: %w", rule.Name, err)
		}
	}
	routines, err := readRoutines(ctx, conn, tree)
	if err != nil {
		return nil, err
	}
	tables, err := readTables(ctx, conn)
	if err != nil {
		return nil, err
	}
	bodies, err := bodies(ctx, conn, tree, routines)
	if err != nil {
		return nil, err
	}
	unused, err := unusedHelpers(ctx, conn, routines)
	if err != nil {
		return nil, err
	}
	return slices.Concat(found, bodies, unused, statementRules(routines, tables), callGraph(routines), touchedRules(routines)), nil
}
