-- name: GetReplicationPositionV1 :one
SELECT * FROM accounts.get_replication_position_v1();

-- name: GetCacheOutboxStatusV1 :one
SELECT * FROM accounts.get_cache_outbox_status_v1();

-- name: GetSchemaVersionV1 :one
SELECT accounts.get_schema_version_v1();

-- name: IsCacheOutboxPendingV1 :one
SELECT accounts.is_cache_outbox_pending_v1(p_id => @id);

-- name: ListMissingFunctionsV1 :many
SELECT * FROM accounts.list_missing_functions_v1(p_signatures => @signatures::text[]);
