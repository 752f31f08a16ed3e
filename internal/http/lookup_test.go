package httpapi

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/errcode"
)

func (s *stack) lookup(body string) answer {
	return s.call(http.MethodPost, "/accounts/users/lookup", body, "Content-Type", "application/json")
}

func TestLookup(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	user := s.createIvan()
	var got LookupResults
	a := s.lookup(`{"identifiers":["8 999 123 45 67","IVAN","nobody","+7","`+user.ID.String()+`","ivan.petrov+shop@example.com"]}`).
		ok(http.StatusOK, &got)
	require.NotEmpty(t, a.Header().Get("X-Data-Source"))
	summary := []string{}
	for i, r := range got.Results {
		require.Equal(t, i, r.Index)
		summary = append(summary, r.Status+" "+r.MatchedBy)
		require.Equal(t, r.Status == "found", r.User != nil)
		if r.User != nil {
			require.JSONEq(t, s.call(http.MethodGet, "/accounts/users/"+user.ID.String(), "").Body.String(), string(r.User))
		}
	}
	require.Equal(t, []string{"found phone", "found second_login", "not_found ", "invalid ", "found uuid", "found email"}, summary)
	require.NotContains(t, s.log.String(), "123 45 67")

	for body, want := range map[string][]string{
		``: {"body required"}, `{}`: {"identifiers required"}, `{"identifiers":[]}`: {"identifiers too_few"},
		`{"identifiers":["",null,7,"` + strings.Repeat("я", 256) + `"]}`: {
			"identifiers[0] too_short", "identifiers[1] null", "identifiers[2] invalid_type", "identifiers[3] too_long",
		},
		`{"identifiers":[` + strings.Repeat(`"a",`, 100) + `"a"]}`: {"identifiers too_many"},
		`{"identifiers":"a","identifier":"b"}`:                     {"identifier unknown", "identifiers invalid_type"},
	} {
		a := s.lookup(body)
		require.ElementsMatch(t, want, a.problem(errcode.Validation).faults(), body)
	}
	s.lookup(`{"identifiers":["`+strings.Repeat("я", 255)+`","a\u0000b"]}`).ok(http.StatusOK, &got)
	require.Equal(t, "not_found", got.Results[0].Status)
	require.Equal(t, "invalid", got.Results[1].Status)
}
