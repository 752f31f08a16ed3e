-- name: ListUserGroupsV1 :many
SELECT * FROM accounts.list_user_groups_v1();
