package httpapi

import (
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/errcode"
)

// sample has every keyword that the bodies of this package use.
type sample struct {
	ID      uuid.UUID    `json:"id"`
	Name    *string      `json:"name,omitempty" minLength:"2" maxLength:"5"`
	Choice  string       `json:"choice,omitempty" enum:"one,two"`
	Active  *bool        `json:"active,omitempty"`
	Profile freeObject   `json:"profile,omitempty"`
	Tags    []string     `json:"tags,omitempty" nullable:"false" maxItems:"2"`
	Parts   []samplePart `json:"parts,omitempty" nullable:"false"`
	Note    *string      `json:"note,omitempty" nullable:"true"`
	Words   []string     `json:"words,omitempty" nullable:"false" minItems:"1"`
}

type samplePart struct {
	Value string `json:"value"`
}

// addSample adds a route that takes a sample and answers with it.
func (s *stack) addSample() {
	s.add(route{
		method: http.MethodPost, path: "/accounts/sample", id: "sample", access: writeAccess,
		body: reflect.TypeFor[sample](), mergePatch: true, status: http.StatusOK, result: reflect.TypeFor[sample](),
		handle: func(_ context.Context, w *response, in *input) error {
			v := readBody[sample](in)
			if err := in.err(); err != nil {
				return err
			}
			return w.json(http.StatusOK, v)
		},
	})
}

const sampleID = `"id":"0199a1b2-0000-7000-8000-000000000001"`

