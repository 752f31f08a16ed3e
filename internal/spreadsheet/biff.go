package spreadsheet

import (
	"bufio"
	"encoding/binary"
	"io"
	"unicode/utf16"
	"unicode/utf8"
)

// Record types of BIFF8, the stream inside an XLS file; [MS-XLS] 2.3 lists them. The cell records BLANK
// (0x0201) and MULBLANK (0x00BE) have no value and are passed over.
const (
	recordFormula  = 0x0006
	recordEOF      = 0x000A
	recordFilePass = 0x002F
	recordContinue = 0x003C
	recordSheet    = 0x0085 // BoundSheet8
	recordMulRK    = 0x00BD
	recordRString  = 0x00D6
	recordSST      = 0x00FC
	recordLabelSST = 0x00FD
	recordNumber   = 0x0203
	recordLabel    = 0x0204
	recordBoolErr  = 0x0205
	recordString   = 0x0207
	recordRK       = 0x027E
	recordBOF      = 0x0809

	// BIFF3 and BIFF4 number their formulas otherwise, and some writers of BIFF8 too. The fields that are
	// read here are the same.
	recordFormula3 = 0x0206
	recordFormula4 = 0x0406

	// Between a formula and its text: the definition of an array, shared or table formula.
	recordArray   = 0x0221
	recordArray2  = 0x0021
	recordTable   = 0x0236
	recordTable2  = 0x0036
	recordTable2b = 0x0037
	recordShared  = 0x04BC
	recordShared5 = 0x00BC
)

// unsupportedCells are the cell records of BIFF2 to BIFF5 whose fields differ from those of BIFF8, and
// numbers that such a record would have. [MS-XLS] uses none of them otherwise. A sheet that has one is
// refused: its rows would be lost.
var unsupportedCells = map[uint16]string{
	0x0001: "BLANK of BIFF2", 0x0002: "INTEGER of BIFF2", 0x0003: "NUMBER of BIFF2", 0x0004: "LABEL of BIFF2",
	0x0005: "BOOLERR of BIFF2", 0x0007: "STRING of BIFF2", 0x007E: "RK of BIFF3",
	0x0202: "INTEGER of BIFF3", 0x0401: "BLANK of BIFF4", 0x0402: "INTEGER of BIFF4", 0x0403: "NUMBER of BIFF4",
	0x0404: "LABEL of BIFF4", 0x0405: "BOOLERR of BIFF4", 0x0407: "STRING of BIFF4", 0x047E: "RK of BIFF4",
}

// records reads a BIFF stream record by record. A record has at most 64 KiB, its length field.
type records struct {
	stream *bufio.Reader
	buffer []byte
	id     uint16
	data   []byte // valid until next
	offset int64  // of the current record in the stream
	ahead  int64  // offset of the next record
}

func newRecords(stream io.Reader) *records {
	return &records{stream: bufio.NewReaderSize(stream, 32<<10)}
}

// reset continues at the offset of a record, where stream is.
func (r *records) reset(stream io.Reader, offset int64) {
	r.stream.Reset(stream)
	r.ahead = offset
}

// next reads a record. The stream has to end with an EOF record, so there is always a next one.
func (r *records) next() error {
	var head [4]byte
	if _, err := io.ReadFull(r.stream, head[:]); err != nil {
		return unexpectedEnd(err)
	}
	r.id = binary.LittleEndian.Uint16(head[:])
	length := int(binary.LittleEndian.Uint16(head[2:]))
	r.offset = r.ahead
	r.ahead += int64(len(head) + length)
	if cap(r.buffer) < length {
		r.buffer = make([]byte, length)
	}
	r.data = r.buffer[:length]
	if _, err := io.ReadFull(r.stream, r.data); err != nil {
		return unexpectedEnd(err)
	}
	return nil
}

// resume moves on to the CONTINUE record of the current one, if it has one.
func (r *records) resume() (bool, error) {
	head, err := r.stream.Peek(2)
	if err != nil {
		return false, unexpectedEnd(err)
	}
	if binary.LittleEndian.Uint16(head) != recordContinue {
		return false, nil
	}
	return true, r.next()
}

// fields returns the first n bytes of the record.
func (r *records) fields(n int) ([]byte, error) {
	if len(r.data) < n {
		return nil, broken()
	}
	return r.data[:n], nil
}

