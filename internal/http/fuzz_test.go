package httpapi

import (
	stdjson "encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	jsonv1 "github.com/go-json-experiment/json/v1"
	"github.com/stretchr/testify/require"
)

// FuzzBody checks bodies against the schema of a new user. One that is accepted must be read in the same
// way by another JSON library; one that is not must have a bounded answer.
func FuzzBody(f *testing.F) {
	deep := strings.Repeat(`{"a":`, 61) + "[" + strings.Repeat("1,", 2000) + "1]" + strings.Repeat("}", 61)
	for _, body := range []string{
		``, ` `, `null`, `[]`, `{}`, `{} {}`, `{}x`, "\ufeff{}", "\xff", `{"profile":`,
		`{"profile":{"a":1e5000,"b":1e-5000,"c":-0.0,"d":0e99999999999999999999}}`,
		`{"profile":{"n":` + strings.Repeat("9", 400) + `}}`,
		`{"profile":{"a":1,"a":2},"profile":{}}`, `{"profile":{"a":"\ud800"}}`, `{"profile":{"\u0000":"\u0000"}}`,
		`{"profile":` + deep + `}`, `{"profile":` + strings.Repeat("[", 10_000), `{` + strings.Repeat(`"ab":1,`, 1000) + `"b":1}`,
		`{"contacts":[{"type":"phone","value":"+7 999 123-45-67"},{"type":1},{"VALUE":"x"},null],"groups":["client",1,null]}`,
		`{"groups":[` + strings.Repeat(`"x",`, 200) + `"x"],"is_active":"true","zzz":{"a":[{}]}}`,
	} {
		f.Add([]byte(body))
	}
	a := New(Config{})
	rt := &route{schema: a.registry.Schema(reflect.TypeFor[NewUser](), false, "")}
	f.Fuzz(func(t *testing.T, data []byte) {
		in := &input{api: a, route: rt}
		err := in.checkBody(data)
		require.LessOrEqual(t, len(in.fields), maxErrors)
		for _, field := range in.fields {
			require.Less(t, len(field.Field)+len(field.Code)+len(field.Message), 8<<10)
			require.True(t, utf8.ValidString(field.Field))
		}
		var user NewUser
		if err != nil || in.fields != nil {
			_ = json.Unmarshal(data, &user, jsonv1.ReportErrorsWithLegacySemantics(true), jsontext.AllowDuplicateNames(true))
			return
		}
		require.NoError(t, json.Unmarshal(data, &user))
		var other NewUser
		require.NoError(t, stdjson.Unmarshal(data, &other))
		require.Equal(t, other, user)
		var profile any
		if user.Profile != nil {
			require.NoError(t, stdjson.Unmarshal(user.Profile, &profile), "a number is too large for a float64")
		}
	})
}

// FuzzQuery reads every kind of parameter from a query.
func FuzzQuery(f *testing.F) {
	for _, query := range []string{
		``, `&`, `=`, `%`, `page=1&page=2`, `page=1&size=1000`, `%70age=3`, `page=%31`, `pages=1`, `is_active=true`, `is_active`,
		`identifier=+79991234567`, `identifier=%2B7+999`, `identifier=a+b@example.com`, `identifier=8+999+123+45+67`, `identifier=%00`,
		`identifier=%ff`, `updated_since=2026-01-31T00:00:00+03:00`, `group_id=0199a1b2-0000-7000-8000-000000000001`,
		`on_conflict=merge&cursor=AZmhsgAAcACAAAAAAAAAAQ`, strings.Repeat("a=1&", 5000), strings.Repeat("&", 5000), "identifier=" + strings.Repeat("%D1%8F", 300),
	} {
		f.Add(query)
	}
	params := []*huma.Param{
		identifierParam, pageParam, sizeParam, isActiveParam, groupIDParam, updatedSinceParam, cursorParam, onConflictParam,
	}
	a := New(Config{})
	f.Fuzz(func(t *testing.T, query string) {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.URL = &url.URL{Path: "/", RawQuery: query}
		in := newInput(a, nil, r, &route{params: params})
		identifier := in.identifier(identifierParam)
		page, size := in.integer(pageParam), in.integer(sizeParam)
		cursor, choice := in.shortText(cursorParam), in.choice(onConflictParam)
		filter := in.userFilter()
		require.LessOrEqual(t, len(in.query), maxQueryParams)
		require.LessOrEqual(t, len(in.fields), maxErrors)
		if in.err() != nil {
			return
		}
		require.True(t, utf8.ValidString(identifier+cursor+choice))
		require.NotEmpty(t, identifier)
		require.LessOrEqual(t, utf8.RuneCountInString(identifier), maxIdentifierRunes)
		require.LessOrEqual(t, utf8.RuneCountInString(cursor), maxCursorRunes)
		require.True(t, 1 <= page && page <= maxPage && 1 <= size && size <= maxPageSize, fmt.Sprint(page, size, filter))
		require.Contains(t, []string{"skip", "merge", "error"}, choice)
	})
}