func TestBodyIsStrict(t *testing.T) {
	t.Parallel()
	s := newBareAPI(t)
	s.addSample()
	deep := strings.Repeat(`{"a":`, maxDepth) + "1" + strings.Repeat("}", maxDepth)
	for body, want := range map[string][]string{
		` `:                             {"body required"},
		`nonsense-79991234567`:          {"body invalid_json"},
		`{` + sampleID + `,}`:           {"body invalid_json"},
		`{` + sampleID + `} {}`:         {"body invalid_json"},
		`{` + sampleID + `}79991234567`: {"body invalid_json"},
		`{` + sampleID:                  {"body invalid_json"},
		"{\"choice\":\"\xff\"}":         {"body invalid_json"},
		"\ufeff{}":                      {"body invalid_json"},
		`{` + sampleID + `,"profile":` + deep + `}`: {"body invalid_json"},
		`null`:                 {"body null"},
		`[]`:                   {"body invalid_type"},
		`79991234567`:          {"body invalid_type"},
		`"text"`:               {"body invalid_type"},
		`{}`:                   {"id required"},
		`{"id":null}`:          {"id null"},
		`{"id":1}`:             {"id invalid_type"},
		`{"id":"79991234567"}`: {"id invalid_uuid"},
		`{"id":"urn:uuid:0199a1b2-0000-7000-8000-000000000001"}`: {"id invalid_uuid"},
		`{"ID":"0199a1b2-0000-7000-8000-000000000001"}`:          {"id required", "ID unknown"},
		// A second spelling must neither reach the handler nor pass unchecked.
		`{` + sampleID + `,"choice":"one","CHOICE":"79991234567"}`: {"CHOICE unknown"},
		`{` + sampleID + `,` + sampleID + `}`:                      {"id duplicate"},
		`{` + sampleID + `,"profile":{"a":1,"a":2}}`:               {"profile.a duplicate"},
		`{` + sampleID + `,"parts":[{"value":"1","value":"2"}]}`:   {"parts[0].value duplicate"},
		`{` + sampleID + `,"choice":"one","\u0063hoice":"two"}`:    {"choice duplicate"},
		`{` + sampleID + `,"name":"a"}`:                            {"name too_short"},
		`{` + sampleID + `,"name":"яяяяяя"}`:                       {"name too_long"},
		`{` + sampleID + `,"name":null}`:                           {"name null"},
		`{` + sampleID + `,"choice":"79991234567"}`:                {"choice unknown"},
		`{` + sampleID + `,"active":"true"}`:                       {"active invalid_type"},
		`{` + sampleID + `,"active":1}`:                            {"active invalid_type"},
		`{` + sampleID + `,"active":null}`:                         {"active null"},
		`{` + sampleID + `,"profile":null}`:                        {"profile null"},
		`{` + sampleID + `,"profile":[]}`:                          {"profile invalid_type"},
		`{` + sampleID + `,"tags":{}}`:                             {"tags invalid_type"},
		`{` + sampleID + `,"tags":["a",1]}`:                        {"tags[1] invalid_type"},
		`{` + sampleID + `,"tags":["a",null]}`:                     {"tags[1] null"},
		`{` + sampleID + `,"tags":["a","b","c"]}`:                  {"tags too_many"},
		`{` + sampleID + `,"parts":[{},{"value":"1","x":2},{"VALUE":"3"}]}`: {
			"parts[0].value required", "parts[1].x unknown", "parts[2].value required", "parts[2].VALUE unknown",
		},
		// Names that may be values are not repeated, and do not shift the fields after them.
		`{` + sampleID + `,"79991234567":1,"a@example.com":2,"a.b[0]":3,"active":4}`: {
			"? unknown", "? unknown", "? unknown", "active invalid_type",
		},
		`{` + sampleID + `,"profile":{"a":1,"a":2},"choice":"x","zzz":1,"id":1}`: {
			"profile.a duplicate", "choice unknown", "zzz unknown", "id duplicate",
		},
		`{` + sampleID + `,"profile":{"a":"\ud800"}}`:                                                   {"body invalid_json"},
		`{` + sampleID + `,"profile":{"a":1e40,"b":[1e-40,-1E5000]}}`:                                   {"profile.a invalid_number", "profile.b[0] invalid_number", "profile.b[1] invalid_number"},
		`{` + sampleID + `,"profile":{"a":` + strings.Repeat("1", 41) + `,"b":0e99999999999999999999}}`: {"profile.a invalid_number", "profile.b invalid_number"},
		`{` + sampleID + `,"profile":{"a":["\u0000"],"\u0000":1}}`:                                      {"profile.a[0] invalid_text", "profile invalid_text"},
		`{` + sampleID + `,"profile":{"0":{"x y":1e50}}}`:                                               {"profile.?.? invalid_number"},
		`{` + sampleID + `,"profile":{"a":"` + strings.Repeat("x", maxTextBytes+1) + `"}}`:              {"profile.a too_long"},
		`{` + sampleID + `,"profile":{"` + strings.Repeat("x", maxNameBytes+1) + `":1}}`:                {"profile name_too_long"},
		`{` + sampleID + `,"profile":[` + strings.Repeat("1,", maxValues) + `1]}`:                       {"body too_many"},
		`{` + sampleID + `,"tags":[1,2,3],"zzz":{"a":1e99}}`:                                            {"tags too_many", "zzz unknown"},
		// All at once.
		`{"id":"x","name":"a","choice":"three","active":"no","profile":7,"tags":"a","parts":[null],"zzz":1}`: {
			"active invalid_type", "choice unknown", "id invalid_uuid", "name too_short", "parts[0] null",
			"profile invalid_type", "tags invalid_type", "zzz unknown",
		},
	} {
		a := s.call(http.MethodPost, "/accounts/sample", body, "Content-Type", "application/json")
		p := a.problem(errcode.Validation)
		require.ElementsMatch(t, want, p.faults(), body)
		require.NotContains(t, a.Body.String(), "79991234567", "a value is repeated")
		require.NotContains(t, a.Body.String(), "a@example.com", "a value is repeated")
	}
	for _, body := range []string{
		`{` + sampleID + `}`,
		` {` + sampleID + `, "name":"яя","choice":"two","active":false,"note":null,"tags":[],"parts":[{"value":""}]} ` + "\n",
		`{` + sampleID + `,"profile":{"a":null,"b":[1e39,{"c":-0.10}],"":{"<":"\u003c"}}}`,
	} {
		s.call(http.MethodPost, "/accounts/sample", body).ok(http.StatusOK, new(sample))
	}
	for number, tooLong := range map[string]bool{
		"0": false, "-0": false, "-0.0": false, "0e5": false, "1E+39": false, "10e38": false, "10e39": true, "123e-42": true, "0.00001e40": false,
		"0.001e41": true, "1e+0000000000000000000000000000000000000000000039": false, "1e00000000000000000000000000000000000000000040": true,
		"-" + strings.Repeat("9", 40): false, "-" + strings.Repeat("9", 41): true, "1." + strings.Repeat("0", 39): false,
		"1." + strings.Repeat("0", 40): true, "0." + strings.Repeat("0", 38) + "1": false, "0." + strings.Repeat("0", 39) + "1": true,
		"0e99999": true, "1E-400": true, "1e99999999999999999999": true,
	} {
		a := s.call(http.MethodPost, "/accounts/sample", `{`+sampleID+`,"profile":{"a":[[{"b":`+number+`}]]}}`)
		if tooLong {
			require.Equal(t, []string{"profile.a[0][0].b invalid_number"}, a.problem(errcode.Validation).faults(), number)
		} else {
			a.ok(http.StatusOK, new(sample))
		}
	}
	// The profile is handed on as it was written.
	const profile = `{"n":1e+39,"s":"\u0001<"}`
	require.Contains(t, s.call(http.MethodPost, "/accounts/sample", `{`+sampleID+`,"profile":`+profile+`}`).Body.String(), profile)
}

