// Package identifier turns one text, whatever a person typed into the one field of a login form,
// into its kind and its canonical form, so that one text names at most one user.
//
// The kind is decided by form alone, for ever: the same text never changes its kind when phone
// metadata or a library does. In this order, once full-width characters are made narrow and the
// spaces around the text are gone:
//
//   - 32 hexadecimal digits among '{', '}' and '-', or a text that begins with urn:uuid:, is a uuid;
//   - a text with '@' is an email;
//   - 7 to 15 digits and nothing else but spaces, ( ) - . and one plus before them is a phone, and so
//     is whatever begins with '+';
//   - anything else is a second_login.
//
// A text that has the form of a kind and is no value of it is an error, never a value of another kind.
// Each canonical form has the form of its own kind only and is its own canonical form.
package identifier

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/nyaruka/phonenumbers"
	"golang.org/x/text/width"
)

// Kind is the kind of an identifier; its text is the name of the contact type, except for UUID.
type Kind string

// The kinds of identifiers.
const (
	UUID        Kind = "uuid"
	Phone       Kind = "phone"
	Email       Kind = "email"
	SecondLogin Kind = "second_login"
)

// The codes of an Error that concern the text as a whole. All others are "invalid_" and the kind.
const (
	codeEmpty       = "empty"
	codeTooLong     = "too_long"
	codeInvalidText = "invalid_text"
)

// maxRunes is the longest identifier of the HTTP contract and of the database's checks: at most 1020
// bytes of UTF-8.
const maxRunes = 255

// Error says why a text is no identifier. It never contains the text, so that it may be logged and
// shown.
type Error struct {
	// Kind is the kind whose form the text has, or that was asked for; empty if a text of unknown
	// kind is empty, too long or not made of visible characters.
	Kind Kind
	// Code is for machines: "empty", "too_long", "invalid_text" (broken UTF-8, a control, bidirectional
	// or otherwise invisible character), "invalid_uuid", "invalid_phone", "invalid_email",
	// "invalid_second_login".
	Code string
	// Message tells a person what to do about it.
	Message string
}

// Error returns the code and the message.
func (e *Error) Error() string { return e.Code + ": " + e.Message }

// Identifier is a text that was understood. Two texts name the same thing exactly if their
// Identifiers are equal.
type Identifier struct {
	Kind Kind
	// Canonical is a lower-case hyphenated uuid, an E.164 number, a folded address with an ASCII
	// domain, or a folded login: what the database keeps as normalized.
	Canonical string
}

// Parser understands texts. It is immutable and safe for concurrent use.
type Parser struct {
	region      string // ISO 3166-1 alpha-2 code
	callingCode int    // of region
}

// NewParser returns a Parser that reads phone numbers without a country code as someone in
// defaultRegion dials them. defaultRegion is an ISO 3166-1 code in upper case, as "RU"; one without
// a numbering plan is an error.
func NewParser(defaultRegion string) (*Parser, error) {
	code := phonenumbers.GetCountryCodeForRegion(defaultRegion)
	if code == 0 {
		return nil, fmt.Errorf("phone region %q is not known", defaultRegion)
	}
	return &Parser{region: defaultRegion, callingCode: code}, nil
}

// Parse returns the identifier that text spells, for lookups: a phone number need not be assigned in
// any numbering plan. Every error is an *Error.
func (p *Parser) Parse(text string) (Identifier, error) {
	id, fault := p.parse(text)
	if fault != nil {
		return Identifier{}, fault
	}
	return id, nil
}

// Canonical returns the canonical form of a text that is claimed to be of this kind, for writes: a
// text of another form is refused, and so is a phone number that no numbering plan knows. When it
// succeeds, Parse returns the same for the same text. Every error is an *Error of this kind.
func (p *Parser) Canonical(kind Kind, text string) (string, error) {
	id, fault := p.parse(text)
	switch {
	case fault != nil && fault.Kind == "":
		fault.Kind = kind
		return "", fault
	case fault != nil || id.Kind != kind || kind == Phone && !assigned(id.Canonical):
		return "", invalid(kind)
	}
	return id.Canonical, nil
}

func (p *Parser) parse(text string) (Identifier, *Error) {
	text, fault := clean(text)
	if fault != nil {
		return Identifier{}, fault
	}
	kind := kindOf(text)
	var canonical string
	var ok bool
	switch kind {
	case UUID:
		canonical, ok = canonicalUUID(text)
	case Email:
		canonical, ok = canonicalEmail(text)
	case Phone:
		canonical, ok = p.canonicalPhone(text)
	case SecondLogin:
		canonical, ok = canonicalLogin(text)
	}
	if !ok {
		return Identifier{}, invalid(kind)
	}
	return Identifier{Kind: kind, Canonical: canonical}, nil
}

// kindOf returns the kind whose form a cleaned text has.
func kindOf(text string) Kind {
	switch {
	case uuidLike(text):
		return UUID
	case strings.Contains(text, "@"):
		return Email
	case text[0] == '+' || phoneLike(text):
		return Phone
	}
	return SecondLogin
}

// clean refuses a text that is too long or contains invisible characters, makes full-width characters
// narrow and trims spaces. A leading space is only a space: in a cell or a JSON string no decoder turns
// a plus into a space. The decoder of the identifier query parameter restores such a plus itself.
func clean(text string) (string, *Error) {
	if utf8.RuneCountInString(text) > maxRunes {
		return "", &Error{Code: codeTooLong, Message: fmt.Sprintf("use at most %d characters", maxRunes)}
	}
	folded := text
	if !printableASCII(text) {
		if strings.ContainsFunc(text, invisible) {
			return "", &Error{Code: codeInvalidText, Message: "use visible characters only, in UTF-8"}
		}
		folded = width.Fold.String(text)
	}
	trimmed := strings.TrimFunc(folded, isSpace)
	if trimmed == "" {
		return "", &Error{Code: codeEmpty, Message: "give a uuid, phone, email or second_login"}
	}
	return trimmed, nil
}

func printableASCII(text string) bool {
	for i := range len(text) {
		if text[i] < ' ' || text[i] > '~' {
			return false
		}
	}
	return true
}

// invisible reports whether r leaves no trace on the screen, not even a space. Characters that
// Unicode has not assigned yet are invisible too: how they fold may change.
func invisible(r rune) bool {
	return !unicode.IsGraphic(r) || r == utf8.RuneError ||
		unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}

func isSpace(r rune) bool { return r == ' ' || r >= utf8.RuneSelf && unicode.Is(unicode.Zs, r) }

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// invalid returns the error of a text that is no value of this kind.
func invalid(kind Kind) *Error {
	message := "this kind of contact is no identifier"
	switch kind {
	case UUID:
		message = "write a UUID as 8-4-4-4-12 or 32 hexadecimal digits"
	case Phone:
		message = "give an existing phone number with its country code, as +7 999 123-45-67"
	case Email:
		message = "give a plain address with a full domain, as user@example.com"
	case SecondLogin:
		message = "a second_login is one word in one script, and no phone number, address or UUID"
	}
	return &Error{Kind: kind, Code: "invalid_" + string(kind), Message: message}
}
