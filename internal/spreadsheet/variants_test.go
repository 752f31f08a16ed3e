package spreadsheet_test

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/unicode"

	"github.com/payment-services/accounts/internal/spreadsheet"
)

// The files of testdata that earlier versions of the readers read wrongly.
func TestReportedFiles(t *testing.T) {
	t.Parallel()
	texts := func(rows ...string) []string { return rows }
	for name, want := range map[string]struct {
		header []string
		first  []string
		count  int
	}{
		"01_leading_space.xlsx": {
			[]string{"phone", "user_groups"},
			texts("2: text  89990020001 | text client", "3: text  79990020002 | text client"), 12,
		},
		"02_amplify_5000x4KiB.xlsx": {[]string{"phone", "user_groups"}, texts("2: too_long in 1"), 5000},
		"03_pretty_printed.xlsx":    {[]string{"phone", "user_groups"}, texts("2: text 89990030001 | text client"), 1},
		"05_formula_0x406_lost.xls": {
			[]string{"phone", "user_groups"},
			texts("2: number 79990040002 | empty", "3: number 79990040003 | empty", "4: number 79990040004 | empty"), 3,
		},
		"06b_poi_dual_Book_and_Workbook.xls": {[]string{"hi this is some text"}, nil, 0},
		"09_emf_ratio.xlsx":                  {[]string{"phone", "user_groups"}, texts("2: text 89990030001 | text client"), 1},
		"10_exceldatareader_label_without_flags.xls": {
			[]string{"", "", "AAA", "", "col5", "", "col7", "", "col9"}, texts("2: ragged_row in 10"), -1,
		},
		"11_roo_missing_unused_sharedStrings.xlsx": {[]string{"Test"}, texts("2: ragged_row in 2"), 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := read(t, fixture(t, name))
			require.NoError(t, got.err)
			require.Equal(t, want.header, got.header)
			if want.count >= 0 {
				require.Len(t, got.rows, want.count)
			}
			if want.first != nil {
				require.Equal(t, want.first, got.rows[:len(want.first)])
			}
		})
	}
	got := read(t, fixture(t, "08_phpspreadsheet_backslash.xlsx"))
	require.NoError(t, got.err)
	require.Equal(t, "Key ID", got.header[0])
	require.Len(t, got.rows, 2)
}

// workbookOf makes a workbook of one phone with these names of parts and targets.
func workbookOf(t testing.TB, root, workbook, rels, target, sheet string) []byte {
	t.Helper()
	return pack(t,
		part{root, relationships(rel("1", "officeDocument", workbook))},
		part{strings.TrimPrefix(workbook, "/"), `<workbook xmlns:r="r"><sheets><sheet r:id="r1"/></sheets></workbook>`},
		part{rels, relationships(rel("r1", "worksheet", target))},
		part{sheet, `<worksheet><sheetData>` + xlsxHeader + `<row><c><v>79991234567</v></c></row></sheetData></worksheet>`},
	)
}

