-- Uploads are staged in PostgreSQL and then worked through chunk by chunk.

-- +goose Up
SET LOCAL lock_timeout = '5s';

CREATE TABLE accounts.import_jobs (
    id uuid NOT NULL DEFAULT accounts.generate_uuid_v1(),
    owner text COLLATE "C",
    phase text COLLATE "C" NOT NULL DEFAULT 'staging',
    on_conflict text COLLATE "C" NOT NULL,
    dry_run boolean NOT NULL,
    atomic boolean NOT NULL DEFAULT false,
    total integer NOT NULL DEFAULT 0,
    done integer NOT NULL DEFAULT 0,
    created integer NOT NULL DEFAULT 0,
    existing integer NOT NULL DEFAULT 0,
    merged integer NOT NULL DEFAULT 0,
    conflict integer NOT NULL DEFAULT 0,
    invalid integer NOT NULL DEFAULT 0,
    chunk_rows integer NOT NULL DEFAULT 1000,
    attempts integer NOT NULL DEFAULT 0,
    rejected integer NOT NULL DEFAULT 0,
    error_code text COLLATE "C",
    error_message text,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    active_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at timestamptz,
    CONSTRAINT import_jobs_pkey PRIMARY KEY (id),
    CONSTRAINT import_jobs_phase_known
        CHECK (phase IN ('staging', 'pending', 'running', 'done', 'failed', 'cancelled')),
    CONSTRAINT import_jobs_on_conflict_known CHECK (on_conflict IN ('skip', 'merge', 'error')),
    CONSTRAINT import_jobs_done_bounded CHECK (done BETWEEN 0 AND total),
    CONSTRAINT import_jobs_counts_add_up
        CHECK (done = created + existing + merged + conflict + invalid),
    CONSTRAINT import_jobs_chunk_rows_positive CHECK (chunk_rows > 0),
    CONSTRAINT import_jobs_finished_at_agrees
        CHECK ((phase IN ('done', 'failed', 'cancelled')) = (finished_at IS NOT NULL))
);
COMMENT ON TABLE accounts.import_jobs IS
    'An upload: staging (rows arrive), pending, running, done, failed with error_code, or '
    'cancelled. owner is the subject of the token that staged it. An atomic job is one chunk: all '
    'of its rows are written, or none. Other chunks have chunk_rows rows. attempts is how many '
    'times a chunk was begun since one succeeded, rejected how many rows were given up after an '
    'unexpected error. active_at is the time of the last staged rows or of the last turn.';
CREATE INDEX import_jobs_unfinished_idx ON accounts.import_jobs (id)
    WHERE phase IN ('pending', 'running');

CREATE TABLE accounts.import_rows (
    job_id uuid NOT NULL,
    row_no integer NOT NULL,
    phone text NOT NULL,
    user_groups text[] NOT NULL,
    group_keys text[] COLLATE "C" NOT NULL,
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
    'The rows of an upload, the canonical forms of their phones and groups, and the result of each; '
    'status is NULL until the row was processed.';
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
    error_message text,
    created_at timestamptz NOT NULL,
    finished_at timestamptz,
    CONSTRAINT import_job_v1_is_a_contract CHECK (false) NO INHERIT
);
COMMENT ON TABLE accounts.import_job_v1 IS
    'Contract: a job and how many of its rows ended in which way; the five counts add up to done. '
    'error_code and error_message are those of a failed job.';

CREATE TABLE accounts.import_row_v1 (
    row_no integer NOT NULL,
    phone text NOT NULL,
    user_groups text[] NOT NULL,
    status text,
    code text,
    field text,
    user_id uuid,
    CONSTRAINT import_row_v1_is_a_contract CHECK (false) NO INHERIT
);
COMMENT ON TABLE accounts.import_row_v1 IS
    'Contract: a row of an upload and its result; status is NULL until the row was processed.';

CREATE TABLE accounts.import_claim_v1 (
    job_id uuid NOT NULL,
    row_limit integer NOT NULL,
    attempt integer NOT NULL,
    CONSTRAINT import_claim_v1_is_a_contract CHECK (false) NO INHERIT
);
COMMENT ON TABLE accounts.import_claim_v1 IS
    'Contract: the job whose turn it is, the size of its next chunk, and the number of the attempt '
    'since its last successful chunk.';

