-- What the service needs besides users: the cache outbox, and where a server stands.

-- +goose Up
SET LOCAL lock_timeout = '5s';

CREATE TABLE accounts.cache_outbox_entry_v1 (
    id bigint NOT NULL,
    keys text[] NOT NULL,
    deps text[] NOT NULL,
    created_at timestamptz NOT NULL,
    CONSTRAINT cache_outbox_entry_v1_is_a_contract CHECK (false) NO INHERIT
);
COMMENT ON TABLE accounts.cache_outbox_entry_v1 IS 'Contract: one invalidation that is still owed.';

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
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtextextended('accounts.cache_outbox', 0)) THEN
        RETURN;
    END IF;
    RETURN QUERY
    SELECT o.id, o.keys, o.deps, o.created_at
      FROM accounts.cache_outbox AS o
     WHERE o.created_at < clock_timestamp() - make_interval(secs => p_min_age_ms / 1000.0)
     ORDER BY o.id
     LIMIT p_limit;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION accounts.claim_cache_outbox_v1(integer, integer) IS
    'The oldest p_limit outbox rows older than p_min_age_ms milliseconds. Holds a '
    'transaction-level advisory lock, so that one relay works at a time: zero rows also mean that '
    'another one does. Call it in a transaction, invalidate, then delete_cache_outbox_v1, then '
    'commit. Repeatable: invalidating twice is harmless.';
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
    -- Skipping locked rows: whoever holds one is deleting it too, and nobody must wait for that.
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
    'Whether the invalidation of this outbox row is still owed. Ask the primary. No locks.';
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
               -- No row without a WAL receiver: then the timeline is not known.
               (SELECT r.received_tli FROM pg_stat_get_wal_receiver() AS r),
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
DROP FUNCTION accounts.record_change_v1(text[], text[]);
DROP TABLE accounts.replication_position_v1;
DROP TABLE accounts.cache_outbox_status_v1;
DROP TABLE accounts.cache_outbox_entry_v1;