func TestXLSX_PartNames(t *testing.T) {
	t.Parallel()
	const root, rels, sheet = "_rels/.rels", "xl/_rels/workbook.xml.rels", "xl/worksheets/sheet1.xml"
	for name, file := range map[string][]byte{
		"usual":                workbookOf(t, root, "xl/workbook.xml", rels, "worksheets/sheet1.xml", sheet),
		"absolute target":      workbookOf(t, root, "/xl/workbook.xml", rels, "/xl/worksheets/sheet1.xml", sheet),
		"target from the root": workbookOf(t, root, "xl/workbook.xml", rels, "xl/worksheets/sheet1.xml", sheet),
		"dot":                  workbookOf(t, "./_rels/.rels", "xl/workbook.xml", "./"+rels, "./worksheets/./sheet1.xml", "./"+sheet),
		"parent":               workbookOf(t, root, "xl/workbook.xml", rels, "../xl/worksheets/sheet1.xml", sheet),
		"leading slash":        workbookOf(t, "/"+root, "/xl/workbook.xml", "/"+rels, "worksheets/sheet1.xml", "/"+sheet),
		"backslash":            workbookOf(t, `_rels\.rels`, `xl\workbook.xml`, `xl\_rels\workbook.xml.rels`, `worksheets\sheet1.xml`, `xl\worksheets\sheet1.xml`),
		"percent in target":    workbookOf(t, root, "xl/workbook.xml", rels, "worksheets/%73heet%201.xml", "xl/worksheets/sheet 1.xml"),
		"percent in name":      workbookOf(t, root, "xl/workbook.xml", rels, "worksheets/sheet 1.xml", "xl/worksheets/sheet%201.xml"),
		"letter case":          workbookOf(t, "_RELS/.Rels", "XL/Workbook.XML", "xL/_Rels/workbook.xml.RELS", "WorkSheets/Sheet1.xml", sheet),
		"workbook elsewhere":   workbookOf(t, root, "book/main.xml", "book/_rels/main.xml.rels", "tables/one.xml", "book/tables/one.xml"),
		"workbook in the root": workbookOf(t, root, "workbook.xml", "_rels/workbook.xml.rels", "sheet1.xml", "sheet1.xml"),
		"no root relations": pack(t,
			part{"xl/workbook.xml", `<workbook xmlns:r="r"><sheets><sheet r:id="r1"/></sheets></workbook>`},
			part{rels, relationships(rel("r1", "worksheet", "worksheets/sheet1.xml"))},
			part{sheet, `<worksheet><sheetData>` + xlsxHeader + `<row><c><v>79991234567</v></c></row></sheetData></worksheet>`}),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := read(t, file)
			require.NoError(t, got.err)
			require.Equal(t, []string{"2: number 79991234567 | empty"}, got.rows)
		})
	}
}

// Only the parts that are read are checked.
func TestXLSX_UnusedParts(t *testing.T) {
	t.Parallel()
	const row = `<row><c><v>79991234567</v></c></row>`
	encoded := func(name string, flags uint16) []byte {
		file := xlsx(t, xlsxHeader+row, "", part{name, "secret"})
		at := bytes.LastIndex(file, []byte(name)) - 46 // the entry of the directory
		file[at+8] |= byte(flags)
		return file
	}
	more := make([]part, 1000)
	for i := range more {
		more[i].name = fmt.Sprintf("xl/media/image%d.png", i)
	}
	with := func(row, shared string) []byte {
		all := parts(xlsxHeader+row, "")
		all[5].content = shared
		return pack(t, all...)
	}
	without := func(row string) []byte { return pack(t, parts(xlsxHeader+row, "")[:5]...) }
	const refers = `<row><c t="s"><v>0</v></c></row>`
	for name, test := range map[string]struct {
		file []byte
		code spreadsheet.Code
	}{
		"1,000 pictures":            {xlsx(t, xlsxHeader+row, "", more...), ""},
		"encrypted part":            {encoded("xl/secret.bin", 1), ""},
		"unused twice":              {xlsx(t, xlsxHeader+row, "", part{"a", ""}, part{"A", ""}), ""},
		"name that climbs":          {xlsx(t, xlsxHeader+row, "", part{"xl/../../x", ""}), ""},
		"shared strings missing":    {without(row), ""},
		"shared strings damaged":    {with(row, "<sst><si>"), ""},
		"needed strings missing":    {without(refers), spreadsheet.BrokenFile},
		"needed strings damaged":    {with(refers, "<sst><si>"), spreadsheet.BrokenFile},
		"needed string not there":   {with(refers, "<sst></sst>"), spreadsheet.BrokenFile},
		"chart first, then a sheet": {chartFirst(t), ""},
		"sheet without a part": {pack(t, append(parts("", "")[:2], parts("", "")[3],
			part{"xl/workbook.xml", `<workbook xmlns:r="r"><sheets><sheet r:id="r7"/><sheet r:id="r1"/></sheets></workbook>`})...), spreadsheet.BrokenFile},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := read(t, test.file)
			if test.code != "" {
				requireCode(t, test.code, got.err)
				return
			}
			require.NoError(t, got.err)
			require.Equal(t, []string{"2: number 79991234567 | empty"}, got.rows)
		})
	}
}

