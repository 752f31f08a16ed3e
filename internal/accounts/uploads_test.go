package accounts_test

import (
	"archive/zip"
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/xuri/excelize/v2"

	"github.com/payment-services/accounts/internal/accounts"
	"github.com/payment-services/accounts/internal/errcode"
	"github.com/payment-services/accounts/internal/pgtest"
)

// workbook returns an XLSX file with these rows.
func workbook(t *testing.T, rows ...[]any) []byte {
	t.Helper()
	book := excelize.NewFile()
	for i, row := range rows {
		cell, err := excelize.CoordinatesToCellName(1, i+1)
		require.NoError(t, err)
		require.NoError(t, book.SetSheetRow("Sheet1", cell, &row))
	}
	var file bytes.Buffer
	require.NoError(t, book.Write(&file))
	return file.Bytes()
}

// The same rows have the same results whether the import is waited for or not.
func TestUpload(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		file []byte
		want []string
	}{
		"csv": {
			[]byte("\xEF\xBB\xBFUser_Groups;PHONE\n" +
				"client, driver,client;+7 999 000 00 01\n;\"8 999 000-00-01\"\nclient;12\nnothing;89990000002\n\n;\n;89990000003;x\n;79990000009\ndriver;7.9E+10\n"),
			[]string{
				"2 created", "3 conflict duplicate phone", "4 invalid invalid_phone phone", "5 invalid unknown_group user_groups",
				"8 invalid ragged_row", "9 exists", "10 invalid invalid_phone phone",
			},
		},
		"xlsx": {
			workbook(t, []any{"phone", "user_groups"}, []any{79990000001, "client,driver"}, []any{"8 (999) 000-00-01"}, []any{9990000002},
				[]any{79990000002.5}, []any{true}, []any{1234567890123456}, []any{nil, "client"}, []any{"79990000009"}, []any{79990000003, 7}, []any{"7.9E+10"}),
			[]string{
				"2 created", "3 conflict duplicate phone", "4 invalid invalid_phone phone", "5 invalid invalid_phone phone", "6 invalid invalid_phone phone",
				"7 invalid invalid_phone phone", "8 invalid empty phone", "9 exists", "10 invalid unknown_group user_groups", "11 invalid invalid_phone phone",
			},
		},
		"without groups": {[]byte("phone\n89990000001\n"), []string{"2 created"}},
		"no rows":        {[]byte("phone,user_groups\n"), []string{}},
		"what PostgreSQL cannot store": { // it comes after what is looked at to tell a table from a picture
			[]byte("phone,user_groups\n" + strings.Repeat("x", 70_000) + "\n8999000\x000001,client\n89990000001,cli\x00ent\n"),
			[]string{"2 invalid too_long phone", "3 invalid invalid_text phone", "4 invalid unknown_group user_groups"},
		},
	} {
		for _, late := range []bool{false, true} {
			t.Run(name+map[bool]string{false: ", now", true: ", as a job"}[late], func(t *testing.T) {
				t.Parallel()
				p := newProcess(t, pgtest.Shared(t))
				client, driver := p.createGroup("client"), p.createGroup("driver")
				p.createUser(phone(9))
				o := accounts.UploadOptions{BulkOptions: accounts.BulkOptions{OnConflict: accounts.Skip, DryRun: true}, Async: late}
				run := func() []accounts.RowResult {
					result, job := p.upload(tt.file, o)
					if !late {
						require.Nil(t, job)
						return result.Rows
					}
					require.Nil(t, result)
					p.runImports()
					return p.importRows(job.ID)
				}
				require.Equal(t, tt.want, outcomes(run()))
				require.Equal(t, 1, p.count("users"), "a dry run")
				o.DryRun = false
				rows := run()
				require.Equal(t, tt.want, outcomes(rows))
				if name != "csv" && name != "xlsx" {
					return
				}
				require.Equal(t, 2, p.count("users"))
				memberships, _, err := p.UserMemberships(t.Context(), *rows[0].UserID)
				require.NoError(t, err)
				require.Len(t, memberships, 2)
				require.Equal(t, client, memberships[0].GroupID)
				require.Equal(t, driver, memberships[1].GroupID)
				require.Equal(t, "2 exists", outcomes(run())[0], "the same file again creates nothing twice")
				require.Equal(t, 2, p.count("users"))
			})
		}
	}
}

