package httpapi

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"mime"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	jsonv1 "github.com/go-json-experiment/json/v1"

	"github.com/payment-services/accounts/internal/errcode"
)

const (
	// bodyTimeout is how long a request may take to arrive, from its first byte to the end of its body:
	// 1 MiB over a bad mobile connection.
	bodyTimeout = 10 * time.Second
	// slowBodyTimeout is how long the whole body of a bulk route may take: 16 MiB at 2 Mbit/s.
	slowBodyTimeout = 70 * time.Second
	// bodyWindow is how many bytes of such a body must arrive within each bodyTimeout.
	bodyWindow = 256 << 10
	// freeBodyBytes of each body are not counted against bodyMemory: a connection costs as much anyway.
	freeBodyBytes = 4 << 10
	// defaultBodyMemory bounds the bodies that are held at once: two full bulk bodies and a thousand
	// small ones. Decoding and writing a body need about three times its size in addition.
	defaultBodyMemory = 40 << 20
	// maxDepth bounds the nesting of a body, and so the length of a field's path. A profile, the
	// deepest value that is stored, has 32 levels.
	maxDepth = 64
	// maxValues bounds the values of a body. A profile of 16 KiB has at most 8,000.
	maxValues = 10_000
	// maxTextBytes bounds each string. The largest text that is stored is a profile of 16 KiB.
	maxTextBytes = 64 << 10
	// maxNameBytes bounds the name of each member of an object.
	maxNameBytes = 512
	// maxDigits bounds a number when it is written without an exponent. PostgreSQL stores 1e5000 with all
	// its digits and returns it so, which Python refuses to read and JavaScript reads as Infinity.
	maxDigits = 40
)

// Errors of a body as a whole. Nothing else about the body is reported beside them.
var (
	errTooDeep       = invalidJSON(fmt.Sprintf("must not nest deeper than %d levels", maxDepth))
	errBodyRequired  = invalidBody("required", "this route needs a JSON body")
	errTrailingData  = invalidJSON("must be one JSON document, and nothing may follow it")
	errTooManyBodies = &errcode.Error{
		Code: errcode.Overloaded, RetryAfter: time.Second,
		Message: "the service is receiving too many large bodies at the moment; try again later",
	}
)

func invalidJSON(message string) *errcode.Error { return invalidBody("invalid_json", message) }

func invalidBody(code, message string) *errcode.Error {
	return errcode.Invalid(errcode.Field{Field: "body", Code: code, Message: message})
}

// readBody returns the JSON body of a request, checked against the schema of the route's body type,
// which is T. in.err returns what is wrong with it; then T has the members that could be decoded.
func readBody[T any](in *input) T {
	var v T
	data, err := in.readAll()
	if err == nil {
		before := in.fields
		if err = in.checkBody(data); err != nil {
			in.fields = before // errors in a part of the body do not matter any more
		}
	}
	if err != nil {
		in.fatal = err
		return v
	}
	if in.fields != nil {
		if slices.ContainsFunc(in.fields, func(f errcode.Field) bool { return f.Code == "too_many" }) {
			return v // its size is not bounded by the schema
		}
		// For the domain, which checks the members that are well-formed: a client learns of all errors at
		// once. Errors of decoding are among in.fields already.
		_ = json.Unmarshal(data, &v, jsonv1.ReportErrorsWithLegacySemantics(true), jsontext.AllowDuplicateNames(true))
		return v
	}
	if err := json.Unmarshal(data, &v); err != nil {
		in.fatal = fmt.Errorf("decode a body that matches its schema: %w", err)
	}
	return v
}