func chartFirst(t testing.TB) []byte {
	all := parts(xlsxHeader+`<row><c><v>79991234567</v></c></row>`, "")
	all[2].content = `<workbook xmlns:r="r"><sheets><sheet state="VeryHidden" r:id="r9"/><sheet r:id="r3"/><sheet r:id="r1"/></sheets></workbook>`
	all[3].content = relationships(rel("r3", "chartsheet", "chartsheets/sheet1.xml"), rel("r1", "worksheet", "worksheets/sheet1.xml"))
	return pack(t, all...)
}

func TestXLSX_Encodings(t *testing.T) {
	t.Parallel()
	const sheet = `<worksheet><sheetData>` + xlsxHeader +
		`<row><c t="s"><v>0</v></c><c t="inlineStr"><is><t>клиент</t></is></c></row></sheetData></worksheet>`
	encode := func(to encoding.Encoding, text string) string {
		encoded, err := to.NewEncoder().String(text)
		require.NoError(t, err)
		return encoded
	}
	little, big := unicode.UTF16(unicode.LittleEndian, unicode.IgnoreBOM), unicode.UTF16(unicode.BigEndian, unicode.IgnoreBOM)
	for name, test := range map[string]struct {
		to     encoding.Encoding
		before string
	}{
		"UTF-8 with a byte order mark":     {encoding.Nop, "\uFEFF"},
		"UTF-8, declared":                  {encoding.Nop, `<?xml version="1.0" encoding="utf-8"?>`},
		"UTF-8, declared as UTF-16":        {encoding.Nop, `<?xml version="1.0" encoding="UTF-16"?>`},
		"UTF-16LE with a byte order mark":  {little, "\uFEFF" + `<?xml version="1.0" encoding="UTF-16"?>`},
		"UTF-16BE with a byte order mark":  {big, "\uFEFF" + `<?xml version="1.0" encoding="UTF-16"?>`},
		"UTF-16LE without one":             {little, `<?xml version="1.0" encoding="UTF-16LE"?>`},
		"UTF-16BE without one":             {big, `<?xml version="1.0" encoding="UTF-16BE"?>`},
		"windows-1251":                     {charmap.Windows1251, `<?xml version='1.0' encoding='Windows-1251' standalone='yes'?>`},
		"KOI8-R":                           {charmap.KOI8R, `<?xml version="1.0" encoding = "koi8-r"?>`},
		"windows-1251 and a line before":   {charmap.Windows1251, "<?xml version=\"1.0\"\n encoding=\"windows-1251\"?>\n"},
		"UTF-16LE, declaration without it": {little, "\uFEFF" + `<?xml version="1.0"?>`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			all := parts("", "")
			for i := range all[1:] {
				all[i+1].content = encode(test.to, test.before+strings.TrimPrefix(all[i+1].content, `<?xml version="1.0" encoding="UTF-8"?>`))
			}
			all[4].content = encode(test.to, test.before+sheet)
			all[5].content = encode(test.to, test.before+`<sst><si><t>Пётр</t></si></sst>`)
			got := read(t, pack(t, all...))
			require.NoError(t, got.err)
			require.Equal(t, []string{"2: text Пётр | text клиент"}, got.rows)
		})
	}
	all := parts("", "")
	all[4].content = `<?xml version="1.0" encoding="klingon"?>` + sheet
	requireCode(t, spreadsheet.BadEncoding, read(t, pack(t, all...)).err)
}

