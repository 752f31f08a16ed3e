package accounts

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/errcode"
	"github.com/payment-services/accounts/internal/pgtest"
)

func members(n int, format string) string {
	texts := make([]string, n)
	for i := range texts {
		texts[i] = fmt.Sprintf(format, i)
	}
	return "{" + strings.Join(texts, ",") + "}"
}

func TestCheckProfile(t *testing.T) {
	t.Parallel()
	nested := func(depth int) string { return strings.Repeat(`{"a":`, depth-1) + "{}" + strings.Repeat("}", depth-1) }
	lists := func(depth int) string {
		return `{"a":` + strings.Repeat("[", depth-1) + strings.Repeat("]", depth-1) + "}"
	}
	for name, tt := range map[string]struct{ text, profile, patch string }{
		"empty":                       {`{}`, "", ""},
		"absent":                      {``, "", ""},
		"malformed":                   {`{"a":`, "", ""},
		"16 KiB":                      {`{"a": "` + strings.Repeat("x", maxProfileBytes-len(`{"a": ""}`)) + `"}`, "", ""},
		"one byte more":               {`{"a": "` + strings.Repeat("x", maxProfileBytes-len(`{"a": ""}`)+1) + `"}`, "too_large", "too_large"},
		"two-byte characters":         {`{"a":"` + strings.Repeat("я", maxProfileBytes/2) + `"}`, "too_large", "too_large"},
		"8,000 new keys":              {members(8000, `"%d":1`), "too_large", "too_large"},
		"as many keys as fit":         {members(1500, `"k%d":1`), "", ""},
		"keys that a patch removes":   {members(2300, `"k%d":null`), "too_large", ""},
		"lists keep their nulls":      {`{"a":[` + strings.Repeat("null,", 5000) + `1]}`, "too_large", "too_large"},
		"too many keys to remove":     {members(8000, `"k%d":null`), "too_large", "too_large"},
		"white space within 64 KiB":   {`{"a":` + strings.Repeat(" ", 60_000) + `1}`, "", ""},
		"white space beyond 64 KiB":   {`{"a":` + strings.Repeat(" ", 70_000) + `1}`, "too_large", "too_large"},
		"escapes of short characters": {`{"a":"` + strings.Repeat(`\u0430`, 8000) + `"}`, "", ""},
		"depth 32":                    {nested(32), "", ""},
		"depth 33":                    {nested(33), "too_deep", "too_deep"},
		"depth 32 of lists":           {lists(32), "", ""},
		"depth 33 of lists":           {lists(33), "too_deep", "too_deep"},
		"a null member at depth 32":   {strings.Repeat(`{"a":`, 32) + "null" + strings.Repeat("}", 32), "", ""},
		"64 KiB of brackets":          {`{"a":` + strings.Repeat("[", 60_000), "too_deep", "too_deep"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, check := range []struct {
				fault string
				call  func(json.RawMessage) string
			}{
				{tt.profile, func(text json.RawMessage) string { return faultOf(checkProfile(text)) }},
				{tt.patch, func(text json.RawMessage) string { return faultOf(checkProfilePatch(text)) }},
			} {
				require.Equal(t, check.fault, check.call(json.RawMessage(tt.text)))
			}
		})
	}
}

// What the check refuses, PostgreSQL would refuse too: the measure never exceeds PostgreSQL's.
func TestMeasureJSON_IsALowerBound(t *testing.T) {
	t.Parallel()
	conn, err := pgx.Connect(t.Context(), pgtest.Shared(t).SuperURL)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(t.Context()) })
	random := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		text, err := json.Marshal(randomJSON(random, 0))
		require.NoError(t, err)
		var bytes int
		require.NoError(t, conn.QueryRow(t.Context(), "SELECT octet_length($1::jsonb::text)", string(text)).Scan(&bytes))
		size, depth := measureJSON(text, false)
		require.LessOrEqual(t, size, bytes, "%s", text)
		require.GreaterOrEqual(t, 3*size+2, bytes-4*strings.Count(string(text), `\`), "%s", text)
		require.LessOrEqual(t, depth, 5)
		patched, _ := measureJSON(text, true)
		require.LessOrEqual(t, patched, size)
	}
}

// randomJSON returns an object at level 0, and any value below.
func randomJSON(random *rand.Rand, level int) any {
	texts := []string{"", "a", "ключ", "\"\\\n", "😀", "long key with spaces", "<&>"}
	kind := random.IntN(6)
	switch {
	case level == 0 || kind == 0 && level < 4:
		object := map[string]any{}
		for i := range random.IntN(5) {
			object[texts[random.IntN(len(texts))]+fmt.Sprint(i)] = randomJSON(random, level+1)
		}
		return object
	case kind == 1 && level < 4:
		list := make([]any, random.IntN(4))
		for i := range list {
			list[i] = randomJSON(random, level+1)
		}
		return list
	case kind == 2:
		return nil
	case kind == 3:
		return random.IntN(2) == 0
	case kind == 4:
		return random.IntN(1000)
	default:
		return texts[random.IntN(len(texts))]
	}
}

func faultOf(field *errcode.Field) string {
	if field == nil {
		return ""
	}
	return field.Code
}
