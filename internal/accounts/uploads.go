package accounts

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/payment-services/accounts/internal/errcode"
	"github.com/payment-services/accounts/internal/identifier"
	"github.com/payment-services/accounts/internal/spreadsheet"
)

// MaxSyncRows is how many rows of a file are worked through before the answer; more become a job.
const MaxSyncRows = 5000

// The columns of an upload. user_groups may be missing.
const (
	columnPhone  = "phone"
	columnGroups = "user_groups"
)

// A number in a numeric cell is a phone if it has as many digits as a phone with its country code.
const (
	minPhoneDigits = 11
	maxPhoneDigits = 15
)

// UploadOptions are the choices of an upload.
type UploadOptions struct {
	BulkOptions
	Async bool // make it a job, however small it is
}

// Upload creates users from a CSV, XLSX or XLS file of size bytes with the columns phone and
// user_groups ("client,driver"). Up to MaxSyncRows rows give a result, more a job. A file that cannot
// be read to its end is a FileUpload error and changes nothing.
func (s *Service) Upload(ctx context.Context, file io.ReaderAt, size int64, opts UploadOptions) (*BulkResult, *ImportJob, error) {
	upload, err := openUpload(ctx, s.parser, file, size)
	if err != nil {
		return nil, nil, err
	}
	defer upload.close()
	var rows []BulkRow
	for !opts.Async {
		row, err := upload.next(ctx)
		if errors.Is(err, io.EOF) {
			result, err := s.BulkCreate(ctx, rows, opts.BulkOptions)
			if err != nil {
				return nil, nil, err
			}
			return &result, nil, nil
		}
		if err != nil {
			return nil, nil, err
		}
		if rows = append(rows, row); len(rows) > MaxSyncRows {
			break
		}
	}
	job, err := s.stage(ctx, rows, upload, opts.BulkOptions)
	if err != nil {
		return nil, nil, err
	}
	return nil, &job, nil
}

// upload reads BulkRows from a file.
type upload struct {
	reader        *spreadsheet.Reader
	parser        *identifier.Parser
	phone, groups int // columns; groups is -1 if there is none
}

func openUpload(ctx context.Context, parser *identifier.Parser, file io.ReaderAt, size int64) (*upload, error) {
	reader, err := spreadsheet.Open(ctx, file, size)
	if err != nil {
		return nil, fileError(err)
	}
	u := &upload{reader: reader, parser: parser, phone: -1, groups: -1}
	var unknown []string
	for i, name := range reader.Header() {
		switch known := nameKey(name); {
		case known == columnPhone && u.phone < 0:
			u.phone = i
		case known == columnGroups && u.groups < 0:
			u.groups = i
		default:
			unknown = append(unknown, fmt.Sprintf("column %d", i+1))
		}
	}
	switch {
	case u.phone < 0:
		err = columnError("missing_column", "the first row must name the columns; phone is missing")
	case unknown != nil:
		err = columnError("unknown_column", "only phone and user_groups are known, each once; remove "+
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
		out.Fault = &RowFault{Code: "invalid_phone", Column: columnPhone}
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
	cell.Text = strings.ReplaceAll(cell.Text, "\x00", "\uFFFD") // PostgreSQL cannot store a NUL
	return cell
}

func (u *upload) columnName(column int) string {
	switch column {
	case u.phone:
		return columnPhone
	case u.groups:
		return columnGroups
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
