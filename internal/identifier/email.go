package identifier

import (
	"net/mail"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
	"golang.org/x/text/cases"
	"golang.org/x/text/language"
	"golang.org/x/text/unicode/norm"
)

// RFC 5321, section 4.5.3.1 and erratum 1690, in bytes.
const (
	maxEmail = 254
	maxLocal = 64
)

// domains is idna.Lookup with the length limits of the DNS.
var domains = idna.New(
	idna.MapForLookup(), idna.BidiRule(), idna.Transitional(false), idna.VerifyDNSLength(true))

// canonicalEmail returns the folded form of an address: the local part in NFC and lower case, the
// domain in ASCII. Neither dots nor +tags are dropped: what they mean is up to the domain.
func canonicalEmail(text string) (string, bool) {
	at := strings.LastIndexByte(text, '@')
	local := foldLocal(text[:at])
	domain, err := domains.ToASCII(text[at+1:])
	if err != nil || !qualified(domain) || len(local) > maxLocal {
		return "", false
	}
	canonical := local + "@" + domain
	if len(canonical) > maxEmail || strings.ContainsFunc(canonical, isSpace) {
		return "", false
	}
	// net/mail reads a whole From header: what it reads as anything else had a name, quotes or a
	// comment. It is asked after folding, which can make a ';' of another character.
	address, err := mail.ParseAddress(canonical)
	return canonical, err == nil && address.Address == canonical
}

// foldLocal uses the full case mapping: with the simple one, İ would fold into the plain i of
// another mailbox.
func foldLocal(local string) string {
	for i := range len(local) {
		if local[i] >= utf8.RuneSelf {
			lower := cases.Lower(language.Und, cases.HandleFinalSigma(false))
			return norm.NFC.String(lower.String(local))
		}
	}
	return strings.ToLower(local)
}

// qualified reports whether an ASCII domain has a dot and is no IP address: no top-level domain is
// a number.
func qualified(domain string) bool {
	dot := strings.LastIndexByte(domain, '.')
	return dot >= 0 && strings.Trim(domain[dot+1:], "0123456789") != ""
}
