package httpapi

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestGeneratedRequests sends what the document allows, and what it does not: no answer is a 5xx, and
// each is documented.
func TestGeneratedRequests(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	user := s.createIvan()
	g := &generator{ids: []string{
		user.ID.String(), user.Groups[0].ID.String(), user.Groups[1].ID.String(), user.Contacts[0].ID.String(), absentID,
	}}
	type operation struct {
		method, path string
		*openapi3.Operation
	}
	var operations []operation
	for path, item := range theContract().Paths.Map() {
		for method, op := range item.Operations() {
			operations = append(operations, operation{method, path, op})
		}
	}
	slices.SortFunc(operations, func(a, b operation) int { return strings.Compare(a.path+a.method, b.path+b.method) })
	successes := map[string]bool{}
	property := func(t *rapid.T) {
		op := rapid.SampledFrom(operations).Draw(t, "operation")
		// Half of the requests are as documented, and so find what lies behind the checks.
		g.wrong = rapid.SampledFrom([]int{0, 0, 0, 8, 30}).Draw(t, "wrong")
		r := g.request(t, op.method, op.path, op.Operation)
		r.Header.Set("Authorization", s.auth)
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		require.Less(t, w.Code, 500, "%s %s: %s", r.Method, r.URL, w.Body)
		requireDocumented(t, r, w)
		if w.Code < 300 {
			successes[op.OperationID] = true
		}
	}
	for range 5 { // a hundred requests each
		rapid.Check(t, property)
	}
	require.Greater(t, len(successes), len(operations)/4, "most requests are refused at the door")
}

// generator makes requests from the document. wrong is how many of a hundred parts are not as it says.
type generator struct {
	ids   []string
	wrong int
}

var nastyTexts = []string{
	"", " ", "+79991234567", "8 (999) 123-45-67", "ivan", "IVAN@EXAMPLE.COM", "client", "phone", "second_login", "email", "null",
	"\x00", "a\x00b", "\u202eabc", "🦊", "é", "ﬃ", "'; DROP TABLE accounts.users; --", "%s%n", "../../etc/passwd", "a,b", "\r\nX: y",
	"=1+1", "{\"a\":1}", "-1", "1e400", "9223372036854775808", "AZmhsgAAcACAAAAAAAAAAQ", exampleTime, `"1-x"`, "*", "\ufffd",
	strings.Repeat("я", 255), strings.Repeat("x", 256), strings.Repeat("9", 5000),
}

func (g *generator) errs(t *rapid.T) bool {
	return rapid.IntRange(0, 99).Draw(t, "err") < g.wrong
}

func (g *generator) request(t *rapid.T, method, path string, op *openapi3.Operation) *http.Request {
	query := url.Values{}
	header := http.Header{}
	for _, p := range op.Parameters {
		if !p.Value.Required && rapid.Bool().Draw(t, "leave out") || p.Value.In != "path" && g.errs(t) {
			continue
		}
		text := g.text(t, p.Value.Schema.Value)
		switch p.Value.In {
		case "path":
			if text == "" {
				text = "x" // another route
			}
			path = strings.Replace(path, "{"+p.Value.Name+"}", url.PathEscape(text), 1)
		case "query":
			query.Add(p.Value.Name, text)
		case "header":
			header.Set(p.Value.Name, strings.Map(printable, text))
		}
	}
	if g.errs(t) {
		query.Add(rapid.SampledFrom([]string{"x", "page", "identifier", "\x00"}).Draw(t, "extra"), "1")
	}
	body := ""
	if op.RequestBody != nil {
		body = g.body(t, op, header)
	}
	rawQuery := query.Encode()
	if g.errs(t) {
		rawQuery += rapid.SampledFrom([]string{"&%", "&&&", "&=", ";", "&%ff=%ff", "&limit=%zz"}).Draw(t, "query")
	}
	r := httptest.NewRequest(method, "/", strings.NewReader(body))
	u, err := url.Parse(path)
	require.NoError(t, err)
	u.RawQuery = rawQuery
	r.URL, r.Header = u, header
	return r
}

