package httpapi

import (
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/payment-services/accounts/internal/errcode"
)

const (
	exampleID   = "0199a1b2-0000-7000-8000-000000000001"
	exampleTime = "2026-01-31T12:00:00Z"
)

// example returns a value that fits the schema, made of the examples of its parts.
func (a *API) example(s *huma.Schema) any {
	if s.Ref != "" {
		s = a.registry.SchemaFromRef(s.Ref)
	}
	switch {
	case len(s.Examples) > 0:
		return s.Examples[0]
	case len(s.Enum) > 0:
		return s.Enum[0]
	case len(s.OneOf) > 0:
		return a.example(s.OneOf[0])
	case len(s.AnyOf) > 0:
		return a.example(s.AnyOf[0])
	}
	switch s.Type {
	case huma.TypeObject:
		object := map[string]any{}
		for name, property := range s.Properties {
			object[name] = a.example(property)
		}
		if value, ok := s.AdditionalProperties.(*huma.Schema); ok {
			object["redis"] = a.example(value)
		}
		return object
	case huma.TypeArray:
		return []any{a.example(s.Items)}
	case huma.TypeInteger:
		return 1
	case huma.TypeBoolean:
		return true
	}
	if s.Format == "date-time" {
		return exampleTime
	}
	return "text"
}

// documented returns the parameters as the document shows them. Those that must be there have an
// example; a page that tries the API out would send the examples, and the defaults, of the others too,
// and not all of them go together.
func (a *API) documented(params []*huma.Param) []*huma.Param {
	shown := make([]*huma.Param, len(params))
	for i, p := range params {
		copied := *p
		if p.Required {
			copied.Example = a.example(p.Schema)
		}
		if p == limitParam {
			schema := *p.Schema
			schema.Default = nil
			copied.Schema = &schema
		}
		shown[i] = &copied
	}
	return shown
}

// exampleProblem is an answer with this code.
func exampleProblem(code errcode.Code, path string) Problem {
	e := errcode.New(code, http.StatusText(statuses[code]))
	switch code {
	case errcode.Validation:
		e = errcode.Invalid(errcode.Field{Field: "id", Code: "invalid_uuid", Message: uuidMessage})
	case errcode.NotFound:
		e = errcode.Missing("User", exampleID)
	case errcode.PreconditionFailed:
		e.Version = 4
	}
	return newProblem(e, path, "JBSWY3DPEHPK3PXP")
}
