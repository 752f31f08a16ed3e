package accounts

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/payment-services/accounts/internal/errcode"
	"github.com/payment-services/accounts/internal/identifier"
	"github.com/payment-services/accounts/internal/spreadsheet"
)

const (
	// MaxSyncRows is how many rows an import may have that Upload waits for.
	MaxSyncRows = 5000
	// MaxGroups is how many groups a row may name.
	MaxGroups = 100
	// readingWait is how long an upload waits until it may read its file.
	readingWait = 20 * time.Second
)

// The columns of an upload. ColumnGroups may be missing.
const (
	ColumnPhone  = "phone"
	ColumnGroups = "user_groups"
)

// A number in a numeric cell is a phone if it has as many digits as a phone with its country code.
const (
	minPhoneDigits = 11
	maxPhoneDigits = 15
)

// UploadOptions are the choices of an upload.
type UploadOptions struct {
	BulkOptions
	Async bool // do not wait for the import, however small it is
	// Owner is the subject of the token that uploads. The number of its unfinished imports is limited.
	// Empty: there is no such limit.
	Owner string
}

// Upload creates users from a CSV, XLSX or XLS file of size bytes with the columns phone and
// user_groups ("client,driver"). Every file is staged as an import and processed chunk by chunk. An
// import of at most MaxSyncRows rows is waited for: if it is done in time, its result is returned, and
// nothing is kept of it. Otherwise the import is returned: RunImports goes on with it, or it has failed
// or was cancelled. A file that cannot be read to its end is a FileUpload error and changes nothing.
func (s *Service) Upload(ctx context.Context, file io.ReaderAt, size int64, opts UploadOptions) (*BulkResult, *ImportJob, error) {
	job, err := s.stageFile(ctx, file, size, opts)
	if err != nil {
		return nil, nil, err
	}
	if opts.Async || job.Total > MaxSyncRows {
		s.wakeImports()
		return nil, &job, nil
	}
	if job, err = s.awaitImport(ctx, job); err != nil {
		return nil, nil, err
	}
	taken := job.ErrorCode == string(errcode.IdentifierTaken)
	if job.Phase != phaseDone && !taken {
		s.wakeImports()
		return nil, &job, nil
	}
	result, err := s.importResult(ctx, job)
	if err != nil {
		return nil, nil, err
	}
	// The client gets the whole result, so no client asks for the import later. If it cannot be deleted now, the
	// periodic deletion finds it.
	_ = s.deleteImport(context.WithoutCancel(ctx), job.ID)
	if taken {
		return nil, nil, conflictError(result.Rows)
	}
	return &result, nil, nil
}

// stageFile stages the rows of a file as an import. Only a few files are read at once: reading takes CPU
// and memory.
func (s *Service) stageFile(ctx context.Context, file io.ReaderAt, size int64, opts UploadOptions) (ImportJob, error) {
	wait, cancel := context.WithTimeout(ctx, readingWait)
	defer cancel()
	select {
	case s.reading <- struct{}{}:
		defer func() { <-s.reading }()
	case <-wait.Done():
		if ctx.Err() != nil {
			return ImportJob{}, ctx.Err()
		}
		return ImportJob{}, &errcode.Error{
			Code: errcode.Overloaded, RetryAfter: readingWait,
			Message: "too many files are being read at the moment; nothing was changed, try again later",
		}
	}
	upload, err := openUpload(ctx, s.parser, file, size)
	if err != nil {
		return ImportJob{}, err
	}
	defer upload.close()
	return s.stage(ctx, upload, opts)
}

// upload reads BulkRows from a file.
type upload struct {
	reader        *spreadsheet.Reader
	parser        *identifier.Parser
	phone, groups int  // columns; groups is -1 if there is none
	isResult      bool // the file is the result file of an import
}

