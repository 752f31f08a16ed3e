// Package spreadsheet turns an uploaded table into rows: CSV, XLSX (Office Open XML) and the legacy
// XLS (BIFF8 in an OLE2 container). The content decides which one it is, never the file's name.
//
// It is written for hostile input. Rows are streamed; every size that a file declares is checked against
// what the file can really hold; the constants of this package limit memory and time. If a file cannot be
// read, the error is an *Error, which quotes nothing of the content. No row is lost without an error.
//
// Values are handed over as they are stored: a date is the number of its serial day, a formula is
// its last result, and numbers become phones, or not, in the caller.
package spreadsheet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

const (
	// MaxRows is the number of rows below the header that an import may have.
	MaxRows = 100_000
	// MaxColumns is ten times what an import needs, and keeps a row small.
	MaxColumns = 64
	// MaxCellRunes is the number of characters that a cell may have: the longest valid value. A longer
	// text is dropped when it is read.
	MaxCellRunes = 255
	// maxText limits the text of all cells of a file, in bytes of UTF-8. A shared string counts once for
	// each cell that has it.
	maxText = 32 << 20

	// maxGridRows is the height of the largest sheet that Excel can write. Blank rows count.
	maxGridRows = 1 << 20
)

// Format is the kind of file that Open found.
type Format string

// The formats that Open reads.
const (
	CSV  Format = "csv"
	XLSX Format = "xlsx"
	XLS  Format = "xls"
)

// CellKind is how a value is stored in its cell. In a CSV file every value is text.
type CellKind uint8

// The kinds of cells. Empty is the zero value.
const (
	Empty CellKind = iota
	Text
	Number
	Bool
	ErrorValue // such as #N/A
	Date       // in ISO 8601; only a few writers of XLSX store dates so, the others as a Number

	dropped // a text that is too long; Row.set makes an error of it
)

// Cell is one value. Text is never trimmed. Of a Number it is the exact integer if the value is one
// of at most 15 digits (79991234567 even where the file has 7.9991234567E10), otherwise the number
// as the file has it. Of a Bool it is TRUE or FALSE.
type Cell struct {
	Text string
	Kind CellKind
}

// Row is one row below the header that is not blank. Cells has one cell per column of the header
// (a CSV row that is too short has fewer), and more only if a cell outside the header has a value.
type Row struct {
	Number int // as a spreadsheet program shows it, from 1
	Cells  []Cell
	// Err tells why this row cannot be used; the rows after it are still read. Cells holds what could be
	// read. A CSV row that is too short, and any row with a value outside the
	// header, have RaggedRow.
	Err *Error
}

// set puts a cell into its column, counted from 0; values right of MaxColumns are not kept.
func (r *Row) set(column int, cell Cell) {
	if column >= MaxColumns {
		if cell.Kind != Empty {
			r.reject(TooManyColumns, fmt.Sprintf("a row may have at most %d columns", MaxColumns), 0)
		}
		return
	}
	for len(r.Cells) <= column {
		r.Cells = append(r.Cells, Cell{})
	}
	if cell.Kind == dropped || len(cell.Text) > MaxCellRunes && utf8.RuneCountInString(cell.Text) > MaxCellRunes {
		r.reject(CellTooLong, fmt.Sprintf("a cell may have at most %d characters", MaxCellRunes), column+1)
		cell = Cell{}
	}
	switch before := r.Cells[column]; {
	case before.Kind == Empty:
		r.Cells[column] = cell
	case cell.Kind != Empty && cell != before:
		r.reject(DuplicateCell, "the file has two values for one cell", column+1)
	}
}

// reject keeps the first error of the row.
func (r *Row) reject(code Code, message string, column int) {
	r.rejectWith(&Error{Code: code, Message: message, Row: r.Number, Column: column})
}

func (r *Row) rejectWith(err *Error) {
	if r.Err == nil {
		r.Err = err
	}
}

func (r *Row) blank() bool {
	for _, cell := range r.Cells {
		if strings.TrimSpace(cell.Text) != "" {
			return false
		}
	}
	return r.Err == nil
}

// rows is one of the three formats. next fills row, which is empty, and returns io.EOF at the end;
// blank rows may be among them. It calls source.check at least once in a few thousand steps.
type rows interface {
	next(ctx context.Context, row *Row) error
	close()
}

// Reader reads one file from its header to its end. It is not safe for concurrent use.
type Reader struct {
	format Format
	file   *source
	rows   rows
	header []string
	row    Row
	read   int // rows returned
	passed int // rows seen, the blank ones among them
	text   int // bytes of text seen
	err    error
}

