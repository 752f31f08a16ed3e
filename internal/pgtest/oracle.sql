-- The oracle: what every test database has besides the migrations. It compares what a transaction
-- really changed with what it declared in accounts.cache_outbox, and refuses the commit if they
-- differ. It is part of the template of the test databases and of nothing else.
--
-- Before each writing statement, hold_users() remembers which users this transaction has locked.
-- After it, note_change() stores the old and new images of the rows, with the functions that wrote
-- them. At commit, the deferred constraint trigger on oracle.transactions runs check_transaction().
--
-- A call is everything that one statement of a client does: a function raises the version of a user
-- once and writes one outbox row, however many functions it calls. Each statement of a client has its
-- own statement_timestamp(), which therefore identifies the call.
--
-- A superuser who writes rows by hand, as fixtures do, switches the oracle off for the session or the
-- transaction with SET oracle.off = '<the reason>'. Another login cannot.

CREATE SCHEMA oracle;
CREATE EXTENSION pgrowlocks SCHEMA oracle;

-- One row per changed row and statement. Rows of a transaction are deleted when it commits.
CREATE UNLOGGED TABLE oracle.changes (
    n bigint GENERATED ALWAYS AS IDENTITY,
    xid xid8 NOT NULL,
    call timestamptz NOT NULL,
    functions text NOT NULL, -- 'outermost > innermost'; empty: a statement outside functions
    relation text NOT NULL,
    key jsonb NOT NULL,      -- the primary key, as an array
    old jsonb,
    new jsonb
);
CREATE INDEX changes_xid_idx ON oracle.changes (xid);

-- Its only purpose is the deferred trigger: one row per transaction that changed something.
CREATE UNLOGGED TABLE oracle.transactions (xid xid8 NOT NULL);
CREATE INDEX transactions_xid_idx ON oracle.transactions (xid);

-- What each outbox row declared. Kept after the outbox row is deleted, for compare_touched().
CREATE UNLOGGED TABLE oracle.declarations (id bigint NOT NULL, declared text[] NOT NULL);
CREATE INDEX declarations_id_idx ON oracle.declarations (id);

-- Functions that changed several existing users in one call.
CREATE UNLOGGED TABLE oracle.multi_user_calls (function text NOT NULL);

CREATE FUNCTION oracle.is_off() RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
RETURN coalesce(current_setting('oracle.off', true), '') <> ''
   AND (SELECT r.rolsuper FROM pg_roles AS r WHERE r.rolname = session_user);

-- Reports whether a transaction id is that of the running transaction or of one of its
-- subtransactions. Those have higher ids, are in progress, and no other session holds a lock on them.
CREATE FUNCTION oracle.is_mine(p_xid xid) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN p_xid = pg_current_xact_id()::xid
        OR (p_xid::text::bigint > pg_current_xact_id()::xid::text::bigint
            AND pg_xact_status(p_xid::text::xid8) = 'in progress'
            AND NOT EXISTS (SELECT
                              FROM pg_locks AS l
                             WHERE l.locktype = 'transactionid'
                               AND l.pid <> pg_backend_pid()
                               AND l.transactionid = p_xid
                               AND l.mode = 'ExclusiveLock'));
END
$$;

-- The functions on the call stack, outermost first, without those of the oracle.
CREATE FUNCTION oracle.functions_of(p_context text) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
RETURN (
    SELECT coalesce(string_agg(coalesce(m.match[1], m.match[2]), ' > ' ORDER BY m.n DESC), '')
      FROM regexp_matches(
               p_context,
               '^(?:PL/pgSQL function ([\w.]+)|SQL function "([\w.]+)")', 'gn')
           WITH ORDINALITY AS m (match, n)
     WHERE coalesce(m.match[1], '') !~ '^oracle\.');

CREATE FUNCTION oracle.violation(
    p_rule text, p_functions text, p_relation text, p_key jsonb, p_text text)
RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
RETURN format('rule %s: %s, table %s, row %s: %s', p_rule,
              coalesce('function ' || nullif(p_functions, ''),
                       'a statement outside functions'),
              p_relation, coalesce((SELECT string_agg(v.value, ', ')
                                      FROM jsonb_array_elements_text(p_key) AS v
                                     WHERE v.value IS NOT NULL), '(all)'), p_text);

