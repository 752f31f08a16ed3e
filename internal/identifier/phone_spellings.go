package identifier

import (
	"math/bits"
	"slices"
	"strings"
)

// The rules of this file are fixed, so that a number keeps its canonical form when the phone metadata
// of the library changes. A test holds them against the library.

// twoDigitCodes are the calling codes of two digits; 1 and 7 have one, all others three (ITU-T E.164).
var twoDigitCodes = []string{
	"20", "27", "30", "31", "32", "33", "34", "36", "39", "40", "41", "43", "44", "45", "46", "47", "48",
	"49", "51", "52", "53", "54", "55", "56", "57", "58", "60", "61", "62", "63", "64", "65", "66", "81",
	"82", "84", "86", "90", "91", "92", "93", "94", "95", "98",
}

// zeroCodes are the calling codes whose numbers may begin with a 0: Italy and Vatican City, San Marino,
// Ivory Coast, Burkina Faso, Niger, Benin, Gabon, Congo, Ascension, Tajikistan and the networks that
// belong to no country. Elsewhere a 0 after the calling code is a national (trunk) prefix.
var zeroCodes = []string{
	"39", "225", "226", "227", "229", "241", "242", "247", "378", "379", "800", "808", "870", "878", "881",
	"882", "883", "888", "979", "992",
}

// eightCodes are the calling codes of countries whose national prefix is or was 8: Russia and
// Kazakhstan, Lithuania, Belarus, Tajikistan, Turkmenistan and Uzbekistan.
var eightCodes = []string{"7", "370", "375", "992", "993", "998"}

// callingCodeLen returns how many of the digits of an international number are its calling code.
func callingCodeLen(digits string) int {
	switch {
	case digits[0] == '1' || digits[0] == '7':
		return 1
	case slices.Contains(twoDigitCodes, digits[:2]):
		return 2
	}
	return 3
}

// withoutTrunk returns the digits of an international number without the national prefix that stands
// in brackets after its calling code, as in "+44 (0)20 7946 0958" and "+44 (020) 7946 0958": who calls
// from abroad does not dial it. ok is false if there is none. The brackets after the calling code mark
// the number as international, so a plus is not needed.
func (s scannedPhone) withoutTrunk() (digits string, ok bool) {
	digits, opened, closed := s.digits, s.opened, s.closed
	if !s.plus && strings.HasPrefix(digits, "00") {
		digits, opened, closed = digits[2:], opened>>2, closed>>2
	}
	if len(digits) < minDigits || digits[0] == '0' {
		return "", false
	}
	start := callingCodeLen(digits)
	closed &^= 1<<(start+1) - 1
	if opened&(1<<start) == 0 || closed == 0 {
		return "", false
	}
	if number := "+" + digits; uniform(number) != number {
		return digits, true // the prefix is one of those that uniform removes
	}
	code, bracketed := digits[:start], digits[start:bits.TrailingZeros32(closed)]
	prefix := ""
	switch {
	case code == "36" && strings.HasPrefix(bracketed, "06"):
		prefix = "06"
	case bracketed == "8" && slices.Contains(eightCodes, code):
		prefix = "8"
	case bracketed[0] == '0' && !slices.Contains(zeroCodes, code):
		prefix = "0"
	default:
		return "", false
	}
	return code + digits[start+len(prefix):], true
}

// uniform returns the one spelling of an E.164 number that is in use with two:
//
//   - Argentina: a mobile number has a 9 after the country code for callers from abroad, and a 15 after
//     the area code inside the country. +54 9 11 5555 1234 is canonical, +54 11 15 5555 1234 is not.
//   - Mexico: until 2019 a mobile number had a 1 after the country code, and 01, 02, 044 or 045 inside
//     the country. +52 55 1234 5678 is canonical.
//   - San Marino: the area code 0549 may be left out. With it the number is canonical.
//   - Russia and Kazakhstan, Lithuania, Tajikistan, Turkmenistan and Uzbekistan (8), Belarus (80), and the
//     countries with code 1 (1): a national prefix after the country code is removed if the rest has
//     exactly as many digits as every number of that numbering plan.
//
// Not two spellings of one line are numbers before and after a renumbering, such as Brazil's ninth
// digit or Ivory Coast's two new digits: an old number may be assigned again.
func uniform(number string) string {
	rest, found := "", false
	plan := func(code string, length int) bool {
		rest, found = strings.CutPrefix(number, code)
		return found && len(rest) == length
	}
	switch {
	case plan("+54", 12):
		return argentina(number, rest)
	case plan("+549", 12):
		return argentina(number, rest)
	case plan("+521", 10), plan("+5201", 10), plan("+5202", 10), plan("+52044", 10), plan("+52045", 10):
		return "+52" + rest
	case plan("+378", 6):
		return "+3780549" + rest
	case plan("+78", 10):
		return "+7" + rest
	case plan("+3708", 8):
		return "+370" + rest
	case plan("+37580", 9):
		return "+375" + rest
	case plan("+9928", 9):
		return "+992" + rest
	case plan("+9938", 8):
		return "+993" + rest
	case plan("+9988", 9):
		return "+998" + rest
	case plan("+11", 10):
		return "+1" + rest
	}
	return number
}

// argentina returns the form of a mobile number for callers from abroad. national is an area code of 2
// to 4 digits (two only in Buenos Aires), 15, and a subscriber number: 12 digits altogether.
func argentina(number, national string) string {
	if national[0] > '3' {
		return number // no area code
	}
	for _, area := range []int{2, 3, 4} {
		if (area == 2) == strings.HasPrefix(national, "11") && national[area:area+2] == "15" {
			return "+549" + national[:area] + national[area+2:]
		}
	}
	return number
}
