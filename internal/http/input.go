package httpapi

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/payment-services/accounts/internal/errcode"
)

const (
	// maxErrors bounds the faulty fields of an answer: a body of 1 MiB can have 200,000 unknown fields.
	maxErrors = 50
	// maxQueryParams is more than any route has.
	maxQueryParams = 64
)

// input reads the parameters and the body of a request, and gathers everything that is wrong with
// them, so that a client learns of all its mistakes at once.
type input struct {
	api    *API
	w      *response
	r      *http.Request
	route  *route
	query  []queryPair
	fields []errcode.Field
	fatal  error // of the body as a whole, such as one that is too large or not JSON
	held   int64 // bytes of bodyMemory
}

// queryPair is one parameter of the query, its value as it was sent.
type queryPair struct{ name, raw string }

// newInput refuses query parameters that the route does not know: a misspelt filter must not be a
// list of everybody.
func newInput(a *API, w *response, r *http.Request, rt *route) *input {
	in := &input{api: a, w: w, r: r, route: rt}
	var complete bool
	if in.query, complete = splitQuery(r.URL.RawQuery); !complete {
		in.wrong("query", "too_many", fmt.Sprintf("must have at most %d parameters", maxQueryParams))
	}
	in.checkPreconditions()
	for _, pair := range in.query {
		known := slices.ContainsFunc(rt.params, func(p *huma.Param) bool {
			return p.In == "query" && p.Name == pair.name
		})
		if !known {
			in.wrong(shownName(pair.name), "unknown", "this route has no such query parameter")
		}
	}
	return in
}

// splitQuery cuts the query at "&" and decodes the names, of at most maxQueryParams parameters; complete
// reports whether these are all. A name that cannot be decoded stays as it is: no route knows it.
func splitQuery(raw string) (pairs []queryPair, complete bool) {
	for raw != "" {
		if len(pairs) == maxQueryParams {
			return pairs, false
		}
		var part string
		part, raw, _ = strings.Cut(raw, "&")
		if part == "" {
			continue
		}
		name, value, _ := strings.Cut(part, "=")
		if decoded, err := url.QueryUnescape(name); err == nil {
			name = decoded
		}
		pairs = append(pairs, queryPair{name, value})
	}
	return pairs, true
}

// err returns what is wrong with the request. Handlers call it before they use what they have read. If
// it is about fields, it has all of them.
func (in *input) err() error {
	e, ok := errors.AsType[*errcode.Error](in.fatal)
	switch {
	case in.fatal != nil && (!ok || e.Fields == nil || in.fields == nil):
		return in.fatal
	case ok:
		return errcode.Invalid(slices.Concat(e.Fields, in.fields)...)
	case in.fields != nil:
		return errcode.Invalid(in.fields...)
	}
	return nil
}

func (in *input) wrong(field, code, message string) {
	if len(in.fields) == maxErrors {
		return
	}
	in.fields = append(in.fields, errcode.Field{Field: field, Code: code, Message: message})
}

// alsoCheck lets the domain check a request that is faulty already, so that the answer has the errors of
// both. It leaves out fields that have an error, or that are part of one that has.
func (in *input) alsoCheck(check func() []errcode.Field) {
	if in.fatal != nil || in.fields == nil {
		return
	}
	noted := in.fields
	for _, f := range check() {
		if !slices.ContainsFunc(noted, func(n errcode.Field) bool { return n.Field == "body" || isWithin(f.Field, n.Field) }) {
			in.wrong(f.Field, f.Code, f.Message)
		}
	}
}

// isWithin reports whether a field is another one or a part of it: contacts[0].value is within
// contacts[0].
func isWithin(field, other string) bool {
	rest, ok := strings.CutPrefix(field, other)
	return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
}

// raw returns the value of a parameter as it was sent, and whether it is there.
func (in *input) raw(p *huma.Param) (string, bool) {
	switch p.In {
	case "path":
		return in.r.PathValue(p.Name), true
	case "query":
		first := slices.IndexFunc(in.query, func(q queryPair) bool { return q.name == p.Name })
		if first < 0 {
			if p.Required {
				in.wrong(p.Name, "required", "this query parameter is required")
			}
			return "", false
		}
		if slices.ContainsFunc(in.query[first+1:], func(q queryPair) bool { return q.name == p.Name }) {
			in.wrong(p.Name, "repeated", "may be given once")
			return "", false
		}
		return in.query[first].raw, true
	}
	panic("httpapi: no parameter is read from the " + p.In)
}