CREATE TABLE accounts.import_chunk_v1 (
    job_id uuid NOT NULL,
    touched text[] NOT NULL,
    outbox_id bigint,
    CONSTRAINT import_chunk_v1_is_a_contract CHECK (false) NO INHERIT
);
COMMENT ON TABLE accounts.import_chunk_v1 IS
    'Contract: the job of a chunk, the logical keys that the chunk touched, and its outbox row.';

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
           j.created, j.existing, j.merged, j.conflict, j.invalid,
           -- An unfinished job keeps the error of its last attempt here.
           CASE j.phase WHEN 'failed' THEN j.error_code END,
           CASE j.phase WHEN 'failed' THEN j.error_message END,
           j.created_at, j.finished_at
      FROM accounts.import_jobs AS j
     WHERE j.id = p_job_id;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION accounts.get_import_job_v1(uuid) IS
    'The job with this id. A miss is zero rows. No errors, no locks.';
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
    p_dry_run boolean,
    p_owner text,
    p_max_of_owner integer,
    p_max_of_all integer
)
RETURNS SETOF accounts.import_job_v1
LANGUAGE plpgsql
VOLATILE ROWS 1
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_job_id uuid;
    v_of_owner bigint;
    v_of_all bigint;
BEGIN
    SELECT count(*) FILTER (WHERE j.owner = p_owner), count(*)
      INTO v_of_owner, v_of_all
      FROM accounts.import_jobs AS j
     WHERE j.finished_at IS NULL;
    IF v_of_owner >= p_max_of_owner OR v_of_all >= p_max_of_all THEN
        RETURN;
    END IF;
    INSERT INTO accounts.import_jobs (on_conflict, dry_run, owner)
    VALUES (p_on_conflict, p_dry_run, p_owner)
    RETURNING id INTO v_job_id;
    RETURN QUERY SELECT j.* FROM accounts.get_import_job_v1(v_job_id) AS j;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION accounts.create_import_job_v1(text, boolean, text, integer, integer) IS
    'A new job in the phase staging, or zero rows if p_owner has p_max_of_owner unfinished jobs or '
    'all owners together have p_max_of_all. Concurrent calls may exceed these limits by a few '
    'jobs. p_owner may be NULL: then only p_max_of_all counts. CHECK '
    'import_jobs_on_conflict_known. A repetition makes another, empty job.';
GRANT EXECUTE ON FUNCTION accounts.create_import_job_v1(text, boolean, text, integer, integer)
    TO accounts_write;

-- +goose StatementBegin
CREATE FUNCTION accounts.stage_import_rows_v1(
    p_job_id uuid,
    p_row_nos integer[],
    p_phones text[],
    p_phones_normalized text[],
    p_codes text[],
    p_fields text[],
    p_group_row_nos integer[],
    p_group_names text[],
    p_group_keys text[]
)
RETURNS void
LANGUAGE plpgsql
VOLATILE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    c_phone CONSTANT uuid := '00000000-0000-7000-8000-000000000001';
    v_job accounts.import_jobs;
