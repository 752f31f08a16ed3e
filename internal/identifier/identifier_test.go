package identifier_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/identifier"
)

// vector is one case of testdata: what Parse makes of In in region RU.
type vector struct {
	In        string
	Kind      identifier.Kind
	Canonical string
	Error     bool
	Why       string
}

func vectors(t testing.TB) []vector {
	t.Helper()
	files, err := filepath.Glob("testdata/*.json")
	require.NoError(t, err)
	require.Len(t, files, 3)
	var all []vector
	for _, file := range files {
		data, err := os.ReadFile(file)
		require.NoError(t, err)
		var some []vector
		require.NoError(t, json.Unmarshal(data, &some), file)
		all = append(all, some...)
	}
	return all
}

func parser(t testing.TB, region string) *identifier.Parser {
	t.Helper()
	p, err := identifier.NewParser(region)
	require.NoError(t, err)
	return p
}

var (
	e164CHECK   = regexp.MustCompile(`^\+[1-9][0-9]{6,14}$`)
	emailCHECK  = regexp.MustCompile(`^[^@[:space:][:cntrl:]A-Z]+@[a-z0-9-]+(\.[a-z0-9-]+)+$`)
	uuidForm    = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
	hexDigits   = regexp.MustCompile(`^[0-9a-fA-F]{32}$`)
	phoneDigits = regexp.MustCompile(`^[0-9]{7,15}$`)
	blank       = regexp.MustCompile(`[[:space:][:cntrl:]]`)
	separators  = strings.NewReplacer(" ", "", "(", "", ")", "", ".", "", "-", "")
	uuidMarks   = strings.NewReplacer("{", "", "}", "", "-", "")
)

// storedAs returns the kinds whose check in the database a normalized value satisfies.
func storedAs(normalized string) []identifier.Kind {
	var kinds []identifier.Kind
	if uuidForm.MatchString(normalized) {
		kinds = append(kinds, identifier.UUID)
	}
	if e164CHECK.MatchString(normalized) {
		kinds = append(kinds, identifier.Phone)
	}
	if emailCHECK.MatchString(normalized) && len(normalized) <= 254 {
		kinds = append(kinds, identifier.Email)
	}
	if !strings.Contains(normalized, "@") && !strings.HasPrefix(normalized, "+") &&
		!blank.MatchString(normalized) && !hexDigits.MatchString(uuidMarks.Replace(normalized)) &&
		!phoneDigits.MatchString(separators.Replace(normalized)) &&
		normalized != "" && utf8.RuneCountInString(normalized) <= 255 {
		kinds = append(kinds, identifier.SecondLogin)
	}
	return kinds
}

// requireLaws holds whatever Parse makes of a text against the promises of the package.
func requireLaws(t *testing.T, p *identifier.Parser, text string) {
	t.Helper()
	id, err := p.Parse(text)
	if err != nil {
		requireError(t, err)
		require.Zero(t, id)
	} else {
		require.LessOrEqual(t, len(id.Canonical), 4*255)
		require.Equal(t, []identifier.Kind{id.Kind}, storedAs(id.Canonical), "of %q", id.Canonical)
		require.False(t, strings.ContainsFunc(id.Canonical, unicode.IsSpace))
		again, err := p.Parse(id.Canonical)
		require.NoError(t, err, "of %q", id.Canonical)
		require.Equal(t, id, again)
	}
	for _, kind := range []identifier.Kind{identifier.Phone, identifier.Email, identifier.SecondLogin} {
		canonical, canonicalErr := p.Canonical(kind, text)
		switch {
		case canonicalErr == nil:
			require.NoError(t, err)
			require.Equal(t, id, identifier.Identifier{Kind: kind, Canonical: canonical})
		case err == nil && id.Kind == kind:
			require.Equal(t, identifier.Phone, kind, "only a phone number can be refused on writes")
			fallthrough
		default:
			require.Empty(t, canonical)
			require.Equal(t, kind, requireError(t, canonicalErr).Kind)
		}
	}
}

func requireError(t *testing.T, err error) *identifier.Error {
	t.Helper()
	var fault *identifier.Error
	require.ErrorAs(t, err, &fault)
	require.NotEmpty(t, fault.Message)
	switch fault.Code {
	case "empty", "too_long", "invalid_text":
	default:
		require.Equal(t, "invalid_"+string(fault.Kind), fault.Code)
	}
	return fault
}

