-- Uploads too large to be answered at once are staged, then worked through chunk by chunk.

-- +goose Up
SET LOCAL lock_timeout = '5s';

CREATE TABLE accounts.import_jobs (
    id uuid NOT NULL DEFAULT accounts.generate_uuid_v1(),
    phase text COLLATE "C" NOT NULL DEFAULT 'staging',
    on_conflict text COLLATE "C" NOT NULL,
    dry_run boolean NOT NULL,
    total integer NOT NULL DEFAULT 0,
    done integer NOT NULL DEFAULT 0,
    error_code text COLLATE "C",
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at timestamptz,
    CONSTRAINT import_jobs_pkey PRIMARY KEY (id),
    CONSTRAINT import_jobs_phase_known
        CHECK (phase IN ('staging', 'pending', 'running', 'done', 'failed')),
    CONSTRAINT import_jobs_on_conflict_known CHECK (on_conflict IN ('skip', 'merge', 'error')),
    CONSTRAINT import_jobs_done_bounded CHECK (done BETWEEN 0 AND total),
    CONSTRAINT import_jobs_finished_at_agrees
        CHECK ((phase IN ('done', 'failed')) = (finished_at IS NOT NULL))
);
COMMENT ON TABLE accounts.import_jobs IS
    'A large upload: staging (rows arrive), pending, running, done, or failed with error_code.';
CREATE INDEX import_jobs_unfinished_idx ON accounts.import_jobs (id)
    WHERE phase IN ('pending', 'running');

CREATE TABLE accounts.import_rows (
    job_id uuid NOT NULL,
    row_no integer NOT NULL,
    phone text NOT NULL,
    user_groups text NOT NULL,
    group_keys text COLLATE "C" NOT NULL DEFAULT '',
    normalized text COLLATE "C",
    status text COLLATE "C",
    code text COLLATE "C",
    field text COLLATE "C",
    user_id uuid,
    CONSTRAINT import_rows_pkey PRIMARY KEY (job_id, row_no),
    CONSTRAINT import_rows_job_id_fkey FOREIGN KEY (job_id)
        REFERENCES accounts.import_jobs (id) ON DELETE CASCADE,
    CONSTRAINT import_rows_status_known
        CHECK (status IN ('created', 'exists', 'merged', 'conflict', 'invalid')),
    CONSTRAINT import_rows_normalized_or_status CHECK (normalized IS NOT NULL OR status IS NOT NULL)
);
COMMENT ON TABLE accounts.import_rows IS
    'The rows of an upload as they came, the canonical forms of phone and groups, and the result of '
    'each; status is NULL until then.';
CREATE INDEX import_rows_open_idx ON accounts.import_rows (job_id, row_no) WHERE status IS NULL;

CREATE TABLE accounts.import_job_v1 (
    id uuid NOT NULL,
    phase text NOT NULL,
    on_conflict text NOT NULL,
    dry_run boolean NOT NULL,
    total integer NOT NULL,
    done integer NOT NULL,
    created integer NOT NULL,
    existing integer NOT NULL,
    merged integer NOT NULL,
    conflict integer NOT NULL,
    invalid integer NOT NULL,
    error_code text,
    created_at timestamptz NOT NULL,
    finished_at timestamptz,
    CONSTRAINT import_job_v1_is_a_contract CHECK (false) NO INHERIT
);
COMMENT ON TABLE accounts.import_job_v1 IS
    'Contract: a job and how many of its rows ended in which way; the five add up to done.';

CREATE TABLE accounts.import_row_v1 (
    row_no integer NOT NULL,
    phone text NOT NULL,
    user_groups text NOT NULL,
    status text,
    code text,
    field text,
    user_id uuid,
    CONSTRAINT import_row_v1_is_a_contract CHECK (false) NO INHERIT
);
COMMENT ON TABLE accounts.import_row_v1 IS 'Contract: a row of an upload and what became of it.';

CREATE TABLE accounts.import_chunk_v1 (
    job_id uuid NOT NULL,
    touched text[] NOT NULL,
    outbox_id bigint,
    CONSTRAINT import_chunk_v1_is_a_contract CHECK (false) NO INHERIT
);
COMMENT ON TABLE accounts.import_chunk_v1 IS
    'Contract: the job that a chunk was done of, the logical keys that it touched, its outbox '
    'row.';