func TestManyFaultsMakeABoundedAnswer(t *testing.T) {
	t.Parallel()
	s := newBareAPI(t)
	s.addSample()
	var body strings.Builder
	body.WriteString(`{` + sampleID)
	for i := range 5_000 {
		body.WriteString(`,"a` + string(rune('a'+i%26)) + `":1`)
	}
	body.WriteString("}")
	p := s.call(http.MethodPost, "/accounts/sample", body.String()).problem(errcode.Validation)
	require.Equal(t, maxErrors, len(p.Details.Errors)) // Len would print them all
}

// TestCheckAgreesWithJSONSchema holds our reading of a schema against that of another library.
func TestCheckAgreesWithJSONSchema(t *testing.T) {
	t.Parallel()
	s := newBareAPI(t)
	s.addSample()
	doc := loadDocument(t, s.API)
	schema := doc.Components.Schemas["Sample"]
	require.NotNil(t, schema)
	for _, body := range []string{
		`{}`, `null`, `[]`, `1`, `{` + sampleID + `}`,
		`{` + sampleID + `,"name":"ab"}`, `{` + sampleID + `,"name":"a"}`, `{` + sampleID + `,"name":"abcdef"}`,
		`{` + sampleID + `,"name":null}`, `{` + sampleID + `,"note":null}`, `{` + sampleID + `,"NAME":"ab"}`,
		`{` + sampleID + `,"choice":"one"}`, `{` + sampleID + `,"choice":"none"}`,
		`{` + sampleID + `,"active":true}`, `{` + sampleID + `,"active":"true"}`,
		`{` + sampleID + `,"profile":{}}`, `{` + sampleID + `,"profile":{"x":[]}}`, `{` + sampleID + `,"profile":[]}`,
		`{` + sampleID + `,"profile":null}`, `{` + sampleID + `,"tags":["a","b"]}`, `{` + sampleID + `,"tags":["a","b","c"]}`,
		`{` + sampleID + `,"tags":[1]}`, `{` + sampleID + `,"tags":null}`, `{` + sampleID + `,"parts":[{"value":"x"}]}`,
		`{` + sampleID + `,"parts":[{}]}`, `{` + sampleID + `,"parts":[{"value":"x","y":1}]}`,
	} {
		ours := s.call(http.MethodPost, "/accounts/sample", body).Code == http.StatusOK
		theirs := schema.Value.VisitJSON(decodeAny(t, body), openapi3.EnableJSONSchema2020()) == nil
		require.Equal(t, theirs, ours, body)
	}
}

func TestBodyLimits(t *testing.T) {
	t.Parallel()
	s := newBareAPI(t, func(c *Config) { c.MaxBodyBytes = 100 })
	s.addSample()
	fits := `{` + sampleID + `,"profile":{"a":"` + strings.Repeat("x", 100-len(`{`+sampleID+`,"profile":{"a":""}}`)) + `"}}`
	require.Len(t, fits, 100)
	s.call(http.MethodPost, "/accounts/sample", fits).ok(http.StatusOK, nil)
	s.call(http.MethodPost, "/accounts/sample", fits+" ").problem(errcode.PayloadTooLarge)

	r := httptest.NewRequest(http.MethodPost, "/accounts/sample", io.MultiReader(strings.NewReader(fits), strings.NewReader(" ")))
	r.Header.Set("Authorization", s.auth)
	r.Header.Set("Content-Type", "application/json")
	require.EqualValues(t, -1, r.ContentLength, "the length must not be known in advance")
	a := s.send(r)
	a.problem(errcode.PayloadTooLarge)
	require.Equal(t, "close", a.Header().Get("Connection"))
}

