-- name: CreateImportJobV1 :one
SELECT * FROM accounts.create_import_job_v1(
    p_on_conflict => @on_conflict,
    p_dry_run => @dry_run,
    p_owner => sqlc.narg('owner'),
    p_max_of_owner => @max_of_owner,
    p_max_of_all => @max_of_all
);

-- name: StageImportRowsV1 :exec
SELECT accounts.stage_import_rows_v1(
    p_job_id => @job_id,
    p_row_nos => @row_nos::integer[],
    p_phones => @phones::text[],
    p_phones_normalized => @phones_normalized::text[],
    p_codes => @codes::text[],
    p_fields => @fields::text[],
    p_group_row_nos => @group_row_nos::integer[],
    p_group_names => @group_names::text[],
    p_group_keys => @group_keys::text[]
);

-- name: StartImportJobV1 :one
SELECT * FROM accounts.start_import_job_v1(p_job_id => @job_id, p_max_atomic_rows => @max_atomic_rows);

-- name: CancelImportJobV1 :one
SELECT * FROM accounts.cancel_import_job_v1(p_job_id => @job_id);

-- name: ClaimImportJobV1 :one
SELECT * FROM accounts.claim_import_job_v1(p_job_id => sqlc.narg('job_id'), p_max_attempts => @max_attempts);

-- name: FailImportChunkV1 :exec
SELECT accounts.fail_import_chunk_v1(
    p_job_id => @job_id,
    p_attempt => @attempt,
    p_error_code => @error_code,
    p_error_message => @error_message,
    p_row_code => sqlc.narg('row_code'),
    p_max_rejected => sqlc.narg('max_rejected')
);

-- name: RunImportChunkV1 :one
SELECT * FROM accounts.run_import_chunk_v1(p_job_id => @job_id, p_limit => @row_limit);

-- name: DeleteImportJobsV1 :one
SELECT accounts.delete_import_jobs_v1(
    p_job_id => sqlc.narg('job_id'),
    p_staging_older_than_minutes => @staging_older_than_minutes,
    p_finished_older_than_days => @finished_older_than_days,
    p_limit => @row_limit
);