// Open looks at the content of r, a whole file of size bytes, and reads up to the header: the first
// row that is not blank. It fails with *Error if the file cannot be read, with ctx.Err() if ctx is done,
// and otherwise with the error of r. r must stay readable until Close.
func Open(ctx context.Context, r io.ReaderAt, size int64) (*Reader, error) {
	file := &source{r: r, size: size, budget: unlimited}
	reader := &Reader{file: file}
	file.begin()
	defer file.end()
	var err error
	if reader.format, reader.rows, err = open(ctx, file); err != nil {
		return nil, reader.explain(err)
	}
	if err := reader.readHeader(ctx); err != nil {
		reader.rows.close()
		return nil, reader.explain(err)
	}
	return reader, nil
}

// Format returns the kind of the file.
func (r *Reader) Format() Format { return r.format }

// Header returns the names of the columns, trimmed, otherwise as written. Names may be empty or
// occur twice: the caller decides. It must not be changed.
func (r *Reader) Header() []string { return r.header }

// Next returns the next row that is not blank, and io.EOF after the last. The row's Cells are valid
// until the next call. Other errors are those of Open; they are final. A damaged CSV file may fail after
// any number of good rows, so nothing should be applied before io.EOF.
func (r *Reader) Next(ctx context.Context) (Row, error) {
	if r.err != nil {
		return Row{}, r.err
	}
	r.file.begin()
	defer r.file.end()
	if err := r.advance(ctx); err != nil {
		r.err = io.EOF
		if err != io.EOF {
			r.err = r.explain(err)
		}
		return Row{}, r.err
	}
	if r.read++; r.read > MaxRows {
		r.err = &Error{
			Code: TooManyRows, Row: r.row.Number,
			Message: fmt.Sprintf("the file has more than %d rows; split it", MaxRows),
		}
		return Row{}, r.err
	}
	r.align()
	return r.row, nil
}

// Close releases what Open took, but not the file itself. It always returns nil.
func (r *Reader) Close() error {
	r.rows.close()
	return nil
}

func (r *Reader) readHeader(ctx context.Context) error {
	err := r.advance(ctx)
	if err == io.EOF {
		return &Error{Code: EmptyFile, Message: "the file has no rows"}
	}
	if err != nil {
		return err
	}
	if r.row.Err != nil {
		return r.row.Err
	}
	for _, cell := range r.row.Cells {
		r.header = append(r.header, strings.TrimSpace(cell.Text))
	}
	for r.header[len(r.header)-1] == "" {
		r.header = r.header[:len(r.header)-1]
	}
	return nil
}

// advance moves to the next row that is not blank.
func (r *Reader) advance(ctx context.Context) error {
	for {
		if err := r.file.check(ctx); err != nil {
			return err
		}
		r.row = Row{Cells: r.row.Cells[:0]}
		if err := r.rows.next(ctx, &r.row); err != nil {
			return err
		}
		if r.passed++; r.passed > maxGridRows {
			return &Error{Code: TooManyRows, Message: "the sheet has too many blank rows", Row: r.row.Number}
		}
		for _, cell := range r.row.Cells {
			r.text += len(cell.Text)
		}
		if r.text > maxText {
			return at(tooMuchText(), r.row.Number, 0)
		}
		if !r.row.blank() {
			return nil
		}
	}
}

// align compares the row with the header. Spreadsheets do not store empty cells at the end of a
// row; in a CSV file their absence means that a delimiter is missing or one too many.
func (r *Reader) align() {
	row, width := &r.row, len(r.header)
	for len(row.Cells) > width && strings.TrimSpace(row.Cells[len(row.Cells)-1].Text) == "" {
		row.Cells = row.Cells[:len(row.Cells)-1]
	}
	for len(row.Cells) < width && r.format != CSV {
		row.Cells = append(row.Cells, Cell{})
	}
	switch {
	case len(row.Cells) > width:
		message := "the row has values outside the columns of the header"
		if r.format == CSV {
			message = "the row has more values than the header; quote a value that contains the delimiter"
		}
		row.reject(RaggedRow, message, width+1)
	case len(row.Cells) < width:
		row.reject(RaggedRow, "the row has fewer values than the header", 0)
	}
}

// explain distinguishes an error of the file from an error of the disk below it and from a caller that
// gave up. The texts of parsers are dropped: they quote the content.
func (r *Reader) explain(err error) error {
	if r.file.err != nil {
		return fmt.Errorf("read the spreadsheet: %w", r.file.err)
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return broken()
}
