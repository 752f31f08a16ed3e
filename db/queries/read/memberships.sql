-- name: ListUserMembershipsV1 :many
SELECT * FROM accounts.list_user_memberships_v1(p_user_id => @user_id);

-- name: GetUserMembershipV1 :one
SELECT * FROM accounts.get_user_membership_v1(p_user_id => @user_id, p_group_id => @group_id);

-- name: ListGroupMembersV1 :many
SELECT * FROM accounts.list_group_members_v1(
    p_limit => @page_limit,
    p_group_id => @group_id,
    p_after_user_id => sqlc.narg('after_user_id')
);