BEGIN
    SELECT j.*
      INTO v_job
      FROM accounts.import_jobs AS j
     WHERE j.id = p_job_id AND j.phase = 'staging'
       FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING
            ERRCODE = 'UA001',
            MESSAGE = 'import not found, or staged already',
            DETAIL = jsonb_build_object('entity', 'Import', 'id', p_job_id)::text;
    END IF;
    WITH row_groups AS (
        SELECT n.row_no, array_agg(n.name ORDER BY n.ordinality) AS names,
               array_agg(n.name_key ORDER BY n.ordinality) AS keys
          FROM unnest(p_group_row_nos, p_group_names, p_group_keys) WITH ORDINALITY
               AS n (row_no, name, name_key, ordinality)
         GROUP BY n.row_no
    ), input AS (
        SELECT i.row_no, i.phone, nullif(i.normalized, '') AS normalized,
               coalesce(g.names, '{}') AS names, coalesce(g.keys, '{}') AS keys, c.user_id,
               coalesce(nullif(i.code, ''), CASE WHEN c.user_id IS NOT NULL THEN 'taken' END)
                   AS code,
               coalesce(nullif(i.field, ''), CASE WHEN c.user_id IS NOT NULL THEN 'phone' END)
                   AS field
          FROM unnest(p_row_nos, p_phones, p_phones_normalized, p_codes, p_fields)
               AS i (row_no, phone, normalized, code, field)
          LEFT JOIN row_groups AS g ON g.row_no = i.row_no
          LEFT JOIN accounts.user_contacts AS c
            ON v_job.on_conflict = 'error'
           AND i.code = ''
           AND c.contact_type_id = c_phone
           AND c.normalized = i.normalized
           AND c.is_active
    ), staged AS (
        INSERT INTO accounts.import_rows
               (job_id, row_no, phone, normalized, user_groups, group_keys, status, code, field,
                user_id)
        SELECT p_job_id, i.row_no, i.phone, i.normalized, i.names, i.keys,
               CASE WHEN i.code IN ('duplicate', 'taken') THEN 'conflict'
                    WHEN i.code IS NOT NULL THEN 'invalid' END,
               i.code, i.field, i.user_id
          FROM input AS i
            ON CONFLICT (job_id, row_no) DO NOTHING
        RETURNING status
    ), counts AS (
        SELECT count(*) AS total,
               count(*) FILTER (WHERE s.status = 'conflict') AS conflict,
               count(*) FILTER (WHERE s.status = 'invalid') AS invalid
          FROM staged AS s
    )
    UPDATE accounts.import_jobs AS j
       SET total = j.total + c.total,
           done = j.done + c.conflict + c.invalid,
           conflict = j.conflict + c.conflict,
           invalid = j.invalid + c.invalid,
           active_at = clock_timestamp()
      FROM counts AS c
     WHERE j.id = p_job_id;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION accounts.stage_import_rows_v1(
    uuid, integer[], text[], text[], text[], text[], integer[], text[], text[]) IS
    'Adds rows to a job in the phase staging. p_group_row_nos, p_group_names and p_group_keys are '
    'triples of a row number, a name as it was given, and its name_key; the other arrays have one element for each row. A row with a '
    'code is not imported: duplicate is a conflict, every other code invalid. With on_conflict = '
    'error, a row whose phone belongs to a user is a conflict too (taken). Empty texts stand for '
    'NULL. UA001. Locks the job. May be repeated: rows that are there stay.';
GRANT EXECUTE ON FUNCTION accounts.stage_import_rows_v1(
    uuid, integer[], text[], text[], text[], text[], integer[], text[], text[]) TO accounts_write;

-- +goose StatementBegin
CREATE FUNCTION accounts.start_import_job_v1(
    p_job_id uuid,
    p_max_atomic_rows integer
)
RETURNS SETOF accounts.import_job_v1
LANGUAGE plpgsql
VOLATILE ROWS 1
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_job accounts.import_jobs;
    v_phase text;
BEGIN
    SELECT j.* INTO v_job FROM accounts.import_jobs AS j WHERE j.id = p_job_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING
            ERRCODE = 'UA001',
            MESSAGE = 'import not found',
            DETAIL = jsonb_build_object('entity', 'Import', 'id', p_job_id)::text;
    END IF;

    IF v_job.phase = 'staging' THEN
        v_phase := CASE WHEN v_job.on_conflict = 'error' AND v_job.conflict > 0 THEN 'failed'
                        WHEN v_job.done = v_job.total THEN 'done'
                        ELSE 'pending' END;
        UPDATE accounts.import_jobs AS j
           SET phase = v_phase,
               atomic = j.on_conflict = 'error' AND j.total - j.done <= p_max_atomic_rows,
               error_code = CASE v_phase WHEN 'failed' THEN 'IDENTIFIER_TAKEN' END,
               error_message = CASE v_phase WHEN 'failed'
                   THEN 'phones belong to other users or come twice; nothing was written' END,
               active_at = clock_timestamp(),
               finished_at = CASE WHEN v_phase <> 'pending' THEN clock_timestamp() END
         WHERE j.id = p_job_id;
    END IF;
    RETURN QUERY SELECT j.* FROM accounts.get_import_job_v1(p_job_id) AS j;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION accounts.start_import_job_v1(uuid, integer) IS
    'Ends the phase staging. With on_conflict = error, the job fails and nothing is written if a '
    'phone is taken or comes twice, and a job of at most p_max_atomic_rows rows becomes atomic. A '
    'job without rows to import is done. UA001. Locks the job. May be repeated.';
