package identifier

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

// Name is the canonical form of a name: of a group, of a contact type, or the value of a contact whose
// type is no identifier. It has no invisible characters, no spaces at its ends, single spaces between
// its words, and is in NFC.
type Name struct {
	// Text is what is stored and displayed, in the case in which it was given.
	Text string
	// Key is Text without regard to case. Two names are the same exactly if their keys are equal. A key
	// is its own canonical form and its own key.
	Key string
}

// ParseName returns the canonical form of a name:
//
//   - characters that are displayed as nothing are removed (emoji lose their joiners and variation
//     selectors);
//   - the text is brought to NFC. It is not NFKC: a full-width "ＶＩＰ" looks different and stays
//     another name than "VIP";
//   - white space at the ends is removed, and each run of it inside becomes one space. Tabs and line
//     ends are white space, and so is the blank Braille pattern;
//   - other control characters, private and unassigned code points and broken UTF-8 are refused.
//
// The key is Unicode's full case folding of the text, in NFC. A text that is blank, or longer than 255
// characters before or after folding, is refused. Every error is an *Error without a Kind.
func ParseName(text string) (Name, error) {
	if utf8.RuneCountInString(text) > maxRunes {
		return Name{}, nameTooLong()
	}
	if !printableASCII(text) {
		text = norm.NFC.String(strings.Map(func(r rune) rune {
			if ignorable(r) {
				return -1
			}
			return r
		}, text))
	}
	words := strings.FieldsFunc(text, whiteSpace)
	if len(words) == 0 {
		return Name{}, &Error{Code: codeEmpty, Message: "give at least one visible character"}
	}
	text = strings.Join(words, " ")
	if printableASCII(text) {
		return Name{Text: text, Key: strings.ToLower(text)}, nil
	}
	if strings.ContainsFunc(text, unreadable) {
		return Name{}, &Error{Code: codeInvalidText, Message: "use visible characters and spaces only, in UTF-8"}
	}
	key := foldCase(text)
	if utf8.RuneCountInString(key) > maxRunes {
		return Name{}, nameTooLong()
	}
	return Name{Text: text, Key: key}, nil
}

// Blank reports whether ParseName finds nothing visible in text.
func Blank(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return !ignorable(r) && !whiteSpace(r) })
}

// foldCase is Unicode's canonical caseless matching (The Unicode Standard, section 3.13, D145), with the
// result in NFC. It folds the decomposed text, because some composed letters hide one that folds.
func foldCase(text string) string {
	lower := strings.Map(func(r rune) rune {
		if unicode.Is(unicode.Cherokee, r) {
			// cases.Fold folds small Cherokee letters to capitals, as Unicode does, but also capitals to
			// small letters.
			return unicode.ToLower(r)
		}
		return r
	}, norm.NFD.String(text))
	return norm.NFC.String(cases.Fold().String(lower))
}

// whiteSpace reports whether r separates words: Unicode's White_Space, tabs and line ends included, and
// the Braille pattern without dots.
func whiteSpace(r rune) bool { return unicode.IsSpace(r) || r == '\u2800' }

func nameTooLong() *Error {
	return &Error{Code: codeTooLong, Message: fmt.Sprintf("use at most %d characters", maxRunes)}
}
