package httpapi

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/errcode"
)

// TestValidation_AllStagesAnswerTogether: the schema, the domain and the database find different errors.
func TestValidation_AllStagesAnswerTogether(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	ivan := s.createIvan()
	contact := ivan.Contacts[0].ID.String()
	deep := strings.Repeat(`{"a":`, 33) + "1" + strings.Repeat("}", 33)
	large := `{"a":"` + strings.Repeat("x", 10_000) + `","b":"` + strings.Repeat("x", 10_000) + `"}`
	for _, test := range []struct {
		method, path, body string
		want               []string
	}{
		{"POST", "/accounts/users", `{"zzz":1,"contacts":[{"type":"phone","value":"12"},{"type":"fax","value":"1"},{"type":"email","value":"x"}],"groups":["none"]}`,
			[]string{"zzz unknown", "contacts[0].value", "contacts[1].type unknown", "contacts[2].value", "groups[0] unknown"}},
		{"POST", "/accounts/users", `{"contacts":[{"type":"phone","value":"12"},{"type":"fax","value":"1"}],"groups":["none"],"profile":` + deep + `}`,
			[]string{"contacts[0].value", "contacts[1].type unknown", "groups[0] unknown", "profile too_deep"}},
		{"POST", "/accounts/users", `{"contacts":[{"type":"fax","value":"1"}],"groups":["none"],"profile":` + large + `}`,
			[]string{"contacts[0].type unknown", "groups[0] unknown", "profile too_large"}},
		{"POST", "/accounts/users", `{"is_active":1,"contacts":[{"type":1,"value":"12"},{"value":"12"},null,{"type":"phone","value":null},{"type":"phone","value":"+79991234568","x":1}],"groups":["none",1]}`,
			[]string{"is_active invalid_type", "contacts[0].type invalid_type", "contacts[1].type required", "contacts[2] null",
				"contacts[3].value null", "contacts[4].x unknown", "groups[0] unknown", "groups[1] invalid_type"}},
		{"POST", "/accounts/users", `{"contacts":[{"type":"second_login","value":"a@b"}],"groups":["none"]}`,
			[]string{"contacts[0].value invalid_second_login", "groups[0] unknown"}},
		{"POST", "/accounts/users", `{"contacts":[{"type":"phone","value":"12","value":"13"}],"zzz":1}`,
			[]string{"contacts[0].value duplicate", "zzz unknown"}},
		{"PATCH", "/accounts/users/x", `{"zzz":1,"profile":` + deep + `}`, []string{"user_id invalid_uuid", "zzz unknown", "profile too_deep"}},
		{"POST", "/accounts/contacts", `{"user_id":"x","type":"phone","value":"12","zzz":1}`, []string{"user_id invalid_uuid", "zzz unknown", "value"}},
		{"POST", "/accounts/contacts", `{"user_id":1,"type":"fax","value":""}`, []string{"user_id invalid_type", "type unknown", "value too_short"}},
		{"PATCH", "/accounts/contacts/" + contact, `{"value":"12","is_active":1,"zzz":1}`, []string{"value", "is_active invalid_type", "zzz unknown"}},
		{"GET", "/accounts/users/by-identifier?identifier=a@&x=1", "", []string{"identifier", "x unknown"}},
		{"GET", "/accounts/users?cursor=12&limit=0&x=1", "", []string{"cursor invalid_cursor", "limit invalid_integer", "x unknown"}},
		{"GET", "/accounts/user-group-memberships?group_id=1&cursor=12&limit=0", "", []string{"group_id invalid_uuid", "cursor invalid_cursor", "limit invalid_integer"}},
		{"POST", "/accounts/user-groups", `{"name":"a,b","zzz":1}`, []string{"name invalid_name", "zzz unknown"}},
		{"POST", "/accounts/user-groups", `{"name":"\u200b","zzz":1}`, []string{"name invalid_name", "zzz unknown"}},
		{"POST", "/accounts/user-groups", `{"name":"","name":"a,b"}`, []string{"name too_short", "name duplicate"}},
		{"PATCH", "/accounts/user-groups/x", `{"name":"a,b"}`, []string{"id invalid_uuid", "name invalid_name"}},
		{"PATCH", "/accounts/user-groups/" + absentID + "?q=1", `{"name":"\u0007","b":{"c":1e999}}`, []string{"q unknown", "name invalid_name", "b unknown"}},
		{"POST", "/accounts/contact-types", `{"name":"1x","on_second":"no"}`, []string{"name invalid_name", "on_second unknown"}},
		{"POST", "/accounts/contact-types", `{"name":"a b"}`, []string{"name invalid_name", "on_second required"}},
		{"POST", "/accounts/contact-types", `{"name":"UUID","on_second":1}`, []string{"name reserved", "on_second invalid_type"}},
		{"PATCH", "/accounts/contact-types/x", `{"name":"телефон","on_second":null,"zzz":[]}`,
			[]string{"id invalid_uuid", "name invalid_name", "on_second null", "zzz unknown"}},
		{"POST", "/accounts/users/bulk", `{"users":[{"phone":"12","user_groups":["none"],"zzz":1},{"phone":"+79991234567","user_groups":[]}]}`,
			[]string{"users[0].phone", "users[0].user_groups[0] unknown", "users[0].zzz unknown"}},
		{"POST", "/accounts/users/bulk?q=1", `{"zzz":1,"users":[{"phone":1,"user_groups":["none",1],"profile":` + deep + `},null,{"user_groups":["none"]}]}`,
			[]string{"q unknown", "zzz unknown", "users[0].phone invalid_type", "users[0].user_groups[0] unknown", "users[0].user_groups[1] invalid_type",
				"users[0].profile too_deep", "users[1] null", "users[2].phone required", "users[2].user_groups[0] unknown"}},
		// A body that is no JSON, or that has an error as a whole, hides no error of path or query.
		{"PATCH", "/accounts/users/x?q=1", `{`, []string{"user_id invalid_uuid", "q unknown", "body invalid_json"}},
		{"PATCH", "/accounts/users/x", ` `, []string{"user_id invalid_uuid", "body required"}},
		{"PATCH", "/accounts/users/x?q=1", `{"zzz":1,"profile":` + strings.Repeat("[", 65) + strings.Repeat("]", 65) + `}`,
			[]string{"user_id invalid_uuid", "q unknown", "body invalid_json"}},
		{"POST", "/accounts/users/bulk?on_conflict=x&dry_run=1", `[`, []string{"on_conflict unknown", "dry_run invalid_boolean", "body invalid_json"}},
		{"POST", "/accounts/users/lookup?q=1", `{"identifiers":[` + strings.Repeat("1,", maxValues) + `1]}`, []string{"q unknown", "body too_many"}},
	} {
		got := s.call(test.method, test.path, test.body).problem(errcode.Validation).faults()
		require.Len(t, got, len(test.want), "%s %.200s: %v", test.path, test.body, got)
		for _, want := range test.want {
			found := false
			for _, fault := range got {
				found = found || fault == want || strings.HasPrefix(fault, want+" ")
			}
			require.True(t, found, "%s %.200s: %v has no %s", test.path, test.body, got, want)
		}
	}
	// Headers too.
	got := s.call(http.MethodPatch, "/accounts/users/x?q=1", `{`, "If-Match", "x", "If-None-Match", "*").problem(errcode.Validation).faults()
	require.ElementsMatch(t, []string{
		"q unknown", "user_id invalid_uuid", "If-Match invalid_etag", "If-None-Match unsupported", "body invalid_json",
	}, got)
	// Forms too.
	const upload = "/accounts/users/bulk/upload?on_conflict=x&q=1"
	part := func(name, file string) string {
		return "--x\r\nContent-Disposition: form-data; name=\"" + name + "\"; filename=\"" + file + "\"\r\n\r\nphone\r\n"
	}
	for body, want := range map[string][]string{
		part("file", "a.exe") + part("zzz", "a.csv") + "--x--\r\n":  {"file unknown_extension", "zzz unknown"},
		part("file", "a.csv") + part("file", "b.csv") + "--x--\r\n": {"file repeated"},
		part("zzz", "a.csv") + "--x--\r\n":                          {"zzz unknown", "file required"},
		part("file", "a.exe"):                                       {"body invalid_multipart"},
		"nothing":                                                   {"body invalid_multipart"},
	} {
		got := s.call(http.MethodPost, upload, body, "Content-Type", "multipart/form-data; boundary=x").problem(errcode.Validation).faults()
		require.ElementsMatch(t, append(want, "on_conflict unknown", "q unknown"), got, body)
	}
	// Without another error the code of a malformed login stays what it is.
	s.call(http.MethodPost, "/accounts/users", `{"contacts":[{"type":"second_login","value":"a@b"}]}`).problem(errcode.InvalidSecondLogin)
}

