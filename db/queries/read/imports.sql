-- name: GetImportJobV1 :one
SELECT * FROM accounts.get_import_job_v1(p_job_id => @job_id);

-- name: ListImportRowsV1 :many
SELECT * FROM accounts.list_import_rows_v1(
    p_limit => @page_limit,
    p_job_id => @job_id,
    p_after_row_no => @after_row_no
);