// rawWorkbook returns an XLSX file whose first column is phone and has these cells below: c elements
// without their end tags. A workbook of excelize has no cells of some types.
func rawWorkbook(t *testing.T, cells ...string) []byte {
	t.Helper()
	const kind = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/"
	rows := `<row><c t="str"><v>phone</v></c></row>`
	for _, cell := range cells {
		rows += `<row>` + cell + `</c></row>`
	}
	var file bytes.Buffer
	archive := zip.NewWriter(&file)
	for name, content := range map[string]string{
		"_rels/.rels":                `<Relationships><Relationship Id="a" Type="` + kind + `officeDocument" Target="xl/workbook.xml"/></Relationships>`,
		"xl/workbook.xml":            `<workbook xmlns:r="r"><sheets><sheet r:id="b"/></sheets></workbook>`,
		"xl/_rels/workbook.xml.rels": `<Relationships><Relationship Id="b" Type="` + kind + `worksheet" Target="sheet.xml"/></Relationships>`,
		"xl/sheet.xml":               `<worksheet><sheetData>` + rows + `</sheetData></worksheet>`,
	} {
		part, err := archive.Create(name)
		require.NoError(t, err)
		_, err = part.Write([]byte(content))
		require.NoError(t, err)
	}
	require.NoError(t, archive.Close())
	return file.Bytes()
}

// Only a text or a whole number of a phone's length is a phone, however the cell is stored. In Germany nearly
// any digits would be one.
func TestUpload_KindsOfPhoneCells(t *testing.T) {
	t.Parallel()
	const invalid = "invalid invalid_phone phone"
	cells := []struct{ cell, german, russian string }{
		{`<c t="d"><v>2024-01-01</v>`, invalid, invalid},
		{`<c t="d"><v>2024-01-01T00:00:00</v>`, invalid, invalid},
		{`<c><v>45292</v>`, invalid, invalid},
		{`<c><v>79990020001</v>`, "created", "created"},
		{`<c><v>7.9990020002E+10</v>`, "created", "created"},
		{`<c s="44"><v>79990020003.00</v>`, "created", "created"},
		{`<c><f>A1</f><v>79990020004</v>`, "created", "created"},
		{`<c><v>375291234567</v>`, "created", "created"},
		{`<c><v>-79990020005</v>`, invalid, invalid},
		{`<c><v>79990020006.5</v>`, invalid, invalid},
		{`<c><v>9990020007</v>`, invalid, invalid},
		{`<c><v>7999002000800000</v>`, invalid, invalid},
		{`<c><v>1E400</v>`, invalid, invalid},
		{`<c t="str"><v>79990020009</v>`, invalid, "created"}, // a text is what is dialled
		{`<c t="str"><v>7.9990020010E+10</v>`, invalid, invalid},
		{`<c t="str"><v>79990020011.0</v>`, invalid, invalid},
		{`<c t="e"><v>79990020012</v>`, invalid, invalid},
		{`<c t="b"><v>1</v>`, invalid, invalid},
	}
	var file, german, russian []string
	for i, c := range cells {
		file = append(file, c.cell)
		german, russian = append(german, fmt.Sprint(i+2, " ", c.german)), append(russian, fmt.Sprint(i+2, " ", c.russian))
	}
	for region, want := range map[string][]string{"DE": german, "RU": russian} {
		t.Run(region, func(t *testing.T) {
			t.Parallel()
			p := newProcessIn(t, pgtest.Shared(t), region)
			result, _ := p.upload(rawWorkbook(t, file...), accounts.UploadOptions{BulkOptions: accounts.BulkOptions{OnConflict: accounts.Skip}})
			require.Equal(t, want, outcomes(result.Rows))
			_, err := p.UserByIdentifier(t.Context(), "+375291234567", nil)
			require.NoError(t, err, "a number has lost its plus, not a national prefix")
		})
	}
}

func TestUploadRefusesFiles(t *testing.T) {
	t.Parallel()
	p := newProcess(t, pgtest.Shared(t))
	book := workbook(t, []any{"phone"}, []any{"89990000001"})
	long := csvFile(0, accounts.MaxSyncRows+1500)
	for name, tt := range map[string]struct {
		file          string
		code, message string
	}{
		"empty":                      {"", "empty_file", ""},
		"no phone":                   {"user_groups\nclient\n", "missing_column", "phone"},
		"unknown columns":            {"phone,name,user_groups,\"\",age\n1,2,3,4,5\n", "unknown_column", "remove column 2, column 4, column 5"},
		"a column twice":             {"phone,Phone\n1,2\n", "unknown_column", "remove column 2"},
		"a picture":                  {"\x89PNG\r\n\x1A\n\x00\x00\x00\rIHDR", "unknown_format", ""},
		"cut off":                    {string(book[:len(book)-100]), "broken_file", ""},
		"broken in the middle":       {"phone\n89990000001\n\"8999\n1\n", "unterminated_quote", "row 3"},
		"broken after many rows":     {string(long) + "\"8999\n1\n", "unterminated_quote", "row 6502"},
		"broken before a whole page": {string(long[:len(long)/30]) + "\n\"8999\n1\n", "unterminated_quote", ""},
	} {
		for _, late := range []bool{false, true} {
			o := async
			o.Async = late
			_, _, err := p.Upload(t.Context(), strings.NewReader(tt.file), int64(len(tt.file)), o)
			require.Error(t, err, name)
			e := requireCode(t, err, errcode.FileUpload, "file "+tt.code)
			require.Contains(t, e.Message, tt.message, name)
		}
	}
	require.Zero(t, p.count("users"))
	require.Zero(t, p.count("import_jobs"))
	require.Zero(t, p.count("import_rows"))
}

