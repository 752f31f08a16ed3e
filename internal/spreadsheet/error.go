package spreadsheet

import (
	"errors"
	"fmt"
)

// Code tells what is wrong with a file or a row. It never changes once released.
type Code string

// Errors of the file: Open or Next returns them, and nothing can be read after them.
const (
	EmptyFile            Code = "empty_file"
	UnknownFormat        Code = "unknown_format"
	Encrypted            Code = "encrypted"
	BrokenFile           Code = "broken_file"
	NoSheet              Code = "no_sheet" // no visible worksheet
	TooManyRows          Code = "too_many_rows"
	TooManyParts         Code = "too_many_parts" // of the container
	TooLargeUncompressed Code = "too_large_uncompressed"
	TooMuchText          Code = "too_much_text"
	TooSlow              Code = "too_slow"
	RowTooLong           Code = "row_too_long"
	UnterminatedQuote    Code = "unterminated_quote"
	UnsupportedCell      Code = "unsupported_cell" // a cell of a kind that this package does not read
)

// Errors of one row, in Row.Err. In the header they are errors of the file.
const (
	TooManyColumns Code = "too_many_columns"
	CellTooLong    Code = "too_long"
	DuplicateCell  Code = "duplicate_cell" // two values for one cell
	MisplacedCell  Code = "misplaced_cell" // the reference of a cell names another row
	RaggedRow      Code = "ragged_row"
	BadEncoding    Code = "bad_encoding"
	BadQuote       Code = "bad_quote"
)

// Error tells why a file or a row cannot be read. Message is for the client: it tells what to do and quotes
// nothing of the content.
type Error struct {
	Code    Code
	Message string
	Row     int // from 1, as a spreadsheet program shows it; 0 if the error belongs to no row
	Column  int // from 1; 0 if the error belongs to no column
}

// Error returns the code, the place and the message.
func (e *Error) Error() string {
	if e.Row == 0 {
		return fmt.Sprintf("%s: %s", e.Code, e.Message)
	}
	return fmt.Sprintf("%s: row %d: %s", e.Code, e.Row, e.Message)
}

// at adds the place to an *Error that has none.
func at(err error, row, column int) error {
	if e, ok := errors.AsType[*Error](err); ok && e.Row == 0 {
		return &Error{Code: e.Code, Message: e.Message, Row: row, Column: column}
	}
	return err
}

func broken() *Error {
	return &Error{Code: BrokenFile, Message: "the file is damaged; save it again and retry"}
}

func encrypted() *Error {
	return &Error{Code: Encrypted, Message: "the file is protected by a password; remove the password and retry"}
}

func unknownFormat(what string) *Error {
	return &Error{Code: UnknownFormat, Message: what + "; save it as CSV or XLSX and retry"}
}

func tooMuchText() *Error {
	return &Error{Code: TooMuchText, Message: "the file has too much text; remove what is not needed, or split it"}
}
