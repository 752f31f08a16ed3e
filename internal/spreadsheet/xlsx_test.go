package spreadsheet_test

import (
	"archive/zip"
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/xuri/excelize/v2"

	"github.com/payment-services/accounts/internal/spreadsheet"
)

const xlsxHeader = `<row r="1"><c r="A1" t="inlineStr"><is><t>phone</t></is></c><c r="B1" t="str"><v>user_groups</v></c></row>`

func TestXLSXCells(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("я", spreadsheet.MaxCellRunes)
	shared := `<si><t>plain</t></si>` +
		`<si><r><rPr><b/></rPr><t>ri</t></r><r><t xml:space="preserve">ch.</t></r><rPh sb="0" eb="1"><t>hint</t></rPh></si>` +
		`<si/><si><t>a_x000D_b_x005F_x0041_</t></si><si><t>` + long + `</t></si><si><t>_x0041_` + long + `</t></si>`
	tests := map[string]struct{ rows, want string }{
		"integer":            {`<row><c><v>79991234567</v></c></row>`, "2: number 79991234567 | empty"},
		"with an exponent":   {`<row><c t="n"><v>7.9991234567E10</v></c></row>`, "2: number 79991234567 | empty"},
		"with a fraction":    {`<row><c><v> 79991234567.0 </v></c></row>`, "2: number 79991234567 | empty"},
		"15 digits":          {`<row><c><v>999999999999999</v></c></row>`, "2: number 999999999999999 | empty"},
		"16 digits":          {`<row><c><v>1234567890123456</v></c></row>`, "2: number 1234567890123456 | empty"},
		"large":              {`<row><c><v>1E+15</v></c></row>`, "2: number 1E+15 | empty"},
		"fraction":           {`<row><c><v>0.10000000000000001</v></c></row>`, "2: number 0.10000000000000001 | empty"},
		"not a number":       {`<row><c><v>0x10p1</v></c><c><v>NaN</v></c></row>`, "2: text 0x10p1 | text NaN"},
		"out of range":       {`<row><c><v>1e999</v></c></row>`, "2: text 1e999 | empty"},
		"booleans":           {`<row><c t="b"><v>1</v></c><c t="b"><v>0</v></c></row>`, "2: bool TRUE | bool FALSE"},
		"error":              {`<row><c t="e"><v>#REF!</v></c></row>`, "2: fault #REF! | empty"},
		"formulas":           {`<row><c><f>1+1</f><v>2</v></c><c t="str"><f>A1&amp;"x"</f><v>ax</v></c></row>`, "2: number 2 | text ax"},
		"shared":             {`<row><c t="s"><v>0</v></c><c t="s"><v>1</v></c></row>`, "2: text plain | text rich."},
		"shared and empty":   {`<row><c t="s"><v>2</v></c><c t="s"><v>3</v></c></row>`, "2: empty | text a\rb_x0041_"},
		"longest":            {`<row><c t="s"><v>4</v></c></row>`, "2: text " + long + " | empty"},
		"too long":           {`<row><c/><c t="s"><v>5</v></c></row>`, "2: too_long in 2"},
		"inline":             {`<row><c t="inlineStr"><is><r><t>a</t></r><r><t><![CDATA[<&]]></t></r></is></c></row>`, "2: text a<& | empty"},
		"gaps":               {`<row r="9" spans="1:2"><c r="B9"><v>1</v></c></row>`, "9: empty | number 1"},
		"outside the header": {`<row r="2"><c r="C2"><v>1</v></c></row>`, "2: ragged_row in 3"},
		"styled far away":    {`<row r="2"><c r="A2"><v>1</v></c><c r="XFD2" s="1"/></row>`, "2: number 1 | empty"},
		"far away":           {`<row r="2"><c r="XFD2"><v>1</v></c></row>`, "2: too_many_columns"},
		"blank rows":         {`<row/><row r="3"><c/></row><row r="5"><c t="str"><v> </v></c></row><row><c><v>1</v></c></row>`, "6: number 1 | empty"},
		"what else there is": {
			`<row><x:c xmlns:x="y"><x:v>1</x:v><extLst><v>2</v></extLst></x:c><extLst><c><v>3</v></c></extLst></row>`,
			"2: number 1 | empty",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := read(t, xlsx(t, xlsxHeader+test.rows, shared))
			require.NoError(t, got.err)
			require.Equal(t, spreadsheet.XLSX, got.format)
			require.Equal(t, []string{"phone", "user_groups"}, got.header)
			require.Equal(t, []string{test.want}, got.rows)
		})
	}
}