-- +goose StatementBegin
CREATE FUNCTION accounts.get_import_job_v1(
    p_job_id uuid
)
RETURNS SETOF accounts.import_job_v1
LANGUAGE plpgsql
STABLE PARALLEL SAFE ROWS 1
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
    SELECT j.id, j.phase, j.on_conflict, j.dry_run, j.total, j.done,
           c.created, c.existing, c.merged, c.conflict, c.invalid,
           j.error_code, j.created_at, j.finished_at
      FROM accounts.import_jobs AS j
     CROSS JOIN LATERAL (
               SELECT count(*) FILTER (WHERE r.status = 'created')::integer AS created,
                      count(*) FILTER (WHERE r.status = 'exists')::integer AS existing,
                      count(*) FILTER (WHERE r.status = 'merged')::integer AS merged,
                      count(*) FILTER (WHERE r.status = 'conflict')::integer AS conflict,
                      count(*) FILTER (WHERE r.status = 'invalid')::integer AS invalid
                 FROM accounts.import_rows AS r
                WHERE r.job_id = j.id) AS c
     WHERE j.id = p_job_id;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION accounts.get_import_job_v1(uuid) IS
    'The job with this id. Counts its rows. A miss is zero rows. No errors, no locks.';
GRANT EXECUTE ON FUNCTION accounts.get_import_job_v1(uuid) TO accounts_read, accounts_write;

-- +goose StatementBegin
CREATE FUNCTION accounts.list_import_rows_v1(
    p_limit integer,
    p_job_id uuid,
    p_after_row_no integer
)
RETURNS SETOF accounts.import_row_v1
LANGUAGE plpgsql
STABLE PARALLEL SAFE ROWS 1000
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
    SELECT r.row_no, r.phone, r.user_groups, r.status, r.code, r.field, r.user_id
      FROM accounts.import_rows AS r
     WHERE r.job_id = p_job_id
       AND r.row_no > p_after_row_no
     ORDER BY r.row_no
     LIMIT p_limit;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION accounts.list_import_rows_v1(integer, uuid, integer) IS
    'The rows of a job after p_after_row_no (0: from the first). No errors, no locks.';
GRANT EXECUTE ON FUNCTION accounts.list_import_rows_v1(integer, uuid, integer)
    TO accounts_read, accounts_write;

-- +goose StatementBegin
CREATE FUNCTION accounts.create_import_job_v1(
    p_on_conflict text,
    p_dry_run boolean
)
RETURNS SETOF accounts.import_job_v1
LANGUAGE plpgsql
VOLATILE ROWS 1
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_job_id uuid;
BEGIN
    INSERT INTO accounts.import_jobs (on_conflict, dry_run)
    VALUES (p_on_conflict, p_dry_run)
    RETURNING id INTO v_job_id;
    RETURN QUERY SELECT j.* FROM accounts.get_import_job_v1(v_job_id) AS j;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION accounts.create_import_job_v1(text, boolean) IS
    'A new job, in the phase staging. CHECK import_jobs_on_conflict_known. A repetition makes '
    'another, empty one.';
GRANT EXECUTE ON FUNCTION accounts.create_import_job_v1(text, boolean) TO accounts_write;

-- +goose StatementBegin
CREATE FUNCTION accounts.stage_import_rows_v1(
    p_job_id uuid,
    p_row_nos integer[],
    p_phones text[],
    p_phones_normalized text[],
    p_group_names text[],
    p_group_keys text[],
    p_codes text[],
    p_fields text[]
)
RETURNS void
LANGUAGE plpgsql
VOLATILE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM FROM accounts.import_jobs AS j
      WHERE j.id = p_job_id AND j.phase = 'staging'
        FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING
            ERRCODE = 'UA001',
            MESSAGE = 'import not found, or staged already',
            DETAIL = jsonb_build_object('entity', 'Import', 'id', p_job_id)::text;
    END IF;
    INSERT INTO accounts.import_rows
           (job_id, row_no, phone, normalized, user_groups, group_keys, status, code, field)
    SELECT p_job_id, i.row_no, i.phone, nullif(i.normalized, ''), i.group_names, i.group_keys,
           CASE i.code WHEN '' THEN NULL WHEN 'duplicate' THEN 'conflict' ELSE 'invalid' END,
           nullif(i.code, ''), nullif(i.field, '')
      FROM unnest(p_row_nos, p_phones, p_phones_normalized, p_group_names, p_group_keys, p_codes,
                  p_fields)
           AS i (row_no, phone, normalized, group_names, group_keys, code, field)
        ON CONFLICT (job_id, row_no) DO NOTHING;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION accounts.stage_import_rows_v1(
    uuid, integer[], text[], text[], text[], text[], text[], text[]) IS
    'Adds rows to a job in the phase staging. A row with a code is not imported: duplicate is a '
    'conflict, everything else invalid. Empty texts stand for NULL. UA001. Locks the job. May be '
    'repeated: rows that are there stay.';
