package spreadsheet

import (
	"math"
	"strconv"
	"strings"
)

// maxExact bounds the integers of 15 digits, which is what a spreadsheet keeps of a number.
const maxExact = 1e15

// texts are the shared strings of a workbook, in one block: a million short strings are not a
// million objects. Positions fit in 32 bits because of maxSharedBytes.
type texts struct {
	all  []byte
	ends []uint32
}

func (t *texts) add(text []byte) {
	t.all = append(t.all, text...)
	t.ends = append(t.ends, uint32(len(t.all)))
}

func (t *texts) count() int { return len(t.ends) }

func (t *texts) at(index int) string {
	start := uint32(0)
	if index > 0 {
		start = t.ends[index-1]
	}
	return string(t.all[start:t.ends[index]])
}

func textCell(text string) Cell {
	if text == "" {
		return Cell{}
	}
	return Cell{Text: text, Kind: Text}
}

func boolCell(value bool) Cell {
	if value {
		return Cell{Text: "TRUE", Kind: Bool}
	}
	return Cell{Text: "FALSE", Kind: Bool}
}

// numberCell returns a Number of what XML says is one, and Text if it is not.
func numberCell(raw string) Cell {
	if strings.Trim(raw, "+-.0123456789eE") != "" { // ParseFloat also knows hexadecimals, Inf and NaN
		return textCell(raw)
	}
	value, err := strconv.ParseFloat(raw, 64)
	if err != nil {
		return textCell(raw)
	}
	if exact, ok := integer(value); ok {
		return Cell{Text: exact, Kind: Number}
	}
	return Cell{Text: raw, Kind: Number}
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
