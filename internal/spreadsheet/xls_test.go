package spreadsheet_test

import (
	"bytes"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/spreadsheet"
)

// label makes a LABEL record: a text in the cell itself.
func label(row, column uint16, text string) []byte {
	return record(0x0204, row, column, uint16(0), uint16(len([]rune(text))), uint8(1), wide(text))
}

// number makes a NUMBER record.
func number(row, column uint16, value float64) []byte {
	return record(0x0203, row, column, uint16(0), value)
}

// shared makes a LABELSST record.
func shared(row, column uint16, index uint32) []byte {
	return record(0x00FD, row, column, uint16(0), index)
}

// formula makes a FORMULA record with this result.
func formula(row, column uint16, result any) []byte {
	return record(0x0006, row, column, uint16(0), result, uint16(0), uint32(0), uint16(0))
}

var xlsHeader = bytes.Join([][]byte{label(0, 0, "phone"), label(0, 1, "user_groups")}, nil)

func TestXLSCells(t *testing.T) {
	t.Parallel()
	text := [8]byte{0, 0, 0, 0, 0, 0, 0xFF, 0xFF}
	result := func(kind, value byte) [8]byte { return [8]byte{kind, 0, value, 0, 0, 0, 0xFF, 0xFF} }
	tests := map[string]struct {
		sheet [][]byte
		want  string
	}{
		"number":      {[][]byte{number(1, 0, 79991234567), number(1, 1, 0.5)}, "2: number 79991234567 | number 0.5"},
		"not finite":  {[][]byte{number(1, 0, math.Inf(1)), number(1, 1, 1e300)}, "2: number +Inf | number 1e+300"},
		"16 digits":   {[][]byte{number(1, 0, 1e15)}, "2: number 1e+15 | empty"},
		"RK integer":  {[][]byte{record(0x027E, uint16(1), uint16(0), uint16(0), uint32(5<<2|2))}, "2: number 5 | empty"},
		"RK percents": {[][]byte{record(0x027E, uint16(1), uint16(0), uint16(0), int32(-150<<2|3))}, "2: number -1.5 | empty"},
		"RK float": {
			[][]byte{record(0x027E, uint16(1), uint16(0), uint16(0), uint32(math.Float64bits(1.5)>>32))}, "2: number 1.5 | empty",
		},
		"MULRK": {
			[][]byte{record(0x00BD, uint16(1), uint16(0), uint16(0), uint32(1<<2|2), uint16(0), uint32(2<<2|2), uint16(1))},
			"2: number 1 | number 2",
		},
		"MULRK too wide": {[][]byte{record(0x00BD, uint16(1), uint16(0), make([]byte, 6*300), uint16(299))}, "2: too_many_columns"},
		"BOOLERR": {
			[][]byte{record(0x0205, uint16(1), uint16(0), uint16(0), uint8(1), uint8(0)), record(0x0205, uint16(1), uint16(1), uint16(0), uint8(0x2A), uint8(1))},
			"2: bool TRUE | fault #N/A",
		},
		"unknown error": {[][]byte{record(0x0205, uint16(1), uint16(0), uint16(0), uint8(0x99), uint8(1))}, "2: fault #ERROR! | empty"},
		"RSTRING":       {[][]byte{record(0x00D6, uint16(1), uint16(0), uint16(0), uint16(2), uint8(0), "\xE9x", uint16(0))}, "2: text éx | empty"},
		"blanks":        {[][]byte{record(0x0201, uint16(1), uint16(0), uint16(0)), number(2, 1, 1)}, "3: empty | number 1"},
		"formula":       {[][]byte{formula(1, 0, 1.25), formula(1, 1, result(1, 1))}, "2: number 1.25 | bool TRUE"},
		"failed":        {[][]byte{formula(1, 0, result(2, 0x07)), formula(1, 1, result(3, 0)), number(1, 2, 1)}, "2: ragged_row in 3"},
		"text of a formula": {
			[][]byte{formula(1, 0, text), record(0x04BC, "shared formula"), record(0x0207, uint16(2), uint8(1), wide("яz")), number(1, 1, 2)},
			"2: text яz | number 2",
		},
		"text in pieces": { // each piece has its own width
			[][]byte{formula(1, 0, text), record(0x0207, uint16(7), uint8(1), wide("я")), record(0x003C, uint8(0), "abc"), record(0x003C, uint8(1), wide("😀z"))},
			"2: text яabc😀z | empty",
		},
		"letter in two pieces": {
			[][]byte{formula(1, 0, text), record(0x0207, uint16(2), uint8(1), wide("😀")[:2]), record(0x003C, uint8(1), wide("😀")[2:])},
			"2: text 😀 | empty",
		},
		"half a letter":    {[][]byte{record(0x0204, uint16(1), uint16(0), uint16(0), uint16(1), uint8(1), wide("😀")[:2]), number(1, 1, 1)}, "2: text \uFFFD | number 1"},
		"too long":         {[][]byte{label(1, 0, strings.Repeat("я", spreadsheet.MaxCellRunes+1))}, "2: too_long in 1"},
		"chart in a sheet": {[][]byte{bof, number(7, 0, 7), eof, number(1, 0, 1)}, "2: number 1 | empty"},
		"a value again":    {[][]byte{number(1, 0, 1), number(1, 0, 1)}, "2: number 1 | empty"},
		"another value":    {[][]byte{number(1, 1, 1), number(1, 1, 2)}, "2: duplicate_cell in 2"},
		"columns unsorted": {[][]byte{number(1, 1, 2), number(1, 0, 1)}, "2: number 1 | number 2"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := read(t, xls(nil, append([][]byte{xlsHeader}, test.sheet...)))
			require.NoError(t, got.err)
			require.Equal(t, spreadsheet.XLS, got.format)
			require.Equal(t, []string{"phone", "user_groups"}, got.header)
			require.Equal(t, []string{test.want}, got.rows)
		})
	}
}

