-- name: ListContactTypesV1 :many
SELECT * FROM accounts.list_contact_types_v1();
