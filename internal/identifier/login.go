package identifier

import (
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/secure/precis"
)

// canonicalLogin returns the folded form of a second_login: RFC 8265's UsernameCaseMapped, in one
// script.
func canonicalLogin(text string) (string, bool) {
	folded, err := precis.UsernameCaseMapped.String(text)
	if err != nil || utf8.RuneCountInString(folded) > maxRunes || !oneScript(folded) {
		return "", false
	}
	// Whatever a later Unicode folds, it must not lead to the form of another kind.
	return folded, folded != "" && kindOf(folded) == SecondLogin
}

// oneScript reports whether all characters of text belong to one script, apart from those that all
// scripts share: 'pаypal' with one Cyrillic letter is somebody else's name on the screen.
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
