package spreadsheet_test

import (
	"archive/zip"
	"bytes"
	"encoding/xml"
	"io"
	"path"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/richardlehane/mscfb"
	"github.com/stretchr/testify/require"
)

// maxFuzzAlloc is what reading one fuzzed file may allocate in total: FuzzXLSX makes no file that
// inflates, so the largest is a CSV record with as many fields as bytes.
const maxFuzzAlloc = 64 << 20

// readBounded reads a file as read does, and checks what it costs.
func readBounded(t *testing.T, file []byte) result {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	begin := time.Now()
	got := read(t, file)
	took := time.Since(begin)
	runtime.ReadMemStats(&after)
	require.Less(t, took, maxTime)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(maxFuzzAlloc+100*len(file)))
	return got
}

// FuzzOpen mutates whole files: the containers, and CSV.
func FuzzOpen(f *testing.F) {
	for _, name := range workbooks(f) {
		if file := fixture(f, name); len(file) < 20<<10 {
			f.Add(file)
		}
	}
	f.Fuzz(func(t *testing.T, file []byte) { readBounded(t, file) })
}

func FuzzCSV(f *testing.F) {
	for _, seed := range []string{
		"\uFEFFphone;user_groups\r\n+79991234567;\"client;driver\"\r\n",
		"sep=,\nphone,user_groups\n\"+7 999\n\",client\n\n,\n",
		"\"sep=;\"\rphone;x,y\r1;a\r",
		"phone,\"x\ny\"\r1,a\r2,\"b\nc\"\r3,d",
		"\xF2\xE5\xEB\xE5\xF4\xEE\xED\tx\r1\t\x98\r",
		"\xFF\xFEa\x00,\x00\x34\x04\n\x00\x00\xD8",
		"\xFE\xFF\x00a\x00\n\x00b",
		"phone,x\n1\n1,a,b\n1,\"a\"b\n2,\"",
		"phone\n 4951234567\n1\x00\n",
		"phone,x\n1," + strings.Repeat("я", 256) + "\n1,a\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		// A file that begins like a workbook is for the other targets.
		readBounded(t, append([]byte{'p'}, file...))
		readBounded(t, file)
	})
}

// FuzzXLSX mutates the worksheet and the shared strings of a workbook and not their container, whose
// checksums would stop it.
func FuzzXLSX(f *testing.F) {
	for _, seed := range [][2]string{
		{xlsxHeader + `<row r="3"><c r="B3"><v>7.9E10</v></c><c t="b"><v>1</v></c></row>`, `<si/>`},
		{xlsxHeader + `<row><c t="s"><v>0</v></c><c t="e"><v>#N/A</v></c></row>`, `<si><r><t>a</t></r><rPh><t>b</t></rPh></si>`},
		{xlsxHeader + `<row><c t="str"><f>A1</f><v>_x000D_</v></c></row>`, `<si><t>&lt;<![CDATA[x]]></t></si>`},
		{xlsxHeader + "<row r='3'><c r='b3'>\n<v>\n1\n</v></c></row><row r='2'><c r=\"A2\"><v>&#x31;</v></c></row><row r='3'/>", `<si/>`},
		{xlsxHeader + `<row><c t="inlineStr"><v>0</v><is><t xml:space="preserve"> 1 </t></is></c><c r="XFD2"/></row>`, `<si/>`},
		{xlsxHeader + `<row><c t="s"><v>1048575</v></c><c t="s"><v>-1</v></c></row>`, `<si/><!-- --><?pi?>`},
	} {
		f.Add([]byte(`<worksheet><sheetData>`+seed[0]+`</sheetData></worksheet>`), []byte(`<sst>`+seed[1]+`</sst>`))
	}
	f.Add([]byte("\xFF\xFE<\x00a\x00/\x00>\x00"), []byte(`<?xml version="1.0" encoding="windows-1251"?><sst><si><t>`+"\xCF"+`</t></si></sst>`))
	for _, name := range workbooks(f) {
		if file := fixture(f, name); len(file) < 20<<10 && path.Ext(name) == ".xlsx" {
			f.Add(partOf(f, file, "/sheet1.xml"), partOf(f, file, "sharedstrings.xml"))
		}
	}
	f.Fuzz(func(t *testing.T, sheet, shared []byte) {
		all := parts("", "")
		all[4].content, all[5].content = string(sheet), string(shared)
		got := readBounded(t, pack(t, all...))
		if got.err == nil {
			require.GreaterOrEqual(t, len(got.rows)+1, rowsWithNumbers(sheet), "a row was lost")
		}
	})
}

// partOf returns the first part of a workbook whose name has this end, in any spelling.
func partOf(t testing.TB, file []byte, suffix string) []byte {
	t.Helper()
	archive, err := zip.NewReader(bytes.NewReader(file), int64(len(file)))
	require.NoError(t, err)
	for _, entry := range archive.File {
		if !strings.HasSuffix(strings.ToLower(strings.ReplaceAll(entry.Name, `\`, "/")), suffix) {
			continue
		}
		stream, err := entry.Open()
		require.NoError(t, err)
		content, err := io.ReadAll(stream)
		require.NoError(t, err)
		return content
	}
	return nil
}

var digits = regexp.MustCompile(`^[0-9]{1,20}$`)

// rowsWithNumbers counts the rows that have a number, as encoding/xml reads them; 0 if it cannot, or if the
// file numbers rows or cells itself, so that two elements may be one row.
func rowsWithNumbers(sheet []byte) (count int) {
	var worksheet struct {
		Rows []struct {
			Attributes []xml.Attr `xml:",any,attr"`
			Cells      []struct {
				Attributes []xml.Attr `xml:",any,attr"`
				Value      []string   `xml:"v"`
			} `xml:"c"`
		} `xml:"sheetData>row"`
	}
	if xml.Unmarshal(sheet, &worksheet) != nil {
		return 0
	}
	for _, row := range worksheet.Rows {
		found := false
		if len(row.Attributes) > 0 {
			return 0
		}
		for _, cell := range row.Cells {
			if len(cell.Attributes) > 0 {
				return 0
			}
			found = found || len(cell.Value) == 1 && digits.MatchString(cell.Value[0])
		}
		if found {
			count++
		}
	}
	return count
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
	f.Add(stream(nil, [][]byte{number(2, 0, 3), number(1, 0, 1), record(0x0204, uint16(1), uint16(1), uint16(0), uint16(0))}))
	f.Add(stream(nil, [][]byte{
		record(0x0406, uint16(1), uint16(0), uint16(0), text, uint16(0)), record(0x04BC, "x"), record(0x0207, uint16(1), uint8(0), "a"),
		record(0x0204, uint16(2), uint16(0), uint16(0), uint16(2), uint8(1), wide("яb")[:1]), record(0x003C, uint8(1), wide("яb")[1:]),
		record(0x0003, uint16(3), uint16(0), uint16(0)),
	}))
	for _, name := range workbooks(f) {
		file := fixture(f, name)
		if len(file) > 20<<10 || path.Ext(name) != ".xls" {
			continue
		}
		compound, err := mscfb.New(bytes.NewReader(file))
		require.NoError(f, err)
		for _, entry := range compound.File {
			if entry.Name == "Workbook" {
				content, err := io.ReadAll(entry)
				require.NoError(f, err)
				f.Add(content)
			}
		}
	}
	f.Fuzz(func(t *testing.T, workbook []byte) {
		file := compound(map[string][]byte{"Workbook": workbook})
		require.True(t, bytes.Contains(file, workbook))
		readBounded(t, file)
	})
}
