package httpapi

import (
	"net/http"
	"strings"
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
	require.JSONEq(t, `{"items":[],"next_cursor":null}`, s.call(http.MethodGet, list, "").ok(http.StatusOK, nil).Body.String())

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
		require.ElementsMatch(t, want, p.faults(), body)
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

func TestMembership(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	user := s.createIvan()
	other := s.createUser(`{}`)
	group := user.Groups[0].ID.String()
	path := "/accounts/user-group-memberships/" + user.ID.String() + "/" + group
	var got Membership
	s.call(http.MethodGet, path, "").ok(http.StatusOK, &got)
	require.True(t, got.IsActive)
	s.call(http.MethodPatch, path, `{}`).ok(http.StatusOK, &got)
	require.True(t, got.IsActive)
	s.call(http.MethodPatch, path, `{"is_active":false}`).ok(http.StatusOK, &got)
	require.False(t, got.IsActive)
	require.Len(t, s.user(user.ID.String()).Groups, 1, "the next GET shows it")
	s.call(http.MethodPatch, path, `{"is_active":true}`, "Content-Type", "application/merge-patch+json").ok(http.StatusOK, &got)
	require.True(t, got.IsActive)
	for range 2 { // idempotent
		require.Empty(t, s.call(http.MethodDelete, path, "").ok(http.StatusNoContent, nil).Body.String())
	}
	s.call(http.MethodGet, path+"/", "").ok(http.StatusOK, &got)
	require.False(t, got.IsActive, "an ended one is still shown")

	never := "/accounts/user-group-memberships/" + other.ID.String() + "/" + group
	for _, a := range []answer{
		s.call(http.MethodGet, never, ""), s.call(http.MethodDelete, never, ""), s.call(http.MethodPatch, never, `{}`),
		s.call(http.MethodPatch, never, `{"is_active":true}`), s.call(http.MethodPatch, never, `{"is_active":false}`),
	} {
		require.Equal(t, "Membership", a.problem(errcode.NotFound).Details.Entity)
	}
	s.call(http.MethodGet, never, "").problem(errcode.NotFound)
	p := s.call(http.MethodPatch, "/accounts/user-group-memberships/1/2", `{"is_active":null,"user_id":1}`).problem(errcode.Validation)
	require.Equal(t, []string{"user_id invalid_uuid", "group_id invalid_uuid", "is_active null", "user_id unknown"}, p.faults())
}

func TestMembers(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	user := s.createIvan()
	group := user.Groups[0].ID.String()
	a, b := s.createUser(`{}`), s.createUser(`{}`)
	bulk := func(ids, rest string) answer {
		return s.call(http.MethodPost, "/accounts/user-group-memberships/bulk", `{"group_id":"`+group+`","user_ids":[`+ids+`]`+rest+`}`)
	}
	ids := `"` + b.ID.String() + `","` + absentID + `","` + a.ID.String() + `","` + user.ID.String() + `","` + a.ID.String() + `"`
	var results MembershipResults
	bulk(ids, ``).ok(http.StatusOK, &results)
	outcomes := []string{}
	for _, r := range results.Results {
		outcomes = append(outcomes, r.Result)
	}
	require.Equal(t, []string{"changed", "user_not_found", "changed", "unchanged"}, outcomes)
	require.Equal(t, b.ID, results.Results[0].UserID)
	require.Len(t, s.user(a.ID.String()).Groups, 1)
	bulk(`"`+a.ID.String()+`"`, `,"is_active":false`).ok(http.StatusOK, nil)
	require.Empty(t, s.user(a.ID.String()).Groups)

	require.NoError(t, s.db.WaitForReplay(t.Context()))
	var members []string
	cursor := ""
	for range 10 {
		var list MembershipList
		s.call(http.MethodGet, "/accounts/user-group-memberships?limit=1&group_id="+group+"&cursor="+cursor, "").ok(http.StatusOK, &list)
		for _, m := range list.Items {
			members = append(members, m.UserID.String())
		}
		if list.NextCursor == nil {
			break
		}
		cursor = *list.NextCursor
	}
	require.Equal(t, []string{user.ID.String(), b.ID.String()}, members)

	require.Equal(t, []string{"user_ids too_few"}, bulk(``, ``).problem(errcode.Validation).faults())
	require.Equal(t, []string{"user_ids[0] invalid_uuid", "user_ids[1] invalid_type"}, bulk(`"1",2`, ``).problem(errcode.Validation).faults())
	require.Equal(t, []string{"user_ids too_many"}, bulk(strings.Repeat(`"`+absentID+`",`, 1000)+`"`+absentID+`"`, ``).problem(errcode.Validation).faults())
	group = absentID
	require.Equal(t, ProblemDetails{Entity: "Group", ID: absentID}, bulk(ids, ``).problem(errcode.NotFound).Details)
	p := s.call(http.MethodGet, "/accounts/user-group-memberships?group_id="+absentID, "").problem(errcode.NotFound)
	require.Equal(t, ProblemDetails{Entity: "Group", ID: absentID}, p.Details)
	for query, want := range map[string][]string{
		"user_id=" + absentID + "&group_id=" + absentID:             {"user_id excluded"},
		"user_id=" + absentID + "&cursor=&limit=5":                  {"cursor excluded", "limit excluded"},
		"group_id=1&limit=0":                                        {"group_id invalid_uuid", "limit invalid_integer"},
		"group_id=" + user.Groups[0].ID.String() + "&cursor=%F0":    {"cursor invalid_encoding"},
		"group_id=" + user.Groups[0].ID.String() + "&cursor=broken": {"cursor invalid_cursor"},
	} {
		p := s.call(http.MethodGet, "/accounts/user-group-memberships?"+query, "").problem(errcode.Validation)
		require.Equal(t, want, p.faults(), query)
	}
}