// The client goes away while its rows are staged.
func TestUploadIsCancelled(t *testing.T) {
	t.Parallel()
	p := newProcess(t, pgtest.Shared(t))
	file := append([]byte("\xEF\xBB\xBF"), csvFile(0, 8000)...) // the mark spares the search for another encoding
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_, _, err := p.Upload(ctx, &cancelling{bytes.NewReader(file), int64(len(file)) / 2, cancel}, int64(len(file)), async)
	require.ErrorIs(t, err, context.Canceled)
	require.Zero(t, p.count("import_jobs"))
	require.Zero(t, p.count("users"))
}

// cancelling is a file whose reader goes away once it is read from this offset on.
type cancelling struct {
	*bytes.Reader
	from   int64
	cancel context.CancelFunc
}

// ReadAt implements io.ReaderAt.
func (c *cancelling) ReadAt(p []byte, offset int64) (int, error) {
	if offset >= c.from {
		c.cancel()
	}
	return c.Reader.ReadAt(p, offset)
}

// Nothing is kept of an import whose result the client has got, whether it is done or has failed.
func TestUpload_KeepsNothingThatWasAnswered(t *testing.T) {
	t.Parallel()
	p := newProcess(t, pgtest.Shared(t))
	o := accounts.UploadOptions{BulkOptions: accounts.BulkOptions{OnConflict: accounts.Error}}
	result, _ := p.upload(csvFile(0, 1200), o)
	require.Equal(t, accounts.Counts{Created: 1200}, result.Counts)
	file := csvFile(1199, 1200)
	_, _, err := p.Upload(t.Context(), bytes.NewReader(file), int64(len(file)), o)
	requireCode(t, err, errcode.IdentifierTaken, "rows[0].phone taken")
	require.Equal(t, 1200, p.count("users"))
	require.Zero(t, p.count("import_jobs"))
	require.Zero(t, p.count("import_rows"))
}

// An import that cannot be finished while the client waits goes on in the background.
func TestUpload_GoesOnAfterTheClientLeft(t *testing.T) {
	t.Parallel()
	p := newProcess(t, pgtest.Shared(t))
	p.createGroup("slow")
	release := p.blockGroups("slow")
	file := groupFile(0, 3, "slow")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	failed := make(chan error, 1)
	go func() {
		_, _, err := p.Upload(ctx, bytes.NewReader(file), int64(len(file)), accounts.UploadOptions{
			BulkOptions: accounts.BulkOptions{OnConflict: accounts.Skip},
		})
		failed <- err
	}()
	require.Eventually(t, func() bool {
		var waits bool
		err := p.super.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM pg_stat_activity
			WHERE datname = current_database() AND cardinality(pg_blocking_pids(pid)) > 0)`).Scan(&waits)
		return err == nil && waits
	}, waitLimit, pollTick)
	cancel()
	require.ErrorIs(t, <-failed, context.Canceled)
	release()
	background(t, func(ctx context.Context) { p.RunImports(ctx, slog.New(slog.DiscardHandler)) })
	require.Eventually(t, func() bool { return p.count("users") == 3 }, waitLimit, pollTick)
}

// A row may name as many groups as a row of a JSON call, if their names are short enough for a cell.
func TestUpload_TooManyGroups(t *testing.T) {
	t.Parallel()
	p := newProcess(t, pgtest.Shared(t))
	names := make([]string, 300)
	for i := range names {
		names[i] = string(rune('一' + i)) // short: a cell has at most 255 characters
		if i < 100 {
			p.createGroup(names[i])
		}
	}
	file := "phone;user_groups\n" + phone(0) + ";" + strings.Join(names[:100], ",") + "\n" + phone(1) + ";" + strings.Join(names[:101], ",") +
		"\n" + phone(2) + ";" + strings.Join(names, ",") + "\n"
	result, _ := p.upload([]byte(file), accounts.UploadOptions{BulkOptions: accounts.BulkOptions{OnConflict: accounts.Skip}})
	require.Equal(t, []string{"2 created", "3 invalid too_many user_groups", "4 invalid too_long user_groups"}, outcomes(result.Rows))
	require.Equal(t, 100, p.count("user_group_memberships"))
}

// An upload whose time is nearly over is not waited for: its import goes on.
func TestUpload_ReturnsTheImportInTime(t *testing.T) {
	t.Parallel()
	p := newProcess(t, pgtest.Shared(t))
	file := csvFile(0, 3)
	ctx, cancel := context.WithTimeout(t.Context(), 7*time.Second)
	defer cancel()
	result, job, err := p.Upload(ctx, bytes.NewReader(file), int64(len(file)), accounts.UploadOptions{
		BulkOptions: accounts.BulkOptions{OnConflict: accounts.Skip},
	})
	require.NoError(t, err)
	require.Nil(t, result)
	require.Equal(t, "pending", job.Phase)
	p.runImports()
	require.Equal(t, 3, p.finished(job.ID).Counts.Created)
}
