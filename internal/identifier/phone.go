package identifier

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/nyaruka/phonenumbers"
)

const (
	// minDigits and maxDigits bound a phone number with or without country code. E.164 allows 15;
	// fewer than 7 are short codes, which belong to no subscriber.
	minDigits = 7
	maxDigits = 15

	// maxWithPrefixes is the longest phone number with prefixes that are not part of it: 00 and a national
	// prefix in brackets, of two digits at most.
	maxWithPrefixes = len("00") + maxDigits + len("06")

	// telPrefix begins a phone number that was copied from a link (RFC 3966), in any case.
	telPrefix = "tel:"

	// russiaCode is the calling code of the numbering plan that Russia and Kazakhstan share.
	russiaCode = 7
	// russiaNational is the length of every number in that plan, without country code.
	russiaNational = 10
)

// phoneLike reports whether text has the form of a phone number. More than maxDigits digits are a login
// unless they begin with 00 and have a bracket: the database's check knows no more than that.
func phoneLike(text string) bool {
	s, ok := scanPhone(text)
	return ok && (len(s.digits) <= maxDigits || strings.HasPrefix(s.digits, "00") && s.opened != 0)
}

func hasTelPrefix(text string) bool {
	return len(text) >= len(telPrefix) && strings.EqualFold(text[:len(telPrefix)], telPrefix)
}

// canonicalPhone returns the E.164 form of a text that begins with a plus or is phone-like. A number
// with its country code is taken as it is, apart from a national prefix in brackets and the second
// spellings that uniform knows. Without one, it is read as dialled in the parser's region: by the fixed
// rules of russia where they apply, elsewhere by the national prefixes in the library's metadata.
// Whether the number exists is not checked.
func (p *Parser) canonicalPhone(text string) (string, bool) {
	if isE164(text) {
		return uniform(text), true
	}
	if hasTelPrefix(text) {
		text = text[len(telPrefix):]
	}
	scanned, ok := scanPhone(text)
	if !ok {
		return "", false
	}
	digits := scanned.digits
	abroad, bracketed := scanned.withoutTrunk()
	if !bracketed && len(digits) > maxDigits {
		return "", false
	}
	var number string
	switch {
	case bracketed:
		number = "+" + abroad
	case scanned.plus:
		number = "+" + digits
	case strings.HasPrefix(digits, "00"):
		number = "+" + digits[len("00"):]
	case p.callingCode == russiaCode:
		number = russia(digits)
	default:
		parsed, err := phonenumbers.Parse(digits, p.region)
		if err != nil {
			return "", false
		}
		number = phonenumbers.Format(parsed, phonenumbers.E164)
	}
	number = uniform(number)
	return number, isE164(number)
}

// russia returns the number that someone in Russia or Kazakhstan reaches with these digits, or "" if
// they lack the area code.
func russia(digits string) string {
	switch {
	case digits[0] == '0' || len(digits) < russiaNational:
		return ""
	case len(digits) == russiaNational:
		return "+7" + digits
	case len(digits) == russiaNational+1 && digits[0] == '8': // trunk prefix
		return "+7" + digits[1:]
	case strings.HasPrefix(digits, "810"): // international prefix
		return "+" + digits[len("810"):]
	}
	return "+" + digits // too long for the plan: a country code whose plus was left out
}

// assigned reports whether a numbering plan knows this E.164 number. The answer depends on the
// library's version, so it must never decide what a text is.
func assigned(e164 string) bool {
	// All of +7 9xx is mobile, and most of what is imported; the library takes 50 to 300 µs.
	if len(e164) == len("+79991234567") && strings.HasPrefix(e164, "+79") {
		return true
	}
	number, err := phonenumbers.Parse(e164, "")
	// The library drops a national prefix after the country code; such a number is not E.164.
	return err == nil && phonenumbers.IsValidNumber(number) &&
		phonenumbers.Format(number, phonenumbers.E164) == e164
}

// isE164 reports whether text is canonical: a plus and 7 to 15 digits, the first not 0.
func isE164(text string) bool {
	if len(text) < 1+minDigits || len(text) > 1+maxDigits || text[0] != '+' || text[1] == '0' {
		return false
	}
	for i := 1; i < len(text); i++ {
		if !isDigit(text[i]) {
			return false
		}
	}
	return true
}

// scannedPhone is a phone-like text.
type scannedPhone struct {
	digits string // in ASCII
	plus   bool   // a plus precedes them
	// Bit n of opened is set if a bracket is opened before digit n, and bit n of closed if one is closed
	// before it.
	opened, closed uint32
}

// scanPhone returns what a phone-like text consists of.
func scanPhone(text string) (s scannedPhone, ok bool) {
	var buf [maxWithPrefixes]byte
	n := 0
	for _, r := range text {
		digit, decimal := digitOf(r)
		switch {
		case decimal && n < maxWithPrefixes:
			buf[n] = digit
			n++
		case r == '+' && n == 0 && !s.plus:
			s.plus = true
		case r == '(':
			s.opened |= 1 << n
		case r == ')':
			s.closed |= 1 << n
		case !decimal && (r == '-' || r == '.' || r == 'ー' || isSpace(r)): // ー is typed for - in Japan
		default:
			return scannedPhone{}, false
		}
	}
	s.digits = string(buf[:n])
	return s, n >= minDigits
}

// digitOf returns the ASCII form of a decimal digit of any script.
func digitOf(r rune) (byte, bool) {
	if r < utf8.RuneSelf {
		return byte(r), isDigit(byte(r))
	}
	// Unicode assigns decimal digits in runs of ten, 0 first.
	for _, t := range unicode.Nd.R16 {
		if rune(t.Lo) <= r && r <= rune(t.Hi) {
			return '0' + byte((r-rune(t.Lo))%10), true
		}
	}
	for _, t := range unicode.Nd.R32 {
		if rune(t.Lo) <= r && r <= rune(t.Hi) {
			return '0' + byte((r-rune(t.Lo))%10), true
		}
	}
	return 0, false
}