func TestXLSSharedStrings(t *testing.T) {
	t.Parallel()
	refs := func(n int) [][]byte {
		sheet := [][]byte{xlsHeader}
		for i := range n {
			sheet = append(sheet, record(0x00FD, uint16(1+i/2), uint16(i%2), uint16(0), uint32(i)))
		}
		return sheet
	}
	const rich, extended = 8, 4
	got := read(t, xls([][]byte{
		// Declares billions of strings; there are four, one with formats and hints after it.
		record(0x00FC, uint32(1<<31), uint32(1<<31), uint16(2), uint8(0), "ab", uint16(3), uint8(1), wide("кл")),
		record(0x003C, uint8(0), "!", uint16(1), uint8(rich|extended), uint16(2), uint32(5), "x", "runs"),
		record(0x003C, "runs", "hint"),
		record(0x003C),
		record(0x003C, "s", uint16(0), uint8(0)),
	}, refs(4)))
	require.NoError(t, got.err)
	require.Equal(t, []string{"2: text ab | text кл!", "3: text x | empty"}, got.rows)
	requireCode(t, spreadsheet.BrokenFile, read(t, xls(nil, refs(1))).err)
}

func TestXLSFaults(t *testing.T) {
	t.Parallel()
	withBound := func(at uint32, hidden, kind uint8) []byte {
		return bytes.Join([][]byte{bof, record(0x0085, at, hidden, kind, uint16(1), "S"), eof, bof, xlsHeader, eof}, nil)
	}
	const globals = 4 + 4 + 13 + 4 // length of what precedes the sheet
	require.NoError(t, read(t, compound(map[string][]byte{"Workbook": withBound(globals, 0, 0)})).err)
	faults := func(records ...[]byte) []byte { return stream(nil, append([][]byte{xlsHeader}, records...)) }
	tests := map[string]struct {
		stream []byte
		code   spreadsheet.Code
	}{
		"no rows":             {stream(nil, nil), spreadsheet.EmptyFile},
		"password":            {stream([][]byte{record(0x002F, uint16(1), "secrets")}, nil), spreadsheet.Encrypted},
		"password of a sheet": {faults(record(0x002F, uint16(1))), spreadsheet.Encrypted},
		"hidden":              {withBound(globals, 1, 0), spreadsheet.NoSheet},
		"very hidden":         {withBound(globals, 2, 0), spreadsheet.NoSheet},
		"chart":               {withBound(globals, 0, 2), spreadsheet.NoSheet},
		"sheet elsewhere":     {withBound(globals+1, 0, 0), spreadsheet.BrokenFile},
		"sheet outside":       {withBound(1<<31, 0, 0), spreadsheet.BrokenFile},
		"Excel 95":            {record(0x0809, uint16(0x0500), uint16(5)), spreadsheet.UnknownFormat},
		"not a workbook":      {[]byte("anything"), spreadsheet.BrokenFile},
		"no end":              {bytes.Join([][]byte{bof, bof, bof}, nil), spreadsheet.BrokenFile},
		"short bound":         {bytes.Join([][]byte{bof, record(0x0085, uint32(0)), eof}, nil), spreadsheet.BrokenFile},
		"short SST":           {stream([][]byte{record(0x00FC, uint32(1))}, [][]byte{shared(0, 0, 0)}), spreadsheet.BrokenFile},
		"cut SST":             {stream([][]byte{record(0x00FC, uint32(1), uint32(1), uint16(9), uint8(0), "cut")}, [][]byte{shared(0, 0, 0)}), spreadsheet.BrokenFile},
		"cut hints":           {stream([][]byte{record(0x00FC, uint32(1), uint32(1), uint16(0), uint8(4), uint32(math.MaxUint32), "cut")}, [][]byte{shared(0, 0, 0)}), spreadsheet.BrokenFile},
		"short cell":          {faults(record(0x0203, uint16(1))), spreadsheet.BrokenFile},
		"short number":        {faults(record(0x0203, uint16(1), uint16(0), uint16(0), uint32(0))), spreadsheet.BrokenFile},
		"short RK":            {faults(record(0x027E, uint16(1), uint16(0), uint16(0))), spreadsheet.BrokenFile},
		"short index":         {faults(record(0x00FD, uint16(1), uint16(0), uint16(0), uint8(0))), spreadsheet.BrokenFile},
		"short bool":          {faults(record(0x0205, uint16(1), uint16(0), uint16(0), uint8(0))), spreadsheet.BrokenFile},
		"short formula":       {faults(record(0x0006, uint16(1), uint16(0), uint16(0), uint32(0))), spreadsheet.BrokenFile},
		"short label":         {faults(record(0x0204, uint16(1), uint16(0), uint16(0), uint16(9), uint8(0), "cut")), spreadsheet.BrokenFile},
		"formula without its text": {
			faults(formula(1, 0, [8]byte{6: 0xFF, 7: 0xFF}), number(1, 1, 1), number(1, 1, 1), number(1, 1, 1)), spreadsheet.BrokenFile,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			requireCode(t, test.code, read(t, compound(map[string][]byte{"Workbook": test.stream})).err)
		})
	}
}
