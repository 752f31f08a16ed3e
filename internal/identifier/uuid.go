package identifier

import "strings"

const (
	uuidDigits = 32
	urnPrefix  = "urn:uuid:" // RFC 9562, section 4; any case
)

// uuidLike reports whether text can only be meant as a uuid. Hyphens and braces do not count, as in
// the database's check: odd ones make a wrong uuid, not a login that looks like one.
func uuidLike(text string) bool {
	if hasURNPrefix(text) {
		return true
	}
	digits := 0
	for i := range len(text) {
		switch c := text[i]; {
		case isHex(c):
			digits++
		case c != '-' && c != '{' && c != '}':
			return false
		}
	}
	return digits == uuidDigits
}

// canonicalUUID returns the lower-case form with hyphens of a uuid that has all its hyphens or none,
// and may stand in braces or after urn:uuid:.
func canonicalUUID(text string) (string, bool) {
	if hasURNPrefix(text) {
		text = text[len(urnPrefix):]
	} else if strings.HasPrefix(text, "{") && strings.HasSuffix(text, "}") {
		text = text[1 : len(text)-1]
	}
	if len(text) == uuidDigits {
		text = text[:8] + "-" + text[8:12] + "-" + text[12:16] + "-" + text[16:20] + "-" + text[20:]
	}
	if !hyphenated(text) {
		return "", false
	}
	return strings.ToLower(text), true
}

func hyphenated(text string) bool {
	if len(text) != uuidDigits+4 {
		return false
	}
	for i := range len(text) {
		switch i {
		case 8, 13, 18, 23:
			if text[i] != '-' {
				return false
			}
		default:
			if !isHex(text[i]) {
				return false
			}
		}
	}
	return true
}

func hasURNPrefix(text string) bool {
	return len(text) >= len(urnPrefix) && strings.EqualFold(text[:len(urnPrefix)], urnPrefix)
}

func isHex(c byte) bool { return isDigit(c) || 'a' <= c|0x20 && c|0x20 <= 'f' }
