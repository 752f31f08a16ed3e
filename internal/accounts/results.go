package accounts

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// The columns that the result file of an import has beside those of an upload. A file that has the
// column result may be uploaded again: these columns are then ignored.
const (
	ColumnRow    = "row"
	ColumnResult = "result"
	ColumnCode   = "code"
	ColumnColumn = "column"
	ColumnUserID = "user_id"
)

var resultColumns = []string{ColumnRow, ColumnResult, ColumnCode, ColumnColumn, ColumnUserID}

const (
	// cellSeparators are the characters at which a program may split a text of a CSV file into cells: which
	// of them it uses depends on its settings and its language, whatever quotes the file has.
	cellSeparators = ",;\t|\r\n"
	// formulaStarts are the characters that make a program run a cell as a formula (CWE-1236), also in full
	// width and in their small forms. A separator counts too: the cell before it is empty.
	formulaStarts = "=+-@＝＋－＠﹦﹢﹣﹫\t|\r\n"
	// apostrophe at the start of a cell makes it a text.
	apostrophe = '\''
)

// HarmlessCell returns a text of the result file as no spreadsheet program takes it for a formula: it
// puts an apostrophe before each part that would start one, at the start of the text and after each
// separator. A plus or minus before the digits of a phone is left alone. An upload of the result file
// takes the apostrophes out again.
func HarmlessCell(text string) string {
	return mapCellParts(text, func(part string) string {
		if startsFormula(part) {
			return string(apostrophe) + part
		}
		return part
	})
}

// originalCell undoes HarmlessCell.
func originalCell(text string) string {
	return mapCellParts(text, func(part string) string {
		if part[0] == apostrophe && startsFormula(part) {
			return part[1:]
		}
		return part
	})
}

// mapCellParts replaces each part of a text. A part ends with its separator; it is never empty.
func mapCellParts(text string, replace func(string) string) string {
	var out strings.Builder
	for text != "" {
		end := strings.IndexAny(text, cellSeparators) + 1
		if end == 0 {
			end = len(text)
		}
		out.WriteString(replace(text[:end]))
		text = text[end:]
	}
	return out.String()
}

// ignoredStart reports whether a program may drop r from the start of a cell: spaces, double quotes,
// apostrophes, control characters and invisible characters. A separator is kept.
func ignoredStart(r rune) bool {
	return !strings.ContainsRune(cellSeparators, r) &&
		(r == '"' || r == apostrophe || unicode.IsSpace(r) || !unicode.IsGraphic(r) || unicode.Is(unicode.Other_Default_Ignorable_Code_Point, r))
}

// startsFormula reports whether a program might run a part as a formula, were the apostrophes at its
// start taken away: so HarmlessCell adds one to those that the text had, and can be undone.
func startsFormula(part string) bool {
	bare := strings.TrimLeftFunc(part, ignoredStart)
	first, _ := utf8.DecodeRuneInString(bare)
	if bare == "" || !strings.ContainsRune(formulaStarts, first) {
		// A byte order mark alone is dropped by some programs and shown by others.
		return strings.ContainsRune(part[:len(part)-len(bare)], '\uFEFF')
	}
	if strings.HasPrefix(part, "+") || strings.HasPrefix(part, "-") {
		return strings.Trim(strings.TrimRight(part[1:], cellSeparators), "0123456789 ().-") != ""
	}
	return true
}