func TestXLSX_Layout(t *testing.T) {
	t.Parallel()
	const sst = `<si><t>shared</t></si><si>
  <r><rPr><b/></rPr>
   <t>one, </t></r> x <r><t xml:space="preserve"> two</t></r>
  <rPh sb="0" eb="1"><t>hint</t></rPh><phoneticPr fontId="1"/>
 </si>`
	for name, test := range map[string]struct {
		rows string
		want []string
	}{
		"pretty-printed": {
			"\n <row>\n  <c t=\"inlineStr\">\n   <is>\n    <t>\n     89990030001\n    </t>\n   </is>\n  </c>\n  <c>\n <v>\n 5\n </v>\n </c>\n </row>\n",
			[]string{"2: text 89990030001 | number 5"},
		},
		"pretty-printed, shared": {"<row>\n<c t=\"s\">\n<v>\n1\n</v>\n</c>\n</row>", []string{"2: text one, two | empty"}},
		"space is kept":          {`<row><c t="inlineStr"><is><t xml:space="preserve"> a </t></is></c></row>`, []string{"2: text  a | empty"}},
		"comment in a value":     {`<row><c><v>7999<!-- > -->1234567</v></c></row>`, []string{"2: number 79991234567 | empty"}},
		"value beside text": {
			`<row><c t="inlineStr"><v>0</v><is><t>a</t></is></c><c t="s"><is><t>b</t></is><v>0</v></c></row>` +
				`<row><c t="inlineStr"><v>c</v></c><c t="s"><is><t>d</t></is></c></row>`,
			[]string{"2: text a | text shared", "3: text c | text d"},
		},
		"lower-case references": {`<row r="2"><c r="b2"><v>2</v></c><c r="$A$2"><v>1</v></c></row>`, []string{"2: number 1 | number 2"}},
		"row number in the cell": {
			`<row><c r="A5"><v>1</v></c></row><row><c><v>2</v></c></row><row><c r="B9"><v>3</v></c></row>`,
			[]string{"5: number 1 | empty", "6: number 2 | empty", "9: empty | number 3"},
		},
		"rows out of order": {
			`<row r="4"><c><v>4</v></c></row><row r="2"><c><v>2</v></c></row><row><c><v>3</v></c></row>`,
			[]string{"2: number 2 | empty", "3: number 3 | empty", "4: number 4 | empty"},
		},
		"row again": {
			`<row r="2"><c r="A2"><v>1</v></c></row><row r="2"><c r="B2"><v>2</v></c></row><row r="3"><c><v>3</v></c></row>`,
			[]string{"2: number 1 | number 2", "3: number 3 | empty"},
		},
		"row again with another value": {
			`<row r="2"><c r="A2"><v>1</v></c></row><row r="2"><c r="A2"><v>2</v></c></row><row r="3"><c><v>3</v></c></row>`,
			[]string{"2: duplicate_cell in 1", "3: number 3 | empty"},
		},
		"error in a row out of order": {
			`<row r="3"><c t="str"><v>` + strings.Repeat("x", 256) + `</v></c></row><row r="2"><c><v>2</v></c></row>`,
			[]string{"2: number 2 | empty", "3: too_long in 1"},
		},
		"cell again with another value":  {`<row><c r="A2"><v>1</v></c><c r="A2"><v>2</v></c></row>`, []string{"2: duplicate_cell in 1"}},
		"styles of dates and currencies": {`<row><c s="14"><v>45000</v></c><c s="44"><v>79991234567.00</v></c></row>`, []string{"2: number 45000 | number 79991234567"}},
		"date as text":                   {`<row><c t="d"><v>2026-11-26T00:00:00Z</v></c></row>`, []string{"2: date 2026-11-26T00:00:00Z | empty"}},
		"cell of another row": {
			`<row r="2"><c r="A2"><v>1</v></c><c r="B3"><v>2</v></c></row><row r="3"><c r="A3"><v>3</v></c></row>`,
			[]string{"2: misplaced_cell in 2", "3: number 3 | empty"},
		},
		"surrogate pair in escapes": {
			`<row><c t="str"><v>_xD83D__xDE00_</v></c><c t="str"><v>_xD83D__x0041__xDE00_</v></c></row>`,
			[]string{"2: text 😀 | text \uFFFDA\uFFFD"},
		},
		"extension of a row": {
			`<row><c><v>1</v></c><extLst><ext uri="x"><c><v>2</v></c></ext></extLst></row>`,
			[]string{"2: number 1 | empty"},
		},
		"booleans and errors":         {`<row><c t="b"><v>true</v></c><c t="e"><v> #N/A </v></c></row>`, []string{"2: bool TRUE | fault #N/A"}},
		"255 characters":              {`<row><c t="str"><v>` + strings.Repeat("😀", 255) + `</v></c></row>`, []string{"2: text " + strings.Repeat("😀", 255) + " | empty"}},
		"256 characters":              {`<row><c t="str"><v>` + strings.Repeat("я", 256) + `</v></c></row>`, []string{"2: too_long in 1"}},
		"a long text":                 {`<row><c t="str"><v>` + strings.Repeat("x", 1_000_000) + `</v></c><c><v>1</v></c></row><row><c><v>2</v></c></row>`, []string{"2: too_long in 1", "3: number 2 | empty"}},
		"255 characters, all escaped": {`<row><c t="str"><v>` + strings.Repeat("_x0041_", 255) + `</v></c></row>`, []string{"2: text " + strings.Repeat("A", 255) + " | empty"}},
		"references":                  {`<row><c t="str"><v>&#x41;&#66;&amp;lt;&quot;&apos;&gt;&#x1F600;</v></c></row>`, []string{"2: text AB&lt;\"'>😀 | empty"}},
		"line ends":                   {"<row><c t=\"str\"><v>a\r\nb\rc\n&#13;d</v></c></row>", []string{"2: text a\nb\nc\n\rd | empty"}},
		"CDATA":                       {`<row><c t="str"><v>a<![CDATA[<&amp;]]]]><![CDATA[>]]></v></c></row>`, []string{"2: text a<&amp;]]> | empty"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, pad := range []int{0, 65_300, 65_400, 65_500} { // the end of the window is somewhere in the rows
				got := read(t, stored(t, xlsxHeader+"<!--"+strings.Repeat("x", pad)+"-->"+test.rows, sst))
				require.NoError(t, got.err)
				require.Equal(t, test.want, got.rows)
			}
		})
	}
}

