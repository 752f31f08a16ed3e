-- What the service needs besides users: the cache outbox, named locks, and where a server stands.

-- +goose Up
SET LOCAL lock_timeout = '5s';

CREATE TABLE accounts.cache_outbox_entry_v1 (
    id bigint NOT NULL,
    keys text[] NOT NULL,
    deps text[] NOT NULL,
    created_at timestamptz NOT NULL,
    CONSTRAINT cache_outbox_entry_v1_is_a_contract CHECK (false) NO INHERIT
);
COMMENT ON TABLE accounts.cache_outbox_entry_v1 IS 'Contract: one invalidation that is pending.';

CREATE TABLE accounts.cache_outbox_status_v1 (
    pending bigint NOT NULL,
    oldest_age_ms bigint NOT NULL,
    CONSTRAINT cache_outbox_status_v1_is_a_contract CHECK (false) NO INHERIT
);
COMMENT ON TABLE accounts.cache_outbox_status_v1 IS 'Contract: the backlog of the cache outbox.';

CREATE TABLE accounts.replication_position_v1 (
    system_identifier bigint NOT NULL,
    in_recovery boolean NOT NULL,
    timeline integer,
    lsn bigint,
    CONSTRAINT replication_position_v1_is_a_contract CHECK (false) NO INHERIT
);
COMMENT ON TABLE accounts.replication_position_v1 IS
    'Contract: where a server stands in the WAL. lsn counts bytes from 0/0.';

-- +goose StatementBegin
CREATE FUNCTION accounts.record_change_v1(
    p_keys text[],
    p_deps text[]
)
RETURNS bigint
LANGUAGE plpgsql
VOLATILE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_id bigint;
BEGIN
    INSERT INTO accounts.cache_outbox (keys, deps)
    VALUES (p_keys, p_deps)
    RETURNING id INTO v_id;
    RETURN v_id;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION accounts.record_change_v1(text[], text[]) IS
    'Internal: writes the outbox row of the running transaction and returns its id. p_keys are '
    'logical keys (u:<id>, c:<id>, i:<kind>:<canonical>, d:<dictionary>), p_deps dependencies '
    '(g:<group id>, t:<contact type id>).';

-- +goose StatementBegin
CREATE FUNCTION accounts.try_named_lock_v1(
    p_name text
)
RETURNS boolean
LANGUAGE plpgsql
VOLATILE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM
       FROM accounts.named_locks AS l
      WHERE l.name = p_name
        FOR UPDATE SKIP LOCKED;
    IF FOUND THEN
        RETURN true;
    END IF;
    -- allow error-code: only a migration that forgot the row can cause this error
    ASSERT EXISTS (SELECT FROM accounts.named_locks AS l WHERE l.name = p_name),
        'a migration must insert the row of this lock into accounts.named_locks';
    RETURN false;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION accounts.try_named_lock_v1(text) IS
    'Internal: takes the lock of this name until the end of the transaction, for work that one '
    'process at a time may do. False, at once, if another transaction has it. The lock ends with '
    'the commit, the rollback or the connection. It writes a few bytes of WAL: look first whether '
    'there is work. P0004 if accounts.named_locks has no such row. Advisory locks are not used: '
    'every login could take them.';

-- +goose StatementBegin
CREATE FUNCTION accounts.take_named_lock_v1(
    p_name text
)
RETURNS void
LANGUAGE plpgsql
VOLATILE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM FROM accounts.named_locks AS l WHERE l.name = p_name FOR UPDATE;
    -- allow error-code: only a migration that forgot the row can cause this error
    ASSERT FOUND, 'a migration must insert the row of this lock into accounts.named_locks';
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION accounts.take_named_lock_v1(text) IS
    'Internal: takes the lock of this name as try_named_lock_v1 does, and waits for it: 55P03 after '
    'lock_timeout. P0004 if accounts.named_locks has no such row.';

