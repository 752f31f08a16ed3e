package httpapi

import (
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/payment-services/accounts/internal/errcode"
)

// tokenScheme is the name of the security scheme in the document.
const tokenScheme = "bearer"

func newOpenAPI(version string, registry huma.Registry) *huma.OpenAPI {
	// An id is a [16]byte, which would otherwise be any string.
	registry.RegisterTypeAlias(reflect.TypeFor[uuid.UUID](), reflect.TypeFor[uuidText]())
	return &huma.OpenAPI{
		OpenAPI: "3.1.0",
		Info: &huma.Info{
			Title:   "Accounts",
			Version: version,
			Description: "Users, their contacts, groups and memberships. Every error is a Problem. " +
				"`X-Request-ID` may be chosen by the client and is on every answer.",
		},
		Components: &huma.Components{
			Schemas: registry,
			SecuritySchemes: map[string]*huma.SecurityScheme{
				tokenScheme: {Type: "http", Scheme: "bearer", BearerFormat: "JWT"},
			},
		},
		Tags: []*huma.Tag{
			{Name: tagUsers}, {Name: tagContacts}, {Name: tagGroups}, {Name: tagContactTypes},
			{Name: tagMemberships}, {Name: tagImports}, {Name: tagOperation},
		},
	}
}

// The tags of the document, one a resource.
const (
	tagUsers        = "users"
	tagContacts     = "contacts"
	tagGroups       = "user-groups"
	tagContactTypes = "contact-types"
	tagMemberships  = "user-group-memberships"
	tagImports      = "imports"
	tagOperation    = "operation"
)

// uuidText stands for uuid.UUID in schemas.
type uuidText string

// Schema implements huma.SchemaProvider.
func (uuidText) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeString, Format: "uuid", Examples: []any{exampleID}}
}

// freeObject is any JSON object, kept as it was sent.
type freeObject []byte

// Schema implements huma.SchemaProvider.
func (freeObject) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{
		Type: huma.TypeObject, AdditionalProperties: true, Examples: []any{map[string]any{"name": "Ivan"}},
	}
}

// MarshalJSON implements json.Marshaler.
func (o freeObject) MarshalJSON() ([]byte, error) { return o, nil }

// UnmarshalJSON implements json.Unmarshaler.
func (o *freeObject) UnmarshalJSON(data []byte) error {
	*o = slices.Clone(data)
	return nil
}

// operation describes a route in the document.
func (a *API) operation(rt *route) *huma.Operation {
	op := &huma.Operation{
		Method: rt.method, Path: rt.path, OperationID: rt.id, Tags: []string{rt.tag},
		Summary: rt.summary, Description: rt.description,
		Parameters: a.documented(rt.params),
		Responses:  map[string]*huma.Response{},
	}
	codes := slices.Clone(rt.errors)
	if rt.access != public {
		op.Security = []map[string][]string{{tokenScheme: {}}}
		codes = append(codes, errcode.Validation, errcode.Unauthenticated, errcode.RevocationUnavailable, errcode.Database,
			errcode.RateLimited)
	}
	if scope := rt.access.scope(); scope != "" {
		op.Description = strings.TrimSpace(op.Description + " Needs the scope " + scope + ".")
		codes = append(codes, errcode.Forbidden)
	}
	if rt.body != nil {
		content := map[string]*huma.MediaType{"application/json": a.content(rt.body)}
		if rt.mergePatch {
			content["application/merge-patch+json"] = a.content(rt.body)
		}
		op.RequestBody = &huma.RequestBody{Required: true, Content: content}
	}
	if rt.upload {
		op.RequestBody = uploadBody
	}
	if op.RequestBody != nil {
		codes = append(codes, errcode.PayloadTooLarge, errcode.UnsupportedMediaType)
	}
	if op.RequestBody != nil || rt.access == readAccess { // a large body, or a large answer
		codes = append(codes, errcode.Overloaded)
	}
	a.addSuccess(op, rt)
	a.addErrors(op, rt.path, append(codes, errcode.Internal))
	return op
}

