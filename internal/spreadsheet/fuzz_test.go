package spreadsheet_test

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzOpen mutates whole files: the containers, and CSV.
func FuzzOpen(f *testing.F) {
	for _, name := range workbooks(f) {
		if file := fixture(f, name); len(file) < 16<<10 {
			f.Add(file)
		}
	}
	f.Fuzz(func(t *testing.T, file []byte) { read(t, file) })
}

func FuzzCSV(f *testing.F) {
	f.Add([]byte("\uFEFFphone;user_groups\r\n+79991234567;\"client;driver\"\r\n"))
	f.Add([]byte("sep=,\nphone,user_groups\n\"+7 999\n\",client\n\n,\n"))
	f.Add([]byte("\xF2\xE5\xEB\xE5\xF4\xEE\xED\tx\r1\t\x98\r"))
	f.Add([]byte("\xFF\xFEa\x00,\x00\x34\x04\n\x00\x00\xD8"))
	f.Fuzz(func(t *testing.T, file []byte) { read(t, file) })
}

// FuzzXLSX mutates the parts of a workbook and not their container, whose checksums would stop it.
func FuzzXLSX(f *testing.F) {
	f.Add(xlsxHeader+`<row r="3"><c r="B3"><v>7.9E10</v></c><c t="b"><v>1</v></c></row>`, `<si/>`)
	f.Add(xlsxHeader+`<row><c t="s"><v>0</v></c><c t="e"><v>#N/A</v></c></row>`, `<si><r><t>a</t></r><rPh><t>b</t></rPh></si>`)
	f.Add(xlsxHeader+`<row><c t="str"><f>A1</f><v>_x000D_</v></c></row>`, `<si><t>&lt;<![CDATA[x]]></t></si>`)
	f.Fuzz(func(t *testing.T, rows, shared string) { read(t, xlsx(t, rows, shared)) })
}

// FuzzXLS mutates the records of a workbook and not their container.
func FuzzXLS(f *testing.F) {
	text := [8]byte{6: 0xFF, 7: 0xFF}
	f.Add(stream([][]byte{
		record(0x00FC, uint32(2), uint32(2), uint16(2), uint8(0), "ab", uint16(3), uint8(1), wide("кл")),
		record(0x003C, uint8(0), "!", uint16(1), uint8(12), uint16(1), uint32(4), "x", "runs", "hint"),
	}, [][]byte{
		xlsHeader, record(0x00FD, uint16(1), uint16(0), uint16(0), uint32(1)), number(1, 1, 79991234567),
		record(0x00BD, uint16(2), uint16(0), uint16(0), uint32(6), uint16(0), uint32(5), uint16(1)),
		formula(3, 0, text), record(0x0207, uint16(2), uint8(1), wide("яz")), formula(3, 1, 1.5),
		record(0x0205, uint16(4), uint16(0), uint16(0), uint8(1), uint8(0)), bof, eof,
	}))
	f.Add(stream(nil, [][]byte{xlsHeader, label(1, 0, "+7999"), record(0x00D6, uint16(1), uint16(1), uint16(0), uint16(1), uint8(0), "x")}))
	f.Fuzz(func(t *testing.T, workbook []byte) {
		file := compound(map[string][]byte{"Workbook": workbook})
		require.True(t, bytes.Contains(file, workbook))
		read(t, file)
	})
}
