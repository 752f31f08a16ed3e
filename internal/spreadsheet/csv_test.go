package spreadsheet_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/unicode"

	"github.com/payment-services/accounts/internal/spreadsheet"
)

func TestCSV(t *testing.T) {
	t.Parallel()
	windows, err := charmap.Windows1251.NewEncoder().String("Телефон;Группы\r\n+79991234567;клиент\r\n")
	require.NoError(t, err)
	utf16, err := unicode.UTF16(unicode.LittleEndian, unicode.UseBOM).NewEncoder().
		String("Телефон\tГруппы\r\n+79991234567\tклиент\r\n")
	require.NoError(t, err)
	russian := []string{"Телефон", "Группы"}
	client := []string{"2: text +79991234567 | text клиент"}
	ascii := strings.Repeat("+79991234567,client\n", 10_000) // 200 kB, more than what is sniffed
	tests := map[string]struct {
		file   string
		header []string
		rows   []string
	}{
		"comma":          {"Телефон,Группы\n+79991234567,клиент\n", russian, client},
		"semicolon, BOM": {"\uFEFFТелефон;Группы\r\n+79991234567;клиент", russian, client},
		"Windows-1251":   {windows, russian, client},
		"Пё":             {"\xCF\xB8\xF2\xF0\n1\n", []string{"Пётр"}, []string{"2: text 1"}},
		"П":              {"phone\n\xCF", []string{"phone"}, []string{"2: text П"}},
		"UTF-16 and tab": {utf16, russian, client},
		"CR alone":       {"Телефон;Группы\r+79991234567;клиент\r", russian, client},
		"declared":       {"sep=|\r\nТелефон|Группы\r\n+79991234567|клиент\r\n", russian, client},
		"not declared":   {"sep=x\n1\n", []string{"sep=x"}, []string{"2: text 1"}},
		"blank lines": {
			"\n\nТелефон;Группы;\n\n;;\n \n+79991234567;клиент;\n\n", russian,
			[]string{"7: text +79991234567 | text клиент"},
		},
		"delimiters in quotes": {
			"\"a;b;c;d\",\" e\"\"f \",g\n\"1,2\",x ,\"\"\n", []string{"a;b;c;d", "e\"f", "g"},
			[]string{"2: text 1,2 | text x | empty"},
		},
		"lines in quotes": {
			"a,b\n\"1\n2\r\n3\",x\n4,5\n\n6,7\n", []string{"a", "b"},
			[]string{"2: text 1\n2\n3 | text x", "3: text 4 | text 5", "5: text 6 | text 7"},
		},
		"one column": {"phone\n79991234567\n", []string{"phone"}, []string{"2: text 79991234567"}},
		"faults of rows": {
			"phone,группы\n1,client,driver\n2\n3,a \"quoted\" word\n4,\"x\" y\n5,ok\n6,bad\xFFbyte\n7,\uFFFD\n8," +
				strings.Repeat("x", spreadsheet.MaxCellRunes+1) + "\n9" + strings.Repeat(",", 2*spreadsheet.MaxColumns) + "x\n10,ok\n",
			[]string{"phone", "группы"},
			[]string{
				"2: ragged_row in 3", "3: ragged_row", "4: bad_quote", "5: bad_quote", "6: text 5 | text ok", "7: bad_encoding in 2",
				"8: bad_encoding in 2", "9: too_long in 2", "10: too_many_columns", "11: text 10 | text ok",
			},
		},
		// The first byte that is not ASCII comes late, and decides all the same.
		"late Windows-1251": {"phone,note\n" + ascii + "1,\xEA\xEB\xE8\xE5\xED\xF2\n", []string{"phone", "note"}, []string{"10002: text 1 | text клиент"}},
		"late UTF-8":        {"phone,note\n" + ascii + "1,клиент\n", []string{"phone", "note"}, []string{"10002: text 1 | text клиент"}},
		// 0x98 is nothing in Windows-1251.
		"not Windows-1251": {"phone\n\xEA\xEB\n\x98\n", []string{"phone"}, []string{"2: text кл", "3: bad_encoding in 1"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := read(t, []byte(test.file))
			require.NoError(t, got.err)
			require.Equal(t, spreadsheet.CSV, got.format)
			require.Equal(t, test.header, got.header)
			if strings.HasPrefix(name, "late") {
				require.Len(t, got.rows, 10_001)
				got.rows = got.rows[10_000:]
			}
			require.Equal(t, test.rows, got.rows)
		})
	}
}

// Text in UTF-8 stays UTF-8 wherever the sniffed part ends: also within a letter.
func TestCSVSniffedPartEndsInLetter(t *testing.T) {
	t.Parallel()
	for shift := range 4 {
		file := "phone\n" + strings.Repeat("a", shift) + strings.Repeat("\nклиент€😀", 5000)
		got := read(t, []byte(file))
		require.NoError(t, got.err)
		require.Contains(t, got.rows[len(got.rows)-1], "клиент€😀")
	}
}

func TestCSVFaults(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		file string
		code spreadsheet.Code
		row  int
	}{
		"nothing":           {"", spreadsheet.EmptyFile, 0},
		"BOM alone":         {"\uFEFF", spreadsheet.EmptyFile, 0},
		"half a BOM":        {"\xFF\xFE", spreadsheet.EmptyFile, 0},
		"blank":             {"\r\n \r\n;;;\r\n", spreadsheet.EmptyFile, 0},
		"open quote":        {"a,b\n1,2\n3,\"4\n5,6\n7,8\n", spreadsheet.UnterminatedQuote, 3},
		"open quote, long":  {"a,b\n1,2\n3,\"4\n" + strings.Repeat("5,6\n", 500_000), spreadsheet.RowTooLong, 3},
		"long line":         {"a,b\n" + strings.Repeat("x", 2_000_000), spreadsheet.RowTooLong, 2},
		"wide header":       {strings.Repeat("a,", spreadsheet.MaxColumns) + "a\n", spreadsheet.TooManyColumns, 1},
		"quote in header":   {"a,b\"c\n1,2\n", spreadsheet.BadQuote, 1},
		"too many rows":     {"a\n" + strings.Repeat("1\n", spreadsheet.MaxRows+1), spreadsheet.TooManyRows, spreadsheet.MaxRows + 2},
		"too many blanks":   {"a,b\n" + strings.Repeat(",\n", 1<<20), spreadsheet.TooManyRows, 1<<20 + 1},
		"binary after text": {"phone\n1\x00\n", spreadsheet.UnknownFormat, 0},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := read(t, []byte(test.file))
			requireCode(t, test.code, got.err)
			var fault *spreadsheet.Error
			require.ErrorAs(t, got.err, &fault)
			require.Equal(t, test.row, fault.Row)
		})
	}
	require.Len(t, read(t, []byte("a\n"+strings.Repeat("1\n", spreadsheet.MaxRows))).rows, spreadsheet.MaxRows)
}
