package httpapi

import (
	"net/http"
	"strings"
	"testing"

	"github.com/danielgtaylor/huma/v2"
	"github.com/stretchr/testify/require"
)

func TestIfMatch(t *testing.T) {
	t.Parallel()
	none := []int64{}
	for header, want := range map[string][]int64{ // nil: invalid
		`"7-abc"`:                 {7},
		" \t\"7-abc\" ":           {7},
		`"7-abc-phone"`:           {7},
		`"7-abc", "8-def"`:        {7, 8},
		`"7-abc","8-def" ,, "x",`: {7, 8},
		`W/"7-abc", "8-def"`:      {8},
		`"0-a"`:                   {0},
		`"9223372036854775807-a"`: {1<<63 - 1},
		// Ordinary tags that no version has.
		`W/"7-abc"`:               none,
		`"*"`:                     none,
		`W/"*"`:                   none,
		`""`:                      none,
		`"7"`:                     none,
		`"7-"`:                    none,
		`"-abc"`:                  none,
		`"+7-abc"`:                none,
		`"07-abc"`:                none,
		`"x-abc"`:                 none,
		`"7,8-abc"`:               none,
		`"9223372036854775808-a"`: none,
		"\"\x80\xff\"":            none,
		// Not a list of tags.
		``: nil, `,`: nil, `7-abc`: nil, `"7-abc`: nil, `7-abc"`: nil, `""7-abc""`: nil, `w/"7-abc"`: nil, `W/`: nil, `W/*`: nil,
		`W/ "7-abc"`: nil, `"7-abc" "8-def"`: nil, `"7-abc" x`: nil, `"7 abc"`: nil, "\"7-a\x7f\"": nil, `**`: nil, `*, "7-abc"`: nil, `"7-abc", *`: nil,
		strings.Repeat(`"7-abc",`, maxEntityTags+1): nil,
	} {
		in := newTestInput("")
		in.r.Header["If-Match"] = []string{header}
		got := in.ifMatch()
		if want == nil {
			require.Equal(t, []string{"If-Match invalid_etag"}, in.faults(), "%q", header)
			continue
		}
		require.NoError(t, in.err(), "%q", header)
		require.Equal(t, want, got, "%q", header)
	}
	in := newTestInput("")
	require.Nil(t, in.ifMatch(), "no condition")
	in.r.Header["If-Match"] = []string{" * "}
	require.Nil(t, in.ifMatch(), "every version")
	in.r.Header["If-Match"] = []string{`"7-abc"`, `W/"1-a", "8-def"`}
	require.Equal(t, []int64{7, 8}, in.ifMatch(), "several lines are one list")
	in.r.Header["If-Match"] = []string{strings.Repeat(`"7-abc",`, maxEntityTags)}
	require.Len(t, in.ifMatch(), maxEntityTags)
	require.NoError(t, in.err())
	in.r.Header["If-Match"] = []string{"*", "*"}
	in.ifMatch()
	require.Error(t, in.err())
}

func TestIfNoneMatch(t *testing.T) {
	t.Parallel()
	for header, want := range map[string][]string{
		`*`:                                      {anyTag},
		`"a", W/"b"`:                             {"a", "b"},
		`"a,b" , "c"`:                            {"a,b", "c"},
		`"*"`:                                    nil,
		`W/"*"`:                                  nil,
		`W/*`:                                    nil,
		`*, "a"`:                                 nil,
		`"a", *`:                                 nil,
		`a`:                                      nil,
		``:                                       nil,
		`"` + strings.Repeat("a", 65) + `", "b"`: {"b"},
		strings.Repeat(`"a",`, maxEntityTags+1):  nil,
	} {
		in := newTestInput("")
		in.r.Header["If-None-Match"] = []string{header}
		require.Equal(t, want, in.ifNoneMatch(), "%q", header)
		require.NoError(t, in.err(), "%q", header)
	}
	in := newTestInput("")
	require.Empty(t, in.ifNoneMatch())
	in.r.Header["If-None-Match"] = []string{`"a"`, `"b"`}
	require.Equal(t, []string{"a", "b"}, in.ifNoneMatch())
}

func TestPreconditions_NeverIgnored(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		method string
		params []*huma.Param
		header http.Header
		want   []string
	}{
		{http.MethodPatch, []*huma.Param{ifMatchParam}, http.Header{"If-Match": {"*"}}, nil},
		{http.MethodPost, nil, http.Header{"If-Match": {"*"}}, []string{"If-Match unsupported"}},
		{http.MethodGet, nil, http.Header{"If-Match": {`"1-a"`}}, []string{"If-Match unsupported"}},
		{http.MethodGet, nil, http.Header{"If-None-Match": {"*"}}, nil},
		{http.MethodHead, nil, http.Header{"If-None-Match": {"*"}}, nil},
		{http.MethodPost, nil, http.Header{"If-None-Match": {"*"}}, []string{"If-None-Match unsupported"}},
		{http.MethodPatch, []*huma.Param{ifMatchParam}, http.Header{"If-None-Match": {`"1-a"`}}, []string{"If-None-Match unsupported"}},
		{http.MethodDelete, nil, http.Header{"If-Unmodified-Since": {"x"}}, []string{"If-Unmodified-Since unsupported"}},
		{http.MethodPatch, []*huma.Param{ifMatchParam}, http.Header{"If-Unmodified-Since": {"x"}, "If-Match": {"*"}}, nil},
		{http.MethodGet, nil, http.Header{"If-Unmodified-Since": {"x"}, "If-Modified-Since": {"x"}}, nil},
		{http.MethodPatch, nil, http.Header{"If-Modified-Since": {"x"}}, nil},
	} {
		in := newTestInput("", test.params...)
		in.r.Method, in.r.Header = test.method, test.header
		in.checkPreconditions()
		require.Equal(t, test.want, in.faults(), "%s %v", test.method, test.header)
	}
}

// TestPreconditions_EveryRoute checks that each PATCH and DELETE of the API declares If-Match, and 412.
func TestPreconditions_EveryRoute(t *testing.T) {
	t.Parallel()
	for path, item := range theContract().Paths.Map() {
		for method, op := range item.Operations() {
			changes := method == http.MethodPatch || method == http.MethodDelete
			require.Equal(t, changes, op.Parameters.GetByInAndName("header", "If-Match") != nil, "%s %s", method, path)
			require.Equal(t, changes, op.Responses.Status(http.StatusPreconditionFailed) != nil, "%s %s", method, path)
		}
	}
}
