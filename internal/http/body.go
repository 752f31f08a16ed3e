package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
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
	// bodyTimeout is how long a body may take to arrive: 1 MiB over a bad mobile connection.
	bodyTimeout = 10 * time.Second
	// slowBodyTimeout is the same for the bodies of bulk routes: 16 MiB at 2 Mbit/s.
	slowBodyTimeout = 70 * time.Second
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
	if in.route.maxBody != 0 {
		limit = in.route.maxBody
	}
	tooLarge := errcode.New(errcode.PayloadTooLarge, fmt.Sprintf("the body may have %d bytes", limit))
	if in.r.ContentLength > limit {
		return nil, tooLarge
	}
	bodyArrived := in.expectBody()
	data, err := io.ReadAll(http.MaxBytesReader(in.w.ResponseWriter, in.r.Body, limit))
	if err == nil {
		bodyArrived()
		return data, nil
	}
	if errors.As(err, new(*http.MaxBytesError)) {
		err = tooLarge
	}
	return nil, in.unreadable(err)
}

// expectBody gives the body its time to arrive, until the returned function is called: left in place
// the deadline would end the connection under the handler. A test's recorder has none.
func (in *input) expectBody() (arrived func()) {
	connection := http.NewResponseController(in.w)
	_ = connection.SetReadDeadline(time.Now().Add(in.route.bodyTimeout()))
	return func() { _ = connection.SetReadDeadline(time.Time{}) }
}

// unreadable returns the coded error of a body that could not be read to its end because of err.
func (in *input) unreadable(err error) error {
	in.w.Header().Set("Connection", "close") // the rest of the body may still come
	switch {
	case errcode.Of(err) != errcode.Internal:
		return err
	case errors.Is(err, os.ErrDeadlineExceeded):
		in.wrong("body", "timeout", fmt.Sprintf("must arrive within %s", in.route.bodyTimeout()))
	case errors.Is(err, io.ErrUnexpectedEOF):
		return errClientGone
	default:
		in.wrong("body", "unreadable", "could not be read to its end")
	}
	return errcode.Invalid(in.fields...)
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
	return in.checkContentEncoding()
}

func (in *input) checkContentEncoding() error {
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
		in.checkFree(object, path) // the domain limits its size and depth
		return
	}
	for _, name := range slices.Sorted(maps.Keys(object)) { // or the answer would differ from time to time
		if property, ok := s.Properties[name]; ok {
			in.check(property, object[name], join(path, name))
		} else {
			in.wrong(join(path, shownName(name)), "unknown", "there is no such field here")
		}
	}
}

// checkFree finds what no database text can hold.
func (in *input) checkFree(v any, path string) {
	switch v := v.(type) {
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(v)) {
			if strings.ContainsRune(name, 0) {
				in.wrong(path, "invalid_text", "must have no NUL in its names")
			}
			in.checkFree(v[name], join(path, shownName(name)))
		}
	case []any:
		for i, item := range v {
			in.checkFree(item, index(path, i))
		}
	case string:
		if strings.ContainsRune(v, 0) {
			in.wrong(path, "invalid_text", "must have no NUL")
		}
	}
}

func (in *input) checkArray(s *huma.Schema, array []any, path string) {
	if s.MinItems != nil && len(array) < *s.MinItems {
		in.wrong(path, "too_few", fmt.Sprintf("must have at least %d items", *s.MinItems))
	}
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
