package httpapi

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/go-chi/chi/v5"
	"github.com/stretchr/testify/require"
)

// loadDocument returns the OpenAPI document, with what was added after New, once it is valid.
func loadDocument(t *testing.T, a *API) *openapi3.T {
	t.Helper()
	data, err := json.Marshal(a.openAPI)
	require.NoError(t, err)
	doc, err := openapi3.NewLoader().LoadFromData(data)
	require.NoError(t, err)
	require.NoError(t, doc.Validate(t.Context()))
	return doc
}

func decodeAny(t *testing.T, text string) any {
	t.Helper()
	var v any
	require.NoError(t, json.Unmarshal([]byte(text), &v))
	return v
}

func TestDocumentIsServed(t *testing.T) {
	t.Parallel()
	s := newBareAPI(t)
	a := s.call(http.MethodGet, "/openapi.json", "", "Authorization", "").ok(http.StatusOK, &map[string]any{})
	doc, err := openapi3.NewLoader().LoadFromData(a.Body.Bytes())
	require.NoError(t, err)
	require.NoError(t, doc.Validate(t.Context()))
	require.True(t, strings.HasPrefix(doc.OpenAPI, "3.1"))
	require.Equal(t, "test", doc.Info.Version)
	require.NotContains(t, a.Body.String(), "http://", "something outside is named")
	require.NotContains(t, a.Body.String(), "https://", "something outside is named")
	for _, path := range []string{"/openapi.yaml", "/openapi-3.0.json", "/schemas/User.json"} {
		require.Equal(t, http.StatusNotFound, s.call(http.MethodGet, path, "").Code)
	}
}

func TestDocument_OnlyRequestsExcludeUnknownMembers(t *testing.T) {
	t.Parallel()
	s := newBareAPI(t)
	var objects func(s *openapi3.SchemaRef, found map[*openapi3.Schema]bool)
	objects = func(s *openapi3.SchemaRef, found map[*openapi3.Schema]bool) {
		if s == nil || found[s.Value] {
			return
		}
		if s.Value.Properties != nil {
			found[s.Value] = true
		}
		objects(s.Value.Items, found)
		for _, property := range s.Value.Properties {
			objects(property, found)
		}
		for _, choice := range s.Value.OneOf {
			objects(choice, found)
		}
	}
	requests, answers := map[*openapi3.Schema]bool{}, map[*openapi3.Schema]bool{}
	for _, item := range loadDocument(t, s.API).Paths.Map() {
		for _, op := range item.Operations() {
			if op.RequestBody != nil {
				for _, media := range op.RequestBody.Value.Content {
					objects(media.Schema, requests)
				}
			}
			for _, answer := range op.Responses.Map() {
				for _, media := range answer.Value.Content {
					objects(media.Schema, answers)
				}
			}
		}
	}
	require.Greater(t, len(requests), 10)
	require.Greater(t, len(answers), 10)
	for schema := range requests {
		require.NotNil(t, schema.AdditionalProperties.Has, schema.Properties)
		require.False(t, *schema.AdditionalProperties.Has)
	}
	for schema := range answers {
		require.Nil(t, schema.AdditionalProperties.Has, schema.Properties)
	}
}

// TestDocumentAndRouterAgree: every route is documented, with its path parameters, and nothing else is.
func TestDocumentAndRouterAgree(t *testing.T) {
	t.Parallel()
	s := newBareAPI(t)
	doc := loadDocument(t, s.API)
	routed := map[string]bool{}
	require.NoError(t, chi.Walk(s.router, func(method, path string, _ http.Handler, _ ...func(http.Handler) http.Handler) error {
		if method == http.MethodHead || strings.HasPrefix(path, "/docs") {
			return nil // goes without saying
		}
		routed[method+" "+path] = true
		op := doc.Paths.Value(path).GetOperation(method)
		require.NotNil(t, op, "%s %s", method, path)
		require.NotEmpty(t, op.Summary)
		require.NotEmpty(t, op.OperationID)
		for part := range strings.SplitSeq(path, "/") {
			if name, ok := strings.CutPrefix(part, "{"); ok {
				require.NotNil(t, op.Parameters.GetByInAndName("path", strings.TrimSuffix(name, "}")), path)
			}
		}
		protected := strings.HasPrefix(path, "/accounts/")
		require.Equal(t, protected, op.Security != nil, path)
		if protected {
			for _, status := range []int{400, 401, 500, 503} {
				require.NotNil(t, op.Responses.Status(status), "%s %s %d", method, path, status)
			}
		}
		return nil
	}))
	for path, item := range doc.Paths.Map() {
		for method := range item.Operations() {
			require.True(t, routed[method+" "+path], "%s %s", method, path)
		}
	}
}
