package identifier_test

import (
	"fmt"
	"math/rand/v2"
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
		"+390612345678", "+442079460958", " 89991234567", " 4951234567",
	} {
		_, err := p.Canonical(identifier.Phone, in)
		require.NoError(t, err, in)
	}
	for _, in := range []string{
		"+7 000 123-45-67", "+89991234567", "+10000000000", "+1234567",
		"+44 (0)20 7946 0958", "+123456789012345",
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