// TestProblem_IsBounded: what a client sends must not come back multiplied.
func TestProblem_IsBounded(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	rows := make([]string, 1000)
	for i := range rows {
		rows[i] = `{"phone":"+79991234567","user_groups":[]}`
	}
	names := strings.TrimSuffix(strings.Repeat(`"none",`, 100), ",")
	for _, request := range []struct{ method, path, body string }{
		{"POST", "/accounts/users/bulk?on_conflict=error", `{"users":[` + strings.Join(rows, ",") + `]}`},
		{"POST", "/accounts/users", `{"groups":[` + names + `]}`},
		{"POST", "/accounts/users", `{"groups":[` + names + `],"contacts":[` + strings.TrimSuffix(strings.Repeat(`{"type":"phone","value":"1"},`, 100), ",") + `]}`},
		{"POST", "/accounts/users/lookup", `{"identifiers":[` + strings.TrimSuffix(strings.Repeat(`1,`, 100), ",") + `]}`},
		{"GET", "/accounts/users?" + strings.Repeat("a=1&", 4000), ""},
		{"GET", "/accounts/users?" + strings.Repeat("page=1&", 2000), ""},
	} {
		a := s.call(request.method, request.path, request.body)
		require.Equal(t, 4, a.Code/100, request.path)
		require.LessOrEqual(t, len(a.Body.String()), 8<<10, request.path)
		require.LessOrEqual(t, len(faultsOf(t, a.Body.String())), maxErrors)
	}
	a := s.call(http.MethodGet, "/"+strings.Repeat("%D1%8F", 3000), "")
	require.LessOrEqual(t, len(a.problem(errcode.NotFound).Instance), maxInstanceBytes)
}
