package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"

	"github.com/payment-services/accounts/internal/errcode"
)

const (
	// bodyTimeout is how long a JSON body may take to arrive: 1 MiB over a bad mobile connection.
	bodyTimeout = 10 * time.Second
	// maxDepth bounds the nesting of a body, and so the length of a field's path. A profile, the
	// deepest that is stored, has 32 levels.
	maxDepth = 64
)

var errTooDeep = errors.New("nested too deep")

// readBody returns the JSON body of a request, checked against the schema of the route's body type,
// which is T. What is wrong is told by in.err.
func readBody[T any](in *input) T {
	var v T
	data, err := in.readAll()
	if err != nil {
		in.fatal = err
		return v
	}
	tree, err := in.parse(data)
	if err != nil {
		in.fatal = err
		return v
	}
	in.check(in.route.schema, tree, "")
	if in.fields == nil {
		if err := json.Unmarshal(data, &v); err != nil {
			in.fatal = fmt.Errorf("decode a body that fits its schema: %w", err)
		}
	}
	return v
}

// readAll returns the bytes of a body that calls itself JSON.
func (in *input) readAll() ([]byte, error) {
	if err := in.checkMediaType(); err != nil {
		return nil, err
	}
	limit := in.api.maxBodyBytes
	tooLarge := errcode.New(errcode.PayloadTooLarge, fmt.Sprintf("the body may have %d bytes", limit))
	if in.r.ContentLength > limit {
		return nil, tooLarge
	}
	// The deadline is for the body alone: left in place it would end the connection under the handler.
	// A test's recorder has none.
	connection := http.NewResponseController(in.w)
	_ = connection.SetReadDeadline(time.Now().Add(bodyTimeout))
	data, err := io.ReadAll(http.MaxBytesReader(in.w.ResponseWriter, in.r.Body, limit))
	if err == nil {
		_ = connection.SetReadDeadline(time.Time{})
		return data, nil
	}
	in.w.Header().Set("Connection", "close") // the rest of the body may still come
	switch {
	case errors.As(err, new(*http.MaxBytesError)):
		return nil, tooLarge
	case errors.Is(err, os.ErrDeadlineExceeded):
		in.wrong("body", "timeout", fmt.Sprintf("must arrive within %s", bodyTimeout))
	case errors.Is(err, io.ErrUnexpectedEOF):
		return nil, errClientGone
	default:
		in.wrong("body", "unreadable", "could not be read to its end")
	}
	return nil, errcode.Invalid(in.fields...)
}

func (in *input) checkMediaType() error {
	wanted := "application/json"
	mediaType, params, err := mime.ParseMediaType(in.r.Header.Get("Content-Type"))
	known := mediaType == wanted
	if in.route.mergePatch {
		known = known || mediaType == "application/merge-patch+json"
		wanted = "application/merge-patch+json or " + wanted
	}
	charset, ok := params["charset"]
	if err != nil || !known || ok && !strings.EqualFold(charset, "utf-8") {
		return errcode.New(errcode.UnsupportedMediaType, "Content-Type must be "+wanted+", in UTF-8")
	}
	if encoding := in.r.Header.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
		return errcode.New(errcode.UnsupportedMediaType, "the body must have no Content-Encoding")
	}
	return nil
}

// parse returns the body as maps, slices, strings, json.Numbers and so on. Unlike encoding/json it
// refuses what two readers may understand differently: bytes that are not UTF-8, and two members of
// one name.
func (in *input) parse(data []byte) (any, error) {
	notJSON := func(message string) error {
		return errcode.Invalid(errcode.Field{Field: "body", Code: "invalid_json", Message: message})
	}
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, errcode.Invalid(errcode.Field{Field: "body", Code: "required", Message: "this route needs a JSON body"})
	}
	if !utf8.Valid(data) {
		return nil, notJSON("must be UTF-8")
	}
	// This scans all of it, so that the tokens below are well-formed.
	var raw json.RawMessage
	if err := json.Unmarshal(data, &raw); err != nil {
		message := "must be one JSON document"
		if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
			// Its text would repeat a character of the body.
			message = fmt.Sprintf("must be one JSON document; the fault is at byte %d", syntax.Offset)
		}
		return nil, notJSON(message)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	tree, err := in.parseValue(dec, "", 0)
	if errors.Is(err, errTooDeep) {
		return nil, notJSON(fmt.Sprintf("must not nest deeper than %d levels", maxDepth))
	}
	if err != nil {
		return nil, fmt.Errorf("decode valid JSON: %w", err)
	}
	return tree, nil
}

