-- name: CreateUserGroupV1 :one
SELECT * FROM accounts.create_user_group_v1(p_name => @name, p_name_key => @name_key);

-- name: UpdateUserGroupV1 :one
SELECT * FROM accounts.update_user_group_v1(
    p_group_id => @group_id,
    p_name => sqlc.narg('name'),
    p_name_key => sqlc.narg('name_key'),
    p_expected_versions => sqlc.narg('expected_versions')::bigint[]
);
