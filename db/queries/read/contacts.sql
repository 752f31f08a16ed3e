-- name: GetContactV1 :one
SELECT * FROM accounts.get_contact_v1(p_contact_id => @contact_id);

-- name: ListUserContactsV1 :many
SELECT * FROM accounts.list_user_contacts_v1(
    p_user_id => @user_id,
    p_include_inactive => @include_inactive
);