// has reports whether the request has one of these query parameters.
func (in *input) has(params ...*huma.Param) bool {
	return slices.ContainsFunc(params, func(p *huma.Param) bool {
		return slices.ContainsFunc(in.query, func(q queryPair) bool { return q.name == p.Name })
	})
}

// excludes reports these query parameters, if they are there, as ones that cannot stand beside others.
func (in *input) excludes(others string, params ...*huma.Param) {
	for _, p := range params {
		if in.has(p) {
			in.wrong(p.Name, "excluded", "cannot be combined with "+others)
		}
	}
}

// text returns the decoded value of a parameter, and whether there is one to look at.
func (in *input) text(p *huma.Param) (string, bool) {
	raw, ok := in.raw(p)
	if !ok {
		return "", false
	}
	unescape := url.QueryUnescape
	if p.In == "path" {
		if in.r.URL.RawPath == "" {
			return raw, true // nothing was escaped
		}
		unescape = url.PathUnescape
	}
	text, err := unescape(raw)
	if err != nil || !utf8.ValidString(text) {
		in.wrong(p.Name, "invalid_encoding", "must be percent-encoded UTF-8")
		return "", false
	}
	return text, true
}

// uuid returns the value of a parameter that must be an id.
func (in *input) uuid(p *huma.Param) uuid.UUID {
	if id := in.optionalUUID(p); id != nil {
		return *id
	}
	return uuid.Nil
}

func (in *input) optionalUUID(p *huma.Param) *uuid.UUID {
	text, ok := in.text(p)
	if !ok {
		return nil
	}
	id, ok := parseUUID(text)
	if !ok {
		in.wrong(p.Name, "invalid_uuid", uuidMessage)
		return nil
	}
	return &id
}

const uuidMessage = "must be a UUID: 32 hexadecimal digits in groups of 8-4-4-4-12"

// parseUUID reads the one form that format "uuid" of JSON Schema means: 36 characters. uuid.Parse alone
// accepts others too, and any two characters around a UUID.
func parseUUID(text string) (uuid.UUID, bool) {
	const canonicalLength = 36
	if len(text) != canonicalLength {
		return uuid.Nil, false
	}
	id, err := uuid.Parse(text)
	return id, err == nil
}

// integer returns the value of a parameter within the limits of its schema, or the schema's default.
func (in *input) integer(p *huma.Param) int {
	text, ok := in.text(p)
	if !ok {
		return p.Schema.Default.(int)
	}
	n, err := strconv.Atoi(text)
	if low, high := int(*p.Schema.Minimum), int(*p.Schema.Maximum); err != nil || n < low || n > high {
		in.wrong(p.Name, "invalid_integer", fmt.Sprintf("must be an integer from %d to %d", low, high))
	}
	return n
}

// shortText returns the value of a parameter within the limits of its schema.
func (in *input) shortText(p *huma.Param) string {
	text, _ := in.text(p)
	if longest := *p.Schema.MaxLength; utf8.RuneCountInString(text) > longest {
		in.wrong(p.Name, "too_long", fmt.Sprintf("must have at most %d characters", longest))
	}
	return text
}

// choice returns the value of a parameter that has few, or the schema's default.
func (in *input) choice(p *huma.Param) string {
	text, ok := in.text(p)
	if !ok {
		return p.Schema.Default.(string)
	}
	if !slices.Contains(p.Schema.Enum, any(text)) {
		in.wrong(p.Name, "unknown", "must be one of "+strings.Trim(fmt.Sprint(p.Schema.Enum), "[]"))
	}
	return text
}

func (in *input) boolean(p *huma.Param) *bool {
	text, ok := in.text(p)
	if !ok {
		return nil
	}
	if text != "true" && text != "false" {
		in.wrong(p.Name, "invalid_boolean", "must be true or false")
	}
	return new(text == "true")
}

func (in *input) time(p *huma.Param) *time.Time {
	text, ok := in.text(p)
	if !ok {
		return nil
	}
	// The "+" of a zone that was not encoded has become a space; RFC 3339 has no other.
	t, err := time.Parse(time.RFC3339, strings.ReplaceAll(text, " ", "+"))
	if err != nil {
		in.wrong(p.Name, "invalid_time", "must be an RFC 3339 date and time, such as 2026-01-31T00:00:00Z")
		return nil
	}
	return &t
}

// shownName returns a name that the client made up as an error may repeat it. What does not look like
// the name of a field may be a value that went astray, and values are not repeated.
func shownName(name string) string {
	const longest = 64
	if name == "" || len(name) > longest || isDigit(name[0]) {
		return "?"
	}
	for _, c := range []byte(name) {
		if !isAlphanumeric(c) && c != '_' && c != '-' && c != '$' {
			return "?"
		}
	}
	return name
}
