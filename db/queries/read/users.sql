-- name: GetUserDetailV1 :one
SELECT * FROM accounts.get_user_detail_v1(p_user_id => @user_id);

-- name: GetUserByIdentifierV1 :one
SELECT * FROM accounts.get_user_by_identifier_v1(p_identifier => @identifier);

-- name: ListUsersV1 :many
SELECT * FROM accounts.list_users_v1(
    p_limit => @page_limit,
    p_offset => @page_offset,
    p_is_active => sqlc.narg('is_active'),
    p_group_id => sqlc.narg('group_id'),
    p_updated_since => sqlc.narg('updated_since')
);

-- name: CountUsersV1 :one
SELECT * FROM accounts.count_users_v1(
    p_is_active => sqlc.narg('is_active'),
    p_group_id => sqlc.narg('group_id'),
    p_updated_since => sqlc.narg('updated_since')
);

-- name: LookupUsersV1 :many
SELECT * FROM accounts.lookup_users_v1(p_identifiers => @identifiers::text[]);

-- name: ListUsersAfterV1 :many
SELECT * FROM accounts.list_users_after_v1(
    p_limit => @page_limit,
    p_after_id => sqlc.narg('after_id'),
    p_is_active => sqlc.narg('is_active'),
    p_group_id => sqlc.narg('group_id'),
    p_updated_since => sqlc.narg('updated_since')
);