// An alternative before the cells, such as Excel writes for a newer feature of the view, holds no row.
func TestXLSX_AlternativesBesideCells(t *testing.T) {
	t.Parallel()
	const alternative = `<mc:AlternateContent xmlns:mc="m"><mc:Choice Requires="x14"><sheetViews/></mc:Choice></mc:AlternateContent>`
	sheet := func(before, after string) []byte {
		return pack(t,
			part{"_rels/.rels", relationships(rel("1", "officeDocument", "xl/workbook.xml"))},
			part{"xl/workbook.xml", `<workbook xmlns:r="r"><sheets><sheet r:id="r1"/></sheets></workbook>`},
			part{"xl/_rels/workbook.xml.rels", relationships(rel("r1", "worksheet", "worksheets/sheet1.xml"))},
			part{"xl/worksheets/sheet1.xml", `<worksheet>` + before + `<sheetData>` + xlsxHeader +
				`<row><c><v>1</v></c></row></sheetData>` + after + `</worksheet>`},
		)
	}
	for _, file := range [][]byte{sheet(alternative, ""), sheet("", alternative)} {
		got := read(t, file)
		require.NoError(t, got.err)
		require.Equal(t, []string{"2: number 1 | empty"}, got.rows)
	}
	requireCode(t, spreadsheet.BrokenFile, read(t, sheet(`<a><sheetData/></a>`, "")).err)
	requireCode(t, spreadsheet.BrokenFile, read(t, sheet("", `<a><sheetData/></a>`)).err)
}

