package identifier

import (
	"unicode"
	"unicode/utf8"
)

// ignorable reports whether r is a character that programs display as nothing at all: Unicode's
// Default_Ignorable_Code_Point and the interlinear annotation marks. Such characters are copied along
// from address books, chats and spreadsheets, and two texts that differ in them look the same.
// Characters that programs do display, such as the Arabic number signs, are not among them.
func ignorable(r rune) bool {
	switch {
	case r < utf8.RuneSelf:
		return false
	case unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector):
		return true
	case 0x13430 <= r && r <= 0x13440: // Egyptian hieroglyph format controls change what is displayed
		return false
	}
	return unicode.Is(unicode.Cf, r) && !unicode.Is(unicode.Prepended_Concatenation_Mark, r)
}

// joiner reports whether r is the zero width joiner or non-joiner. Both are ignorable, but among the
// letters of Arabic and Indic scripts they make a difference that readers see.
func joiner(r rune) bool { return r == '\u200c' || r == '\u200d' }

// unreadable reports whether r has no fixed meaning: a control character, a private or unassigned code
// point, half of a surrogate pair, or what stands for broken UTF-8. How unassigned code points fold is
// not known yet.
func unreadable(r rune) bool { return !unicode.IsGraphic(r) || r == utf8.RuneError }

func printableASCII(text string) bool {
	for i := range len(text) {
		if text[i] < ' ' || text[i] > '~' {
			return false
		}
	}
	return true
}

// hyphen returns '-' for every character that is typeset as a hyphen, a dash or a minus sign, and
// every other character unchanged.
func hyphen(r rune) rune {
	switch r {
	case '\u02d7', '\u2043', '\u207b', '\u208b', '\u2212', '\u2796':
		return '-'
	}
	if unicode.Is(unicode.Pd, r) {
		return '-'
	}
	return r
}

// isSpace reports whether r is a space character (Unicode category Zs), of any width.
func isSpace(r rune) bool { return r == ' ' || r >= utf8.RuneSelf && unicode.Is(unicode.Zs, r) }
