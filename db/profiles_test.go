package db_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

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

// mergePatch is MergePatch of RFC 7396, section 2, on values of encoding/json.
func mergePatch(target, patch any) any {
	members, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	object, ok := target.(map[string]any)
	if !ok {
		object = map[string]any{}
	}
	for name, value := range members {
		if value == nil {
			delete(object, name)
		} else {
			object[name] = mergePatch(object[name], value)
		}
	}
	return object
}

// randomJSON returns values with few names, so that targets and patches meet.
func randomJSON(random *rand.Rand, level int) any {
	switch kind := random.IntN(8); {
	case level == 0 && kind > 0 || kind < 3 && level < 5:
		object := map[string]any{}
		for range random.IntN(5) {
			object[[]string{"", "a", "A", "a.b", "0", "ключ", "\u00e9", "e\u0301"}[random.IntN(8)]] = randomJSON(random, level+1)
		}
		return object
	case kind == 3 && level < 5:
		list := make([]any, random.IntN(3))
		for i := range list {
			list[i] = randomJSON(random, level+1)
		}
		return list
	case kind <= 5:
		return nil
	default:
		return []any{true, false, "", "text", 0.5, 12.0, -3.0}[random.IntN(7)]
	}
}

func TestMergePatch_AgreesWithTheReference(t *testing.T) {
	t.Parallel()
	a := open(t)
	const cases = 3000
	random := rand.New(rand.NewPCG(7, 396))
	var targets, patches, want []string
	text := func(v any) string {
		b, err := json.Marshal(v)
		require.NoError(t, err)
		return string(b)
	}
	for range cases {
		target, patch := randomJSON(random, 0), randomJSON(random, 0)
		targets, patches = append(targets, text(target)), append(patches, text(patch))
		want = append(want, text(mergePatch(target, patch)))
	}
	// Compared as jsonb: the order of members and the spelling of numbers mean nothing.
	require.Empty(t, column[string](t, a.super, `
		SELECT c.target || ' patched with ' || c.patch || ' is ' || accounts.merge_patch_v1(c.target::jsonb, c.patch::jsonb)
		  FROM unnest($1::text[], $2::text[], $3::text[]) AS c (target, patch, want)
		 WHERE accounts.merge_patch_v1(c.target::jsonb, c.patch::jsonb) IS DISTINCT FROM c.want::jsonb`, targets, patches, want))
}

// 8,000 new keys ran into the statement timeout of 4 s when each was set in a copy of the object.
func TestMergePatch_TimeGrowsWithTheSize(t *testing.T) {
	t.Parallel()
	a := open(t)
	took := func(keys int) time.Duration {
		best := time.Hour
		for range 3 { // the shortest: other tests run beside this one
			started := time.Now()
			require.EqualValues(t, keys, value[int](t, a.super, `
				WITH p AS MATERIALIZED (SELECT jsonb_object_agg('key ' || i, i) AS patch FROM generate_series(1, $1::int) AS i)
				SELECT (SELECT count(*) FROM jsonb_object_keys(accounts.merge_patch_v1('{}', p.patch))) FROM p`, keys))
			best = min(best, time.Since(started))
		}
		return best
	}
	took(10)
	few, many := took(4000), took(32_000)
	require.Less(t, many, 30*few+100*time.Millisecond, "8 times as many keys; in quadratic time it would be 64 times as long")
}

// Each object of a patch that nests cost a recursive call, which took 12 times as long as a member.
func TestMergePatch_TimeOfObjectsThatNest(t *testing.T) {
	t.Parallel()
	a := open(t)
	took := func(sql string) time.Duration {
		best := time.Hour
		for range 3 { // the shortest: other tests run beside this one
			started := time.Now()
			require.EqualValues(t, 80, value[int](t, a.super, "WITH p AS MATERIALIZED ("+sql+`)
				SELECT (SELECT count(*) FROM jsonb_object_keys(accounts.merge_patch_v1('{}', p.patch))) FROM p`))
			best = min(best, time.Since(started))
		}
		return best
	}
	flat := took(`SELECT jsonb_object_agg(i, (SELECT jsonb_object_agg(k, '{}'::jsonb) FROM generate_series(1, 30) AS k)) AS patch FROM generate_series(1, 80) AS i`)
	nest := took(`SELECT jsonb_object_agg(i, '` + nested(`{"":`, "}", 31) + `'::jsonb) AS patch FROM generate_series(1, 80) AS i`)
	require.Less(t, nest, 5*flat+100*time.Millisecond, "as many objects, 30 levels deep")
}

func TestUpdateUser_RefusesAPatchThatNeverFits(t *testing.T) {
	t.Parallel()
	a := open(t)
	u := a.createUser(nil)
	var patch strings.Builder
	for i := range 20_000 {
		fmt.Fprintf(&patch, `,"key %d":null`, i)
	}
	for name, patch := range map[string]string{
		"members that are null": "{" + patch.String()[1:] + "}",
		"objects":               `{"` + strings.Repeat(`a":{},"`, 3000) + `":{"x":{"` + strings.Repeat("k", 20_000) + `":{}}}}`,
		"a text":                `{"a":"` + strings.Repeat("x", 16_385) + `"}`,
		"a list":                `{"a":[` + strings.Repeat("[],", 6000) + `1]}`,
		"nulls and a text":      `{"b":null,"a":{"c":null,"d":"` + strings.Repeat("x", 16_385) + `"}}`,
	} {
		_, err := a.write.UpdateUserV1(t.Context(), write.UpdateUserV1Params{UserID: u.ID, ProfilePatch: json.RawMessage(patch)})
		requireState(t, err, check, "users_profile_size", "")
		require.ErrorContains(t, err, "larger than any that fits", name) // not the CHECK: nothing was merged
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