// Text that is cut anywhere by the end of the window is the same text.
func TestXLSX_WindowEndsAnywhere(t *testing.T) {
	t.Parallel()
	const row = `<row r="2"><c r="A2" t="str"><v>a&amp;б&#x1F600;<![CDATA[]]x]]>` + "\r\n" + `</v></c><c r='B2'><!-- --><v>1</v></c ></row >`
	for pad := 65_536 - 500; pad < 65_536; pad++ {
		got := read(t, stored(t, xlsxHeader+strings.Repeat(" ", pad)+row, ""))
		require.NoError(t, got.err)
		require.Equal(t, []string{"2: text a&б😀]]x | number 1"}, got.rows, pad)
	}
}

func TestXLSX_StrictNamespaces(t *testing.T) {
	t.Parallel()
	const (
		main = "http://purl.oclc.org/ooxml/spreadsheetml/main"
		kind = "http://purl.oclc.org/ooxml/officeDocument/relationships"
	)
	relationship := func(id, name, target string) string {
		return fmt.Sprintf(`<Relationship Id="%s" Type="%s/%s" Target="%s"/>`, id, kind, name, target)
	}
	got := read(t, pack(t,
		part{"_rels/.rels", relationships(relationship("1", "officeDocument", "xl/workbook.xml"))},
		part{"xl/workbook.xml", `<x:workbook xmlns:x="` + main + `" xmlns:rel="` + kind + `" conformance="strict"><x:sheets>` +
			`<x:sheet name="1" sheetId="7" rel:id="r1"/></x:sheets></x:workbook>`},
		part{"xl/_rels/workbook.xml.rels", relationships(relationship("r1", "worksheet", "worksheets/a.xml"), relationship("r2", "sharedStrings", "s.xml"))},
		part{"xl/worksheets/a.xml", `<x:worksheet xmlns:x="` + main + `"><x:sheetData><x:row><x:c t="s"><x:v>0</x:v></x:c></x:row>` +
			`<x:row><x:c><x:v>79991234567</x:v></x:c></x:row></x:sheetData></x:worksheet>`},
		part{"xl/s.xml", `<x:sst xmlns:x="` + main + `"><x:si><x:t>phone</x:t></x:si></x:sst>`},
	))
	require.NoError(t, got.err)
	require.Equal(t, []string{"phone"}, got.header)
	require.Equal(t, []string{"2: number 79991234567"}, got.rows)
}

func TestXLS_Streams(t *testing.T) {
	t.Parallel()
	workbook := stream(nil, [][]byte{xlsHeader, number(1, 0, 79991234567)})
	other := stream(nil, [][]byte{label(0, 0, "old")})
	old := record(0x0809, uint16(0x0500), uint16(5))
	for name, streams := range map[string]map[string][]byte{
		"Workbook":               {"Workbook": workbook},
		"letter case":            {"WORKBOOK": workbook},
		"BIFF8 in Book":          {"Book": workbook},
		"Book of Excel 95":       {"Book": old, "Workbook": workbook},
		"Book of BIFF8 too":      {"Book": other, "workbook": workbook},
		"Book in capitals":       {"BOOK": old, "WorkBook": workbook},
		"with a locked document": {"EncryptedPackage": old, "Workbook": workbook},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := read(t, compound(streams))
			require.NoError(t, got.err)
			require.Equal(t, []string{"2: number 79991234567 | empty"}, got.rows)
		})
	}
	requireCode(t, spreadsheet.UnknownFormat, read(t, compound(map[string][]byte{"Book": old})).err)
	requireCode(t, spreadsheet.Encrypted, read(t, compound(map[string][]byte{"EncryptedPackage": old})).err)
}

