package httpapi

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/errcode"
)

func TestMemberships(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	user := s.createUser(`{}`)
	var group Group
	s.call(http.MethodPost, "/accounts/user-groups", `{"name":"client"}`).ok(http.StatusCreated, &group)
	list := "/accounts/user-group-memberships?user_id=" + user.ID.String()
	require.JSONEq(t, `{"items":[]}`, s.call(http.MethodGet, list, "").ok(http.StatusOK, nil).Body.String())

	ids := `"user_id":"` + user.ID.String() + `","group_id":"` + group.ID.String() + `"`
	var first, again Membership
	s.call(http.MethodPost, "/accounts/user-group-memberships", `{`+ids+`}`).ok(http.StatusOK, &first)
	require.Equal(t, "client", first.GroupName)
	require.True(t, first.IsActive)
	s.call(http.MethodPost, "/accounts/user-group-memberships/", `{`+ids+`,"is_active":true}`).ok(http.StatusOK, &again)
	require.Equal(t, first, again, "idempotent")
	require.Equal(t, "client", s.user(user.ID.String()).Groups[0].Name)

	var items MembershipList
	s.call(http.MethodGet, list, "").ok(http.StatusOK, &items)
	require.Equal(t, []Membership{first}, items.Items)

	s.call(http.MethodPost, "/accounts/user-group-memberships", `{`+ids+`,"is_active":false}`).ok(http.StatusOK, &again)
	require.False(t, again.IsActive)
	require.Empty(t, s.user(user.ID.String()).Groups)
	s.call(http.MethodGet, list, "").ok(http.StatusOK, &items)
	require.Empty(t, items.Items)

	for body, want := range map[string][]string{
		``: {"body required"}, `{}`: {"user_id required", "group_id required"},
		`{"user_id":"1","group_id":null,"is_active":"yes","role":1}`: {
			"group_id null", "is_active invalid_type", "role unknown", "user_id invalid_uuid",
		},
	} {
		p := s.call(http.MethodPost, "/accounts/user-group-memberships", body, "Content-Type", "application/json").problem(errcode.Validation)
		require.Equal(t, want, p.faults(), body)
	}
	p := s.call(http.MethodPost, "/accounts/user-group-memberships", `{"user_id":"`+absentID+`","group_id":"`+group.ID.String()+`"}`).problem(errcode.NotFound)
	require.Equal(t, ProblemDetails{Entity: "User", ID: absentID}, p.Details)
	p = s.call(http.MethodPost, "/accounts/user-group-memberships", `{"user_id":"`+user.ID.String()+`","group_id":"`+absentID+`"}`).problem(errcode.NotFound)
	require.Equal(t, ProblemDetails{Entity: "Group", ID: absentID}, p.Details)

	for query, want := range map[string][]string{
		"": {"user_id required"}, "?user_id=": {"user_id invalid_uuid"}, "?user_id=" + absentID + "&user_id=" + absentID: {"user_id repeated"},
		"?user=1": {"user unknown", "user_id required"},
	} {
		p := s.call(http.MethodGet, "/accounts/user-group-memberships"+query, "").problem(errcode.Validation)
		require.Equal(t, want, p.faults(), query)
	}
	p = s.call(http.MethodGet, "/accounts/user-group-memberships?user_id="+absentID, "").problem(errcode.NotFound)
	require.Equal(t, ProblemDetails{Entity: "User", ID: absentID}, p.Details)
}
