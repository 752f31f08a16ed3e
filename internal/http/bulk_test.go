package httpapi

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/errcode"
)

func (s *stack) bulk(query, body string) answer {
	return s.call(http.MethodPost, "/accounts/users/bulk"+query, body, "Content-Type", "application/json")
}

// outcomes returns the rows as "number status code column", and checks that the counts add up.
func (r BulkResult) outcomes(t *testing.T) []string {
	t.Helper()
	texts := []string{}
	for _, row := range r.Rows {
		texts = append(texts, strings.TrimSpace(fmt.Sprintf("%d %s %s %s", row.Row, row.Status, row.Code, row.Column)))
	}
	require.Len(t, r.Rows, r.Total)
	require.Equal(t, r.Total, r.Created+r.Exists+r.Merged+r.Conflict+r.Invalid)
	return texts
}

func TestBulk(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.createIvan()
	const body = `{"interface":"backoffice","users":[
		{"phone":"+7 (999) 123-45-67","user_groups":["client"],"profile":{"age":31}},
		{"phone":"8 999 000 00 01","user_groups":["client","driver"],"profile":{"name":"A"}},
		{"phone":"+79990000001","user_groups":[]},
		{"phone":"","user_groups":[]},
		{"phone":"+79990000002","user_groups":["nobody"]},
		{"phone":"+79990000003","user_groups":["client,driver"]}]}`
	want := []string{
		"1 exists", "2 created", "3 conflict duplicate phone", "4 invalid empty phone",
		"5 invalid unknown_group user_groups", "6 invalid unknown_group user_groups",
	}
	var got BulkResult
	a := s.bulk("?dry_run=true", body).ok(http.StatusOK, &got)
	require.Equal(t, want, got.outcomes(t))
	for _, phone := range []string{"9991234567", "9990000001", "123-45-67"} { // shorter digits may be in a random id
		require.NotContains(t, a.Body.String(), phone)
	}
	s.call(http.MethodGet, "/accounts/users/by-identifier?identifier=+79990000001", "").problem(errcode.NotFound)

	s.bulk("", body).ok(http.StatusOK, &got)
	require.Equal(t, want, got.outcomes(t))
	require.NotNil(t, got.Rows[0].UserID)
	user := s.user(got.Rows[1].UserID.String())
	require.JSONEq(t, `{"name":"A"}`, string(user.Profile))
	require.Len(t, user.Groups, 2)
	s.bulk("", body).ok(http.StatusOK, &got)
	require.Equal(t, "2 exists", got.outcomes(t)[1], "nothing twice")

	s.bulk("?on_conflict=merge", body).ok(http.StatusOK, &got)
	require.Equal(t, "1 merged", got.outcomes(t)[0])
	require.JSONEq(t, `{"name":"Иван <b>","age":31}`, string(s.user(got.Rows[0].UserID.String()).Profile))

	p := s.bulk("?on_conflict=error", body).problem(errcode.IdentifierTaken)
	require.Equal(t, []string{"rows[0].phone taken", "rows[1].phone taken", "rows[2].phone duplicate"}, p.faults())

	many := `{"users":[{"phone":"+79990000009","user_groups":["a"` + strings.Repeat(`,"a"`, 100) + `]}]}`
	require.Equal(t, []string{"users[0].user_groups too_many"}, s.bulk("", many).problem(errcode.Validation).faults())
	for body, want := range map[string][]string{
		``: {"body required"}, `{}`: {"users required"}, `{"users":[]}`: {"users too_few"},
		`{"users":[{}]}`: {"users[0].phone required", "users[0].user_groups required"},
		`{"users":[{"phone":1,"user_groups":"a","profile":null},{"phone":"","user_groups":[1],"id":1},3]}`: {
			"users[0].phone invalid_type", "users[0].profile null", "users[0].user_groups invalid_type",
			"users[1].id unknown", "users[1].phone empty", "users[1].user_groups[0] invalid_type", "users[2] invalid_type",
		},
		`{"users":[` + strings.Repeat(`{},`, 1000) + `{}]}`: {"users too_many"},
	} {
		require.ElementsMatch(t, want, s.bulk("", body).problem(errcode.Validation).faults(), "%.100s", body)
	}
	p = s.bulk("?on_conflict=overwrite&dry_run=1&x=", `{`).problem(errcode.Validation)
	require.Equal(t, []string{"body invalid_json", "x unknown", "dry_run invalid_boolean", "on_conflict unknown"}, p.faults())
	p = s.bulk("?on_conflict=overwrite&dry_run=1&x=", `{"users":1}`).problem(errcode.Validation)
	require.Equal(t, []string{"x unknown", "dry_run invalid_boolean", "on_conflict unknown", "users invalid_type"}, p.faults())
}

// TestBulkHostileRows: what cannot be stored is a fault of its row, or of the request.
func TestBulkHostileRows(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.createIvan()
	rows := []string{
		`{"phone":"+79990000001","user_groups":[],"profile":{"a":"\u0000"}}`,
		`{"phone":"+79990000002","user_groups":["a\u0000"]}`,
		`{"phone":"+79990000003\u0000","user_groups":[]}`,
		`{"phone":"+7` + strings.Repeat(" ", 300) + `9990000004","user_groups":[]}`,
		`{"phone":"+79990000005","user_groups":[],"profile":{"a":1e400000}}`,
		`{"phone":"+79990000006","user_groups":[],"profile":{"a":"` + strings.Repeat("x", 17<<10) + `"}}`,
		`{"phone":"+79990000007","user_groups":[],"profile":` + strings.Repeat(`{"a":`, 40) + `1` + strings.Repeat(`}`, 40) + `}`,
		`{"phone":"+79990000008","user_groups":[],"profile":{"a":"\ud800"}}`,
	}
	for _, row := range rows {
		a := s.bulk("", `{"users":[{"phone":"+79991234567","user_groups":[]},`+row+`]}`)
		if a.Code != http.StatusOK {
			a.problem(errcode.Validation)
			continue
		}
		var got BulkResult
		a.ok(http.StatusOK, &got)
		require.Equal(t, Counts{Exists: 1, Invalid: 1}, got.Counts, row)
	}
}

// TestBulkLargest: a thousand users with the largest profiles.
func TestBulkLargest(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	profile := `{"a":"` + strings.Repeat("x", 16<<10-20) + `"}`
	var b strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&b, `,{"phone":"+7999%07d","user_groups":[],"profile":%s}`, i, profile)
	}
	var got BulkResult
	s.bulk("", `{"users":[`+b.String()[1:]+`]}`).ok(http.StatusOK, &got)
	require.Equal(t, 1000, got.Created)
	s.bulk("", `{"users":[`+strings.Repeat(" ", maxBulkBytes)+`]}`).problem(errcode.PayloadTooLarge)
}