GRANT EXECUTE ON FUNCTION accounts.start_import_job_v1(uuid, integer) TO accounts_write;

-- +goose StatementBegin
CREATE FUNCTION accounts.cancel_import_job_v1(
    p_job_id uuid
)
RETURNS SETOF accounts.import_job_v1
LANGUAGE plpgsql
VOLATILE ROWS 1
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM FROM accounts.import_jobs AS j WHERE j.id = p_job_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING
            ERRCODE = 'UA001',
            MESSAGE = 'import not found',
            DETAIL = jsonb_build_object('entity', 'Import', 'id', p_job_id)::text;
    END IF;
    UPDATE accounts.import_jobs AS j
       SET phase = 'cancelled',
           finished_at = clock_timestamp()
     WHERE j.id = p_job_id
       AND j.finished_at IS NULL;
    RETURN QUERY SELECT j.* FROM accounts.get_import_job_v1(p_job_id) AS j;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION accounts.cancel_import_job_v1(uuid) IS
    'Cancels an unfinished job. What its chunks have written stays. A finished job is left as it '
    'is. UA001. Waits for a running chunk and locks the job. May be repeated.';
GRANT EXECUTE ON FUNCTION accounts.cancel_import_job_v1(uuid) TO accounts_write;

-- +goose StatementBegin
CREATE FUNCTION accounts.delete_import_jobs_v1(
    p_job_id uuid,
    p_staging_older_than_minutes integer,
    p_finished_older_than_days integer,
    p_limit integer
)
RETURNS bigint
LANGUAGE plpgsql
VOLATILE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_job_id uuid;
    v_rows bigint;
BEGIN
    IF p_job_id IS NOT NULL THEN
        SELECT j.id
          INTO v_job_id
          FROM accounts.import_jobs AS j
         WHERE j.id = p_job_id
           AND (j.phase = 'staging' OR j.finished_at IS NOT NULL)
           FOR UPDATE SKIP LOCKED;
    ELSE
        SELECT j.id
          INTO v_job_id
          FROM accounts.import_jobs AS j
         WHERE (j.phase = 'staging'
                AND j.active_at < clock_timestamp()
                        - make_interval(mins => p_staging_older_than_minutes))
            OR j.finished_at < clock_timestamp()
                   - make_interval(days => p_finished_older_than_days)
         ORDER BY j.id
         LIMIT 1
           FOR UPDATE SKIP LOCKED;
    END IF;
    IF v_job_id IS NULL THEN
        RETURN 0;
    END IF;

    DELETE FROM accounts.import_rows AS r
     WHERE r.job_id = v_job_id
       AND r.row_no IN (SELECT o.row_no
                          FROM accounts.import_rows AS o
                         WHERE o.job_id = v_job_id
                         ORDER BY o.row_no
                         LIMIT p_limit);
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    IF v_rows < p_limit THEN
        DELETE FROM accounts.import_jobs AS j WHERE j.id = v_job_id;
        v_rows := v_rows + 1;
    END IF;
    RETURN v_rows;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION accounts.delete_import_jobs_v1(uuid, integer, integer, integer) IS
    'Deletes up to p_limit rows of one job, and the job if no more rows are left: the job p_job_id '
    'if it is staging or finished, or, if p_job_id is NULL, one whose staging was abandoned or that '
    'finished long ago. Returns how many rows it deleted, the job''s own among them: call it until '
    'it returns 0. Locks the job; a locked job is skipped. May be repeated.';
GRANT EXECUTE ON FUNCTION accounts.delete_import_jobs_v1(uuid, integer, integer, integer)
    TO accounts_write;

