-- name: AddContactV1 :one
SELECT * FROM accounts.add_contact_v1(
    p_user_id => @user_id,
    p_type => @type,
    p_value => @value,
    p_normalized => @normalized
);

-- name: UpdateContactV1 :one
SELECT * FROM accounts.update_contact_v1(
    p_contact_id => @contact_id,
    p_value => sqlc.narg('value'),
    p_normalized => sqlc.narg('normalized'),
    p_is_active => sqlc.narg('is_active'),
    p_expected_versions => sqlc.narg('expected_versions')::bigint[]
);

-- name: DeactivateContactV1 :one
SELECT * FROM accounts.deactivate_contact_v1(
    p_contact_id => @contact_id,
    p_expected_versions => sqlc.narg('expected_versions')::bigint[]
);
