package spreadsheet

import "fmt"

// Code says what is wrong with a file or a row. It never changes once released.
type Code string

// Faults of the file: Open or Next returns them, and nothing can be read after them.
const (
	EmptyFile            Code = "empty_file"
	UnknownFormat        Code = "unknown_format"
	Encrypted            Code = "encrypted"
	BrokenFile           Code = "broken_file"
	NoSheet              Code = "no_sheet" // no visible worksheet
	TooManyRows          Code = "too_many_rows"
	TooManyParts         Code = "too_many_parts" // of the container
	TooLargeUncompressed Code = "too_large_uncompressed"
	RowTooLong           Code = "row_too_long"
	UnterminatedQuote    Code = "unterminated_quote"
)

// Faults of one row, in Row.Err. In the header they are faults of the file.
const (
	TooManyColumns Code = "too_many_columns"
	CellTooLong    Code = "cell_too_long"
	RaggedRow      Code = "ragged_row"
	BadEncoding    Code = "bad_encoding"
	BadQuote       Code = "bad_quote"
)

// Error is a fault of the file. Message is for the client: it says what to do and quotes nothing of
// the content.
type Error struct {
	Code    Code
	Message string
	Row     int // from 1, as a spreadsheet program shows it; 0 if the fault belongs to no row
	Column  int // from 1; 0 if the fault belongs to no column
}

// Error returns the code, the place and the message.
func (e *Error) Error() string {
	if e.Row == 0 {
		return fmt.Sprintf("%s: %s", e.Code, e.Message)
	}
	return fmt.Sprintf("%s: row %d: %s", e.Code, e.Row, e.Message)
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