func TestXLSXFaults(t *testing.T) {
	t.Parallel()
	cell := func(inside string) string { return xlsxHeader + `<row><c ` + inside + `</c></row>` }
	tests := map[string]struct {
		file []byte
		code spreadsheet.Code
	}{
		"no rows":                {xlsx(t, "", ""), spreadsheet.EmptyFile},
		"blank rows":             {xlsx(t, `<row r="7"/>`, ""), spreadsheet.EmptyFile},
		"shared string unknown":  {xlsx(t, cell(`t="s"><v>1</v>`), `<si><t>0</t></si>`), spreadsheet.BrokenFile},
		"shared string negative": {xlsx(t, cell(`t="s"><v>-1</v>`), `<si/>`), spreadsheet.BrokenFile},
		"reference without name": {xlsx(t, cell(`r="7"><v>1</v>`), ``), spreadsheet.BrokenFile},
		"reference too far":      {xlsx(t, cell(`r="XFE1"><v>1</v>`), ``), spreadsheet.BrokenFile},
		"reference very far":     {xlsx(t, cell(`r="`+strings.Repeat("Z", 1000)+`1"><v>1</v>`), ``), spreadsheet.BrokenFile},
		"row too far":            {xlsx(t, xlsxHeader+`<row r="1048577"/>`, ``), spreadsheet.TooManyRows},
		"row of words":           {xlsx(t, xlsxHeader+`<row r="two"/>`, ``), spreadsheet.BrokenFile},
		"tags that do not match": {xlsx(t, xlsxHeader+`<row></c>`, ``), spreadsheet.BrokenFile},
		"unknown entity":         {xlsx(t, cell(`><v>&bomb;</v>`), ``), spreadsheet.BrokenFile},
		"not UTF-8":              {xlsx(t, cell("t=\"str\"><v>\xEA</v>"), ``), spreadsheet.BrokenFile},
		"tag too long":           {xlsx(t, cell(`t="`+strings.Repeat("x", 70_000)+`"><v>1</v>`), ``), spreadsheet.BrokenFile},
		"too many attributes":    {xlsx(t, `<row `+strings.Repeat(`a="" `, 129)+`/>`, ``), spreadsheet.BrokenFile},
		"attribute twice":        {xlsx(t, cell(`r="A2" r="B2"><v>1</v>`), ``), spreadsheet.BrokenFile},
		"document type":          {xlsx(t, `<!DOCTYPE x [<!ENTITY a "b">]>`, ``), spreadsheet.BrokenFile},
		"alternatives":           {xlsx(t, xlsxHeader+`<mc:AlternateContent xmlns:mc="x"><row/></mc:AlternateContent>`, ``), spreadsheet.BrokenFile},
		"row in a row":           {xlsx(t, xlsxHeader+`<row><c><v>1</v></c><row><c><v>2</v></c></row></row>`, ``), spreadsheet.BrokenFile},
		"row in a group":         {xlsx(t, xlsxHeader+`<g><row><c><v>1</v></c></row></g>`, ``), spreadsheet.BrokenFile},
		"cell in a cell":         {xlsx(t, cell(`><v>1</v><c><v>2</v></c>`), ``), spreadsheet.BrokenFile},
		"cell in a group":        {xlsx(t, xlsxHeader+`<row><g><c><v>1</v></c></g></row>`, ``), spreadsheet.BrokenFile},
		"two values":             {xlsx(t, cell(`><v>1</v><v>2</v>`), ``), spreadsheet.BrokenFile},
		"two inline texts":       {xlsx(t, cell(`t="inlineStr"><is><t>1</t></is><is><t>2</t></is>`), ``), spreadsheet.BrokenFile},
		"element in a value":     {xlsx(t, cell(`><v>7999<x>1</x>2345678</v>`), ``), spreadsheet.BrokenFile},
		"element in a text":      {xlsx(t, cell(`t="s"><v>0</v>`), `<si><t>a<b>c</b></t></si>`), spreadsheet.BrokenFile},
		"shared string in group": {xlsx(t, cell(`t="s"><v>0</v>`), `<g><si><t>0</t></si></g><si><t>1</t></si>`), spreadsheet.BrokenFile},
		"shared string nested":   {xlsx(t, cell(`t="s"><v>0</v>`), `<si><si><t>0</t></si></si><si><t>1</t></si>`), spreadsheet.BrokenFile},
		"unknown cell type":      {xlsx(t, cell(`t="S"><v>0</v>`), `<si><t>0</t></si>`), spreadsheet.UnsupportedCell},
		"two sheetData":          {xlsx(t, xlsxHeader+`</sheetData><sheetData>`, ``), spreadsheet.BrokenFile},
		"too deep":               {xlsx(t, strings.Repeat("<a>", 100)+strings.Repeat("</a>", 100), ``), spreadsheet.BrokenFile},
		"endless comment":        {xlsx(t, `<!--`+strings.Repeat("x", 400_000), ``), spreadsheet.BrokenFile},
		"wide header":            {xlsx(t, `<row><c r="BM1"><v>1</v></c></row>`, ""), spreadsheet.TooManyColumns},
		"no workbook":            {pack(t, part{"_rels/.rels", relationships(rel("1", "officeDocument", "../../etc/passwd.xml"))}), spreadsheet.UnknownFormat},
		"no sheet":               {pack(t, parts("", "")[:4]...), spreadsheet.BrokenFile},
		"sheet twice":            {xlsx(t, xlsxHeader, "", part{"XL/worksheets/SHEET1.xml", ""}), spreadsheet.BrokenFile},
		"all sheets hidden": {pack(t, append(parts("", "")[:2], parts("", "")[3],
			part{"xl/workbook.xml", `<workbook><sheets><sheet state="hidden" xmlns:r="r" r:id="r1"/></sheets></workbook>`})...), spreadsheet.NoSheet},
		"no archive": {[]byte("PK\x03\x04 and nothing more"), spreadsheet.BrokenFile},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			requireCode(t, test.code, read(t, test.file).err)
		})
	}
}

