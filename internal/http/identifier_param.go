package httpapi

import (
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
)

// maxIdentifierRunes is the longest contact value that is stored.
const maxIdentifierRunes = 255

// identifier returns the value of the identifier parameter.
func (in *input) identifier(p *huma.Param) string {
	raw, ok := in.raw(p)
	if !ok {
		return ""
	}
	text, err := decodeIdentifier(raw)
	switch {
	case err != nil || !utf8.ValidString(text):
		in.wrong(p.Name, "invalid_encoding", "must be percent-encoded UTF-8")
	case text == "":
		in.wrong(p.Name, "required", "this query parameter is required")
	case utf8.RuneCountInString(text) > maxIdentifierRunes:
		in.wrong(p.Name, "too_long", "must have at most 255 characters")
	}
	return text
}

// decodeIdentifier decodes the value of a query parameter so that a phone number or an address typed
// into a URL by hand means what its writer meant, and a form encoder's "+" is still a space:
//
//   - %2B is a plus and %20 a space. Where %2B occurs the writer encodes, and every literal + is a
//     space.
//   - Otherwise a literal + is a plus if the value contains @, or if it comes first and a digit
//     follows. Otherwise it is a space.
//   - A space before digits at the start is a plus that some client lost on the way.
func decodeIdentifier(raw string) (string, error) {
	literal, err := url.PathUnescape(raw) // leaves + alone
	if err != nil {
		return "", err
	}
	text := literal
	if encodes := strings.Contains(raw, "%2B") || strings.Contains(raw, "%2b"); encodes || !strings.Contains(literal, "@") {
		if text, err = url.QueryUnescape(raw); err != nil {
			return "", err
		}
		if !encodes && len(raw) > 1 && raw[0] == '+' && isDigit(literal[1]) {
			text = "+" + text[1:]
		}
	}
	if rest, ok := strings.CutPrefix(text, " "); ok && startsNumber(rest) {
		text = "+" + rest
	}
	return text, nil
}

// startsNumber reports whether text is digits, perhaps set apart as in a phone number. An address or a
// login that begins with a digit has lost no plus.
func startsNumber(text string) bool {
	return text != "" && isDigit(text[0]) && strings.Trim(text, "0123456789 ()-.") == ""
}
