-- name: CreateUserV1 :one
SELECT * FROM accounts.create_user_v1(
    p_is_active => @is_active,
    p_profile => @profile,
    p_contact_types => @contact_types::text[],
    p_contact_values => @contact_values::text[],
    p_contact_normalized => @contact_normalized::text[],
    p_group_keys => @group_keys::text[]
);

-- name: UpdateUserV1 :one
SELECT * FROM accounts.update_user_v1(
    p_user_id => @user_id,
    p_profile_patch => sqlc.narg('profile_patch'),
    p_is_active => sqlc.narg('is_active'),
    p_expected_versions => sqlc.narg('expected_versions')::bigint[]
);

-- name: BulkCreateUsersV1 :many
SELECT * FROM accounts.bulk_create_users_v1(
    p_row_nos => @row_nos::integer[],
    p_phones => @phones::text[],
    p_phones_normalized => @phones_normalized::text[],
    p_profiles => @profiles::jsonb[],
    p_group_row_nos => @group_row_nos::integer[],
    p_group_keys => @group_keys::text[],
    p_on_conflict => @on_conflict,
    p_dry_run => @dry_run
);