CREATE FUNCTION oracle.refuse(p_violations text[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF cardinality(p_violations) > 0 THEN
        RAISE EXCEPTION USING
            ERRCODE = 'ORACL',
            MESSAGE = 'oracle: ' || array_to_string(p_violations[:20], E'\n'),
            HINT = 'internal/pgtest/oracle.sql describes the rules';
    END IF;
END
$$;

-- BEFORE STATEMENT on users, contacts and memberships: the users that are locked for update, or
-- written, by this transaction before the statement.
CREATE FUNCTION oracle.hold_users() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_held text := '{}';
BEGIN
    -- A transaction without an id has neither locked nor written a row.
    IF pg_current_xact_id_if_assigned() IS NOT NULL AND NOT oracle.is_off() THEN
        SELECT coalesce(array_agg(u.id), '{}')::text
          INTO v_held
          FROM accounts.users AS u
         WHERE (u.xmin::text::bigint >= pg_current_xact_id()::xid::text::bigint
                AND oracle.is_mine(u.xmin))
            OR (u.xmax <> '0'
                AND u.ctid IN (SELECT l.locked_row
                                 FROM oracle.pgrowlocks('accounts.users') AS l
                                CROSS JOIN LATERAL unnest(l.xids, l.modes) AS x (xid, mode)
                                WHERE x.mode LIKE '%Update'
                                  AND oracle.is_mine(x.xid)));
    END IF;
    PERFORM set_config('oracle.held', v_held, true);
    RETURN NULL;
END
$$;

-- Stores row images, and refuses at once what only this moment shows: a missing lock, a hard delete.
CREATE FUNCTION oracle.store(p_relation text, p_key text[], p_old jsonb[], p_new jsonb[], p_context text)
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_functions text := oracle.functions_of(p_context);
    v_violations text[];
    v_held uuid[];
    v_count bigint;
BEGIN
    IF p_relation IN ('users', 'user_contacts', 'user_group_memberships') THEN
        v_held := nullif(current_setting('oracle.held', true), '')::uuid[];
    END IF;
    WITH images AS (
        SELECT jsonb_build_array(coalesce(n.image, o.image) -> p_key[1], coalesce(n.image, o.image) -> p_key[2]) AS key,
               o.image AS old, n.image AS new
          FROM unnest(p_old) AS o (image)
          FULL JOIN unnest(p_new) AS n (image)
            ON jsonb_build_array(o.image -> p_key[1], o.image -> p_key[2])
             = jsonb_build_array(n.image -> p_key[1], n.image -> p_key[2])
         -- contact_types.single is repeated in the contacts for an index; no answer contains it.
         WHERE o.image - 'single' IS DISTINCT FROM n.image - 'single'
    ), stored AS (
        INSERT INTO oracle.changes (xid, call, functions, relation, key, old, new)
        SELECT pg_current_xact_id(), statement_timestamp(), v_functions, p_relation, i.key, i.old, i.new
          FROM images AS i
        RETURNING key, old, new
    ), unlocked AS (
        SELECT s.key, i.user_id
          FROM stored AS s
         CROSS JOIN LATERAL (
                   SELECT (coalesce(s.new, s.old) ->> CASE p_relation WHEN 'users' THEN 'id' ELSE 'user_id' END)::uuid
                   ) AS i (user_id)
         WHERE v_held IS NOT NULL
           AND NOT (p_relation = 'users' AND s.old IS NULL)
           AND i.user_id <> ALL (v_held)
           -- A user and its contacts may be inserted by one statement.
           AND NOT (p_relation <> 'users'
                    AND EXISTS (SELECT FROM accounts.users AS u
                                 WHERE u.id = i.user_id AND oracle.is_mine(u.xmin)))
    )
    SELECT (SELECT count(*) FROM stored),
           (SELECT array_agg(oracle.violation('lock', v_functions, p_relation, u.key, format(
                       'user %s was not locked FOR NO KEY UPDATE by an earlier statement', u.user_id)))
              FROM unlocked AS u)
      INTO v_count, v_violations;
    IF v_count = 0 THEN
        RETURN;
    END IF;
    IF NOT EXISTS (SELECT FROM oracle.transactions AS t WHERE t.xid = pg_current_xact_id()) THEN
        INSERT INTO oracle.transactions VALUES (pg_current_xact_id());
    END IF;

    IF p_new IS NULL AND p_relation IN ('users', 'user_contacts')
       AND NOT oracle.may_delete(v_functions)
    THEN
        v_violations := coalesce(v_violations, '{}') || ARRAY(
            SELECT oracle.violation('hard-delete', v_functions, p_relation, jsonb_build_array(o.image -> p_key[1]),
                                    'deleted, but no function on the stack has a comment with the word hard-deletes')
              FROM unnest(p_old) AS o (image));
    END IF;
    PERFORM oracle.refuse(v_violations);
END
$$;

-- A function that deletes users or contacts for good has the word hard-deletes in its comment.
CREATE FUNCTION oracle.may_delete(p_functions text) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
RETURN EXISTS (
    SELECT
      FROM pg_proc AS p
     WHERE p.pronamespace::regnamespace || '.' || p.proname = ANY (string_to_array(p_functions, ' > '))
       AND obj_description(p.oid, 'pg_proc') ~* '\mhard-deletes\M');

-- A row as it is compared: a profile has up to 16 KiB, and its hash shows a change as well.
CREATE FUNCTION oracle.image(p_row jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
RETURN CASE WHEN p_row ? 'profile' THEN p_row || jsonb_build_object('profile', md5(p_row ->> 'profile'))
            ELSE p_row END;

CREATE FUNCTION oracle.note_insert() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_context text;
BEGIN
    IF EXISTS (SELECT FROM new_rows) AND NOT oracle.is_off() THEN
        GET DIAGNOSTICS v_context = PG_CONTEXT;
        PERFORM oracle.store(TG_TABLE_NAME, ARRAY(SELECT unnest(TG_ARGV)), NULL,
                             (SELECT array_agg(oracle.image(to_jsonb(n))) FROM new_rows AS n), v_context);
    END IF;
    RETURN NULL;
END
$$;

CREATE FUNCTION oracle.note_update() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_context text;
BEGIN
    IF EXISTS (SELECT FROM new_rows) AND NOT oracle.is_off() THEN
        GET DIAGNOSTICS v_context = PG_CONTEXT;
        PERFORM oracle.store(TG_TABLE_NAME, ARRAY(SELECT unnest(TG_ARGV)),
                             (SELECT array_agg(oracle.image(to_jsonb(o))) FROM old_rows AS o),
                             (SELECT array_agg(oracle.image(to_jsonb(n))) FROM new_rows AS n), v_context);
    END IF;
    RETURN NULL;
END
$$;

CREATE FUNCTION oracle.note_delete() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_context text;
BEGIN
    IF EXISTS (SELECT FROM old_rows) AND NOT oracle.is_off() THEN
        GET DIAGNOSTICS v_context = PG_CONTEXT;
        PERFORM oracle.store(TG_TABLE_NAME, ARRAY(SELECT unnest(TG_ARGV)),
                             (SELECT array_agg(oracle.image(to_jsonb(o))) FROM old_rows AS o), NULL, v_context);
    END IF;
    RETURN NULL;
END
$$;

CREATE FUNCTION oracle.note_truncate() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_context text;
BEGIN
    IF NOT oracle.is_off() THEN
        GET DIAGNOSTICS v_context = PG_CONTEXT;
        PERFORM oracle.refuse(ARRAY[oracle.violation(
            'hard-delete', oracle.functions_of(v_context), TG_TABLE_NAME, NULL, 'truncated')]);
    END IF;
    RETURN NULL;
END
$$;

-- The logical key of an identifier, NULL for a contact that is inactive or no identifier.
CREATE FUNCTION oracle.identifier_key(p_contact jsonb) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
RETURN CASE WHEN (p_contact ->> 'is_active')::boolean THEN
    'i:' || CASE p_contact ->> 'contact_type_id'
                WHEN '00000000-0000-7000-8000-000000000001' THEN 'phone'
                WHEN '00000000-0000-7000-8000-000000000002' THEN 'email'
                WHEN '00000000-0000-7000-8000-000000000003' THEN 'second_login' END
         || ':' || (p_contact ->> 'normalized') END;

-- Runs once at the end of each transaction that changed something. All rules are about one call. The
-- planner expects few rows where a bulk call has thousands: without nested loops the time stays linear.
CREATE FUNCTION oracle.check_transaction() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_nestloop = off SET jit = off
AS $$
DECLARE
    v_found text[];
BEGIN
    WITH changes AS MATERIALIZED (
        DELETE FROM oracle.changes AS c WHERE c.xid = NEW.xid RETURNING c.*
    ), done AS (
        DELETE FROM oracle.transactions AS t WHERE t.xid = NEW.xid
    ), net AS MATERIALIZED (
        -- What a call did to a row, from the first image to the last.
        SELECT c.call, c.relation, c.key,
               (array_agg(c.functions ORDER BY c.n))[1] AS functions,
               (array_agg(c.old ORDER BY c.n))[1] AS old,
               (array_agg(c.new ORDER BY c.n DESC))[1] AS new
          FROM changes AS c
         GROUP BY c.call, c.relation, c.key
    ), moved AS MATERIALIZED (
        SELECT * FROM net AS n WHERE n.old IS DISTINCT FROM n.new
    ), rows AS MATERIALIZED (
        SELECT c.call, c.functions, c.new ->> 'id' AS id,
               ARRAY(SELECT jsonb_array_elements_text(c.new -> 'keys')) AS keys,
               ARRAY(SELECT jsonb_array_elements_text(c.new -> 'deps')) AS deps
          FROM changes AS c
         WHERE c.relation = 'cache_outbox'
    ), declared AS MATERIALIZED (
        SELECT r.call, r.functions, r.id, k.name, k.is_dep
          FROM rows AS r
         CROSS JOIN LATERAL (
                   SELECT u.name, false AS is_dep FROM unnest(r.keys) AS u (name)
                    UNION ALL
                   SELECT u.name, true FROM unnest(r.deps) AS u (name)) AS k
    ), users AS MATERIALIZED (
        -- Every user of which something changed in a call.
        SELECT m.call, m.user_id,
               (array_agg(m.functions ORDER BY m.relation = 'users'))[1] AS functions,
               (array_agg(m.relation ORDER BY m.relation = 'users'))[1] AS relation,
               bool_or(m.relation = 'user_contacts') AS contacts,
               bool_or(m.relation = 'user_group_memberships') AS groups
          FROM (SELECT o.call, o.functions, o.relation,
                       coalesce(o.new, o.old) ->> CASE o.relation WHEN 'users' THEN 'id' ELSE 'user_id' END AS user_id
                  FROM moved AS o
                 WHERE o.relation IN ('users', 'user_contacts', 'user_group_memberships')) AS m
         GROUP BY m.call, m.user_id
    ), flipped AS (
        -- Only active users are found by an identifier.
        SELECT m.call, m.functions, m.key ->> 0 AS user_id
          FROM moved AS m
         WHERE m.relation = 'users'
           AND m.old IS NOT NULL
           AND m.new IS NOT NULL
           AND m.old -> 'is_active' <> m.new -> 'is_active'
    ), needed AS MATERIALIZED (
        SELECT u.call, u.functions, u.relation, jsonb_build_array(u.user_id) AS key, 'u:' || u.user_id AS name, false AS is_dep
          FROM users AS u
         UNION ALL
        SELECT m.call, m.functions, m.relation, m.key, 'c:' || (m.key ->> 0), false
          FROM moved AS m
         WHERE m.relation = 'user_contacts'
         UNION ALL
        -- Identifiers that named the user before the call or after it, but not both.
        SELECT i.call, (array_agg(i.functions))[1], 'user_contacts', (array_agg(i.key))[1], i.name, false
          FROM (SELECT m.call, m.functions, m.key, m.old ->> 'user_id' AS user_id, oracle.identifier_key(m.old) AS name, -1 AS step
                  FROM moved AS m
                 WHERE m.relation = 'user_contacts'
                 UNION ALL
                SELECT m.call, m.functions, m.key, m.new ->> 'user_id', oracle.identifier_key(m.new), 1
                  FROM moved AS m
                 WHERE m.relation = 'user_contacts') AS i
         WHERE i.name IS NOT NULL
         GROUP BY i.call, i.user_id, i.name
        HAVING sum(i.step) <> 0
         UNION ALL
        SELECT f.call, f.functions, 'users', jsonb_build_array(f.user_id), oracle.identifier_key(to_jsonb(c)), false
          FROM flipped AS f
          JOIN accounts.user_contacts AS c ON c.user_id = f.user_id::uuid
         WHERE oracle.identifier_key(to_jsonb(c)) IS NOT NULL
           AND NOT EXISTS (SELECT
                             FROM changes AS o
                            WHERE o.relation = 'user_contacts'
                              AND o.key ->> 0 = c.id::text)
         UNION ALL
        SELECT m.call, m.functions, m.relation, m.key, 'd:' || m.relation, false
          FROM moved AS m
         WHERE m.relation IN ('user_groups', 'contact_types')
         UNION ALL
        -- Documents of users contain the names of their groups and contact types.
        SELECT m.call, m.functions, m.relation, m.key, left(substr(m.relation, CASE m.relation WHEN 'user_groups' THEN 6 ELSE 9 END), 1)
                                                           || ':' || (m.key ->> 0), true
          FROM moved AS m
         WHERE m.relation IN ('user_groups', 'contact_types')
           AND m.old IS NOT NULL
           AND m.old - '{created_at,updated_at,on_second,single}'::text[]
               IS DISTINCT FROM m.new - '{created_at,updated_at,on_second,single}'::text[]
    ), allowed AS (
        SELECT n.call, n.name FROM needed AS n
         UNION
        SELECT c.call, k.name
          FROM changes AS c
         CROSS JOIN LATERAL (
                   SELECT 'u:' || coalesce(i.image ->> 'user_id', i.image ->> 'id') AS name
                     FROM (VALUES (c.old), (c.new)) AS i (image)
                    WHERE c.relation IN ('users', 'user_contacts', 'user_group_memberships')
                    UNION ALL
                   SELECT n.name
                     FROM (VALUES (c.old), (c.new)) AS i (image)
                    CROSS JOIN LATERAL (VALUES ('c:' || (i.image ->> 'id')), (oracle.identifier_key(i.image))) AS n (name)
                    WHERE c.relation = 'user_contacts'
                      -- An identifier that the user keeps is not affected by a new spelling of its value.
                      AND (n.name LIKE 'c:%'
                           OR oracle.identifier_key(c.old) IS DISTINCT FROM oracle.identifier_key(c.new))) AS k
         WHERE k.name IS NOT NULL
         UNION
        SELECT f.call, oracle.identifier_key(i.image)
          FROM flipped AS f
          JOIN changes AS c ON c.relation = 'user_contacts' AND coalesce(c.new, c.old) ->> 'user_id' = f.user_id
         CROSS JOIN LATERAL (VALUES (c.old), (c.new)) AS i (image)
    ), found AS (
        SELECT 1 AS rank, oracle.violation('key-missing', n.functions, n.relation, n.key,
                   'the outbox row of the call does not contain ' || n.name) AS text
          FROM needed AS n
         WHERE NOT EXISTS (SELECT FROM declared AS d WHERE d.call = n.call AND d.name = n.name)
         UNION ALL
        SELECT 2, oracle.violation('key-extra', d.functions, 'cache_outbox', jsonb_build_array(d.id),
                   'contains ' || coalesce(d.name, 'NULL') || ', which the call did not change')
          FROM declared AS d
         WHERE NOT EXISTS (SELECT FROM allowed AS a WHERE a.call = d.call AND a.name = d.name)
         UNION ALL
        SELECT 3, oracle.violation('key-place', d.functions, 'cache_outbox', jsonb_build_array(d.id),
                   d.name || ' stands in ' || CASE WHEN d.is_dep THEN 'deps' ELSE 'keys' END)
          FROM declared AS d
         WHERE d.is_dep <> (d.name ~ '^[gt]:')
         UNION ALL
        SELECT 4, oracle.violation('one-outbox-row', (array_agg(r.functions))[1], 'cache_outbox', jsonb_agg(r.id),
                   'one call wrote several outbox rows')
          FROM rows AS r
         GROUP BY r.call
        HAVING count(*) > 1
         UNION ALL
        SELECT 4, oracle.violation('key-extra', r.functions, 'cache_outbox', jsonb_build_array(r.id), 'declares nothing')
          FROM rows AS r
         WHERE r.keys = '{}' AND r.deps = '{}'
         UNION ALL
        SELECT 5, oracle.violation('version', u.functions, u.relation, jsonb_build_array(u.user_id),
                   format('users.version was %s before the call and is %s after it',
                          coalesce(m.old ->> 'version', 'not there'), coalesce(m.new ->> 'version', 'as before')))
          FROM users AS u
          LEFT JOIN moved AS m ON m.call = u.call AND m.relation = 'users' AND m.key ->> 0 = u.user_id
         WHERE (m.new ->> 'version')::bigint - coalesce((m.old ->> 'version')::bigint, 0) IS DISTINCT FROM 1
           AND NOT (m.old IS NOT NULL AND m.new IS NULL) -- hard-deleted
         UNION ALL
        SELECT 6, oracle.violation('updated-at', m.functions, m.relation, m.key, 'updated_at did not rise')
          FROM moved AS m
         WHERE m.relation IN ('users', 'user_groups', 'contact_types')
           AND m.old IS NOT NULL
           AND (m.new ->> 'updated_at')::timestamptz <= (m.old ->> 'updated_at')::timestamptz
         UNION ALL
        SELECT 7, j.text
          FROM oracle.check_journal((SELECT jsonb_agg(to_jsonb(c)) FROM changes AS c WHERE c.relation = 'journal'),
                                    (SELECT jsonb_agg(jsonb_build_object(
                                                'call', u.call, 'user_id', u.user_id, 'functions', u.functions,
                                                'created', m.old IS NULL AND m.new IS NOT NULL,
                                                'version', m.new -> 'version',
                                                'changed', array_remove(ARRAY[
                                                    CASE WHEN m.old -> 'is_active' <> m.new -> 'is_active' THEN 'is_active' END,
                                                    CASE WHEN m.old -> 'profile' <> m.new -> 'profile' THEN 'profile' END,
                                                    CASE WHEN u.contacts THEN 'contacts' END,
                                                    CASE WHEN u.groups THEN 'groups' END], NULL)))
                                       FROM users AS u
                                       LEFT JOIN moved AS m
                                         ON m.call = u.call AND m.relation = 'users' AND m.key ->> 0 = u.user_id)) AS j (text)
    ), remember AS (
        INSERT INTO oracle.declarations (id, declared)
        SELECT r.id::bigint, r.keys || r.deps FROM rows AS r
    ), several AS (
        INSERT INTO oracle.multi_user_calls (function)
        SELECT split_part(split_part(min(m.functions), ' > ', 1), '.', 2)
          FROM moved AS m
         WHERE m.relation = 'users' AND m.old IS NOT NULL AND m.functions LIKE 'accounts.%'
         GROUP BY m.call, split_part(m.functions, ' > ', 1)
        HAVING count(*) > 1
    )
    SELECT array_agg(DISTINCT f.text ORDER BY f.text) INTO v_found FROM found AS f;
    PERFORM oracle.refuse(v_found);
    RETURN NULL;
END
$$;

-- One journal row per changed user, with the version that the call gave it and what changed. Until
-- there is a table accounts.journal, there is nothing to compare.
CREATE FUNCTION oracle.check_journal(p_rows jsonb, p_users jsonb) RETURNS SETOF text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF to_regclass('accounts.journal') IS NULL THEN
        RETURN;
    END IF;
    RETURN QUERY
    WITH users AS (
        SELECT * FROM jsonb_to_recordset(p_users)
            AS u (call timestamptz, user_id text, functions text, created boolean, version bigint, changed text[])
    ), rows AS (
        SELECT r.call, r.functions, r.new ->> 'user_id' AS user_id, (r.new ->> 'version')::bigint AS version,
               ARRAY(SELECT jsonb_array_elements_text(r.new -> 'changed')) AS changed
          FROM jsonb_to_recordset(p_rows) AS r (call timestamptz, functions text, new jsonb)
         WHERE r.new ->> 'user_id' IS NOT NULL
    )
    SELECT oracle.violation('journal', u.functions, 'journal', jsonb_build_array(u.user_id),
               format('%s journal rows for version %s', count(r.user_id), u.version))
      FROM users AS u
      LEFT JOIN rows AS r ON r.call = u.call AND r.user_id = u.user_id AND r.version = u.version
     GROUP BY u.call, u.user_id, u.functions, u.version
    HAVING count(r.user_id) <> 1
     UNION ALL
    SELECT oracle.violation('journal', u.functions, 'journal', jsonb_build_array(u.user_id),
               format('changed is %s, not %s', r.changed, u.changed))
      FROM users AS u
      JOIN rows AS r ON r.call = u.call AND r.user_id = u.user_id AND r.version = u.version
     WHERE NOT u.created -- what changed in a creation is everything that it has
       AND NOT (r.changed @> u.changed AND r.changed <@ u.changed)
     UNION ALL
    SELECT oracle.violation('journal', r.functions, 'journal', jsonb_build_array(r.user_id), 'a row for a user that the call did not change')
      FROM rows AS r
     WHERE NOT EXISTS (SELECT FROM users AS u WHERE u.call = r.call AND u.user_id = r.user_id);
END
$$;

-- What a function returned as touched, against the outbox row that it returned.
CREATE FUNCTION oracle.compare_touched(p_function text, p_outbox_id bigint, p_touched text[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_declared text[];
BEGIN
    IF p_outbox_id IS NOT NULL THEN
        -- Before the commit the row is in changes, after it in declarations.
        SELECT d.declared
          INTO v_declared
          FROM (SELECT d.declared FROM oracle.declarations AS d WHERE d.id = p_outbox_id
                 UNION ALL
                SELECT ARRAY(SELECT jsonb_array_elements_text((c.new -> 'keys') || (c.new -> 'deps')))
                  FROM oracle.changes AS c
                 WHERE c.xid = pg_current_xact_id_if_assigned()
                   AND c.relation = 'cache_outbox'
                   AND (c.new ->> 'id')::bigint = p_outbox_id) AS d
         LIMIT 1;
    END IF;
    IF NOT coalesce(coalesce(v_declared, '{}') @> p_touched AND coalesce(v_declared, '{}') <@ p_touched, false) THEN
        PERFORM oracle.refuse(ARRAY[oracle.violation(
            'touched', p_function, 'cache_outbox', jsonb_build_array(p_outbox_id),
            format('touched is %s, the outbox row has %s', p_touched, coalesce(v_declared, '{}')))]);
    END IF;
END
$$;

-- Puts the triggers on a table of the schema accounts, whose primary key has these columns.
CREATE FUNCTION oracle.watch(p_table text, VARIADIC p_key text[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_arguments text := (SELECT string_agg(quote_literal(k.name), ', ') FROM unnest(p_key) AS k (name));
BEGIN
    IF p_table IN ('users', 'user_contacts', 'user_group_memberships') THEN
        EXECUTE format('CREATE TRIGGER oracle_hold BEFORE %s ON accounts.%I '
                       'FOR EACH STATEMENT EXECUTE FUNCTION oracle.hold_users()',
                       CASE p_table WHEN 'users' THEN 'UPDATE OR DELETE'
                                    ELSE 'INSERT OR UPDATE OR DELETE' END, p_table);
    END IF;
    EXECUTE format('CREATE TRIGGER oracle_insert AFTER INSERT ON accounts.%I REFERENCING NEW TABLE AS new_rows '
                   'FOR EACH STATEMENT EXECUTE FUNCTION oracle.note_insert(%s)', p_table, v_arguments);
    IF p_table = 'cache_outbox' OR p_table = 'journal' THEN
        RETURN; -- rows are processed and deleted by other transactions than those that declared them
    END IF;
    EXECUTE format('CREATE TRIGGER oracle_update AFTER UPDATE ON accounts.%I '
                   'REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows '
                   'FOR EACH STATEMENT EXECUTE FUNCTION oracle.note_update(%s)', p_table, v_arguments);
    EXECUTE format('CREATE TRIGGER oracle_delete AFTER DELETE ON accounts.%I REFERENCING OLD TABLE AS old_rows '
                   'FOR EACH STATEMENT EXECUTE FUNCTION oracle.note_delete(%s)', p_table, v_arguments);
    EXECUTE format('CREATE TRIGGER oracle_truncate BEFORE TRUNCATE ON accounts.%I '
                   'FOR EACH STATEMENT EXECUTE FUNCTION oracle.note_truncate()', p_table);
END
$$;

CREATE CONSTRAINT TRIGGER check_transaction AFTER INSERT ON oracle.transactions
    DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION oracle.check_transaction();

DO $$
BEGIN
    PERFORM oracle.watch('users', 'id');
    PERFORM oracle.watch('user_contacts', 'id');
    PERFORM oracle.watch('user_group_memberships', 'user_id', 'group_id');
    PERFORM oracle.watch('user_groups', 'id');
    PERFORM oracle.watch('contact_types', 'id');
    PERFORM oracle.watch('cache_outbox', 'id');
    IF to_regclass('accounts.journal') IS NOT NULL THEN
        PERFORM oracle.watch('journal', 'id');
    END IF;
END
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA oracle FROM PUBLIC;
GRANT USAGE ON SCHEMA oracle TO accounts_write;
GRANT EXECUTE ON FUNCTION oracle.compare_touched(text, bigint, text[]) TO accounts_write;
