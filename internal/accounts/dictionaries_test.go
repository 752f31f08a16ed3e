package accounts_test

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/errcode"
	"github.com/payment-services/accounts/internal/pgtest"
)

// A type of which users have several contacts cannot become single, and the answer names on_second.
func TestTypeThatUsersHaveTwiceStaysAllow(t *testing.T) {
	t.Parallel()
	p := newProcess(t, pgtest.Shared(t))
	typ, err := p.CreateContactType(t.Context(), "telegram", "allow")
	require.NoError(t, err)
	user := p.createUser("+79991112233")
	for _, value := range []string{"one", "two"} {
		_, err := p.AddContact(t.Context(), user, "telegram", value)
		require.NoError(t, err)
	}
	reject := "reject"
	_, err = p.UpdateContactType(t.Context(), typ.ID, nil, &reject, nil)
	e, ok := errors.AsType[*errcode.Error](err)
	require.True(t, ok, err)
	require.Equal(t, errcode.ContactTypeConflict, e.Code)
	require.Len(t, e.Fields, 1)
	require.Equal(t, "on_second", e.Fields[0].Field)
}
