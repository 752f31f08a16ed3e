-- name: SetMembershipV1 :one
SELECT * FROM accounts.set_membership_v1(
    p_user_id => @user_id,
    p_group_id => @group_id,
    p_is_active => @is_active
);

-- name: SetMembershipsV1 :many
SELECT * FROM accounts.set_memberships_v1(
    p_group_id => @group_id,
    p_user_ids => @user_ids::uuid[],
    p_is_active => @is_active
);

-- name: UpdateMembershipV1 :one
SELECT * FROM accounts.update_membership_v1(
    p_user_id => @user_id,
    p_group_id => @group_id,
    p_is_active => sqlc.narg('is_active'),
    p_expected_versions => sqlc.narg('expected_versions')::bigint[]
);