// A damaged archive is not a short table: the checksum of the sheet decides.
func TestXLSXChecksum(t *testing.T) {
	t.Parallel()
	var file bytes.Buffer
	w := zip.NewWriter(&file)
	for _, p := range parts(xlsxHeader+`<row><c><v>79991234567</v></c></row>`, "") {
		content, err := w.CreateHeader(&zip.FileHeader{Name: p.name, Method: zip.Store})
		require.NoError(t, err)
		_, err = content.Write([]byte(p.content))
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	got := read(t, bytes.Replace(file.Bytes(), []byte("79991234567"), []byte("79991234568"), 1))
	require.Empty(t, got.rows)
	requireCode(t, spreadsheet.BrokenFile, got.err)
}

// A part that lies outside the file is damage, and not the end of its rows.
func TestXLSX_PartOutsideFile(t *testing.T) {
	t.Parallel()
	const sheet = "xl/worksheets/sheet1.xml"
	file := xlsx(t, xlsxHeader+`<row><c><v>79991234567</v></c></row>`, "")
	entry := bytes.LastIndex(file, []byte(sheet)) - 46 // of the zip's directory
	require.Equal(t, "PK\x01\x02", string(file[entry:entry+4]))
	requireCode(t, spreadsheet.BrokenFile, read(t, patch(file, entry+42, uint32(len(file)+1000))).err)
}

// excelize is an independent writer; it also makes what a password makes of a workbook.
func TestXLSXOfExcelize(t *testing.T) {
	t.Parallel()
	book := excelize.NewFile()
	writer, err := book.NewStreamWriter("Sheet1")
	require.NoError(t, err)
	require.NoError(t, writer.SetRow("A1", []any{" Phone ", "USER_GROUPS", ""}))
	require.NoError(t, writer.SetRow("A3", []any{79991234567, "client,driver"}))
	require.NoError(t, writer.SetRow("A4", []any{"+7 999", true}))
	require.NoError(t, writer.Flush())
	var plain, locked bytes.Buffer
	require.NoError(t, book.Write(&plain))
	require.NoError(t, book.Write(&locked, excelize.Options{Password: "secret"}))

	got := read(t, plain.Bytes())
	require.NoError(t, got.err)
	require.Equal(t, []string{"Phone", "USER_GROUPS"}, got.header)
	require.Equal(t, []string{"3: number 79991234567 | text client,driver", "4: text +7 999 | bool TRUE"}, got.rows)
	requireCode(t, spreadsheet.Encrypted, read(t, locked.Bytes()).err)
}

func TestXLSXRowLimit(t *testing.T) {
	t.Parallel()
	rows := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `<row><c><v>%d</v></c></row>`, 79990000000+i)
		}
		return xlsxHeader + b.String()
	}
	got := read(t, xlsx(t, rows(spreadsheet.MaxRows), ""))
	require.NoError(t, got.err)
	require.Len(t, got.rows, spreadsheet.MaxRows)
	require.Equal(t, fmt.Sprintf("%d: number %d | empty", spreadsheet.MaxRows+1, 79990000000+spreadsheet.MaxRows-1), got.rows[spreadsheet.MaxRows-1])
	requireCode(t, spreadsheet.TooManyRows, read(t, xlsx(t, rows(spreadsheet.MaxRows+1), "")).err)
}