-- +goose StatementBegin
CREATE FUNCTION accounts.claim_import_job_v1(
    p_job_id uuid,
    p_max_attempts integer
)
RETURNS SETOF accounts.import_claim_v1
LANGUAGE plpgsql
VOLATILE ROWS 1
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    c_atomic_attempts CONSTANT integer := 3;
    c_penalty CONSTANT interval := '5 seconds';
    v_job accounts.import_jobs;
BEGIN
    LOOP
        IF p_job_id IS NOT NULL THEN
            SELECT j.*
              INTO v_job
              FROM accounts.import_jobs AS j
             WHERE j.id = p_job_id
               AND j.phase IN ('pending', 'running')
               FOR NO KEY UPDATE SKIP LOCKED;
        ELSE
            SELECT j.*
              INTO v_job
              FROM accounts.import_jobs AS j
             WHERE j.phase IN ('pending', 'running')
             ORDER BY j.active_at + j.attempts * c_penalty, j.id
             LIMIT 1
               FOR NO KEY UPDATE SKIP LOCKED;
        END IF;
        IF NOT FOUND THEN
            RETURN;
        END IF;

        EXIT WHEN v_job.attempts < CASE WHEN v_job.atomic
                                        THEN least(p_max_attempts, c_atomic_attempts)
                                        ELSE p_max_attempts END;
        UPDATE accounts.import_jobs AS j
           SET phase = 'failed',
               error_code = coalesce(j.error_code, 'INTERNAL_ERROR'),
               error_message = coalesce(
                   j.error_message, 'the import was interrupted each time that it was tried'),
               finished_at = clock_timestamp()
         WHERE j.id = v_job.id;
    END LOOP;

    RETURN QUERY
    UPDATE accounts.import_jobs AS j
       SET phase = 'running',
           attempts = j.attempts + 1,
           chunk_rows = CASE WHEN j.attempts = 0 THEN j.chunk_rows
                             ELSE greatest(1, j.chunk_rows / 2) END,
           active_at = clock_timestamp()
     WHERE j.id = v_job.id
    RETURNING j.id, CASE WHEN j.atomic THEN j.total ELSE j.chunk_rows END, j.attempts;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION accounts.claim_import_job_v1(uuid, integer) IS
    'Counts an attempt at the next chunk of the job p_job_id, or, if it is NULL, of the unfinished '
    'job that has waited longest, so that jobs take turns. While others wait, a job waits 5 s '
    'longer for each failed attempt. The attempt is committed before the chunk begins, so an attempt counts also when the process or the server dies. The chunk is half as '
    'large as that of a failed attempt. A job that has had p_max_attempts attempts (an atomic one: '
    '3) without a success fails, with the error that fail_import_chunk_v1 has left. Zero rows when '
    'there is nothing to do. Locks the job; a locked job is skipped.';
GRANT EXECUTE ON FUNCTION accounts.claim_import_job_v1(uuid, integer) TO accounts_write;