GRANT EXECUTE ON FUNCTION accounts.stage_import_rows_v1(
    uuid, integer[], text[], text[], text[], text[], text[], text[]) TO accounts_write;

-- +goose StatementBegin
CREATE FUNCTION accounts.start_import_job_v1(
    p_job_id uuid
)
RETURNS SETOF accounts.import_job_v1
LANGUAGE plpgsql
VOLATILE ROWS 1
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_job accounts.import_jobs;
    v_failed boolean := false;
BEGIN
    SELECT j.* INTO v_job FROM accounts.import_jobs AS j WHERE j.id = p_job_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING
            ERRCODE = 'UA001',
            MESSAGE = 'import not found',
            DETAIL = jsonb_build_object('entity', 'Import', 'id', p_job_id)::text;
    END IF;

    IF v_job.phase = 'staging' THEN
        IF v_job.on_conflict = 'error' THEN
            UPDATE accounts.import_rows AS r
               SET status = 'conflict', code = 'taken', field = 'phone', user_id = c.user_id
              FROM accounts.user_contacts AS c
             WHERE r.job_id = p_job_id
               AND r.status IS NULL
               AND c.contact_type_id = '00000000-0000-7000-8000-000000000001'
               AND c.normalized = r.normalized
               AND c.is_active;
            v_failed := EXISTS (SELECT
                                  FROM accounts.import_rows AS r
                                 WHERE r.job_id = p_job_id
                                   AND r.status = 'conflict');
        END IF;
        UPDATE accounts.import_jobs AS j
           SET total = c.total,
               done = c.done,
               phase = CASE WHEN v_failed THEN 'failed' ELSE 'pending' END,
               error_code = CASE WHEN v_failed THEN 'IDENTIFIER_TAKEN' END,
               finished_at = CASE WHEN v_failed THEN clock_timestamp() END
          FROM (SELECT count(*) AS total, count(r.status) AS done
                  FROM accounts.import_rows AS r
                 WHERE r.job_id = p_job_id) AS c
         WHERE j.id = p_job_id;
    END IF;
    RETURN QUERY SELECT j.* FROM accounts.get_import_job_v1(p_job_id) AS j;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION accounts.start_import_job_v1(uuid) IS
    'Ends the phase staging; with on_conflict = error fails the job, with nothing written, if a '
    'phone is taken or comes twice. UA001. Locks the job. May be repeated.';
GRANT EXECUTE ON FUNCTION accounts.start_import_job_v1(uuid) TO accounts_write;