// readAll returns the bytes of a body whose Content-Type is JSON.
func (in *input) readAll() ([]byte, error) {
	if err := in.checkMediaType(); err != nil {
		return nil, err
	}
	limit := in.api.maxBodyBytes
	if in.route.maxBody != 0 {
		limit = in.route.maxBody
	}
	tooLarge := errcode.New(errcode.PayloadTooLarge, fmt.Sprintf("the body must not exceed %d bytes", limit))
	if in.r.ContentLength > limit {
		return nil, tooLarge
	}
	body := http.MaxBytesReader(in.w.ResponseWriter, in.r.Body, limit)
	var data []byte
	for {
		if len(data) == cap(data) {
			var err error
			if data, err = in.growBody(data); err != nil {
				return nil, err
			}
		}
		n, err := body.Read(data[len(data):cap(data)])
		data = data[:len(data)+n]
		switch {
		case err == io.EOF:
			return data, in.endBody()
		case errors.As(err, new(*http.MaxBytesError)):
			return nil, in.unreadable(tooLarge)
		case err != nil:
			return nil, in.unreadable(err)
		}
	}
}

// growBody returns data with room for more. The room grows with what has arrived, not with what
// Content-Length announces: a client that sends nothing takes no memory.
func (in *input) growBody(data []byte) ([]byte, error) {
	size := max(freeBodyBytes, 2*int64(cap(data)))
	if announced := in.r.ContentLength; announced >= int64(len(data)) {
		size = min(size, announced+1) // the end may be found by another read
	}
	if more := size - freeBodyBytes - in.held; more > 0 {
		if !in.api.bodyMemory.TryAcquire(more) {
			return nil, errTooManyBodies
		}
		in.held += more
	}
	return append(make([]byte, 0, size), data...), nil
}

// release returns the memory of the body to the other requests.
func (in *input) release() {
	if in.held > 0 {
		in.api.bodyMemory.Release(in.held)
	}
}

// endBody reads what follows the part of the body that was used, such as the epilogue of a form. It
// returns an error if the body is cut off or goes on.
func (in *input) endBody() error {
	if _, err := io.CopyN(io.Discard, in.r.Body, maxUnreadBytes); err == nil {
		return in.unreadable(invalidBody("trailing_data", "must end after its closing boundary"))
	} else if err != io.EOF {
		return in.unreadable(err)
	}
	in.w.unread = nil
	// The deadline would otherwise end the connection while the handler works.
	_ = http.NewResponseController(in.w).SetReadDeadline(time.Time{})
	return nil
}

// unreadable returns the coded error of a body that could not be read to its end because of err.
func (in *input) unreadable(err error) error {
	in.w.Header().Set("Connection", "close") // the rest of the body may still come
	switch {
	case errcode.Of(err) != errcode.Internal:
		return err
	case errors.Is(err, os.ErrDeadlineExceeded):
		return invalidBody("timeout", "did not arrive in time: "+in.arrivalRule())
	case errors.Is(err, io.ErrUnexpectedEOF):
		return invalidBody("truncated", "ended before its Content-Length or its last chunk")
	}
	return invalidBody("unreadable", "could not be read to its end")
}

// arrivalRule describes how fast the body of the route must arrive.
func (in *input) arrivalRule() string {
	if in.route.slow {
		return fmt.Sprintf("each %d KiB must arrive within %s, and the whole within %s",
			bodyWindow>>10, in.api.bodyTimeout, slowBodyTimeout)
	}
	return fmt.Sprintf("the whole request must arrive within %s", in.api.bodyTimeout)
}

// steadyBody is the body of a route whose bodies are large. The read deadline that the server sets for
// every request would cut off a slow client that makes progress; a fixed longer one would let a client
// that sends nothing keep its connection for as long. So the deadline moves on with the body.
type steadyBody struct {
	io.ReadCloser
	connection *http.ResponseController
	window     time.Duration // for each bodyWindow bytes
	end        time.Time     // of the whole body
	left       int           // bytes until the deadline moves
}

func (a *API) newSteadyBody(w *response, body io.ReadCloser) *steadyBody {
	b := &steadyBody{
		ReadCloser: body, connection: http.NewResponseController(w),
		window: a.bodyTimeout, end: time.Now().Add(slowBodyTimeout),
	}
	b.moveDeadline()
	return b
}

// Read implements io.Reader.
func (b *steadyBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.left -= n; b.left <= 0 && err == nil {
		b.moveDeadline()
	}
	return n, err
}