-- +goose StatementBegin
CREATE FUNCTION accounts.fail_import_chunk_v1(
    p_job_id uuid,
    p_attempt integer,
    p_error_code text,
    p_error_message text,
    p_row_code text,
    p_max_rejected integer
)
RETURNS void
LANGUAGE plpgsql
VOLATILE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_job accounts.import_jobs;
BEGIN
    SELECT j.*
      INTO v_job
      FROM accounts.import_jobs AS j
     WHERE j.id = p_job_id
       AND j.phase = 'running'
       AND j.attempts = p_attempt
       FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    UPDATE accounts.import_jobs AS j
       SET error_code = p_error_code,
           error_message = p_error_message
     WHERE j.id = p_job_id;
    IF p_row_code IS NULL OR v_job.atomic OR v_job.chunk_rows > 1 THEN
        RETURN;
    END IF;

    UPDATE accounts.import_rows AS r
       SET status = 'invalid', code = p_row_code
     WHERE r.job_id = p_job_id
       AND r.row_no = (SELECT min(o.row_no)
                         FROM accounts.import_rows AS o
                        WHERE o.job_id = p_job_id
                          AND o.status IS NULL);
    UPDATE accounts.import_jobs AS j
       SET done = j.done + 1,
           invalid = j.invalid + 1,
           attempts = 0,
           rejected = CASE WHEN p_max_rejected IS NULL THEN j.rejected ELSE j.rejected + 1 END,
           phase = CASE WHEN j.rejected + 1 >= p_max_rejected THEN 'failed'
                        WHEN j.done + 1 = j.total THEN 'done'
                        ELSE 'running' END,
           finished_at = CASE WHEN j.rejected + 1 >= p_max_rejected OR j.done + 1 = j.total
                              THEN clock_timestamp() END
     WHERE j.id = p_job_id;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION accounts.fail_import_chunk_v1(uuid, integer, text, text, text, integer) IS
    'Records why the attempt p_attempt at a chunk failed. If the chunk was one row and p_row_code '
    'is given, the row becomes invalid with this code, and the job goes on after it; p_max_rejected '
    'such rows fail the job (NULL: no limit). Does nothing if another process has begun or ended an '
    'attempt since. No errors. Locks the job. May be repeated.';
GRANT EXECUTE ON FUNCTION accounts.fail_import_chunk_v1(uuid, integer, text, text, text, integer)
    TO accounts_write;

-- +goose StatementBegin
CREATE FUNCTION accounts.run_import_chunk_v1(
    p_job_id uuid,
    p_limit integer
)
RETURNS SETOF accounts.import_chunk_v1
LANGUAGE plpgsql
VOLATILE ROWS 1
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    c_max_rows CONSTANT integer := 1000;
    c_fast CONSTANT interval := '500 milliseconds';
    c_slow CONSTANT interval := '2 seconds';
    v_started timestamptz := clock_timestamp();
    v_job accounts.import_jobs;
    v_row_nos integer[];
    v_phones text[];
    v_normalized text[];
    v_group_row_nos integer[];
    v_group_keys text[];
    v_results accounts.bulk_user_result_v1[];
    v_counts accounts.import_jobs;
    v_touched text[] := '{}';
    v_outbox_id bigint;
    v_refused boolean;