-- +goose StatementBegin
CREATE FUNCTION accounts.check_limit_v1(
    p_limit text,
    p_maximum bigint,
    p_count bigint
)
RETURNS void
LANGUAGE plpgsql
IMMUTABLE PARALLEL SAFE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF p_count > p_maximum THEN
        RAISE EXCEPTION USING
            ERRCODE = 'UA004',
            MESSAGE = 'limit reached',
            DETAIL = jsonb_build_object('limit', p_limit, 'maximum', p_maximum)::text;
    END IF;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION accounts.check_limit_v1(text, bigint, bigint) IS
    'Internal: UA004 if p_count rows are more than p_maximum. p_limit (active_contacts, contacts, '
    'contacts_of_type, contact_types, user_groups) tells the service which limit it is. The caller '
    'holds a lock that keeps the count from changing.';

-- +goose StatementBegin
CREATE FUNCTION accounts.claim_cache_outbox_v1(
    p_min_age_ms integer,
    p_limit integer
)
RETURNS SETOF accounts.cache_outbox_entry_v1
LANGUAGE plpgsql
VOLATILE ROWS 100
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_before timestamptz := clock_timestamp() - make_interval(secs => p_min_age_ms / 1000.0);
BEGIN
    -- Without this test an idle relay would write WAL four times a second for the lock.
    IF NOT EXISTS (SELECT FROM accounts.cache_outbox AS o WHERE o.created_at < v_before)
        OR NOT accounts.try_named_lock_v1('cache_outbox')
    THEN
        RETURN;
    END IF;
    RETURN QUERY
    SELECT o.id, o.keys, o.deps, o.created_at
      FROM accounts.cache_outbox AS o
     WHERE o.created_at < v_before
     ORDER BY o.id
     LIMIT p_limit;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION accounts.claim_cache_outbox_v1(integer, integer) IS
    'The oldest p_limit outbox rows older than p_min_age_ms milliseconds. Locks the row '
    'cache_outbox of accounts.named_locks until the end of the transaction, so that one relay '
    'works at a time: zero rows also mean that another relay works. Call it in a transaction, '
    'invalidate, then delete_cache_outbox_v1, then commit. May be repeated: invalidating twice is '
    'harmless.';
GRANT EXECUTE ON FUNCTION accounts.claim_cache_outbox_v1(integer, integer) TO accounts_write;

-- +goose StatementBegin
CREATE FUNCTION accounts.delete_cache_outbox_v1(
    p_ids bigint[]
)
RETURNS void
LANGUAGE plpgsql
VOLATILE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- A row that is locked is being deleted by another session: skip it instead of waiting.
    DELETE FROM accounts.cache_outbox AS o
     WHERE o.id IN (SELECT l.id
                      FROM accounts.cache_outbox AS l
                     WHERE l.id = ANY (p_ids)
                     ORDER BY l.id
                       FOR UPDATE SKIP LOCKED);
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION accounts.delete_cache_outbox_v1(bigint[]) IS
    'Deletes outbox rows whose invalidation is done. Rows that are gone or locked by another '
    'deletion are skipped. May be repeated.';
GRANT EXECUTE ON FUNCTION accounts.delete_cache_outbox_v1(bigint[]) TO accounts_write;

-- +goose StatementBegin
CREATE FUNCTION accounts.is_cache_outbox_pending_v1(
    p_id bigint
)
RETURNS boolean
LANGUAGE plpgsql
STABLE PARALLEL SAFE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN EXISTS (SELECT FROM accounts.cache_outbox AS o WHERE o.id = p_id);
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION accounts.is_cache_outbox_pending_v1(bigint) IS
    'Whether the invalidation of this outbox row is pending. Ask the primary. No locks.';
GRANT EXECUTE ON FUNCTION accounts.is_cache_outbox_pending_v1(bigint)
    TO accounts_read, accounts_write;