func (b *steadyBody) moveDeadline() {
	b.left = bodyWindow
	deadline := time.Now().Add(b.window)
	if deadline.After(b.end) {
		deadline = b.end
	}
	_ = b.connection.SetReadDeadline(deadline) // a test's recorder has none
}

func (in *input) checkMediaType() error {
	if len(in.r.Header["Content-Type"]) > 1 {
		return errcode.New(errcode.UnsupportedMediaType, "Content-Type must be given once")
	}
	wanted := "application/json"
	mediaType, params, err := mime.ParseMediaType(in.r.Header.Get("Content-Type"))
	known := mediaType == wanted
	if in.route.mergePatch {
		known = known || mediaType == "application/merge-patch+json"
		wanted = "application/merge-patch+json or " + wanted
	}
	if err != nil || !known || !isUTF8(params) {
		return errcode.New(errcode.UnsupportedMediaType, "Content-Type must be "+wanted+", in UTF-8")
	}
	return in.checkContentEncoding()
}

// isUTF8 reports whether the parameters of a media type name no other charset. Clients write utf-8 and
// utf8 in any case.
func isUTF8(params map[string]string) bool {
	charset, ok := params["charset"]
	return !ok || strings.EqualFold(charset, "utf-8") || strings.EqualFold(charset, "utf8")
}

func (in *input) checkContentEncoding() error {
	for _, encoding := range in.r.Header["Content-Encoding"] {
		if encoding != "" && !strings.EqualFold(encoding, "identity") {
			return errcode.New(errcode.UnsupportedMediaType, "the body must have no Content-Encoding")
		}
	}
	return nil
}

// checkBody checks a body against the limits above and the schema of the route. It notes every faulty
// field, and returns an error if the body is not JSON or exceeds a limit of the body as a whole.
func (in *input) checkBody(data []byte) error {
	if len(bytes.TrimLeft(data, " \t\r\n")) == 0 {
		return errBodyRequired
	}
	before := len(in.fields)
	err := in.newBodyCheck(data).run()
	if errors.Is(err, jsontext.ErrDuplicateName) {
		// The decoder stops at a name that occurs twice in an object. Compare the names here instead, to
		// report the other faulty fields too.
		in.fields = in.fields[:before:before]
		c := in.newBodyCheck(data, jsontext.AllowDuplicateNames(true))
		c.compareNames = true
		err = c.run()
	}
	if syntax, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		// The error's own text would repeat a part of the body.
		return invalidJSON(fmt.Sprintf("must be one JSON document in UTF-8; the error is at byte %d", syntax.ByteOffset))
	}
	return err
}

// bodyCheck reads a JSON document token by token, checks each against limits and a schema, and stores
// nothing. The path of a field is made only if there is an error to report.
type bodyCheck struct {
	in           *input
	decoder      *jsontext.Decoder
	values       int  // that were read
	maxValues    int  // that may be read
	compareNames bool // report each duplicate name; otherwise the decoder refuses the first
	text         []byte
}

func (in *input) newBodyCheck(data []byte, options ...jsontext.Options) *bodyCheck {
	c := &bodyCheck{in: in, decoder: jsontext.NewDecoder(bytes.NewBuffer(data), options...), maxValues: in.route.maxValues}
	if c.maxValues == 0 {
		c.maxValues = maxValues
	}
	return c
}

// run checks the document. Its error means that the rest was not read.
func (c *bodyCheck) run() error {
	if err := c.value(c.in.route.schema); err != nil {
		return err
	}
	if _, err := c.decoder.ReadToken(); err == nil {
		return errTrailingData
	} else if err != io.EOF {
		return err
	}
	return nil
}

// anyValue is the schema of the values inside a free object.
var anyValue = &huma.Schema{}

