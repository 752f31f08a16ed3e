package identifier

import (
	"net/mail"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// RFC 5321, section 4.5.3.1 and erratum 1690, in bytes.
const (
	maxEmail = 254
	maxLocal = 64
)

// domains is idna.Lookup with the length limits of the DNS.
var domains = idna.New(
	idna.MapForLookup(), idna.BidiRule(), idna.Transitional(false), idna.VerifyDNSLength(true))

// canonicalEmail returns the folded form of an address: the local part in lower case, and if it is not
// ASCII by the rule for a second_login; the domain in ASCII. Letters that look like those of another
// script are refused, but East Asian scripts may mix. Neither dots nor +tags are dropped: what they mean
// is up to the domain.
func canonicalEmail(text string) (string, bool) {
	at := strings.LastIndexByte(text, '@')
	local, ok := foldLocal(text[:at])
	if !ok || len(local) > maxLocal {
		return "", false
	}
	domain, ok := canonicalDomain(text[at+1:])
	if !ok {
		return "", false
	}
	canonical := local + "@" + domain
	if len(canonical) > maxEmail || strings.ContainsFunc(canonical, isSpace) {
		return "", false
	}
	// net/mail reads a whole From header: what it reads as anything else had a name, quotes or a
	// comment. It is called after folding, which can make a ';' of another character.
	address, err := mail.ParseAddress(canonical)
	return canonical, err == nil && address.Address == canonical
}

func foldLocal(local string) (string, bool) {
	for i := range len(local) {
		if local[i] >= utf8.RuneSelf {
			folded, ok := foldUsername(local)
			return folded, ok && oneWritingSystem(folded)
		}
	}
	return strings.ToLower(local), true
}

// canonicalDomain returns a domain in ASCII, by IDNA2008 (UTS 46, nontransitional), so ß is not ss.
func canonicalDomain(text string) (string, bool) {
	// The tables of golang.org/x/net/idna map the capital ẞ to ss, as Unicode did until version 15.1.
	domain, err := domains.ToASCII(strings.ReplaceAll(text, "ẞ", "ß"))
	if err != nil || !qualified(domain) {
		return "", false
	}
	if !strings.Contains(domain, "xn--") {
		return domain, true
	}
	// A domain that was given in ASCII follows the same rules.
	unfolded, err := domains.ToUnicode(domain)
	if err != nil {
		return "", false
	}
	unfolded = foldVariants(unfolded)
	for label := range strings.SplitSeq(unfolded, ".") {
		if !oneWritingSystem(label) {
			return "", false
		}
	}
	domain, err = domains.ToASCII(unfolded)
	return domain, err == nil
}

// qualified reports whether an ASCII domain has a dot and is no IP address: no top-level domain is
// a number.
func qualified(domain string) bool {
	dot := strings.LastIndexByte(domain, '.')
	return dot >= 0 && strings.Trim(domain[dot+1:], "0123456789") != ""
}