-- +goose StatementBegin
CREATE FUNCTION accounts.get_cache_outbox_status_v1()
RETURNS SETOF accounts.cache_outbox_status_v1
LANGUAGE plpgsql
STABLE PARALLEL SAFE ROWS 1
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
    SELECT count(*),
           coalesce(floor(extract(epoch FROM clock_timestamp() - min(o.created_at)) * 1000), 0)
               ::bigint
      FROM accounts.cache_outbox AS o;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION accounts.get_cache_outbox_status_v1() IS
    'How many outbox rows are pending and the age of the oldest in milliseconds (0 if none). '
    'Reads the whole outbox, which is nearly empty unless the cache is down.';
GRANT EXECUTE ON FUNCTION accounts.get_cache_outbox_status_v1() TO accounts_read, accounts_write;

-- +goose StatementBegin
CREATE FUNCTION accounts.get_replication_position_v1()
RETURNS SETOF accounts.replication_position_v1
LANGUAGE plpgsql
STABLE PARALLEL RESTRICTED ROWS 1
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_system_identifier bigint := (SELECT c.system_identifier FROM pg_control_system() AS c);
    v_lsn pg_lsn;
BEGIN
    IF pg_is_in_recovery() THEN
        RETURN QUERY
        SELECT v_system_identifier,
               true,
               -- NULL without a WAL receiver: then the timeline is not known.
               accounts_stats.received_timeline(),
               pg_wal_lsn_diff(pg_last_wal_replay_lsn(), '0/0')::bigint;
    ELSE
        v_lsn := pg_current_wal_flush_lsn();
        RETURN QUERY
        SELECT v_system_identifier,
               false,
               -- pg_control_checkpoint() still shows the old timeline right after a promotion; the
               -- name of the current WAL file does not.
               ('x' || left(pg_walfile_name(v_lsn), 8))::bit(32)::integer,
               pg_wal_lsn_diff(v_lsn, '0/0')::bigint;
    END IF;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION accounts.get_replication_position_v1() IS
    'Where this server stands: on a primary the flushed LSN and its timeline; on a standby the '
    'replayed LSN and the timeline that its WAL receiver gets (NULL without one). An acknowledged '
    'commit lies below the flushed LSN of its primary. To prove that a standby has replayed '
    'something, call it in a statement before the one that reads. No locks.';
GRANT EXECUTE ON FUNCTION accounts.get_replication_position_v1() TO accounts_read, accounts_write;

-- +goose StatementBegin
CREATE FUNCTION accounts.get_schema_version_v1()
RETURNS bigint
LANGUAGE plpgsql
STABLE PARALLEL SAFE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (SELECT coalesce(max(g.version_id), 0)
              FROM public.goose_db_version AS g
             WHERE g.is_applied);
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION accounts.get_schema_version_v1() IS
    'The number of the newest migration that goose applied. No locks.';
GRANT EXECUTE ON FUNCTION accounts.get_schema_version_v1() TO accounts_read, accounts_write;

-- +goose Down
SET LOCAL lock_timeout = '5s';
DROP FUNCTION accounts.get_schema_version_v1();
DROP FUNCTION accounts.get_replication_position_v1();
DROP FUNCTION accounts.get_cache_outbox_status_v1();
DROP FUNCTION accounts.is_cache_outbox_pending_v1(bigint);
DROP FUNCTION accounts.delete_cache_outbox_v1(bigint[]);
DROP FUNCTION accounts.claim_cache_outbox_v1(integer, integer);
DROP FUNCTION accounts.check_limit_v1(text, bigint, bigint);
DROP FUNCTION accounts.take_named_lock_v1(text);
DROP FUNCTION accounts.try_named_lock_v1(text);
DROP FUNCTION accounts.record_change_v1(text[], text[]);
DROP TABLE accounts.replication_position_v1;
DROP TABLE accounts.cache_outbox_status_v1;
DROP TABLE accounts.cache_outbox_entry_v1;