// Each cell record of BIFF8 is read, and no cell record of an older format is lost.
func TestXLS_EveryCellRecord(t *testing.T) {
	t.Parallel()
	text := [8]byte{6: 0xFF, 7: 0xFF}
	str := record(0x0207, uint16(2), uint8(0), "ab")
	cell := func(id uint16, values ...any) []byte {
		return record(id, append([]any{uint16(1), uint16(0), uint16(0)}, values...)...)
	}
	for name, test := range map[string]struct {
		records [][]byte
		want    string
	}{
		"FORMULA":               {[][]byte{cell(0x0006, 5.0, uint16(0), uint32(0), uint16(0))}, "2: number 5 | empty"},
		"FORMULA of BIFF3":      {[][]byte{cell(0x0206, 5.0, uint16(0), uint16(0))}, "2: number 5 | empty"},
		"FORMULA of BIFF4":      {[][]byte{cell(0x0406, 5.0, uint16(0), uint16(0))}, "2: number 5 | empty"},
		"text of BIFF3":         {[][]byte{cell(0x0206, text, uint16(0)), str}, "2: text ab | empty"},
		"text of BIFF4":         {[][]byte{cell(0x0406, text, uint16(0)), str}, "2: text ab | empty"},
		"shared formula":        {[][]byte{cell(0x0406, text, uint16(0)), record(0x04BC, "x"), str}, "2: text ab | empty"},
		"array formula":         {[][]byte{cell(0x0006, text, uint16(0)), record(0x0221, "x"), record(0x003C, "x"), str}, "2: text ab | empty"},
		"table formula":         {[][]byte{cell(0x0006, text, uint16(0)), record(0x0236, "x"), str}, "2: text ab | empty"},
		"empty text":            {[][]byte{cell(0x0006, text, uint16(0)), record(0x0207, uint16(0)), number(1, 1, 1)}, "2: empty | number 1"},
		"LABEL without flags":   {[][]byte{cell(0x0204, uint16(0)), number(1, 1, 1)}, "2: empty | number 1"},
		"RSTRING without flags": {[][]byte{cell(0x00D6, uint16(0)), number(1, 1, 1)}, "2: empty | number 1"},
		"half a unit": {
			[][]byte{cell(0x0204, uint16(3), uint8(1), wide("aяb")[:3]), record(0x003C, uint8(1), wide("aяb")[3:])}, "2: text aяb | empty",
		},
		"column by column": {
			[][]byte{number(2, 0, 3), number(1, 0, 1), number(2, 1, 4), number(1, 1, 2)}, "2: number 1 | number 2\n3: number 3 | number 4",
		},
		"rows from below": {[][]byte{number(3, 0, 3), number(2, 0, 2), number(1, 0, 1)}, "2: number 1 | empty\n3: number 2 | empty\n4: number 3 | empty"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := read(t, xls(nil, append([][]byte{xlsHeader}, test.records...)))
			require.NoError(t, got.err)
			require.Equal(t, test.want, strings.Join(got.rows, "\n"))
		})
	}
	for _, id := range []uint16{0x0001, 0x0002, 0x0003, 0x0004, 0x0005, 0x0007, 0x007E, 0x0202, 0x0401, 0x0402, 0x0403, 0x0404, 0x0405, 0x0407, 0x047E} {
		got := read(t, xls(nil, [][]byte{xlsHeader, record(id, uint16(4), uint16(1), uint16(0), uint32(7))}))
		var fault *spreadsheet.Error
		require.ErrorAs(t, got.err, &fault)
		require.Equal(t, spreadsheet.Error{Code: spreadsheet.UnsupportedCell, Message: fault.Message, Row: 5, Column: 2}, *fault)
	}
	// The record behind a formula is another cell and not its text.
	for name, records := range map[string][][]byte{
		"cell instead of its text": {cell(0x0006, text, uint16(0)), number(1, 1, 1), str},
		"unknown result":           {cell(0x0006, [8]byte{0: 9, 6: 0xFF, 7: 0xFF}, uint16(0))},
		"short MULRK":              {record(0x00BD, uint16(1), uint16(0), uint32(0))},
		"uneven MULRK":             {record(0x00BD, uint16(1), uint16(0), make([]byte, 11))},
		"half a unit, then bytes":  {cell(0x0204, uint16(2), uint8(1), "a\x00b"), record(0x003C, uint8(0), "\x00")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := read(t, xls(nil, append([][]byte{xlsHeader}, records...)))
			requireCode(t, spreadsheet.BrokenFile, got.err)
			var fault *spreadsheet.Error
			require.ErrorAs(t, got.err, &fault)
			require.Equal(t, 2, fault.Row)
		})
	}
}

