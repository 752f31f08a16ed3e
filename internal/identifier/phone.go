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

	// russiaCode is the calling code of the numbering plan that Russia and Kazakhstan share.
	russiaCode = 7
	// russiaNational is the length of every number in that plan, without country code.
	russiaNational = 10
)

// phoneLike reports whether text has the form of a phone number.
func phoneLike(text string) bool {
	_, _, ok := scanPhone(text)
	return ok
}

// canonicalPhone returns the E.164 form of a text that begins with a plus or is phone-like. A number
// with its country code is taken as it is, so E.164 stays what it is. Without one, it is read as
// dialled in the parser's region: by the fixed rules of russia where they apply, elsewhere by the
// national prefixes in the library's metadata. Whether the number exists is not asked.
func (p *Parser) canonicalPhone(text string) (string, bool) {
	if isE164(text) {
		return text, true
	}
	digits, plus, ok := scanPhone(text)
	if !ok {
		return "", false
	}
	var number string
	switch {
	case plus:
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

// scanPhone returns the digits of a phone-like text in ASCII, and whether a plus precedes them.
func scanPhone(text string) (digits string, plus, ok bool) {
	var buf [maxDigits]byte
	n := 0
	for _, r := range text {
		digit, decimal := digitOf(r)
		switch {
		case decimal && n < maxDigits:
			buf[n] = digit
			n++
		case r == '+' && n == 0 && !plus:
			plus = true
		case !decimal && isSeparator(r):
		default:
			return "", false, false
		}
	}
	if n < minDigits {
		return "", false, false
	}
	return string(buf[:n]), plus, true
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

// isSeparator reports whether r may stand among the digits of a phone number. Typesetters' spaces and
// dashes count as ' ' and '-': numbers are pasted from web pages, and no login may contain them.
func isSeparator(r rune) bool {
	switch r {
	case '(', ')', '-', '.', '\u2212':
		return true
	}
	return isSpace(r) || '\u2010' <= r && r <= '\u2015'
}