BEGIN
    SELECT j.*
      INTO v_job
      FROM accounts.import_jobs AS j
     WHERE j.id = p_job_id
       AND j.phase = 'running'
       FOR NO KEY UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN;
    END IF;

    SELECT array_agg(r.row_no), array_agg(r.phone), array_agg(r.normalized)
      INTO v_row_nos, v_phones, v_normalized
      FROM (SELECT o.row_no, o.phone, o.normalized
              FROM accounts.import_rows AS o
             WHERE o.job_id = v_job.id
               AND o.status IS NULL
             ORDER BY o.row_no
             LIMIT p_limit) AS r;
    SELECT array_agg(r.row_no), array_agg(n.name_key)
      INTO v_group_row_nos, v_group_keys
      FROM accounts.import_rows AS r
     CROSS JOIN unnest(r.group_keys) AS n (name_key)
     WHERE r.job_id = v_job.id
       AND r.status IS NULL
       AND r.row_no BETWEEN v_row_nos[1] AND v_row_nos[cardinality(v_row_nos)];

    v_results := ARRAY(
        SELECT b
          FROM accounts.bulk_create_users_v1(
                   v_row_nos, v_phones, v_normalized,
                   array_fill('{}'::jsonb, ARRAY[cardinality(v_row_nos)]),
                   v_group_row_nos, v_group_keys,
                   -- A job with on_conflict = error that is not atomic was checked when it was
                   -- staged: a phone taken since then is skipped.
                   CASE WHEN v_job.on_conflict = 'error' AND NOT v_job.atomic
                        THEN 'skip' ELSE v_job.on_conflict END,
                   v_job.dry_run) AS b);
    v_refused := v_job.atomic
                 AND EXISTS (SELECT FROM unnest(v_results) AS b WHERE b.status = 'conflict');

    UPDATE accounts.import_rows AS r
       SET status = b.status, code = b.code, field = b.field, user_id = b.user_id
      FROM unnest(v_results) AS b
     WHERE r.job_id = v_job.id
       AND r.row_no = b.row_no
       -- Nothing was written, so the rows without a conflict have no result.
       AND (b.status = 'conflict' OR NOT v_refused);

    SELECT count(*), count(*) FILTER (WHERE b.status = 'created'),
           count(*) FILTER (WHERE b.status = 'exists'),
           count(*) FILTER (WHERE b.status = 'merged'),
           count(*) FILTER (WHERE b.status = 'conflict'),
           count(*) FILTER (WHERE b.status = 'invalid'), max(b.outbox_id)
      INTO v_counts.done, v_counts.created, v_counts.existing, v_counts.merged,
           v_counts.conflict, v_counts.invalid, v_outbox_id
      FROM unnest(v_results) AS b
     WHERE b.status = 'conflict' OR NOT v_refused;
    v_touched := ARRAY(
        SELECT k.key FROM unnest(v_results) AS b CROSS JOIN unnest(b.touched) AS k (key));

    UPDATE accounts.import_jobs AS j
       SET done = j.done + v_counts.done,
           created = j.created + v_counts.created,
           existing = j.existing + v_counts.existing,
           merged = j.merged + v_counts.merged,
           conflict = j.conflict + v_counts.conflict,
           invalid = j.invalid + v_counts.invalid,
           attempts = 0,
           chunk_rows = CASE WHEN clock_timestamp() - v_started > c_slow
                             THEN greatest(1, p_limit / 2)
                             WHEN clock_timestamp() - v_started < c_fast
                             THEN greatest(j.chunk_rows, least(p_limit * 2, c_max_rows))
                             ELSE j.chunk_rows END,
           phase = CASE WHEN v_refused THEN 'failed'
                        WHEN j.done + v_counts.done = j.total THEN 'done'
                        ELSE 'running' END,
           error_code = CASE WHEN v_refused THEN 'IDENTIFIER_TAKEN' END,
           error_message = CASE WHEN v_refused
               THEN 'phones belong to other users or come twice; nothing was written' END,
           finished_at = CASE WHEN v_refused OR j.done + v_counts.done = j.total
                              THEN clock_timestamp() END
     WHERE j.id = v_job.id;
    RETURN QUERY SELECT v_job.id, v_touched, v_outbox_id;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION accounts.run_import_chunk_v1(uuid, integer) IS
    'Processes the next p_limit rows of a job that claim_import_job_v1 has claimed, in one '
    'transaction: rows, results and progress are committed together, so that a job goes on where '
    'it stopped and does nothing twice. Zero rows if the job is not running, or if another process '
    'works on it. The next chunk is smaller after a slow one and larger after a fast one. 40001 as '
    'bulk_create_users_v1. Locks the job; a locked one is skipped.';
GRANT EXECUTE ON FUNCTION accounts.run_import_chunk_v1(uuid, integer) TO accounts_write;

-- +goose Down
SET LOCAL lock_timeout = '5s';
DROP FUNCTION accounts.run_import_chunk_v1(uuid, integer);
DROP FUNCTION accounts.fail_import_chunk_v1(uuid, integer, text, text, text, integer);
DROP FUNCTION accounts.claim_import_job_v1(uuid, integer);
DROP FUNCTION accounts.delete_import_jobs_v1(uuid, integer, integer, integer);
DROP FUNCTION accounts.cancel_import_job_v1(uuid);
DROP FUNCTION accounts.start_import_job_v1(uuid, integer);
DROP FUNCTION accounts.stage_import_rows_v1(
    uuid, integer[], text[], text[], text[], text[], integer[], text[], text[]);
DROP FUNCTION accounts.create_import_job_v1(text, boolean, text, integer, integer);
DROP FUNCTION accounts.list_import_rows_v1(integer, uuid, integer);
DROP FUNCTION accounts.get_import_job_v1(uuid);
DROP TABLE accounts.import_chunk_v1;
DROP TABLE accounts.import_claim_v1;
DROP TABLE accounts.import_row_v1;
DROP TABLE accounts.import_job_v1;
DROP TABLE accounts.import_rows;
DROP TABLE accounts.import_jobs;