func (a *API) addSuccess(op *huma.Operation, rt *route) {
	success := &huma.Response{Description: http.StatusText(rt.status), Headers: map[string]*huma.Header{}}
	for _, name := range append(rt.headers, "X-Request-ID") {
		success.Headers[name] = textHeader()
	}
	if rt.result != nil {
		mediaType := rt.mediaType
		if mediaType == "" {
			mediaType = "application/json"
		}
		success.Content = map[string]*huma.MediaType{mediaType: a.content(rt.result)}
	}
	op.Responses[strconv.Itoa(rt.status)] = success
	if rt.accepted != nil {
		op.Responses["202"] = &huma.Response{
			Description: "The work goes on in the background; Location says where to ask for it",
			Headers: map[string]*huma.Header{
				"Location": textHeader(), "Preference-Applied": textHeader(), "X-Request-ID": textHeader(),
			},
			Content: map[string]*huma.MediaType{"application/json": a.content(rt.accepted)},
		}
	}
	if slices.Contains(rt.params, ifNoneMatchParam) {
		op.Responses["304"] = &huma.Response{Description: "The client has this already", Headers: success.Headers}
	}
}

// addErrors documents one answer for each status, which names its codes.
func (a *API) addErrors(op *huma.Operation, path string, codes []errcode.Code) {
	texts := map[int][]string{}
	for _, code := range codes {
		texts[statuses[code]] = append(texts[statuses[code]], string(code))
	}
	for status, names := range texts {
		slices.Sort(names)
		content := a.content(reflect.TypeFor[Problem]())
		content.Example = exampleProblem(errcode.Code(names[0]), path)
		op.Responses[strconv.Itoa(status)] = &huma.Response{
			Description: strings.Join(slices.Compact(names), ", "),
			Content:     map[string]*huma.MediaType{"application/problem+json": content},
		}
	}
}

// allowNewMembersInAnswers removes additionalProperties: false from the schemas of answers, so that a
// client that was generated from this document accepts the members of later versions. The schemas of
// request bodies keep it: the service refuses unknown members.
func (a *API) allowNewMembersInAnswers() {
	inRequests := map[*huma.Schema]bool{}
	var visit func(s *huma.Schema)
	visit = func(s *huma.Schema) {
		if s != nil && s.Ref != "" {
			s = a.registry.SchemaFromRef(s.Ref)
		}
		if s == nil || inRequests[s] {
			return
		}
		inRequests[s] = true
		visit(s.Items)
		for _, property := range s.Properties {
			visit(property)
		}
	}
	for _, item := range a.openAPI.Paths {
		for _, op := range []*huma.Operation{item.Post, item.Put, item.Patch, item.Delete} {
			if op != nil && op.RequestBody != nil {
				for _, content := range op.RequestBody.Content {
					visit(content.Schema)
				}
			}
		}
	}
	for _, s := range a.registry.Map() {
		if s.AdditionalProperties == false && !inRequests[s] {
			s.AdditionalProperties = nil
		}
	}
}

func textHeader() *huma.Header { return &huma.Header{Schema: &huma.Schema{Type: huma.TypeString}} }

func (a *API) content(t reflect.Type) *huma.MediaType {
	schema := a.registry.Schema(t, true, "")
	return &huma.MediaType{Schema: schema, Example: a.example(schema)}
}

// Parameters that several routes have.
var (
	userIDParam = pathUUID("user_id")
	idParam     = pathUUID("id")
	cursorParam = queryText("cursor", "The next_cursor of the answer before, unchanged; empty for the first.", maxCursorRunes)
	limitParam  = queryInteger("limit", fmt.Sprintf("Items an answer; %d if left out.", defaultPageSize), 1, maxPageSize, defaultPageSize)
)

func pathUUID(name string) *huma.Param {
	return &huma.Param{Name: name, In: "path", Required: true, Schema: uuidText("").Schema(nil)}
}

func queryUUID(name, description string) *huma.Param {
	return &huma.Param{Name: name, In: "query", Description: description, Schema: uuidText("").Schema(nil)}
}

func queryBoolean(name, description string) *huma.Param {
	return &huma.Param{Name: name, In: "query", Description: description, Schema: &huma.Schema{Type: huma.TypeBoolean}}
}

func queryText(name, description string, longest int) *huma.Param {
	return &huma.Param{Name: name, In: "query", Description: description, Schema: &huma.Schema{
		Type: huma.TypeString, MaxLength: new(longest),
	}}
}

func queryChoice(name, description, standard string, choices ...any) *huma.Param {
	return &huma.Param{Name: name, In: "query", Description: description, Schema: &huma.Schema{
		Type: huma.TypeString, Enum: choices, Default: standard,
	}}
}

func queryInteger(name, description string, low, high, standard int) *huma.Param {
	return &huma.Param{Name: name, In: "query", Description: description, Schema: &huma.Schema{
		Type: huma.TypeInteger, Minimum: new(float64(low)), Maximum: new(float64(high)), Default: standard,
	}}
}
