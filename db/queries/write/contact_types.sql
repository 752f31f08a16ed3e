-- name: CreateContactTypeV1 :one
SELECT * FROM accounts.create_contact_type_v1(p_name => @name, p_on_second => @on_second);

-- name: UpdateContactTypeV1 :one
SELECT * FROM accounts.update_contact_type_v1(
    p_contact_type_id => @contact_type_id,
    p_name => sqlc.narg('name'),
    p_on_second => sqlc.narg('on_second'),
    p_expected_versions => sqlc.narg('expected_versions')::bigint[]
);
