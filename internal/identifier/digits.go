package identifier

import "strings"

// PhoneOfDigits returns the E.164 form of a phone number that is stored as a number, such as 79991234567
// in a numeric cell: its plus and its leading zeros are lost. The digits are read as an international
// number first, and as a number of the parser's region if no numbering plan knows the international one.
//
// In Russia and Kazakhstan, 8 and ten digits are a national number first. Their trunk prefix is not a zero,
// so it is not lost, and 84951234567 is a phone of Moscow rather than one of Vietnam (+84).
//
// The result is false if digits is not 7 to 15 ASCII digits, or if no numbering plan knows either form.
func (p *Parser) PhoneOfDigits(digits string) (string, bool) {
	international := "+" + digits
	if strings.Trim(digits, "0123456789") != "" || !isE164(international) {
		return "", false
	}
	national, ok := p.canonicalPhone(digits)
	if p.callingCode == russiaCode && len(digits) == russiaNational+1 && digits[0] == '8' {
		international, national = national, international
	}
	switch {
	case assigned(international):
		return international, true
	case ok && national != international && assigned(national):
		return national, true
	}
	return "", false
}
