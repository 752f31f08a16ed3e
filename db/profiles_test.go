package db_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/dbgen/write"
)

func TestMergePatch(t *testing.T) {
	t.Parallel()
	a := open(t)
	for _, tt := range []struct{ target, patch, result string }{
		// RFC 7396, appendix A.
		{`{"a": "b"}`, `{"a": "c"}`, `{"a": "c"}`},
		{`{"a": "b"}`, `{"b": "c"}`, `{"a": "b", "b": "c"}`},
		{`{"a": "b"}`, `{"a": null}`, `{}`},
		{`{"a": "b", "b": "c"}`, `{"a": null}`, `{"b": "c"}`},
		{`{"a": ["b"]}`, `{"a": "c"}`, `{"a": "c"}`},
		{`{"a": "c"}`, `{"a": ["b"]}`, `{"a": ["b"]}`},
		{`{"a": {"b": "c"}}`, `{"a": {"b": "d", "c": null}}`, `{"a": {"b": "d"}}`},
		{`{"a": [{"b": "c"}]}`, `{"a": [1]}`, `{"a": [1]}`},
		{`["a", "b"]`, `["c", "d"]`, `["c", "d"]`},
		{`{"a": "b"}`, `["c"]`, `["c"]`},
		{`{"a": "foo"}`, `null`, `null`},
		{`{"a": "foo"}`, `"bar"`, `"bar"`},
		{`{"e": null}`, `{"a": 1}`, `{"e": null, "a": 1}`},
		{`[1, 2]`, `{"a": "b", "c": null}`, `{"a": "b"}`},
		{`{}`, `{"a": {"bb": {"ccc": null}}}`, `{"a": {"bb": {}}}`},
		// Recursion, odd keys, and what || would get wrong.
		{`{"a": {"b": {"c": 1, "d": 2}, "e": 3}}`, `{"a": {"b": {"c": null}}}`, `{"a": {"b": {"d": 2}, "e": 3}}`},
		{`{"a": 1}`, `{"a": {"b": {"c": 2}}}`, `{"a": {"b": {"c": 2}}}`},
		{`{"0": 1, "": 2, "a.b": 3}`, `{"0": {"1": 1}, "": null, "a.b": 4}`, `{"0": {"1": 1}, "a.b": 4}`},
		{`{"a": [1, null]}`, `{"a": [null, {"b": null}]}`, `{"a": [null, {"b": null}]}`},
	} {
		got := value[string](t, a.super, "SELECT accounts.merge_patch_v1($1, $2)::text", tt.target, tt.patch)
		require.JSONEq(t, tt.result, got, "%s patched with %s", tt.target, tt.patch)
	}
}

// nested is an object of this depth; {} has depth 1.
func nested(open, end string, depth int) string {
	return strings.Repeat(open, depth-1) + "{}" + strings.Repeat(end, depth-1)
}

func TestProfileLimits(t *testing.T) {
	t.Parallel()
	a := open(t)
	const limit = 16384
	// PostgreSQL measures its own text of the object: {"a": "..."}.
	sized := func(bytes int) string {
		return fmt.Sprintf(`{"a": "%s"}`, strings.Repeat("x", bytes-len(`{"a": ""}`)))
	}
	inList := func(depth int) string { return `{"a":` + nested("[", "]", depth-1) + `}` }
	for name, tt := range map[string]struct{ profile, constraint string }{
		"16 KiB":               {sized(limit), ""},
		"16 KiB and a byte":    {sized(limit + 1), "users_profile_size"},
		"two-byte characters":  {fmt.Sprintf(`{"a": "%s"}`, strings.Repeat("я", limit/2)), "users_profile_size"},
		"depth 32":             {nested(`{"a":`, "}", 32), ""},
		"depth 33":             {nested(`{"a":`, "}", 33), "users_profile_depth"},
		"depth 32 of lists":    {inList(32), ""},
		"depth 33 of lists":    {inList(33), "users_profile_depth"},
		"a scalar at depth 33": {strings.Repeat(`{"a":`, 32) + "1" + strings.Repeat("}", 32), ""},
		"a list":               {`[]`, "users_profile_is_object"},
		"a text":               {`"x"`, "users_profile_is_object"},
		"a number":             {`1`, "users_profile_is_object"},
		"null":                 {`null`, "users_profile_is_object"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newUser(nil)
			p.Profile = json.RawMessage(tt.profile)
			u, err := a.write.CreateUserV1(t.Context(), p)
			if tt.constraint != "" {
				requireState(t, err, check, tt.constraint, "")
				return
			}
			require.NoError(t, err)
			require.JSONEq(t, tt.profile, string(u.Profile))
		})
	}

	// A patch is judged by what it makes of the profile.
	p := newUser(nil)
	p.Profile = json.RawMessage(sized(limit))
	u, err := a.write.CreateUserV1(t.Context(), p)
	require.NoError(t, err)
	for patch, constraint := range map[string]string{
		`{"b": 1}`: "users_profile_size",
		`{"a": null, "b": ` + nested(`{"a":`, "}", 32) + `}`: "users_profile_depth",
	} {
		_, err := a.write.UpdateUserV1(t.Context(), write.UpdateUserV1Params{UserID: u.ID, ProfilePatch: json.RawMessage(patch)})
		requireState(t, err, check, constraint, "")
	}
}
