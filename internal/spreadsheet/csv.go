package spreadsheet

import (
	"bufio"
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"io"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/runes"
	"golang.org/x/text/transform"
)

const (
	// sniffBytes of text decide on encoding, line ends and delimiter.
	sniffBytes = 64 << 10
	// maxRecordBytes is a row of MaxColumns cells of 2 KiB. Without it a quote that is never closed
	// would take the rest of the file into one cell. encoding/csv needs up to 80 bytes for one of it.
	maxRecordBytes = MaxColumns * 2 << 10
)

var errRecordTooLong = errors.New("record is too long")

type csvRows struct {
	csv    *csv.Reader
	record *recordReader
	last   int // number of the last row
	folded int // line ends inside quoted values so far: a row of several lines is still one row
}

func openCSV(ctx context.Context, file *source) (rows, error) {
	decoded, err := decodeText(ctx, file)
	if err != nil {
		return nil, err
	}
	text := bufio.NewReaderSize(decoded, sniffBytes)
	sample, err := text.Peek(sniffBytes)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if err := refuseOtherFormats(sample); err != nil {
		return nil, err
	}
	delimiter, declared := declaredDelimiter(sample)
	if declared > 0 {
		if _, err := text.Discard(declared); err != nil {
			return nil, err
		}
	} else {
		delimiter = commonDelimiter(sample)
	}
	var lines io.Reader = text
	if endsInCarriageReturn(sample[declared:]) {
		lines = transform.NewReader(text, runes.Map(func(r rune) rune {
			if r == '\r' { // "CSV (Macintosh)"
				return '\n'
			}
			return r
		}))
	}
	record := &recordReader{r: lines}
	parser := csv.NewReader(record)
	parser.Comma = delimiter
	parser.FieldsPerRecord = -1
	parser.ReuseRecord = true
	return &csvRows{csv: parser, record: record}, nil
}

func (c *csvRows) next(_ context.Context, row *Row) error {
	c.record.read = 0
	values, err := c.csv.Read()
	if errors.Is(err, errRecordTooLong) {
		return &Error{
			Code: RowTooLong, Row: c.last + 1,
			Message: "the row is too long; is there a quote that is never closed?",
		}
	}
	if e, ok := errors.AsType[*csv.ParseError](err); ok {
		c.last = e.StartLine - c.folded
		row.Number = c.last
		if e.Line != e.StartLine {
			return &Error{
				Code: UnterminatedQuote, Row: row.Number,
				Message: "a quote that opens in this row is not closed in it",
			}
		}
		row.reject(BadQuote, "a value with quotes in it must be quoted, and the quotes doubled", 0)
		return nil
	}
	if err != nil {
		return err
	}
	line, _ := c.csv.FieldPos(0)
	c.last = line - c.folded
	row.Number = c.last
	for column, value := range values {
		c.folded += strings.Count(value, "\n")
		// The decoders write U+FFFD for bytes that they cannot decode. In a UTF-8 file, an earlier program
		// wrote it.
		if !utf8.ValidString(value) || strings.ContainsRune(value, utf8.RuneError) {
			row.reject(BadEncoding, "the text is neither UTF-8 nor Windows-1251; save the file as UTF-8", column+1)
			value = ""
		}
		cell := Cell{Text: value, Kind: Text}
		if value == "" {
			cell.Kind = Empty
		}
		row.set(column, cell)
	}
	return nil
}

func (c *csvRows) close() {}

// recordReader ends with an error once too much was read for one record.
type recordReader struct {
	r    io.Reader
	read int
}

// Read implements io.Reader.
func (r *recordReader) Read(p []byte) (int, error) {
	if r.read > maxRecordBytes {
		return 0, errRecordTooLong
	}
	n, err := r.r.Read(p)
	r.read += n
	return n, err
}

