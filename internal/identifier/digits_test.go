package identifier_test

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPhoneOfDigits(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, region, digits, want string }{
		{"with country code", "RU", "79991234567", "+79991234567"},
		{"trunk prefix of Russia", "RU", "89990020001", "+79990020001"},
		{"Moscow, not Vietnam", "RU", "84951234567", "+74951234567"},
		{"Kazakhstan, not Inmarsat", "KZ", "87011234567", "+77011234567"},
		{"Hong Kong, no code of Russia", "RU", "85221234567", "+85221234567"},
		{"Belarus seen from Russia", "RU", "375291234567", "+375291234567"},
		{"Belarus seen from Germany", "DE", "375291234567", "+375291234567"},
		{"Germany seen from Germany", "DE", "4915112345678", "+4915112345678"},
		{"national, its zero lost", "DE", "15112345678", "+4915112345678"},
		{"Russia seen from the USA", "US", "79991234567", "+79991234567"},
		{"USA", "US", "14155552671", "+14155552671"},
		{"Munich, its zero lost", "DE", "89990020001", "+4989990020001"},
		{"China", "CN", "8613812345678", "+8613812345678"},
		{"China, national", "CN", "13812345678", "+8613812345678"},
		{"China or the USA", "CN", "13612345678", ""},
		{"Russia seen from China", "CN", "79991234567", "+79991234567"},
		{"Belarus seen from China", "CN", "375291234567", "+375291234567"},
		{"the USA seen from Russia", "RU", "13612345678", "+13612345678"},
		{"Belarus, national", "BY", "80291234567", "+375291234567"},
		{"Brazil, national", "BR", "11912345678", "+5511912345678"},
		{"Brazil or Germany", "BR", "49991234567", ""},
		{"the Netherlands seen from Brazil", "BR", "31612345678", "+31612345678"},
		{"unknown plan", "RU", "999999999999999", ""},
		{"leading zero", "DE", "015112345678", ""},
		{"too short", "RU", "112", ""},
		{"too long", "RU", "7999123456789012", ""},
		{"not digits", "RU", "7 999 123 45 67", ""},
		{"empty", "RU", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, ok := parser(t, c.region).PhoneOfDigits(c.digits)
			require.Equal(t, c.want, got)
			require.Equal(t, c.want != "", ok)
		})
	}
}
