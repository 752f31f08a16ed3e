package identifier_test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/idna"
	"golang.org/x/text/cases"
	"golang.org/x/text/secure/precis"
	"golang.org/x/text/unicode/norm"

	"github.com/payment-services/accounts/internal/identifier"
)

// nameVector is one case of testdata/names: what ParseName makes of In.
type nameVector struct{ In, Text, Key, Code string }

func nameVectors(t testing.TB) (all []nameVector) {
	t.Helper()
	data, err := os.ReadFile("testdata/names/names.json")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, &all))
	require.NotEmpty(t, all)
	return all
}

func TestParseName_Vectors(t *testing.T) {
	t.Parallel()
	for _, v := range nameVectors(t) {
		t.Run(v.In, func(t *testing.T) {
			t.Parallel()
			requireNameProperties(t, v.In)
			got, err := identifier.ParseName(v.In)
			if v.Code != "" {
				var e *identifier.Error
				require.ErrorAs(t, err, &e)
				require.Equal(t, identifier.Error{Code: v.Code, Message: e.Message}, *e)
				return
			}
			require.NoError(t, err)
			require.Equal(t, identifier.Name{Text: v.Text, Key: v.Key}, got)
		})
	}
}

func TestParseName_LengthIsBounded(t *testing.T) {
	t.Parallel()
	for text, ok := range map[string]bool{
		strings.Repeat("я", 255):         true,
		strings.Repeat("я", 256):         false,
		strings.Repeat(" ", 300) + "vip": false,
		strings.Repeat("\xff", 256):      false,
		strings.Repeat("ß", 127):         true,
		strings.Repeat("ß", 128):         false, // folds to 256
		strings.Repeat("ΐ", 255):         true,
	} {
		_, err := identifier.ParseName(text)
		require.Equal(t, ok, err == nil, "%q", text)
		if err != nil {
			require.ErrorContains(t, err, "too_long")
		}
	}
}

// A character that is assigned in one table and not in another would make keys unstable.
func TestParseName_TablesHaveOneUnicodeVersion(t *testing.T) {
	t.Parallel()
	for _, version := range []string{norm.Version, cases.UnicodeVersion, precis.UnicodeVersion, idna.UnicodeVersion} {
		require.Equal(t, unicode.Version, version)
	}
}

// Each character alone, after and before others, has a stable canonical form or none.
func TestParseName_EveryCharacter(t *testing.T) {
	t.Parallel()
	for r := rune(0); r <= unicode.MaxRune; r++ {
		if unicode.In(r, unicode.Han, unicode.Hangul, unicode.Tangut, unicode.Co) && r%64 != 0 {
			continue // most of all characters, and alike
		}
		for _, text := range []string{string(r), "\u1100" + string(r) + "\u0345\u0323ß"} {
			if problem := nameProblem(text); problem != "" {
				t.Fatalf("%U in %+q: %s", r, text, problem)
			}
		}
	}
}

func requireNameProperties(t *testing.T, text string) {
	t.Helper()
	require.Empty(t, nameProblem(text), "%+q", text)
}

// nameProblem returns which property of ParseName does not hold for a text.
func nameProblem(text string) string {
	name, err := identifier.ParseName(text)
	if err != nil {
		if name != (identifier.Name{}) {
			return "a refused text has a name"
		}
		return ""
	}
	again, err := identifier.ParseName(name.Text)
	ofKey, keyErr := identifier.ParseName(name.Key)
	switch {
	case err != nil || again != name:
		return "its canonical form is not its own canonical form"
	case keyErr != nil || ofKey != identifier.Name{Text: name.Key, Key: name.Key}:
		return "its key is not its own key"
	case !norm.NFC.IsNormalString(name.Text) || !norm.NFC.IsNormalString(name.Key):
		return "it is not NFC"
	case utf8.RuneCountInString(name.Text) > 255 || utf8.RuneCountInString(name.Key) > 255:
		return "it is too long"
	case strings.TrimFunc(name.Text, unicode.IsSpace) != name.Text || strings.Contains(name.Text, "  "):
		return "it has a space too many"
	}
	for _, r := range name.Text + name.Key {
		if !unicode.IsGraphic(r) || unicode.IsSpace(r) && r != ' ' || unicode.In(r, unicode.Variation_Selector) {
			return "it has an invisible character"
		}
	}
	// Spellings that look the same.
	for _, spelling := range []string{
		" " + text + "\u00a0", "\u200e" + text + "\u202c", strings.ReplaceAll(text, "", "\u2060"),
		norm.NFD.String(text), norm.NFC.String(text),
	} {
		if utf8.RuneCountInString(spelling) > 255 {
			continue
		}
		if other, err := identifier.ParseName(spelling); err != nil || other != name {
			return "another spelling is another name"
		}
	}
	return ""
}

func TestParseName_CaseDoesNotMatter(t *testing.T) {
	t.Parallel()
	// İ and ı have the same other case as i without being it: Turkish and Azeri distinguish them.
	const distinct = "İı"
	for r := rune(0); r <= unicode.MaxRune; r++ {
		name, err := identifier.ParseName(string(r))
		if err != nil || strings.ContainsRune(distinct, r) {
			continue
		}
		for _, variant := range []rune{unicode.ToUpper(r), unicode.ToLower(r), unicode.ToTitle(r)} {
			other, err := identifier.ParseName(string(variant))
			if err != nil || other.Key != name.Key {
				t.Fatalf("%U and %U differ: %q, %q, %v", r, variant, name.Key, other.Key, err)
			}
		}
	}
}

func BenchmarkParseName(b *testing.B) {
	for _, text := range []string{"client", "Клиенты", "VIP\u200b"} {
		b.Run(text, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := identifier.ParseName(text); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
