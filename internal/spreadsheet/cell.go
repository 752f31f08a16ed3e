package spreadsheet

import (
	"bytes"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

const (
	// maxExact bounds the integers of 15 digits, which is what a spreadsheet keeps of a number.
	maxExact = 1e15
	// maxRawText limits the text of one cell while it is read. Its escapes may each need seven bytes for
	// one character.
	maxRawText = 8 << 10
	// maxShared is the number of shared strings that a workbook may have.
	maxShared = 1 << 20
	// maxArena limits the text of the shared strings that are kept.
	maxArena = 8 << 20
)

// scratch collects the text of one cell, piece by piece. A text that is too long is dropped at once.
type scratch struct {
	bytes []byte
	long  bool
}

func (s *scratch) reset() { s.bytes, s.long = s.bytes[:0], false }

// limit drops the text if it is too long to become a cell.
func (s *scratch) limit() {
	if len(s.bytes) > maxRawText || s.long {
		s.bytes, s.long = s.bytes[:0], true
	}
}

// cell returns the text as a cell. What is longer than MaxCellRunes has no text and is marked as tooLong.
func (s *scratch) cell() Cell {
	if s.limit(); s.long || utf8.RuneCount(s.bytes) > MaxCellRunes {
		return tooLong()
	}
	return textCell(string(s.bytes))
}

// texts are the shared strings of a workbook, in one block: a million short strings are not a million
// objects. Only the strings that the sheet refers to have a text.
type texts struct {
	needed []uint64 // bit set of the indexes that the sheet refers to
	last   int      // highest of them, -1 if there is none
	arena  strings.Builder
	all    string   // of arena, once it is complete
	ends   []uint32 // twice the end of each text in arena, plus 1 if it was too long to keep
}

// need notes that the sheet refers to a string.
func (t *texts) need(index int) error {
	if index < 0 {
		return broken()
	}
	if index >= maxShared {
		return tooMuchText()
	}
	for len(t.needed) <= index/64 {
		t.needed = append(t.needed, 0)
	}
	t.needed[index/64] |= 1 << (index % 64)
	t.last = max(t.last, index)
	return nil
}

// complete reports whether no further string is needed.
func (t *texts) complete() bool { return len(t.ends) > t.last }

// wanted reports whether the string that follows is needed.
func (t *texts) wanted() bool {
	index := len(t.ends)
	return index <= t.last && t.needed[index/64]&(1<<(index%64)) != 0
}

// add appends the next string, which is dropped unless it is wanted and short enough.
func (t *texts) add(text *scratch) error {
	mark := uint32(0)
	if t.wanted() {
		if text.limit(); text.long || utf8.RuneCount(text.bytes) > MaxCellRunes {
			mark = 1
		} else {
			t.arena.Write(text.bytes)
		}
	}
	if t.arena.Len() > maxArena {
		return tooMuchText()
	}
	t.ends = append(t.ends, uint32(t.arena.Len())<<1|mark)
	return nil
}

// freeze is called after the last add.
func (t *texts) freeze() {
	t.all = t.arena.String()
	t.needed = nil
}

// at returns a string as a cell. It allocates nothing: the cells share one block.
func (t *texts) at(index int) (Cell, bool) {
	if index < 0 || index >= len(t.ends) {
		return Cell{}, false
	}
	start, end := uint32(0), t.ends[index]
	if index > 0 {
		start = t.ends[index-1] >> 1
	}
	if end&1 != 0 {
		return tooLong(), true
	}
	return textCell(t.all[start : end>>1]), true
}

func textCell(text string) Cell {
	if text == "" {
		return Cell{}
	}
	return Cell{Text: text, Kind: Text}
}

// tooLong is a cell whose text was dropped. Row.set rejects it.
func tooLong() Cell { return Cell{Kind: dropped} }

func boolCell(value bool) Cell {
	if value {
		return Cell{Text: "TRUE", Kind: Bool}
	}
	return Cell{Text: "FALSE", Kind: Bool}
}

// numberCell returns a Number of what XML says is a number, and Text if it is none.
func numberCell(raw []byte) Cell {
	text := string(raw)
	if len(bytes.Trim(raw, "+-.0123456789eE")) > 0 { // ParseFloat also knows hexadecimals, Inf and NaN
		return textCell(text)
	}
	if len(raw) < len("1000000000000000") && raw[0] != '0' && len(bytes.Trim(raw, "0123456789")) == 0 {
		return Cell{Text: text, Kind: Number}
	}
	value, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return textCell(text)
	}
	if exact, ok := integer(value); ok {
		text = exact
	}
	return Cell{Text: text, Kind: Number}
}

func floatCell(value float64) Cell {
	if exact, ok := integer(value); ok {
		return Cell{Text: exact, Kind: Number}
	}
	return Cell{Text: strconv.FormatFloat(value, 'g', -1, 64), Kind: Number}
}

func integer(value float64) (string, bool) {
	if value != math.Trunc(value) || math.Abs(value) >= maxExact {
		return "", false
	}
	return strconv.FormatInt(int64(value), 10), true
}