func TestMediaTypes(t *testing.T) {
	t.Parallel()
	s := newBareAPI(t)
	s.addSample()
	body := `{` + sampleID + `}`
	for _, contentType := range []string{
		"application/json", "Application/JSON", "application/json; charset=utf-8", `application/json;charset="UTF-8"`,
		"application/merge-patch+json",
	} {
		s.call(http.MethodPost, "/accounts/sample", body, "Content-Type", contentType).ok(http.StatusOK, nil)
	}
	for _, contentType := range []string{
		"", "text/plain", "text/json", "application/x-www-form-urlencoded", "application/json; charset=windows-1251",
		"application/foo+json", "application/jsonx", "application/json;;", "*/*",
	} {
		s.call(http.MethodPost, "/accounts/sample", body, "Content-Type", contentType).problem(errcode.UnsupportedMediaType)
	}
	s.call(http.MethodPost, "/accounts/sample", body, "Content-Encoding", "gzip").problem(errcode.UnsupportedMediaType)
	for _, charset := range []string{"utf8", "UTF8", "Utf-8", `"utf8"`, `"UTF-8"`} {
		s.call(http.MethodPost, "/accounts/sample", body, "Content-Type", "application/json; charset="+charset).ok(http.StatusOK, nil)
	}
	for _, charset := range []string{"utf-16", "utf-8-sig", `""`, "latin1"} {
		s.call(http.MethodPost, "/accounts/sample", body, "Content-Type", "application/json; charset="+charset).
			problem(errcode.UnsupportedMediaType)
	}
	// A merge patch is for PATCH only.
	s.call(http.MethodPost, "/accounts/user-groups", `{"name":"x"}`, "Content-Type", "application/merge-patch+json").
		problem(errcode.UnsupportedMediaType)
}

func TestBodyThatDoesNotArrive(t *testing.T) {
	t.Parallel()
	s := newBareAPI(t)
	s.addSample()
	for _, test := range []struct {
		err  error
		code string
	}{
		{os.ErrDeadlineExceeded, "timeout"}, {errors.New("chunk"), "unreadable"}, {io.ErrUnexpectedEOF, "truncated"},
	} {
		r := httptest.NewRequest(http.MethodPost, "/accounts/sample", io.MultiReader(strings.NewReader("{"), failingReader{test.err}))
		r.Header.Set("Authorization", s.auth)
		r.Header.Set("Content-Type", "application/json")
		a := s.send(r)
		require.Equal(t, []string{"body " + test.code}, a.problem(errcode.Validation).faults())
		require.Equal(t, "close", a.Header().Get("Connection"))
	}
}

type failingReader struct{ err error }

func (r failingReader) Read([]byte) (int, error) { return 0, r.err }

// TestSchemasUseKnownKeywords: check would silently ignore others.
func TestSchemasUseKnownKeywords(t *testing.T) {
	t.Parallel()
	s := newBareAPI(t)
	known := []string{
		"type", "description", "examples", "properties", "required", "additionalProperties", "items", "minItems", "maxItems",
		"minLength", "maxLength", "enum", "format", "$ref",
	}
	for _, path := range loadDocument(t, s.API).Paths.Map() {
		for _, op := range path.Operations() {
			if op.RequestBody == nil {
				continue
			}
			for mediaType, media := range op.RequestBody.Value.Content {
				if mediaType == "multipart/form-data" {
					continue // is not checked by its schema
				}
				requireKeywords(t, media.Schema, known)
			}
		}
	}
}

func requireKeywords(t *testing.T, ref *openapi3.SchemaRef, known []string) {
	data, err := ref.Value.MarshalJSON()
	require.NoError(t, err)
	schema := decodeAny(t, string(data)).(map[string]any)
	for _, keyword := range slices.Sorted(maps.Keys(schema)) {
		require.Contains(t, known, keyword)
	}
	for _, property := range ref.Value.Properties {
		requireKeywords(t, property, known)
	}
	if ref.Value.Items != nil {
		requireKeywords(t, ref.Value.Items, known)
	}
}
