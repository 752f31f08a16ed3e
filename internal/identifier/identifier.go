// Package identifier parses the text that a person typed into the one field of a login form: it
// returns its kind and its canonical form, so that one text names at most one user.
//
// The kind is decided by form alone: the same text never changes its kind when phone metadata or a
// library does. In this order, once invisible characters are removed, full-width characters are made
// narrow, hyphens and dashes of all kinds are read as '-' and the spaces around the text are gone:
//
//   - 32 hexadecimal digits among '{', '}' and '-', or a text that begins with urn:uuid:, is a uuid;
//   - a text with '@' is an email;
//   - 7 to 15 digits and nothing else but spaces, ( ) - . and one plus before them is a phone, and so
//     is every text that begins with '+' or tel:. With a national prefix in brackets after 00 and the
//     country code, as in 0049(0)1512 3456789, a phone may have more digits;
//   - anything else is a second_login. In a second_login, invisible characters and dashes that are not
//     ASCII are refused and not removed.
//
// A text that has the form of a kind and is no value of it is an error, never a value of another kind.
// Each canonical form has the form of its own kind only and is its own canonical form.
//
// ParseName does the same for texts that are no identifiers: names and values of custom contacts.
package identifier

import (
	"fmt"
	"strings"
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

// Error tells why a text is no identifier or no name. It never contains the text, so that it may be
// logged and shown.
type Error struct {
	// Kind is the kind whose form the text has, or that was asked for. It is empty for a name, and if a
	// text of unknown kind is empty, too long or not made of visible characters.
	Kind Kind
	// Code is for machines: "empty", "too_long", "invalid_text" (broken UTF-8, a control character, an
	// unassigned or private code point; in a second_login an invisible character too), "invalid_uuid",
	// "invalid_phone", "invalid_email", "invalid_second_login".
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
	c, fault := clean(text)
	if fault != nil {
		return Identifier{}, fault
	}
	kind := kindOf(c.plain)
	var canonical string
	var ok bool
	switch kind {
	case UUID:
		canonical, ok = canonicalUUID(c.plain)
	case Email:
		// A joiner that is visible in the text's script must not be dropped: the address may be another.
		if !c.joiner || printableASCII(c.plain) {
			canonical, ok = canonicalEmail(c.plain)
		}
	case Phone:
		canonical, ok = p.canonicalPhone(c.plain)
	case SecondLogin:
		if c.hidden {
			return Identifier{}, invalidText()
		}
		canonical, ok = canonicalLogin(c.text)
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
	case text[0] == '+' || hasTelPrefix(text) || phoneLike(text):
		return Phone
	}
	return SecondLogin
}

// cleaned is a text whose kind can be decided.
type cleaned struct {
	text   string // trimmed, visible, narrow characters; never empty
	plain  string // text with '-' for hyphens and dashes of all kinds
	hidden bool   // invisible characters were removed
	joiner bool   // a joiner or non-joiner was among them
}

// clean refuses a text that is too long or not readable, removes invisible characters, makes full-width
// characters narrow, and trims spaces. A leading space is only a space: in a cell or a JSON string no
// decoder turns a plus into a space. The decoder of the identifier query parameter restores such a plus
// itself.
func clean(text string) (cleaned, *Error) {
	if utf8.RuneCountInString(text) > maxRunes {
		return cleaned{}, &Error{Code: codeTooLong, Message: fmt.Sprintf("use at most %d characters", maxRunes)}
	}
	var c cleaned
	folded := text
	if !printableASCII(text) {
		visible := strings.Map(func(r rune) rune {
			if !ignorable(r) {
				return r
			}
			c.hidden = true
			c.joiner = c.joiner || joiner(r)
			return -1
		}, text)
		if strings.ContainsFunc(visible, unreadable) {
			return cleaned{}, invalidText()
		}
		folded = width.Fold.String(visible)
	}
	trimmed := strings.TrimFunc(folded, isSpace)
	if trimmed == "" {
		return cleaned{}, &Error{Code: codeEmpty, Message: "give a uuid, phone, email or second_login"}
	}
	c.text, c.plain = trimmed, trimmed
	if !printableASCII(trimmed) {
		c.plain = strings.Map(hyphen, trimmed)
	}
	return c, nil
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func invalidText() *Error {
	return &Error{Code: codeInvalidText, Message: "use visible characters only, in UTF-8"}
}

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
