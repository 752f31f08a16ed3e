package db_test

import (
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/dbgen/read"
	"github.com/payment-services/accounts/internal/dbgen/write"
)

func TestLookupUsers(t *testing.T) {
	t.Parallel()
	a := open(t)
	a.createGroup("drivers")
	ann := a.createUser([]string{"drivers"}, same("phone", "+79991234567"), same("email", "ann@example.com")).ID
	bob := a.createUser(nil, same("second_login", "bob")).ID
	gone := a.createUser(nil, same("phone", "+79991234568")).ID
	_, err := a.write.UpdateUserV1(t.Context(), write.UpdateUserV1Params{UserID: gone, IsActive: ptr(false)})
	require.NoError(t, err)

	type answer struct {
		item      int32
		matchedBy string
		user      uuid.UUID
	}
	for name, tt := range map[string]struct {
		identifiers []string
		want        []answer
	}{
		"in their order, misses and inactive users left out": {
			[]string{"bob", "+79991234569", "ann@example.com", gone.String(), "", "+79991234568", "+79991234567", uuid.NewString()},
			[]answer{{0, "second_login", bob}, {2, "email", ann}, {6, "phone", ann}},
		},
		"the same one several times": {
			[]string{"+79991234567", ann.String(), "+79991234567"},
			[]answer{{0, "phone", ann}, {1, "uuid", ann}, {2, "phone", ann}},
		},
		"nobody": {[]string{"nobody"}, nil},
		"none":   {nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			rows, err := a.read.LookupUsersV1(t.Context(), tt.identifiers)
			require.NoError(t, err)
			var got []answer
			for _, u := range rows {
				got = append(got, answer{u.ItemNo, u.MatchedBy, u.ID})
				require.Equal(t, a.detail(u.ID), read.UserDetailV1{
					ID: u.ID, CreatedAt: u.CreatedAt, UpdatedAt: u.UpdatedAt, IsActive: u.IsActive, Profile: u.Profile,
					Version: u.Version, Groups: u.Groups, Contacts: u.Contacts, Identifiers: u.Identifiers, Dependencies: u.Dependencies,
				})
			}
			require.Equal(t, tt.want, got)
		})
	}
}
