-- name: CreateImportJobV1 :one
SELECT * FROM accounts.create_import_job_v1(p_on_conflict => @on_conflict, p_dry_run => @dry_run);

-- name: StageImportRowsV1 :exec
SELECT accounts.stage_import_rows_v1(
    p_job_id => @job_id,
    p_row_nos => @row_nos::integer[],
    p_phones => @phones::text[],
    p_phones_normalized => @phones_normalized::text[],
    p_group_names => @group_names::text[],
    p_group_keys => @group_keys::text[],
    p_codes => @codes::text[],
    p_fields => @fields::text[]
);

-- name: StartImportJobV1 :one
SELECT * FROM accounts.start_import_job_v1(p_job_id => @job_id);

-- name: RunImportChunkV1 :one
SELECT * FROM accounts.run_import_chunk_v1(p_limit => @row_limit);

-- name: DeleteImportJobsV1 :one
SELECT accounts.delete_import_jobs_v1(
    p_job_id => sqlc.narg('job_id'),
    p_staging_older_than_hours => @staging_older_than_hours,
    p_finished_older_than_days => @finished_older_than_days
);