func (in *input) parseValue(dec *json.Decoder, path string, depth int) (any, error) {
	token, err := dec.Token()
	if err != nil {
		return nil, err
	}
	if depth > maxDepth {
		return nil, errTooDeep
	}
	switch token {
	case json.Delim('{'):
		object := map[string]any{}
		for dec.More() {
			key, err := dec.Token()
			if err != nil {
				return nil, err
			}
			name := key.(string)
			at := join(path, shownName(name))
			if _, ok := object[name]; ok {
				in.wrong(at, "duplicate", "this field stands here twice")
			}
			if object[name], err = in.parseValue(dec, at, depth+1); err != nil {
				return nil, err
			}
		}
		_, err = dec.Token()
		return object, err
	case json.Delim('['):
		array := []any{}
		for dec.More() {
			value, err := in.parseValue(dec, index(path, len(array)), depth+1)
			if err != nil {
				return nil, err
			}
			array = append(array, value)
		}
		_, err = dec.Token()
		return array, err
	}
	return token, nil
}

// check holds a value against a schema made from a type of this package. It knows the keywords that
// those types use; a test refuses others.
func (in *input) check(s *huma.Schema, v any, path string) {
	if s.Ref != "" {
		s = in.api.registry.SchemaFromRef(s.Ref)
	}
	field := path
	if field == "" {
		field = "body"
	}
	if v == nil && !s.Nullable {
		in.wrong(field, "null", "must not be null; leave it out")
		return
	}
	switch v := v.(type) {
	case map[string]any:
		if s.Type == huma.TypeObject {
			in.checkObject(s, v, path)
			return
		}
	case []any:
		if s.Type == huma.TypeArray {
			in.checkArray(s, v, path)
			return
		}
	case string:
		if s.Type == huma.TypeString {
			in.checkString(s, v, field)
			return
		}
	case bool:
		if s.Type == huma.TypeBoolean {
			return
		}
	case nil:
		return
	}
	in.wrong(field, "invalid_type", "must be of the type "+s.Type)
}

func (in *input) checkObject(s *huma.Schema, object map[string]any, path string) {
	for _, name := range s.Required {
		if _, ok := object[name]; !ok {
			in.wrong(join(path, name), "required", "this field is required")
		}
	}
	if s.AdditionalProperties != false {
		return // free-form: the domain limits its size and depth
	}
	names := make([]string, 0, len(object))
	for name := range object {
		names = append(names, name)
	}
	slices.Sort(names) // a map's order would make the answer differ from time to time
	for _, name := range names {
		if property, ok := s.Properties[name]; ok {
			in.check(property, object[name], join(path, name))
		} else {
			in.wrong(join(path, shownName(name)), "unknown", "there is no such field here")
		}
	}
}

func (in *input) checkArray(s *huma.Schema, array []any, path string) {
	if s.MaxItems != nil && len(array) > *s.MaxItems {
		in.wrong(path, "too_many", fmt.Sprintf("must have at most %d items", *s.MaxItems))
		return // or the answer could have as many errors as the body has bytes
	}
	for i, item := range array {
		in.check(s.Items, item, index(path, i))
	}
}

func (in *input) checkString(s *huma.Schema, text, field string) {
	length := utf8.RuneCountInString(text)
	switch {
	case s.MinLength != nil && length < *s.MinLength:
		in.wrong(field, "too_short", fmt.Sprintf("must have at least %d characters", *s.MinLength))
	case s.MaxLength != nil && length > *s.MaxLength:
		in.wrong(field, "too_long", fmt.Sprintf("must have at most %d characters", *s.MaxLength))
	case s.Enum != nil && !slices.Contains(s.Enum, any(text)):
		in.wrong(field, "unknown", "must be one of "+strings.Trim(fmt.Sprint(s.Enum), "[]"))
	case s.Format == "uuid":
		if _, ok := parseUUID(text); !ok {
			in.wrong(field, "invalid_uuid", uuidMessage)
		}
	}
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

func index(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }
