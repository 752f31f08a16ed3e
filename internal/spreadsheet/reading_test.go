package spreadsheet_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/spreadsheet"
)

// result is all that a file has to say.
type result struct {
	format spreadsheet.Format
	header []string
	rows   []string // "2: number 79991234567 | text client", or "3: ragged_row"
	err    error    // nil at the end of the file
}

// read reads a whole file and checks what holds for every file, however hostile: errors are faults
// without a doubtful text, rows ascend, values are valid and within their limits.
func read(t testing.TB, file []byte) result {
	t.Helper()
	return readFrom(t, bytes.NewReader(file), int64(len(file)))
}

func readFrom(t testing.TB, file io.ReaderAt, size int64) result {
	t.Helper()
	ctx := context.Background()
	reader, err := spreadsheet.Open(ctx, file, size)
	if err != nil {
		requireFault(t, err)
		return result{err: err}
	}
	got := result{format: reader.Format(), header: reader.Header()}
	require.LessOrEqual(t, len(got.header), spreadsheet.MaxColumns)
	for last := 1; ; {
		row, err := reader.Next(ctx)
		if err != nil {
			if !errors.Is(err, io.EOF) {
				requireFault(t, err)
				got.err = err
			}
			_, again := reader.Next(ctx)
			require.Equal(t, err, again, "an error is final")
			require.NoError(t, reader.Close())
			return got
		}
		if row.Number <= last || !plausible(row, len(got.header)) { // require is too slow for 100,000 rows
			require.FailNow(t, "row", "after %d: %+v", last, row)
		}
		last = row.Number
		got.rows = append(got.rows, show(row))
	}
}

func plausible(row spreadsheet.Row, width int) bool {
	for _, cell := range row.Cells {
		if utf8.RuneCountInString(cell.Text) > spreadsheet.MaxCellRunes || !utf8.ValidString(cell.Text) ||
			(cell.Kind == spreadsheet.Empty) != (cell.Text == "") {
			return false
		}
	}
	if row.Err != nil {
		return row.Err.Row == row.Number && row.Err.Code != "" && len(row.Cells) <= spreadsheet.MaxColumns
	}
	return len(row.Cells) == width
}

func requireFault(t testing.TB, err error) {
	t.Helper()
	var fault *spreadsheet.Error
	require.ErrorAs(t, err, &fault, "%v", err)
	require.NotEmpty(t, fault.Code)
	require.NotEmpty(t, fault.Message)
	require.NotContains(t, err.Error(), "\n")
}

func requireCode(t testing.TB, code spreadsheet.Code, err error) {
	t.Helper()
	var fault *spreadsheet.Error
	require.ErrorAs(t, err, &fault)
	require.Equal(t, code, fault.Code, "%v", fault)
}

func show(row spreadsheet.Row) string {
	if row.Err != nil {
		place := fmt.Sprintf("%d: %s", row.Number, row.Err.Code)
		if row.Err.Column != 0 {
			place += fmt.Sprintf(" in %d", row.Err.Column)
		}
		return place
	}
	kinds := []string{"empty", "text", "number", "bool", "fault", "date"}
	cells := make([]string, 0, len(row.Cells))
	for _, cell := range row.Cells {
		cells = append(cells, strings.TrimRight(kinds[cell.Kind]+" "+cell.Text, " "))
	}
	return fmt.Sprintf("%d: %s", row.Number, strings.Join(cells, " | "))
}

func fixture(t testing.TB, name string) []byte {
	t.Helper()
	file, err := os.ReadFile(filepath.Join("testdata", name))
	require.NoError(t, err)
	return file
}

// workbooks returns the names of the fixtures.
func workbooks(t testing.TB) []string {
	t.Helper()
	paths, err := filepath.Glob("testdata/*.xls*")
	require.NoError(t, err)
	require.NotEmpty(t, paths)
	names := make([]string, 0, len(paths))
	for _, path := range paths {
		names = append(names, filepath.Base(path))
	}
	return names
}

func TestFixtures(t *testing.T) {
	t.Parallel()
	table := []string{
		"2: number 79991234567 | text client,driver | text Иванов Пётр",
		"3: text +7 999 123-45-68 | text client | text naïve",
		"5: number 89991234569 | text client,driver | number 12.5",
		"6: text 79991234570 | text driver | bool TRUE",
		"7: number 79991230000000 | text client | fault #N/A",
	}
	tests := map[string]struct {
		format spreadsheet.Format
		rows   []string
	}{
		"sheetjs.xlsx":        {spreadsheet.XLSX, table},
		"sheetjs-inline.xlsx": {spreadsheet.XLSX, table},
		"libreoffice.xlsx":    {spreadsheet.XLSX, table},
		"sheetjs.xls":         {spreadsheet.XLS, table},
		"sheetjs-label.xls":   {spreadsheet.XLS, table},
		"libreoffice.xls":     {spreadsheet.XLS, table},
		"xlwt.xls": {spreadsheet.XLS, []string{
			table[0], table[1],
			"5: number 89991234569 | empty | number 12.5", // xlwt stores no results of formulas
			table[3],
			"7: number 79991230000000 | text client | empty",
			"21: number 20 | number 25 | number -20",
			"22: number 21 | number 26.25 | number -21",
			"23: number 22 | number 27.5 | number -22",
			"24: number 23 | number 28.75 | number -23",
		}},
	}
	for name, want := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := read(t, fixture(t, name))
			require.NoError(t, got.err)
			require.Equal(t, want.format, got.format)
			require.Equal(t, []string{"Phone", "User_Groups", "Комментарий"}, got.header)
			require.Equal(t, want.rows, got.rows)
		})
	}
}

// The shared strings of many.xls lie in a chain of CONTINUE records, which cut strings in two.
func TestManySharedStrings(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"many.xlsx", "many.xls"} {
		got := read(t, fixture(t, name))
		require.NoError(t, got.err)
		require.Len(t, got.rows, 900)
		for i, row := range got.rows {
			group := fmt.Sprintf("группа %d", i)
			if i%3 == 0 {
				group = fmt.Sprintf("a group called %d", i)
			}
			require.Equal(t, fmt.Sprintf("%d: text +7999%d | text %s", i+2, 1000000+i, group), row)
		}
	}
}

func TestUnknownFormats(t *testing.T) {
	t.Parallel()
	tests := map[string][]byte{
		"a picture":         []byte("\x89PNG\r\n\x1A\n\x00\x00\x00\rIHDR"),
		"a web page":        []byte("\uFEFF\n<html><table><tr><td>phone</td></tr></table></html>"),
		"Excel 95":          fixture(t, "excel95.xls"),
		"a Word document":   pack(t, part{"_rels/.rels", relationships(rel("1", "officeDocument", "word/document.xml"))}),
		"any other archive": pack(t, part{"readme.txt", "hello"}),
		"a binary workbook": pack(t,
			part{"_rels/.rels", relationships(rel("1", "officeDocument", "xl/workbook.bin"))}, part{"xl/workbook.bin", "\x83\x01"}),
		"another compound file": compound(map[string][]byte{"WordDocument": make([]byte, 5000)}),
	}
	for name, file := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			requireCode(t, spreadsheet.UnknownFormat, read(t, file).err)
		})
	}
}

func TestContext(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"many.xlsx", "many.xls"} {
		file := bytes.NewReader(fixture(t, name))
		ctx, cancel := context.WithCancel(context.Background())
		reader, err := spreadsheet.Open(ctx, file, file.Size())
		require.NoError(t, err)
		_, err = reader.Next(ctx)
		require.NoError(t, err)
		cancel()
		_, err = reader.Next(ctx)
		require.ErrorIs(t, err, context.Canceled)
		require.NoError(t, reader.Close())

		_, err = spreadsheet.Open(ctx, file, file.Size())
		require.ErrorIs(t, err, context.Canceled)
	}
}

// brokenDisk fails for every byte from one on.
type brokenDisk struct {
	*bytes.Reader
	from int64
}

var errDisk = errors.New("the disk is on fire")

func (d brokenDisk) ReadAt(p []byte, offset int64) (int, error) {
	if offset+int64(len(p)) > d.from && d.from < d.Size() {
		return 0, errDisk
	}
	return d.Reader.ReadAt(p, offset)
}

// A disk that fails must not be reported to a client as a damaged file.
func TestDiskError(t *testing.T) {
	t.Parallel()
	text := []byte(strings.Repeat("phone;user_groups\n", 1000))
	for _, file := range [][]byte{fixture(t, "many.xlsx"), fixture(t, "many.xls"), text} {
		for from := int64(0); from < int64(len(file)); from += int64(len(file) / 20) {
			ctx := context.Background()
			reader, err := spreadsheet.Open(ctx, brokenDisk{bytes.NewReader(file), from}, int64(len(file)))
			for err == nil {
				_, err = reader.Next(ctx)
			}
			require.ErrorIs(t, err, errDisk)
			var fault *spreadsheet.Error
			require.NotErrorAs(t, err, &fault)
		}
	}
}
