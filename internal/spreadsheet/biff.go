package spreadsheet

import (
	"bufio"
	"encoding/binary"
	"io"
	"unicode/utf16"
	"unicode/utf8"
)

// Record types of BIFF8, the stream inside an XLS file; [MS-XLS] 2.3 lists them.
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
)

// records reads a BIFF stream record by record. A record has at most 64 KiB, its length field.
type records struct {
	stream *bufio.Reader
	buffer []byte
	id     uint16
	data   []byte // valid until next
}

func newRecords(stream io.Reader) *records {
	return &records{stream: bufio.NewReaderSize(stream, 32<<10)}
}

// next reads a record. The stream has to end with an EOF record, so there is always a next one.
func (r *records) next() error {
	var head [4]byte
	if _, err := io.ReadFull(r.stream, head[:]); err != nil {
		return unexpectedEnd(err)
	}
	r.id = binary.LittleEndian.Uint16(head[:])
	length := int(binary.LittleEndian.Uint16(head[2:]))
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

// richString removes an XLUnicodeRichExtendedString and appends its text, cut like a cell.
func (r *records) richString(text []byte) ([]byte, error) {
	const (
		extended = 1 << 2
		rich     = 1 << 3
		runSize  = 4
	)
	head, err := r.take(3)
	if err != nil {
		return nil, err
	}
	length, flags := int(binary.LittleEndian.Uint16(head)), head[2]
	trailer := uint64(0)
	if flags&rich != 0 {
		runs, err := r.take(2)
		if err != nil {
			return nil, err
		}
		trailer += runSize * uint64(binary.LittleEndian.Uint16(runs))
	}
	if flags&extended != 0 {
		size, err := r.take(4)
		if err != nil {
			return nil, err
		}
		trailer += uint64(binary.LittleEndian.Uint32(size))
	}
	if text, err = r.characters(text, length, flags); err != nil {
		return nil, err
	}
	return text, r.skip(trailer)
}

// shortString removes an XLUnicodeString and appends its text, cut like a cell.
func (r *records) shortString(text []byte) ([]byte, error) {
	head, err := r.take(3)
	if err != nil {
		return nil, err
	}
	return r.characters(text, int(binary.LittleEndian.Uint16(head)), head[2])
}

// characters appends length UTF-16 units as UTF-8. Bit 0 of flags says two bytes a unit, otherwise
// one, the high byte being zero. Each CONTINUE record begins with flags of its own.
func (r *records) characters(text []byte, length int, flags byte) ([]byte, error) {
	start, high := len(text), rune(0)
	for length > 0 {
		if len(r.data) == 0 {
			if err := r.need(); err != nil {
				return nil, err
			}
			flags, r.data = r.data[0], r.data[1:]
			continue
		}
		width := 1 + int(flags&1)
		units := min(length, len(r.data)/width)
		if units == 0 { // half a unit before the end of the record
			return nil, broken()
		}
		for i := range units {
			unit := rune(r.data[i*width])
			if width == 2 {
				unit |= rune(r.data[i*width+1]) << 8
			}
			if high != 0 {
				text, unit, high = utf8.AppendRune(text, utf16.DecodeRune(high, unit)), 0, 0
				continue
			}
			if unit >= 0xD800 && unit < 0xDC00 {
				high = unit
				continue
			}
			text = utf8.AppendRune(text, unit)
		}
		text = append(text[:start], truncateCell(text[start:])...)
		r.data = r.data[units*width:]
		length -= units
	}
	return text, nil
}
