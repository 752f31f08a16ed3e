package identifier_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/nyaruka/phonenumbers"
	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/identifier"
)

func TestNewParserRefusesUnknownRegions(t *testing.T) {
	t.Parallel()
	for _, region := range []string{"", "ru", "ZZ", "RUS", "001", "7"} {
		_, err := identifier.NewParser(region)
		require.Error(t, err, region)
	}
}

func TestPhonesOfOtherRegions(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ region, in, want string }{
		{"KZ", "8 701 123 45 67", "+77011234567"},
		{"US", "(415) 555-2671", "+14155552671"},
		{"US", "1 415 555 2671", "+14155552671"},
		{"US", "011 44 20 7946 0958", "+442079460958"},
		{"US", "00 44 20 7946 0958", "+442079460958"},
		{"GB", "020 7946 0958", "+442079460958"},
		{"DE", "030 123456", "+4930123456"},
		{"IT", "06 1234 5678", "+390612345678"},
		{"UA", "067 123 45 67", "+380671234567"},
		{"US", "+89991234567", "+89991234567"},
	} {
		p := parser(t, c.region)
		id, err := p.Parse(c.in)
		require.NoError(t, err, c)
		require.Equal(t, identifier.Identifier{Kind: identifier.Phone, Canonical: c.want}, id, c)
		requireLaws(t, p, c.in)
	}
}

func TestWritesAskTheNumberingPlan(t *testing.T) {
	t.Parallel()
	p := parser(t, "RU")
	for _, in := range []string{
		"+79991234567", "8 (495) 123-45-67", "8 800 555 35 35", "87011234567", "14155552671",
		"+390612345678", "+442079460958", "+44 (0)20 7946 0958", "+54 11 15 5555-1234", "+52 1 55 1234 5678",
		"\u202a+7 701 123 45 67\u202c", " 89991234567", " 4951234567",
	} {
		_, err := p.Canonical(identifier.Phone, in)
		require.NoError(t, err, in)
	}
	for _, in := range []string{
		"+7 000 123-45-67", "+89991234567", "+10000000000", "+1234567",
		"+4402079460958", "+123456789012345",
	} {
		_, err := p.Parse(in)
		require.NoError(t, err, in)
		_, err = p.Canonical(identifier.Phone, in)
		require.Equal(t, "invalid_phone", requireError(t, err).Code, in)
	}
}

// The library is not asked about +7 9xx, nor about what is dialled in Russia; it must agree.
func TestFastPathsAgreeWithTheLibrary(t *testing.T) {
	t.Parallel()
	p := parser(t, "RU")
	random := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		mobile := fmt.Sprintf("+79%09d", random.IntN(1_000_000_000))
		number, err := phonenumbers.Parse(mobile, "")
		require.NoError(t, err)
		require.True(t, phonenumbers.IsValidNumber(number), mobile)
	}
	for range 5000 {
		dialled := fmt.Sprintf("%d", 1_000_000_000+random.Int64N(99_000_000_000))
		number, err := phonenumbers.Parse(dialled, "RU")
		if err != nil || !phonenumbers.IsValidNumber(number) {
			continue
		}
		id, err := p.Parse(dialled)
		require.NoError(t, err, dialled)
		require.Equal(t, phonenumbers.Format(number, phonenumbers.E164), id.Canonical, dialled)
	}
}

// The library must understand what the fixed rules make of a second spelling, in each numbering plan: a
// national prefix in brackets, and the second spellings of Argentina, Mexico, San Marino, +1 and +7.
func TestPhoneSpellings_AgreeWithTheLibrary(t *testing.T) {
	t.Parallel()
	p := parser(t, "RU")
	canonical := func(text string) string {
		t.Helper()
		id, err := p.Parse(text)
		require.NoError(t, err, text)
		return id.Canonical
	}
	for region := range phonenumbers.GetSupportedRegions() {
		for _, kind := range []phonenumbers.PhoneNumberType{phonenumbers.FIXED_LINE, phonenumbers.MOBILE} {
			example := phonenumbers.GetExampleNumberForType(region, kind)
			if example == nil {
				continue
			}
			number := phonenumbers.Format(example, phonenumbers.E164)
			code := fmt.Sprintf("+%d", phonenumbers.GetCountryCodeForRegion(region))
			national := strings.TrimPrefix(number, code)
			require.Equal(t, number, canonical(number), "%s: E.164 is canonical", region)
			require.Equal(t, number, canonical(code+" ("+national[:2]+") "+national[2:]), "%s: brackets without a prefix", region)
			if len(number) == len("+123456789012345") {
				continue
			}
			switch bracketed := code + " (0) " + national; {
			case national[0] == '0':
				require.Equal(t, number, canonical(code+" (0) "+national[1:]), "%s: numbers keep their 0", region)
			case keepsZero(code):
			default:
				require.Equal(t, number, canonical(bracketed), "%s: a 0 in brackets is dropped", region)
				require.Equal(t, number, canonical(code+" (0"+national[:2]+") "+national[2:]), "%s", region)
			}
		}
	}
	for _, pair := range [][2]string{
		{"+54 11 15 5555-1234", "AR"}, {"+54 351 15 223-4567", "AR"}, {"+54 2221 15 41-2345", "AR"}, {"+378 886377", "SM"},
		{"+7 8 495 123 45 67", "RU"}, {"+1 1 415 555 2671", "US"},
	} {
		number, err := phonenumbers.Parse(pair[0], pair[1])
		require.NoError(t, err)
		require.True(t, phonenumbers.IsValidNumber(number), pair[0])
		require.Equal(t, phonenumbers.Format(number, phonenumbers.E164), canonical(pair[0]))
	}
}

// keepsZero reports whether numbers of a calling code may begin with a 0 although the library's example
// does not.
func keepsZero(code string) bool {
	return slices.Contains([]string{"+39", "+225", "+226", "+227", "+229", "+241", "+242", "+247", "+378", "+992"}, code)
}

// What is canonical in one region is canonical in all, and the second spelling of a number leads to it.
func TestPhoneSpellings_OfOtherRegions(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ region, in, want string }{
		{"AR", "011 15 5555-1234", "+5491155551234"},
		{"AR", "+54 11 15 5555-1234", "+5491155551234"},
		{"AR", "0351 15 123-4567", "+5493511234567"},
		{"AR", "011 4321-1234", "+541143211234"},
		{"MX", "55 1234 5678", "+525512345678"},
		{"MX", "044 55 1234 5678", "+525512345678"},
		{"MX", "+52 1 55 1234 5678", "+525512345678"},
		{"GB", "(020) 7946 0958", "+442079460958"},
		{"GB", "44 (0)20 7946 0958", "+442079460958"},
		{"DE", "(030) 123456", "+4930123456"},
		{"DE", "+49 (0)30 123456", "+4930123456"},
		{"IT", "(06) 1234 5678", "+390612345678"},
		{"IT", "+39 (0)6 1234 5678", "+390612345678"},
		{"BY", "8 (029) 123-45-67", "+375291234567"},
		{"US", "+7 8 (495) 123-45-67", "+74951234567"},
	} {
		p := parser(t, c.region)
		id, err := p.Parse(c.in)
		require.NoError(t, err, c)
		require.Equal(t, c.want, id.Canonical, c)
		requireLaws(t, p, c.in)
	}
}
