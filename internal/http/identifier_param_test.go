package httpapi

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/errcode"
)

func TestDecodeIdentifier(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		// A literal + is a plus if it comes first and a digit follows.
		"+79991234567":         "+79991234567",
		"+7+999+123-45-67":     "+7 999 123-45-67",
		"+7%20(999)%201234567": "+7 (999) 1234567",
		"+%37999":              "+7999",
		"+ivan":                " ivan",
		"++79991234567":        "  79991234567",
		"+":                    " ",
		"8+999+123+45+67":      "8 999 123 45 67",
		"79991234567+":         "79991234567 ",
		"ivan+petrov":          "ivan petrov",
		// ... or if the value contains @.
		"a+b@example.com":     "a+b@example.com",
		"a+b%40example.com":   "a+b@example.com",
		"+a+b@example.com":    "+a+b@example.com",
		"a+b%20c@example.com": "a+b c@example.com",
		// If %2B occurs too, every literal + is a space.
		"%2B7+999+1234567":    "+7 999 1234567",
		"%2b7+999+1234567":    "+7 999 1234567",
		"a%2Bb+c@example.com": "a+b c@example.com",
		"+a%2Bb@example.com":  " a+b@example.com",
		// %2B and %20 mean what they say.
		"%2B79991234567":    "+79991234567",
		"a%2Bb@example.com": "a+b@example.com",
		"8%20999%201234567": "8 999 1234567",
		"7999%2B123":        "7999+123",
		"%252B7999":         "%2B7999",
		// A leading space before digits is a plus that some client lost.
		"%2079991234567":                       "+79991234567",
		"%207%20999%20123-45-67":               "+7 999 123-45-67",
		"+7999%2B":                             " 7999+", // no number: the + inside is one too many
		"%20ivan":                              " ivan",
		"%205ivan":                             " 5ivan",
		"%205a@example.com":                    " 5a@example.com",
		"%20%207999":                           "  7999",
		"%20":                                  " ",
		"":                                     "",
		"%D0%B8%D0%B2%D0%B0%D0%BD":             "иван",
		"0199a1b2-0000-7000-8000-00000000000a": "0199a1b2-0000-7000-8000-00000000000a",
	} {
		got, err := decodeIdentifier(raw)
		require.NoError(t, err, raw)
		require.Equal(t, want, got, raw)
	}
	for _, raw := range []string{"%", "%4", "%zz", "+7%", "a@b%"} {
		_, err := decodeIdentifier(raw)
		require.Error(t, err, raw)
	}
}

func TestIdentifierIsRead(t *testing.T) {
	t.Parallel()
	s := newBareAPI(t)
	for query, want := range map[string][]string{
		"":                            {"identifier required"},
		"identifier":                  {"identifier required"},
		"identifier=":                 {"identifier required"},
		"identifier=1&identifier=2":   {"identifier repeated"},
		"identifier=1&%69dentifier=2": {"identifier repeated"},
		"identifier=%":                {"identifier invalid_encoding"},
		"identifier=%FF":              {"identifier invalid_encoding"},
		"Identifier=1":                {"Identifier unknown", "identifier required"},
		"identifier=1&x=2&y=3":        {"x unknown", "y unknown"},
		"identifier=1&79991234567":    {"? unknown"},
		"identifier=1&a@example.com=": {"? unknown"},
		"identifier=1&%zz=1":          {"? unknown"},
		"identifier=" + strings.Repeat("я", 256):   {"identifier too_long"},
		"identifier=" + strings.Repeat("%20", 256): {"identifier too_long"},
	} {
		a := s.call(http.MethodGet, "/accounts/users/by-identifier?"+query, "")
		p := a.problem(errcode.Validation)
		require.Equal(t, want, p.faults(), query)
		require.Equal(t, "/accounts/users/by-identifier", p.Instance)
		require.NotContains(t, a.Body.String(), "79991234567")
		require.NotContains(t, a.Body.String(), "a@example.com")
	}
}

// FuzzDecodeIdentifier: whoever encodes everything is understood, and so is whoever types an address;
// without an @, only the first character may differ from what a form means.
func FuzzDecodeIdentifier(f *testing.F) {
	for _, seed := range []string{"+79991234567", "a+b@example.com", "8 999 123", "%2B", "иван", "+", " 7", "%", ""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		lostPlus := strings.HasPrefix(text, " ") && startsNumber(text[1:])
		var encoded strings.Builder
		for _, c := range []byte(text) {
			fmt.Fprintf(&encoded, "%%%02X", c)
		}
		got, err := decodeIdentifier(encoded.String())
		require.NoError(t, err)
		if lostPlus {
			require.Equal(t, "+"+text[1:], got)
		} else {
			require.Equal(t, text, got)
		}

		got, err = decodeIdentifier(text) // as it is
		form, formErr := url.QueryUnescape(text)
		require.Equal(t, formErr == nil, err == nil)
		switch {
		case err != nil || lostPlus:
		case strings.Contains(text, "@") && !strings.Contains(text, "%"):
			require.Equal(t, text, got)
		case !strings.Contains(form, "@") && form != "":
			require.Equal(t, form[1:], got[1:])
		}
	})
}