// value checks the next value against a schema made from a type of this package. It knows the keywords
// that those types use; a test refuses others. Without a schema only the limits of the body as a whole
// count: there is an error about the value already.
func (c *bodyCheck) value(s *huma.Schema) error {
	if c.values++; c.values > c.maxValues {
		return invalidBody("too_many", fmt.Sprintf("must not have more than %d values", c.maxValues))
	}
	if c.decoder.StackDepth() > maxDepth {
		return errTooDeep
	}
	if s != nil && s.Ref != "" {
		s = c.in.api.registry.SchemaFromRef(s.Ref)
	}
	kind := c.decoder.PeekKind()
	switch kind {
	case '{':
		return c.object(s)
	case '[':
		return c.array(s)
	}
	raw, err := c.decoder.ReadValue()
	if err != nil || s == nil {
		return err
	}
	switch {
	case kind == 'n':
		if s != anyValue && !s.Nullable {
			c.wrong("null", "must not be null; leave it out")
		}
	case s != anyValue && s.Type != typeOf(kind):
		c.wrongType(s)
	case kind == '"':
		c.string(s, raw)
	case kind == '0' && expandsTooFar(raw):
		c.wrong("invalid_number", fmt.Sprintf("must have at most %d digits when it is written without an exponent", maxDigits))
	}
	return nil
}

// typeOf returns the name of a type of JSON Schema.
func typeOf(kind jsontext.Kind) string {
	switch kind {
	case '"':
		return huma.TypeString
	case '0':
		return huma.TypeNumber
	case 't', 'f':
		return huma.TypeBoolean
	}
	return ""
}

func (c *bodyCheck) object(s *huma.Schema) error {
	if _, err := c.decoder.ReadToken(); err != nil {
		return err
	}
	if s != nil && s != anyValue && s.Type != huma.TypeObject {
		c.wrongType(s)
		s = nil
	}
	var names map[string]bool
	if c.compareNames {
		names = map[string]bool{}
	}
	given := uint64(0) // bit i: the object has s.Required[i]
	for c.decoder.PeekKind() != '}' {
		raw, err := c.decoder.ReadValue()
		if err != nil {
			return err
		}
		name := c.unquote(raw)
		member := c.member(s, name)
		if s != nil {
			if i := slices.Index(s.Required, string(name)); i >= 0 {
				given |= 1 << i
			}
		}
		if names[string(name)] {
			c.wrong("duplicate", "the object has this field twice")
			member = nil
		} else if c.compareNames {
			names[string(name)] = true
		}
		if err := c.value(member); err != nil {
			return err
		}
	}
	if _, err := c.decoder.ReadToken(); err != nil {
		return err
	}
	if s != nil && bits.OnesCount64(given) < len(s.Required) {
		for i, name := range s.Required {
			if given&(1<<i) == 0 {
				c.wrongAt(c.decoder.StackDepth(), name, "required", "this field is required")
			}
		}
	}
	return nil
}

// member returns the schema of the member whose name was just read.
func (c *bodyCheck) member(s *huma.Schema, name []byte) *huma.Schema {
	if s == nil {
		return nil
	}
	if s != anyValue && s.AdditionalProperties == false {
		property, ok := s.Properties[string(name)]
		if !ok {
			c.wrong("unknown", "there is no such field here")
		}
		return property
	}
	object := c.decoder.StackDepth() - 1 // of the path to the object
	if bytes.IndexByte(name, 0) >= 0 {
		c.wrongAt(object, "", "invalid_text", "must have no NUL in its names")
	}
	if len(name) > maxNameBytes {
		c.wrongAt(object, "", "name_too_long", fmt.Sprintf("must have no name of more than %d bytes", maxNameBytes))
	}
	return anyValue
}

func (c *bodyCheck) array(s *huma.Schema) error {
	if _, err := c.decoder.ReadToken(); err != nil {
		return err
	}
	items := s
	if s != nil && s != anyValue {
		if s.Type != huma.TypeArray {
			c.wrongType(s)
			s = nil
		}
		items = nil
		if s != nil {
			items = s.Items
		}
	}
	n, before := 0, len(c.in.fields)
	for c.decoder.PeekKind() != ']' {
		if n++; s != nil && s.MaxItems != nil && n > *s.MaxItems {
			c.in.fields = c.in.fields[:before] // the errors of its items do not matter any more
			c.wrongAt(c.decoder.StackDepth()-1, "", "too_many", fmt.Sprintf("must have at most %d items", *s.MaxItems))
			s, items = nil, nil
		}
		if err := c.value(items); err != nil {
			return err
		}
	}
	if _, err := c.decoder.ReadToken(); err != nil {
		return err
	}
	if s != nil && s.MinItems != nil && n < *s.MinItems {
		c.wrong("too_few", fmt.Sprintf("must have at least %d items", *s.MinItems))
	}
	return nil
}