// decodeText returns the file as UTF-8 without its byte order mark. Without a mark, a NUL in the first
// letter means UTF-16; otherwise the 64 KiB from the first byte that is not ASCII decide between UTF-8 and
// Windows-1251. Damaged letters do not change the decision: they would turn all others into nonsense.
func decodeText(ctx context.Context, file *source) (io.Reader, error) {
	mark := make([]byte, len("\xEF\xBB\xBF"))
	n, err := file.ReadAt(mark, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	switch mark = mark[:n]; {
	case bytes.Equal(mark, []byte("\xEF\xBB\xBF")):
		return io.NewSectionReader(file, int64(n), file.size-int64(n)), nil
	case bytes.HasPrefix(mark, []byte("\xFF\xFE")), bytes.HasPrefix(mark, []byte("\xFE\xFF")):
		return decode(file, unicode.UTF16(unicode.LittleEndian, unicode.ExpectBOM)), nil
	case len(mark) > 1 && mark[0] != 0 && mark[1] == 0 && file.size%2 == 0: // no other table has a NUL there
		return decode(file, unicode.UTF16(unicode.LittleEndian, unicode.IgnoreBOM)), nil
	case len(mark) > 1 && mark[0] == 0 && mark[1] != 0 && file.size%2 == 0:
		return decode(file, unicode.UTF16(unicode.BigEndian, unicode.IgnoreBOM)), nil
	}
	sample, err := firstNonASCII(ctx, file)
	if err != nil {
		return nil, err
	}
	if len(sample) == 0 || mostlyUTF8(sample) {
		return io.NewSectionReader(file, 0, file.size), nil
	}
	return decode(file, charmap.Windows1251), nil
}

func decode(file *source, from encoding.Encoding) io.Reader {
	return transform.NewReader(io.NewSectionReader(file, 0, file.size), from.NewDecoder())
}

// firstNonASCII returns up to sniffBytes of the file from its first byte that is not ASCII; nothing
// if all is ASCII.
func firstNonASCII(ctx context.Context, file *source) ([]byte, error) {
	sample := make([]byte, sniffBytes)
	for offset := int64(0); offset < file.size; offset += sniffBytes {
		if err := file.check(ctx); err != nil {
			return nil, err
		}
		n, err := file.ReadAt(sample, offset)
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		first := bytes.IndexFunc(sample[:n], func(r rune) bool { return r >= utf8.RuneSelf })
		if first < 0 {
			continue
		}
		n, err = file.ReadAt(sample, offset+int64(first))
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		return sample[:n], nil
	}
	return nil, nil
}

// mostlyUTF8 compares the letters that are UTF-8 with the bytes that are not. Russian text in
// Windows-1251 has next to no sequence that is valid, but it has some: "Пё" is one.
func mostlyUTF8(sample []byte) bool {
	letters, damaged := 0, 0
	for utf8.FullRune(sample) { // the last one may be cut
		r, size := utf8.DecodeRune(sample)
		switch {
		case size > 1:
			letters++
		case r == utf8.RuneError:
			damaged++
		}
		sample = sample[size:]
	}
	return letters > damaged
}

// refuseOtherFormats refuses programs, pictures and web pages.
func refuseOtherFormats(sample []byte) error {
	control := func(r rune) bool { return r < ' ' && !strings.ContainsRune("\t\n\v\f\r\x1A", r) }
	if bytes.IndexFunc(sample, control) >= 0 {
		return unknownFormat("the file is not a table")
	}
	if bytes.HasPrefix(bytes.TrimSpace(sample), []byte("<")) { // many programs call such a file .xls
		return unknownFormat("the file is a web page or XML, whatever its name says")
	}
	return nil
}

// declaredDelimiter reads the line "sep=;", which Excel understands and does not show as a row. It
// returns the length of the line, 0 if there is none.
func declaredDelimiter(sample []byte) (rune, int) {
	end := bytes.IndexAny(sample, "\r\n")
	if end < 0 {
		return 0, 0
	}
	line := bytes.Trim(sample[:end], `" `)
	if len(line) != len("sep=;") || !bytes.EqualFold(line[:len("sep=")], []byte("sep=")) ||
		bytes.IndexByte([]byte(",;\t|"), line[len("sep=")]) < 0 {
		return 0, 0
	}
	length := end + 1
	if bytes.HasPrefix(sample[end:], []byte("\r\n")) {
		length++
	}
	return rune(line[len("sep=")]), length
}

// endsInCarriageReturn reports whether rows end in "\r" alone, as in "CSV (Macintosh)". A value in quotes
// may have other line ends.
func endsInCarriageReturn(sample []byte) bool {
	quoted := false
	for i, b := range sample {
		switch {
		case b == '"':
			quoted = !quoted
		case quoted:
		case b == '\n':
			return false
		case b == '\r':
			return i+1 < len(sample) && sample[i+1] != '\n' || i+1 == len(sample)
		}
	}
	return false
}

// commonDelimiter returns the one of comma, semicolon and tab that is most frequent in the first
// line with text, outside quotes.
func commonDelimiter(sample []byte) rune {
	var count [utf8.RuneSelf]int
	quoted := false
	for _, b := range bytes.TrimLeft(sample, "\r\n ") {
		switch {
		case b == '"':
			quoted = !quoted
		case quoted || b >= utf8.RuneSelf:
		case b == '\n' || b == '\r':
			return mostFrequent(count)
		default:
			count[b]++
		}
	}
	return mostFrequent(count)
}

func mostFrequent(count [utf8.RuneSelf]int) rune {
	best := ','
	for _, r := range ";\t" {
		if count[r] > count[best] {
			best = r
		}
	}
	return best
}