// take removes n bytes, which may go on in CONTINUE records, from the record. n is at most 8.
func (r *records) take(n int) ([]byte, error) {
	if len(r.data) >= n {
		taken := r.data[:n]
		r.data = r.data[n:]
		return taken, nil
	}
	taken := make([]byte, 0, n)
	for len(taken) < n {
		if err := r.need(); err != nil {
			return nil, err
		}
		k := min(n-len(taken), len(r.data))
		taken = append(taken, r.data[:k]...)
		r.data = r.data[k:]
	}
	return taken, nil
}

// need makes sure that the record, or the one that continues it, has a byte left.
func (r *records) need() error {
	for len(r.data) == 0 {
		more, err := r.resume()
		if err != nil {
			return err
		}
		if !more {
			return broken()
		}
	}
	return nil
}

func (r *records) skip(n uint64) error {
	for n > 0 {
		if err := r.need(); err != nil {
			return err
		}
		k := min(n, uint64(len(r.data)))
		r.data = r.data[k:]
		n -= k
	}
	return nil
}

// richString removes an XLUnicodeRichExtendedString and appends its text.
func (r *records) richString(text *scratch) error {
	const (
		extended = 1 << 2
		rich     = 1 << 3
		runSize  = 4
	)
	head, err := r.take(3)
	if err != nil {
		return err
	}
	length, flags := int(binary.LittleEndian.Uint16(head)), head[2]
	trailer := uint64(0)
	if flags&rich != 0 {
		runs, err := r.take(2)
		if err != nil {
			return err
		}
		trailer += runSize * uint64(binary.LittleEndian.Uint16(runs))
	}
	if flags&extended != 0 {
		size, err := r.take(4)
		if err != nil {
			return err
		}
		trailer += uint64(binary.LittleEndian.Uint32(size))
	}
	if err := r.characters(text, length, flags); err != nil {
		return err
	}
	return r.skip(trailer)
}

// shortString removes an XLUnicodeString and appends its text. Some writers store an empty text as its
// length alone.
func (r *records) shortString(text *scratch) error {
	head, err := r.take(2)
	if err != nil {
		return err
	}
	length := int(binary.LittleEndian.Uint16(head))
	if length == 0 {
		return nil
	}
	flags, err := r.take(1)
	if err != nil {
		return err
	}
	return r.characters(text, length, flags[0])
}

// characters appends length UTF-16 units as UTF-8. Bit 0 of flags tells that a unit has two bytes; otherwise
// it has one, and the high byte is zero. Each CONTINUE record begins with flags of its own. Some writers
// cut a unit in two: its second byte follows the flags of the CONTINUE record.
func (r *records) characters(text *scratch, length int, flags byte) error {
	var high, half rune
	isHalf := false
	for length > 0 {
		if len(r.data) == 0 {
			if err := r.need(); err != nil {
				return err
			}
			flags, r.data = r.data[0], r.data[1:]
			if isHalf && flags&1 == 0 {
				return broken()
			}
			continue
		}
		if isHalf {
			high = appendUnit(text, high, half|rune(r.data[0])<<8)
			r.data, isHalf = r.data[1:], false
			length--
			continue
		}
		width := 1 + int(flags&1)
		units := min(length, len(r.data)/width)
		if units == 0 {
			half, isHalf, r.data = rune(r.data[0]), true, nil
			continue
		}
		for i := range units {
			unit := rune(r.data[i*width])
			if width == 2 {
				unit |= rune(r.data[i*width+1]) << 8
			}
			high = appendUnit(text, high, unit)
		}
		text.limit()
		r.data = r.data[units*width:]
		length -= units
	}
	if high != 0 && !text.long { // the second half of the letter is missing
		text.bytes = utf8.AppendRune(text.bytes, utf8.RuneError)
	}
	return nil
}

// appendUnit appends a UTF-16 unit to text. high is the first half of a surrogate pair or 0; the result is
// the next high.
func appendUnit(text *scratch, high, unit rune) rune {
	switch {
	case text.long:
		return 0
	case high != 0 && unit >= 0xDC00 && unit < 0xE000:
		text.bytes = utf8.AppendRune(text.bytes, utf16.DecodeRune(high, unit))
		return 0
	case high != 0:
		text.bytes = utf8.AppendRune(text.bytes, utf8.RuneError)
	}
	if unit >= 0xD800 && unit < 0xDC00 {
		return unit
	}
	text.bytes = utf8.AppendRune(text.bytes, unit)
	return 0
}