-- +goose StatementBegin
CREATE FUNCTION accounts.delete_import_jobs_v1(
    p_job_id uuid,
    p_staging_older_than_hours integer,
    p_finished_older_than_days integer
)
RETURNS bigint
LANGUAGE plpgsql
VOLATILE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_deleted bigint;
BEGIN
    DELETE FROM accounts.import_jobs AS j
     WHERE j.id IN (SELECT o.id
                      FROM accounts.import_jobs AS o
                     WHERE (o.phase = 'staging'
                            AND (o.id = p_job_id
                                 OR o.created_at < clock_timestamp()
                                        - make_interval(hours => p_staging_older_than_hours)))
                        OR o.finished_at < clock_timestamp()
                               - make_interval(days => p_finished_older_than_days)
                     ORDER BY o.id
                       FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS v_deleted = ROW_COUNT;
    RETURN v_deleted;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION accounts.delete_import_jobs_v1(uuid, integer, integer) IS
    'Deletes with their rows: the job p_job_id if it is still staging (NULL: none), jobs whose '
    'staging was abandoned, and jobs that ended long ago. Returns how many. Locked jobs are '
    'skipped. May be repeated.';
GRANT EXECUTE ON FUNCTION accounts.delete_import_jobs_v1(uuid, integer, integer)
    TO accounts_write;

-- +goose StatementBegin
CREATE FUNCTION accounts.run_import_chunk_v1(
    p_limit integer
)
RETURNS SETOF accounts.import_chunk_v1
LANGUAGE plpgsql
VOLATILE ROWS 1
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_job accounts.import_jobs;
    v_row_nos integer[];
    v_phones text[];
    v_normalized text[];
    v_group_names text[];
    v_profiles jsonb[];
    v_touched text[] := '{}';
    v_outbox_id bigint;
BEGIN
    SELECT j.*
      INTO v_job
      FROM accounts.import_jobs AS j
     WHERE j.phase IN ('pending', 'running')
     ORDER BY j.id
     LIMIT 1
       FOR NO KEY UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN;
    END IF;

    SELECT array_agg(r.row_no), array_agg(r.phone), array_agg(r.normalized),
           array_agg(r.group_keys), array_agg('{}'::jsonb)
      INTO v_row_nos, v_phones, v_normalized, v_group_names, v_profiles
      FROM (SELECT o.*
              FROM accounts.import_rows AS o
             WHERE o.job_id = v_job.id
               AND o.status IS NULL
             ORDER BY o.row_no
             LIMIT p_limit) AS r;

    IF v_row_nos IS NOT NULL THEN
        WITH results AS MATERIALIZED (
            SELECT b.*
              FROM accounts.bulk_create_users_v1(
                       v_row_nos, v_phones, v_normalized, v_group_names, v_profiles,
                       -- What start_import_job_v1 let pass is only skipped if it is taken since.
                       CASE v_job.on_conflict WHEN 'error' THEN 'skip' ELSE v_job.on_conflict END,
                       v_job.dry_run) AS b
        ), written AS (
            UPDATE accounts.import_rows AS r
               SET status = b.status, code = b.code, field = b.field, user_id = b.user_id
              FROM results AS b
             WHERE r.job_id = v_job.id
               AND r.row_no = b.row_no
        )
        SELECT coalesce(array_agg(k.key) FILTER (WHERE k.key IS NOT NULL), '{}'), max(b.outbox_id)
          INTO v_touched, v_outbox_id
          FROM results AS b
          LEFT JOIN LATERAL unnest(b.touched) AS k (key) ON true;
    END IF;

    UPDATE accounts.import_jobs AS j
       SET phase = CASE WHEN coalesce(cardinality(v_row_nos), 0) < p_limit
                        THEN 'done' ELSE 'running' END,
           done = j.done + coalesce(cardinality(v_row_nos), 0),
           finished_at = CASE WHEN coalesce(cardinality(v_row_nos), 0) < p_limit
                              THEN clock_timestamp() END
     WHERE j.id = v_job.id;
    RETURN QUERY SELECT v_job.id, v_touched, v_outbox_id;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION accounts.run_import_chunk_v1(integer) IS
    'Does the next p_limit rows of the oldest unfinished job that nobody else works on, in one '
    'transaction: rows, results and progress are committed together, so that a job goes on where '
    'it stopped and does nothing twice. Zero rows when there is nothing to do. 40001 as '
    'bulk_create_users_v1. Locks the job; a locked one is skipped.';
GRANT EXECUTE ON FUNCTION accounts.run_import_chunk_v1(integer) TO accounts_write;

-- +goose Down
SET LOCAL lock_timeout = '5s';
DROP FUNCTION accounts.run_import_chunk_v1(integer);
DROP FUNCTION accounts.delete_import_jobs_v1(uuid, integer, integer);
DROP FUNCTION accounts.start_import_job_v1(uuid);
DROP FUNCTION accounts.stage_import_rows_v1(
    uuid, integer[], text[], text[], text[], text[], text[], text[]);
DROP FUNCTION accounts.create_import_job_v1(text, boolean);
DROP FUNCTION accounts.list_import_rows_v1(integer, uuid, integer);
DROP FUNCTION accounts.get_import_job_v1(uuid);
DROP TABLE accounts.import_chunk_v1;
DROP TABLE accounts.import_row_v1;
DROP TABLE accounts.import_job_v1;
DROP TABLE accounts.import_rows;
DROP TABLE accounts.import_jobs;