func TestVectors(t *testing.T) {
	t.Parallel()
	p := parser(t, "RU")
	for _, v := range vectors(t) {
		t.Run(v.In, func(t *testing.T) {
			t.Parallel()
			id, err := p.Parse(v.In)
			if v.Error {
				requireError(t, err)
				require.Zero(t, id)
			} else {
				require.NoError(t, err)
				require.Equal(t, identifier.Identifier{Kind: v.Kind, Canonical: v.Canonical}, id, v.Why)
			}
			requireLaws(t, p, v.In)
		})
	}
}

// Each character alone, in a local part and in a domain folds into something stable, or not at all.
func TestEveryRune(t *testing.T) {
	t.Parallel()
	p := parser(t, "RU")
	for r := rune(0); r <= unicode.MaxRune; r++ {
		if unicode.In(r, unicode.Han, unicode.Hangul, unicode.Co) && r%64 != 0 {
			continue // nine in ten of all characters, and all alike
		}
		if !unicode.IsGraphic(r) {
			if _, err := p.Parse("ab" + string(r)); err == nil {
				t.Fatalf("%U is accepted", r)
			}
			continue
		}
		for _, text := range []string{string(r), string(r) + "@example.com", "a@" + string(r) + ".com"} {
			id, err := p.Parse(text)
			if err != nil {
				continue
			}
			if kinds := storedAs(id.Canonical); len(kinds) != 1 || kinds[0] != id.Kind {
				t.Fatalf("%U: %v is stored as %v", r, id, kinds)
			}
			if again, err := p.Parse(id.Canonical); err != nil || again != id {
				t.Fatalf("%U: %v is not stable: %v, %v", r, id, again, err)
			}
		}
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	p := parser(t, "RU")
	for text, want := range map[string]identifier.Error{
		"":                                {Kind: "", Code: "empty"},
		" \u00a0":                         {Kind: "", Code: "empty"},
		strings.Repeat("x", 256):          {Kind: "", Code: "too_long"},
		strings.Repeat("\xff", 256):       {Kind: "", Code: "too_long"},
		"a\xffb":                          {Kind: "", Code: "invalid_text"},
		"\xed\xa0\x80":                    {Kind: "", Code: "invalid_text"},
		"a\u202eb":                        {Kind: "", Code: "invalid_text"},
		"123e-" + strings.Repeat("0", 28): {Kind: identifier.UUID, Code: "invalid_uuid"},
		"+secret":                         {Kind: identifier.Phone, Code: "invalid_phone"},
		"secret@":                         {Kind: identifier.Email, Code: "invalid_email"},
		"my secret":                       {Kind: identifier.SecondLogin, Code: "invalid_second_login"},
	} {
		_, err := p.Parse(text)
		fault := requireError(t, err)
		require.Equal(t, want.Kind, fault.Kind, "%q", text)
		require.Equal(t, want.Code, fault.Code, "%q", text)
		require.NotContains(t, err.Error(), "secret")
	}
}

func TestCanonicalRefusesOtherForms(t *testing.T) {
	t.Parallel()
	p := parser(t, "RU")
	values := map[identifier.Kind]string{
		identifier.UUID:        "123e4567-e89b-12d3-a456-426614174000",
		identifier.Phone:       "+79991234567",
		identifier.Email:       "user@example.com",
		identifier.SecondLogin: "external_id_777",
	}
	for claimed := range values {
		for kind, value := range values {
			canonical, err := p.Canonical(claimed, value)
			if claimed == kind {
				require.NoError(t, err)
				require.Equal(t, value, canonical)
				continue
			}
			require.Equal(t, "invalid_"+string(claimed), requireError(t, err).Code)
		}
	}
	_, err := p.Canonical("telegram", "external_id_777")
	require.Equal(t, "invalid_telegram", requireError(t, err).Code)
	_, err = p.Canonical(identifier.Email, "")
	fault := requireError(t, err)
	require.Equal(t, identifier.Error{Kind: identifier.Email, Code: "empty", Message: fault.Message}, *fault)
}

func TestParserIsSafeForConcurrentUse(t *testing.T) {
	t.Parallel()
	p := parser(t, "RU")
	all := vectors(t)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for _, v := range all {
				id, err := p.Parse(v.In)
				if (err != nil) != v.Error || id.Canonical != v.Canonical {
					t.Errorf("%q: got %v, %v", v.In, id, err)
				}
			}
		})
	}
	wg.Wait()
}
