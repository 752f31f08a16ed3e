package db_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/db"
	"github.com/payment-services/accounts/internal/dbgen/read"
)

// What the build says that it needs is what the logins may call, and every granted function is needed
// or an older version of one that is.
func TestListMissingFunctions(t *testing.T) {
	t.Parallel()
	a := open(t)
	reads, writes := db.NeededFunctions()
	require.Contains(t, reads, "accounts.list_missing_functions_v1(text[])")
	require.Contains(t, writes, "accounts.set_memberships_v1(uuid,uuid[],boolean)")
	asReader, asWriter := a.read, read.New(a.conn)
	ask := func(q *read.Queries, signatures ...string) []string {
		missing, err := q.ListMissingFunctionsV1(t.Context(), signatures)
		require.NoError(t, err)
		return missing
	}
	require.Empty(t, ask(asReader, reads...))
	require.Empty(t, ask(asWriter, append(reads, writes...)...))
	require.Equal(t, writes, ask(asReader, writes...), "the reader may not write")
	require.Empty(t, ask(asReader))

	// Whatever is no signature of a function of ours is missing, in the order of the question.
	odd := []string{
		"accounts.get_user_detail_v1(text)", "get_user_detail_v1(uuid)", "public.get_user_detail_v1(uuid)",
		"accounts.get_user_detail_v1(no_such_type)", "accounts.get_user_detail_v1", "accounts.x_v1()", "", "(", "'; --",
		"accounts.user_filter_v1(boolean,uuid,timestamp with time zone)", // internal: granted to nobody
	}
	require.Equal(t, odd, ask(asWriter, odd...))
}