func TestCSV_Variants(t *testing.T) {
	t.Parallel()
	phone := []string{"2: text 1 | text a"}
	for name, test := range map[string]struct {
		file string
		rows []string
	}{
		"declared, quoted":              {"\"sep=;\"\r\nphone;x,y\r\n1;a\r\n", phone},
		"declared in capitals":          {"SEP=\t\nphone\tx;y;z\n1\ta\n", phone},
		"declared, CR alone":            {"sep=;\rphone;x,y\r1;a\r", phone},
		"declared after the mark":       {"\uFEFFsep=;\nphone;x,y\n1;a\n", phone},
		"CR alone, line feed in quotes": {"phone,\"x\ny\"\r1,a\r2,\"b\nc\"\r3,d", []string{"2: text 1 | text a", "3: text 2 | text b\nc", "4: text 3 | text d"}},
		"line feed, CR in quotes":       {"phone,\"x\ry\"\n1,a\n", phone},
		"UTF-16LE without a mark":       {string(wide("phone,x\n1,a\n")), phone},
		"UTF-16BE without a mark":       {"\x00" + string(wide("phone,x\n1,a\n")[:23]), phone},
		"ragged":                        {"phone,x\n1\n1,a\n1,a,b\n", []string{"2: ragged_row", "3: text 1 | text a", "4: ragged_row in 3"}},
		"255 characters":                {"phone,x\n1," + strings.Repeat("я", 255) + "\n", []string{"2: text 1 | text " + strings.Repeat("я", 255)}},
		"256 characters":                {"phone,x\n1," + strings.Repeat("я", 256) + "\n1,a\n", []string{"2: too_long in 2", "3: text 1 | text a"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := read(t, []byte(test.file))
			require.NoError(t, got.err)
			require.Equal(t, test.rows, got.rows)
		})
	}
}

// A text that many cells share counts once for each.
func TestTextBudget(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("я", 250)
	var rows strings.Builder
	rows.WriteString(xlsxHeader)
	for range 70_000 {
		rows.WriteString(`<row><c t="s"><v>0</v></c></row>`)
	}
	got := read(t, stored(t, rows.String(), `<si><t>`+long+`</t></si>`))
	requireCode(t, spreadsheet.TooMuchText, got.err)
	require.Greater(t, len(got.rows), 60_000)
	// Rows that are not in order are kept in memory, so their budgets are smaller.
	got = read(t, stored(t, rows.String()+`<row r="2"/>`, `<si><t>`+long+`</t></si>`))
	requireCode(t, spreadsheet.TooManyRows, got.err)
	require.Empty(t, got.rows)
}

// slowDisk takes ten seconds for each read.
type slowDisk struct{ io.ReaderAt }

func (d slowDisk) ReadAt(p []byte, offset int64) (int, error) {
	time.Sleep(10 * time.Second)
	return d.ReaderAt.ReadAt(p, offset)
}

func TestTimeBudget(t *testing.T) {
	t.Parallel()
	var text strings.Builder
	text.WriteString("\uFEFFphone,x\n")
	for range 80_000 {
		text.WriteString("79991234567," + strings.Repeat(" ", 30) + "\n")
	}
	for name, file := range map[string][]byte{
		"csv":  []byte(text.String()),
		"xlsx": stored(t, xlsxHeader+strings.Repeat("<row/>", 700_000), ""),
		"xls":  xls([][]byte{bytes.Repeat(record(0x0012, make([]byte, 4000)), 1000)}, [][]byte{xlsHeader}),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				got := readFrom(t, slowDisk{bytes.NewReader(file)}, int64(len(file)))
				requireCode(t, spreadsheet.TooSlow, got.err)
			})
		})
	}
}
