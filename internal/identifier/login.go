package identifier

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/secure/precis"
)

// canonicalLogin returns the folded form of a second_login: RFC 8265's UsernameCaseMapped, without
// distinct letter variants, in one script.
func canonicalLogin(text string) (string, bool) {
	folded, ok := foldUsername(text)
	if !ok || utf8.RuneCountInString(folded) > maxRunes || !oneScript(folded) {
		return "", false
	}
	// Characters that a later Unicode version folds must not lead to the form of another kind.
	return folded, folded != "" && kindOf(folded) == SecondLogin
}

// foldUsername folds a second_login, or the part of an address before the '@'.
func foldUsername(text string) (string, bool) {
	folded, err := precis.UsernameCaseMapped.String(text)
	return foldVariants(folded), err == nil
}

// foldVariants replaces small letters that are variants of another one by that letter: the Greek sigma at
// the end of a word, and the Cyrillic letters of old prints (U+1C80 to U+1C88). Both have the same capital
// letter, and a word looks the same to its reader with either.
func foldVariants(text string) string {
	return strings.Map(func(r rune) rune {
		if r == 'ς' || '\u1c80' <= r && r <= '\u1c88' {
			return unicode.ToLower(unicode.ToUpper(r))
		}
		return r
	}, text)
}

// oneScript reports whether all characters of text belong to one script, apart from those that all
// scripts share. In 'pаypal' one letter is Cyrillic: the text looks like another name.
func oneScript(text string) bool {
	var script *unicode.RangeTable
	for _, r := range text {
		switch {
		case script != nil && unicode.Is(script, r):
		case unicode.In(r, unicode.Common, unicode.Inherited):
		case script == nil:
			script = scriptOf(r)
		default:
			return false
		}
	}
	return true
}

// oneWritingSystem is oneScript for addresses, where East Asian names mix scripts that look different:
// UTS 39's Highly Restrictive level.
func oneWritingSystem(text string) bool {
	return oneScript(text) ||
		within(text, unicode.Latin, unicode.Han, unicode.Hiragana, unicode.Katakana) ||
		within(text, unicode.Latin, unicode.Han, unicode.Hangul) ||
		within(text, unicode.Latin, unicode.Han, unicode.Bopomofo)
}

func within(text string, scripts ...*unicode.RangeTable) bool {
	for _, r := range text {
		if !unicode.In(r, scripts...) && !unicode.In(r, unicode.Common, unicode.Inherited) {
			return false
		}
	}
	return true
}

func scriptOf(r rune) *unicode.RangeTable {
	for _, frequent := range []*unicode.RangeTable{unicode.Latin, unicode.Cyrillic} {
		if unicode.Is(frequent, r) {
			return frequent
		}
	}
	for _, script := range unicode.Scripts {
		if unicode.Is(script, r) {
			return script
		}
	}
	return nil
}