func (c *bodyCheck) string(s *huma.Schema, raw jsontext.Value) {
	text := c.unquote(raw)
	length := utf8.RuneCount(text)
	switch {
	case s.MinLength != nil && length < *s.MinLength:
		c.wrong("too_short", fmt.Sprintf("must have at least %d characters", *s.MinLength))
	case s.MaxLength != nil && length > *s.MaxLength:
		c.wrong("too_long", fmt.Sprintf("must have at most %d characters", *s.MaxLength))
	case len(text) > maxTextBytes:
		c.wrong("too_long", fmt.Sprintf("must have at most %d bytes", maxTextBytes))
	case s == anyValue && bytes.IndexByte(text, 0) >= 0: // no text of the database can hold it
		c.wrong("invalid_text", "must have no NUL")
	case s.Enum != nil && !slices.Contains(s.Enum, any(string(text))):
		c.wrong("unknown", "must be one of "+strings.Trim(fmt.Sprint(s.Enum), "[]"))
	case s.Format == "uuid":
		if _, ok := parseUUID(string(text)); !ok {
			c.wrong("invalid_uuid", uuidMessage)
		}
	}
}

// unquote returns the text of a JSON string. It is valid until the next call.
func (c *bodyCheck) unquote(raw jsontext.Value) []byte {
	if bytes.IndexByte(raw, '\\') < 0 {
		return raw[1 : len(raw)-1]
	}
	c.text, _ = jsontext.AppendUnquote(c.text[:0], raw) // the decoder accepted it
	return c.text
}

// wrong notes what is wrong with the value or name that was just read.
func (c *bodyCheck) wrong(code, message string) { c.wrongAt(-1, "", code, message) }

func (c *bodyCheck) wrongType(s *huma.Schema) { c.wrong("invalid_type", "must be of the type "+s.Type) }

// wrongAt notes what is wrong with a member of what path(depth) leads to, or without a member with
// that itself.
func (c *bodyCheck) wrongAt(depth int, member, code, message string) {
	if len(c.in.fields) == maxErrors {
		return // without making a path that is not used
	}
	field := c.path(depth)
	if member != "" {
		field = join(field, member)
	}
	if field == "" {
		field = "body"
	}
	c.in.wrong(field, code, message)
}

// path returns the first depth names and indexes on the way to the value that was just read, or all of
// them if depth is negative: parts[0].value.
func (c *bodyCheck) path(depth int) string {
	path, level := "", 0
	for token := range c.decoder.StackPointer().Tokens() {
		if level == depth {
			break
		}
		level++
		if container, _ := c.decoder.StackIndex(level); container == '[' {
			i, _ := strconv.Atoi(token) // the decoder counted it
			path = index(path, i)
		} else {
			path = join(path, shownName(token))
		}
	}
	return path
}

// expandsTooFar reports whether a JSON number has more than maxDigits digits when it is written without
// an exponent.
func expandsTooFar(number []byte) bool {
	number = bytes.TrimPrefix(number, []byte("-"))
	exponent := 0
	if i := bytes.IndexAny(number, "eE"); i >= 0 {
		e, err := strconv.Atoi(string(bytes.TrimPrefix(number[i+1:], []byte("+"))))
		if err != nil || e < -maxDigits || e > maxDigits {
			return true
		}
		number, exponent = number[:i], e
	}
	integer, fraction, _ := bytes.Cut(number, []byte("."))
	leadingZeros := 0
	for _, digits := range [][]byte{integer, fraction} {
		significant := bytes.TrimLeft(digits, "0")
		if leadingZeros += len(digits) - len(significant); len(significant) > 0 {
			break
		}
	}
	return max(len(integer)+exponent-leadingZeros, 1)+max(len(fraction)-exponent, 0) > maxDigits
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

func index(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }
