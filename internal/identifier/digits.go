package identifier

import (
	"strings"

	"github.com/nyaruka/phonenumbers"
)

// PhoneOfDigits returns the E.164 form of a phone number that is stored as a number, such as 79991234567
// in a numeric cell: its plus and its leading zeros are lost. The digits are read as an international
// number first, and as a number of the parser's region if no numbering plan knows the international one.
//
// In Russia and Kazakhstan, 8 and ten digits are a national number first. Their trunk prefix is not a zero,
// so it is not lost, and 84951234567 is a phone of Moscow rather than one of Vietnam (+84).
//
// In a region whose national numbers are dialled without a prefix, such as the mobile numbers of China, the
// digits may be both: 13612345678 is a phone of China, and one of the USA without its plus. Then the result is
// false: the wrong one belongs to another person.
//
// The result is also false if digits is not 7 to 15 ASCII digits, or if no numbering plan knows either form.
func (p *Parser) PhoneOfDigits(digits string) (string, bool) {
	international := "+" + digits
	if strings.Trim(digits, "0123456789") != "" || !isE164(international) {
		return "", false
	}
	national, ok := p.canonicalPhone(digits)
	if p.callingCode == russiaCode && len(digits) == russiaNational+1 && digits[0] == '8' {
		international, national = national, international
	}
	other := ok && national != international && assigned(national)
	switch {
	case assigned(international):
		if other && dialled(national) == digits {
			return "", false
		}
		return international, true
	case other:
		return national, true
	}
	return "", false
}

// dialled returns the digits of an E.164 number as they are dialled within its country.
func dialled(e164 string) string {
	number, err := phonenumbers.Parse(e164, "")
	if err != nil {
		return ""
	}
	return strings.Map(func(r rune) rune {
		if r < '0' || r > '9' {
			return -1
		}
		return r
	}, phonenumbers.Format(number, phonenumbers.NATIONAL))
}
