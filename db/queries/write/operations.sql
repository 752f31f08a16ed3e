-- name: ClaimCacheOutboxV1 :many
SELECT * FROM accounts.claim_cache_outbox_v1(p_min_age_ms => @min_age_ms, p_limit => @row_limit);

-- name: DeleteCacheOutboxV1 :exec
SELECT accounts.delete_cache_outbox_v1(p_ids => @ids::bigint[]);
