package identifier_test

import (
	"testing"

	"github.com/payment-services/accounts/internal/identifier"
)

func BenchmarkParse(b *testing.B) {
	for _, c := range []struct{ name, text string }{
		{"uuid", "123e4567-e89b-12d3-a456-426614174000"},
		{"uuid_upper", "123E4567-E89B-12D3-A456-426614174000"},
		{"phone", "+79991234567"},
		{"phone_national", "8 (999) 123-45-67"},
		{"email", "user@example.com"},
		{"email_idn", "иван@почта.рф"},
		{"second_login", "external_id_777"},
		{"second_login_cyrillic", "Иван"},
	} {
		b.Run(c.name, func(b *testing.B) {
			p := parser(b, "RU")
			b.ReportAllocs()
			for b.Loop() {
				if _, err := p.Parse(c.text); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkCanonicalPhone(b *testing.B) {
	p := parser(b, "RU")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.Canonical(identifier.Phone, "89991234567"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPhoneOfDigits(b *testing.B) {
	for _, digits := range []string{"79991234567", "89991234567", "375291234567", "4915112345678"} {
		b.Run(digits, func(b *testing.B) {
			p := parser(b, "RU")
			b.ReportAllocs()
			for b.Loop() {
				p.PhoneOfDigits(digits)
			}
		})
	}
}