func openUpload(ctx context.Context, parser *identifier.Parser, file io.ReaderAt, size int64) (*upload, error) {
	reader, err := spreadsheet.Open(ctx, file, size)
	if err != nil {
		return nil, fileError(err)
	}
	u := &upload{reader: reader, parser: parser, phone: -1, groups: -1}
	u.isResult = slices.ContainsFunc(reader.Header(), func(name string) bool { return nameKey(name) == ColumnResult })
	var unknown []string
	for i, name := range reader.Header() {
		switch known := nameKey(name); {
		case u.isResult && slices.Contains(resultColumns, known):
		case known == ColumnPhone && u.phone < 0:
			u.phone = i
		case known == ColumnGroups && u.groups < 0:
			u.groups = i
		default:
			unknown = append(unknown, fmt.Sprintf("column %d", i+1))
		}
	}
	switch {
	case u.phone < 0:
		err = columnError("missing_column", "the first row must name the columns; phone is missing")
	case unknown != nil:
		err = columnError("unknown_column", "only phone and user_groups are known, each once, and the columns of a result file; remove "+
			strings.Join(unknown, ", "))
	}
	if err != nil {
		u.close()
		return nil, err
	}
	return u, nil
}

func (u *upload) close() { _ = u.reader.Close() } // it was only read

// next returns io.EOF at the end; other errors are coded.
func (u *upload) next(ctx context.Context) (BulkRow, error) {
	row, err := u.reader.Next(ctx)
	if errors.Is(err, io.EOF) {
		return BulkRow{}, io.EOF
	}
	if err != nil {
		return BulkRow{}, fileError(err)
	}
	phone := u.cell(row, u.phone)
	out := BulkRow{Number: row.Number, Phone: phone.Text, Groups: splitGroups(u.cell(row, u.groups).Text)}
	if row.Err != nil {
		out.Fault = &RowFault{Code: string(row.Err.Code), Column: u.columnName(row.Err.Column - 1)}
		return out, nil
	}
	valid := true
	switch phone.Kind {
	case spreadsheet.Empty, spreadsheet.Text: // checked with the row
	case spreadsheet.Number:
		out.Phone, valid = u.phoneOfNumber(phone.Text)
	default:
		valid = false
	}
	if !valid {
		out.Fault = &RowFault{Code: "invalid_phone", Column: ColumnPhone}
	}
	return out, nil
}

// phoneOfNumber returns the phone of a numeric cell in E.164, or the text of the cell and false if the
// cell has no phone. A later step then reads the phone as it was read here, in any region.
func (u *upload) phoneOfNumber(text string) (string, bool) {
	if len(text) < minPhoneDigits || len(text) > maxPhoneDigits {
		return text, false
	}
	phone, ok := u.parser.PhoneOfDigits(text)
	if !ok {
		return text, false
	}
	return phone, true
}

func (u *upload) cell(row spreadsheet.Row, column int) spreadsheet.Cell {
	if column < 0 || column >= len(row.Cells) {
		return spreadsheet.Cell{}
	}
	cell := row.Cells[column]
	if u.isResult {
		cell.Text = originalCell(cell.Text)
	}
	cell.Text = strings.ReplaceAll(cell.Text, "\x00", "\uFFFD") // PostgreSQL cannot store a NUL
	return cell
}

func (u *upload) columnName(column int) string {
	switch column {
	case u.phone:
		return ColumnPhone
	case u.groups:
		return ColumnGroups
	default:
		return ""
	}
}

// fileError codes a fault of the file; a cancelled context stays what it is.
func fileError(err error) error {
	e, ok := errors.AsType[*spreadsheet.Error](err)
	if !ok {
		return fmt.Errorf("read the upload: %w", err)
	}
	message := e.Message
	if e.Row > 0 {
		message = fmt.Sprintf("row %d: %s", e.Row, message)
	}
	return columnError(string(e.Code), message)
}

func columnError(code, message string) error {
	return &errcode.Error{
		Code: errcode.FileUpload, Message: "the file cannot be imported: " + message,
		Fields: []errcode.Field{{Field: "file", Code: code, Message: message}},
	}
}
