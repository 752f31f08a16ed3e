package httpapi

import (
	"encoding/json"
	"flag"
	"mime"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/go-chi/chi/v5"
	"github.com/stretchr/testify/require"
)

// committedDocument is what the client in test/openapi was generated from.
const committedDocument = "../../test/openapi/openapi.json"

var update = flag.Bool("update", false, "write "+committedDocument+"; then go generate ./test/openapi")

// contract is the document as a client reads it, and the router that knows its paths.
type contract struct {
	*openapi3.T
	router *chi.Mux
}

var theContract = sync.OnceValue(func() contract {
	a := New(Config{Version: "test"})
	doc, err := openapi3.NewLoader().LoadFromData(a.document)
	if err != nil {
		panic(err)
	}
	// Clients must accept new members of answers; here one that is not documented is an error.
	for _, s := range doc.Components.Schemas {
		if s.Value.Type.Is("object") && s.Value.AdditionalProperties.Has == nil {
			s.Value.AdditionalProperties.Has = new(false)
		}
	}
	return contract{doc, a.router}
})

// operation returns what the document says of a request; nil if it says nothing.
func (c contract) operation(r *http.Request) *openapi3.Operation {
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	path := r.URL.EscapedPath()
	if len(path) > 1 {
		path = strings.TrimSuffix(path, "/")
	}
	switch method {
	case http.MethodGet, http.MethodPost, http.MethodPatch, http.MethodDelete:
		if item := c.Paths.Value(c.router.Find(chi.NewRouteContext(), method, path)); item != nil {
			return item.GetOperation(method)
		}
	}
	return nil
}

// requireDocumented holds an answer against the document: its status, media type and body. Every
// answer of every test of this package passes here.
func requireDocumented(t require.TestingT, r *http.Request, w *httptest.ResponseRecorder) {
	c := theContract()
	mediaType, _, _ := mime.ParseMediaType(w.Header().Get("Content-Type"))
	var schema *openapi3.SchemaRef
	if op := c.operation(r); op != nil {
		answer := op.Responses.Status(w.Code)
		require.NotNil(t, answer, "%s %s: status %d is not documented", r.Method, r.URL.Path, w.Code)
		media := answer.Value.Content.Get(mediaType)
		if len(answer.Value.Content) == 0 {
			require.Zero(t, w.Body.Len(), "%s %s: a body is not documented", r.Method, r.URL.Path)
			return
		}
		require.NotNil(t, media, "%s %s: %q is not documented for %d", r.Method, r.URL.Path, mediaType, w.Code)
		schema = media.Schema
	} else if mediaType == "application/problem+json" {
		schema = c.Components.Schemas["Problem"]
	}
	if schema == nil || mediaType == "text/csv" || w.Header().Get("Content-Encoding") != "" || r.Method == http.MethodHead {
		return
	}
	var body any
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &body), "%s %s", r.Method, r.URL.Path)
	err := c.ValidateSchemaJSON(schema.Value, body, openapi3.VisitAsResponse(), openapi3.EnableFormatValidation())
	require.NoError(t, err, "%s %s: %d %.300s", r.Method, r.URL.Path, w.Code, w.Body)
}

// TestConformanceCheckWorks: the check above sees what is wrong.
func TestConformanceCheckWorks(t *testing.T) {
	t.Parallel()
	problem := `{"type":"about:blank","title":"x","status":400,"detail":"x","instance":"x","request_id":"x","error_code":"x","message":"x","details":{}}`
	for _, test := range []struct {
		status          int
		mediaType, body string
		ok              bool
	}{
		{200, "application/json", `{"items":[],"page":1,"size":1,"total":0,"pages":0}`, true},
		{200, "application/json", `{"items":[],"next_cursor":null}`, true},
		{200, "application/json", `{"items":[],"next_cursor":1}`, false},
		{200, "application/json", `{"items":[],"next_cursor":null,"extra":1}`, false},
		{200, "application/json", `{"items":[{}],"next_cursor":null}`, false},
		{200, "application/json", `{"items":null,"next_cursor":null}`, false},
		{200, "text/plain", `{}`, false},
		{201, "application/json", `{}`, false},
		{400, "application/problem+json", problem, true},
		{400, "application/problem+json", strings.Replace(problem, `"details":{}`, `"details":null`, 1), false},
		{400, "application/problem+json", strings.Replace(problem, `"title":"x",`, ``, 1), false},
		{404, "application/problem+json", problem, false},
	} {
		w := httptest.NewRecorder()
		w.Header().Set("Content-Type", test.mediaType)
		w.WriteHeader(test.status)
		_, _ = w.WriteString(test.body)
		found := &failure{}
		func() {
			defer func() { _ = recover() }()
			requireDocumented(found, httptest.NewRequest(http.MethodGet, "/accounts/users/", nil), w)
		}()
		require.Equal(t, !test.ok, found.failed, test)
	}
}

// failure is a test that is expected to fail.
type failure struct{ failed bool }

func (f *failure) Errorf(string, ...any) { f.failed = true }
func (f *failure) FailNow()              { f.failed = true; panic("enough") }

// TestDocumentIsComplete: whoever reads only the document knows what to send and what may come.
func TestDocumentIsComplete(t *testing.T) {
	t.Parallel()
	for path, item := range theContract().Paths.Map() {
		for method, op := range item.Operations() {
			at := method + " " + path
			require.NotEmpty(t, op.Summary, at)
			require.NotEmpty(t, op.Tags, at)
			for _, p := range op.Parameters {
				require.False(t, p.Value.Required && p.Value.Example == nil, "%s: %s has no example", at, p.Value.Name)
			}
			if op.RequestBody != nil {
				for mediaType, media := range op.RequestBody.Value.Content {
					require.True(t, media.Example != nil || mediaType == "multipart/form-data", at)
				}
			}
			for status, answer := range op.Responses.Map() {
				require.NotEmpty(t, *answer.Value.Description, "%s %s", at, status)
				for _, media := range answer.Value.Content {
					require.NotNil(t, media.Example, "%s %s", at, status)
				}
			}
		}
	}
}

// TestCommittedDocument: the client that the tests use belongs to this document.
func TestCommittedDocument(t *testing.T) {
	t.Parallel()
	document := New(Config{Version: "test"}).document
	if *update {
		require.NoError(t, os.WriteFile(committedDocument, document, 0o644))
	}
	committed, err := os.ReadFile(committedDocument)
	require.NoError(t, err)
	require.JSONEq(t, string(committed), string(document),
		"go test ./internal/http -run TestCommittedDocument -update && go generate ./test/openapi")
}