func (g *generator) body(t *rapid.T, op *openapi3.Operation, header http.Header) string {
	if op.RequestBody.Value.Content["multipart/form-data"] != nil {
		lines := []string{rapid.SampledFrom([]string{"phone,user_groups", "phone", "Phone;USER_GROUPS", "x"}).Draw(t, "columns")}
		for range rapid.IntRange(0, 5).Draw(t, "rows") {
			lines = append(lines, rapid.SampledFrom(nastyTexts).Draw(t, "phone")+","+rapid.SampledFrom(nastyTexts).Draw(t, "groups"))
		}
		name := rapid.SampledFrom([]string{"a.csv", "a.xlsx", "a.xls", "a.txt"}).Draw(t, "name")
		body := "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"" + name + "\"\r\n\r\n" + strings.Join(lines, "\n") + "\r\n--b--\r\n"
		header.Set("Content-Type", "multipart/form-data; boundary=b")
		return g.damage(t, body)
	}
	data, err := json.Marshal(g.value(t, op.RequestBody.Value.Content["application/json"].Schema.Value, 0))
	require.NoError(t, err)
	header.Set("Content-Type", "application/json")
	if g.errs(t) {
		header.Set("Content-Type", rapid.SampledFrom([]string{"", "text/plain", "application/json; charset=utf-16"}).Draw(t, "type"))
	}
	return g.damage(t, string(data))
}

func (g *generator) damage(t *rapid.T, body string) string {
	if !g.errs(t) || body == "" {
		return body
	}
	at := rapid.IntRange(0, len(body)-1).Draw(t, "at")
	return body[:at] + rapid.SampledFrom([]string{"", "\xff", "\x00", "}", ",", "null", "[[[["}).Draw(t, "damage") + body[at+1:]
}

// text is the value of a parameter.
func (g *generator) text(t *rapid.T, s *openapi3.Schema) string {
	if g.errs(t) {
		return rapid.SampledFrom(nastyTexts).Draw(t, "text")
	}
	switch v := g.value(t, s, 0).(type) {
	case string:
		return v
	case bool:
		return strconv.FormatBool(v)
	case int:
		return strconv.Itoa(v)
	}
	return "1"
}

func (g *generator) value(t *rapid.T, s *openapi3.Schema, depth int) any {
	if g.errs(t) {
		return rapid.SampledFrom([]any{nil, true, -1, 1.5, "x", "", []any{}, []any{nil}, map[string]any{}, map[string]any{"a": 1}}).Draw(t, "wrong")
	}
	switch {
	case len(s.Enum) > 0:
		return rapid.SampledFrom(s.Enum).Draw(t, "enum")
	case s.Type.Includes("object"):
		return g.object(t, s, depth)
	case s.Type.Includes("array"):
		array := []any{}
		for range rapid.IntRange(int(s.MinItems), int(s.MinItems)+3).Draw(t, "items") {
			array = append(array, g.value(t, s.Items.Value, depth+1))
		}
		return array
	case s.Type.Includes("boolean"):
		return rapid.Bool().Draw(t, "boolean")
	case s.Type.Includes("integer"):
		low, high := 0, 1000
		if s.Min != nil && s.Max != nil {
			low, high = int(*s.Min), int(*s.Max)
		}
		return rapid.IntRange(low, high).Draw(t, "integer")
	case s.Format == "uuid":
		return rapid.SampledFrom(g.ids).Draw(t, "uuid")
	case s.Format == "date-time":
		return exampleTime
	}
	fits := func(text string) bool {
		n := len([]rune(text))
		return n >= int(s.MinLength) && (s.MaxLength == nil || n <= int(*s.MaxLength))
	}
	if rapid.Bool().Draw(t, "nasty") {
		return rapid.SampledFrom(nastyTexts).Filter(fits).Draw(t, "nasty text")
	}
	return rapid.StringN(int(s.MinLength), 20, -1).Filter(fits).Draw(t, "any text")
}

func (g *generator) object(t *rapid.T, s *openapi3.Schema, depth int) map[string]any {
	object := map[string]any{}
	names := make([]string, 0, len(s.Properties))
	for name := range s.Properties {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if slices.Contains(s.Required, name) && !g.errs(t) || rapid.Bool().Draw(t, "optional") {
			object[name] = g.value(t, s.Properties[name].Value, depth+1)
		}
	}
	if len(names) == 0 { // free-form
		object[rapid.SampledFrom(nastyTexts).Draw(t, "name")] = rapid.SampledFrom(nastyTexts).Draw(t, "value")
	}
	if g.errs(t) {
		object[rapid.SampledFrom(nastyTexts).Draw(t, "unknown")] = 1
	}
	return object
}

// printable leaves out what no header can hold.
func printable(c rune) rune {
	if c < ' ' || c > '~' {
		return -1
	}
	return c
}
