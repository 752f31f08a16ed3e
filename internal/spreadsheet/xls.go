package spreadsheet

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"strings"

	"github.com/richardlehane/mscfb"
)

const (
	biff8    = 0x0600 // version in a BOF record: Excel 97 to 2003
	cellHead = 6      // bytes of row, column and format that a cell record begins with

	// checkRecords is how many records or strings are read between two calls of source.check.
	checkRecords = 64
	// maxDefinitions is how many records may stand between a formula and its text.
	maxDefinitions = 8
)

// xlsRows streams the first visible worksheet of a BIFF8 workbook.
type xlsRows struct {
	*records
	file        *source
	workbook    io.ReadSeeker
	sheet       int64 // offset of the worksheet
	sharedTable int64 // offset of the SST record, -1 if there is none
	shared      texts
	survey      bool // no values are made; shared.need is called instead
	started     bool
	pending     bool // the current record is a cell of the next row
	nested      int  // depth of charts inside the sheet
	done        bool
	text        scratch
}

func openXLS(ctx context.Context, file *source) (rows, error) {
	file.budget = oleDirectoryBudget
	compound, err := mscfb.New(file)
	exhausted := file.budget == 0
	file.budget = unlimited
	if exhausted {
		return nil, tooManyParts()
	}
	if err != nil {
		return nil, err
	}
	streams := make(map[string]*mscfb.File)
	for _, entry := range compound.File {
		name := strings.ToLower(entry.Name)
		if len(entry.Path) > 0 || streams[name] != nil {
			continue
		}
		streams[name] = entry
	}
	// A file that Excel 97 saved for Excel 95 too has both streams; Workbook is the newer.
	workbook := streams["workbook"]
	if workbook == nil {
		workbook = streams["book"]
	}
	switch {
	case workbook == nil && streams["encryptedpackage"] != nil: // an XLSX with a password
		return nil, encrypted()
	case workbook == nil:
		return nil, unknownFormat("the file is not a workbook")
	case workbook.Size > file.size: // sectors in a circle: a small file with a stream of any length
		return nil, broken()
	}
	return openWorkbook(ctx, file, workbook)
}

// openWorkbook reads the globals of a workbook stream and moves to its first visible worksheet. The
// worksheet is read twice, as in openXLSX.
func openWorkbook(ctx context.Context, file *source, stream io.ReadSeeker) (rows, error) {
	x := &xlsRows{
		records: newRecords(stream), file: file, workbook: stream,
		sheet: -1, sharedTable: -1, survey: true, shared: texts{last: -1},
	}
	if err := x.bof(); err != nil {
		return nil, err
	}
	for steps := 0; x.id != recordEOF; steps++ {
		if steps%checkRecords == 0 {
			if err := file.check(ctx); err != nil {
				return nil, err
			}
		}
		if err := x.records.next(); err != nil {
			return nil, err
		}
		switch x.id {
		case recordFilePass:
			return nil, encrypted()
		case recordSheet:
			bound, err := x.fields(6)
			if err != nil {
				return nil, err
			}
			if visible, worksheet := bound[4]&3 == 0, bound[5] == 0; x.sheet < 0 && visible && worksheet {
				x.sheet = int64(binary.LittleEndian.Uint32(bound))
			}
		case recordSST:
			if x.sharedTable < 0 {
				x.sharedTable = x.offset
			}
		}
	}
	if x.sheet < 0 {
		return nil, noSheet()
	}
	return surveyed(ctx, file, x)
}

// begin starts the second pass.
func (x *xlsRows) begin(ctx context.Context) error {
	x.survey = false
	if x.shared.last >= 0 {
		if err := x.readShared(ctx); err != nil {
			return err
		}
	}
	x.shared.freeze()
	x.started, x.pending, x.nested, x.done = false, false, 0, false
	return nil
}

// next collects the cell records of one row.
func (x *xlsRows) next(ctx context.Context, row *Row) error {
	if !x.started {
		x.started = true
		if err := x.seek(x.sheet); err != nil {
			return err
		}
		if err := x.bof(); err != nil {
			return err
		}
	}
	for steps := 1; !x.done; steps++ {
		if steps%checkRecords == 0 {
			if err := x.file.check(ctx); err != nil {
				return err
			}
		}
		if !x.pending {
			if err := x.records.next(); err != nil {
				return err
			}
		}
		x.pending = false
		switch x.id {
		case recordFilePass:
			return encrypted()
		case recordBOF:
			x.nested++
		case recordEOF:
			x.nested--
			x.done = x.nested < 0
		case recordNumber, recordRK, recordMulRK, recordLabel, recordRString, recordLabelSST, recordBoolErr,
			recordFormula, recordFormula3, recordFormula4:
			if x.nested > 0 {
				continue
			}
			place, err := x.fields(cellHead)
			if err != nil {
				return err
			}
			number := int(binary.LittleEndian.Uint16(place)) + 1
			if row.Number != 0 && row.Number != number {
				x.pending = true
				return nil
			}
			row.Number = number
			column := int(binary.LittleEndian.Uint16(place[2:]))
			if err := x.readCell(row, column); err != nil {
				return at(err, number, column+1)
			}
		default:
			if name, isCell := unsupportedCells[x.id]; isCell && x.nested == 0 {
				return x.unsupported(name)
			}
		}
	}
	if row.Number != 0 {
		return nil
	}
	return io.EOF
}

// unsupported returns the error of a cell record that is not read.
func (x *xlsRows) unsupported(name string) error {
	e := &Error{
		Code:    UnsupportedCell,
		Message: fmt.Sprintf("the sheet has a cell record of an old format (%s); save the file as XLSX and retry", name),
	}
	if len(x.data) >= 4 {
		e.Row = int(binary.LittleEndian.Uint16(x.data)) + 1
		e.Column = int(binary.LittleEndian.Uint16(x.data[2:])) + 1
	}
	return e
}

func (x *xlsRows) close() {}

// seek moves to a record of the workbook stream.
func (x *xlsRows) seek(offset int64) error {
	if _, err := x.workbook.Seek(offset, io.SeekStart); err != nil {
		return err
	}
	x.reset(x.workbook, offset)
	return nil
}

// bof reads the BOF record that a substream starts with.
func (x *xlsRows) bof() error {
	if err := x.records.next(); err != nil {
		return err
	}
	version, err := x.fields(2)
	if err != nil || x.id&0xFF != recordBOF&0xFF {
		return broken()
	}
	if x.id != recordBOF || binary.LittleEndian.Uint16(version) != biff8 {
		return unknownFormat("the file was written by Excel 95 or older")
	}
	return nil
}

// readShared keeps the shared strings that the worksheet refers to. The number of strings is not taken
// from the head of the table: some writers get it wrong.
func (x *xlsRows) readShared(ctx context.Context) error {
	if x.sharedTable < 0 {
		return broken()
	}
	if err := x.seek(x.sharedTable); err != nil {
		return err
	}
	if err := x.records.next(); err != nil {
		return err
	}
	if err := x.skip(8); err != nil {
		return err
	}
	for steps := 0; !x.shared.complete(); steps++ {
		if steps%checkRecords == 0 {
			if err := x.file.check(ctx); err != nil {
				return err
			}
		}
		if err := x.need(); err != nil { // the sheet refers to a string that is not there
			return err
		}
		x.text.reset()
		x.text.long = !x.shared.wanted()
		if err := x.richString(&x.text); err != nil {
			return err
		}
		if err := x.shared.add(&x.text); err != nil {
			return err
		}
	}
	return nil
}

// readCell puts the cell, or the cells, of the current record into the row.
func (x *xlsRows) readCell(row *Row, column int) error {
	value := x.data[cellHead:]
	switch x.id {
	case recordNumber:
		if len(value) < 8 {
			return broken()
		}
		x.setNumber(row, column, math.Float64frombits(binary.LittleEndian.Uint64(value)))
	case recordRK:
		if len(value) < 4 {
			return broken()
		}
		x.setNumber(row, column, rk(binary.LittleEndian.Uint32(value)))
	case recordMulRK: // pairs of format and value, then the last column
		pairs := x.data[4:]
		if len(pairs) < 6+2 || len(pairs)%6 != 2 {
			return broken()
		}
		for ; len(pairs) >= 6+2; pairs = pairs[6:] {
			x.setNumber(row, column, rk(binary.LittleEndian.Uint32(pairs[2:])))
			column++
		}
	case recordLabelSST:
		if len(value) < 4 {
			return broken()
		}
		return x.setShared(row, column, binary.LittleEndian.Uint32(value))
	case recordLabel, recordRString:
		x.data = value
		return x.readLabel(row, column)
	case recordBoolErr:
		if len(value) < 2 {
			return broken()
		}
		row.set(column, boolOrError(value[0], value[1] != 0))
	case recordFormula, recordFormula3, recordFormula4:
		if len(value) < 8 {
			return broken()
		}
		return x.readFormula(row, column, [8]byte(value))
	}
	return nil
}

// setNumber leaves out the text of a number in the first pass, where it would be garbage.
func (x *xlsRows) setNumber(row *Row, column int, value float64) {
	var cell Cell
	if !x.survey {
		cell = floatCell(value)
	}
	row.set(column, cell)
}

func (x *xlsRows) setShared(row *Row, column int, index uint32) error {
	if x.survey {
		row.set(column, Cell{})
		return x.shared.need(int(index))
	}
	cell, ok := x.shared.at(int(index))
	if !ok {
		return broken()
	}
	row.set(column, cell)
	return nil
}

// readLabel reads the string that the record has next.
func (x *xlsRows) readLabel(row *Row, column int) error {
	x.text.reset()
	x.text.long = x.survey
	if err := x.shortString(&x.text); err != nil {
		return err
	}
	var cell Cell
	if !x.survey {
		cell = x.text.cell()
	}
	row.set(column, cell)
	return nil
}

// readFormula reads the last result of a formula. A text has a STRING record of its own, behind the
// definition of an array, shared or table formula if there is one.
func (x *xlsRows) readFormula(row *Row, column int, result [8]byte) error {
	const special = 0xFFFF // in the last two bytes, where no number has it
	if binary.LittleEndian.Uint16(result[6:]) != special {
		x.setNumber(row, column, math.Float64frombits(binary.LittleEndian.Uint64(result[:])))
		return nil
	}
	switch result[0] {
	case 0:
		for range maxDefinitions {
			if err := x.records.next(); err != nil {
				return err
			}
			switch x.id {
			case recordString:
				return x.readLabel(row, column)
			case recordArray, recordArray2, recordShared, recordShared5, recordTable, recordTable2, recordTable2b, recordContinue:
			default:
				return broken()
			}
		}
		return broken()
	case 1, 2:
		row.set(column, boolOrError(result[2], result[0] == 2))
	case 3: // an empty text
	default:
		return broken()
	}
	return nil
}

// rk decodes the short form of a number: 30 bits of an integer or of a float, perhaps times 100.
func rk(bits uint32) float64 {
	var value float64
	if bits&2 != 0 {
		value = float64(int32(bits) >> 2)
	} else {
		value = math.Float64frombits(uint64(bits&^3) << 32)
	}
	if bits&1 != 0 {
		value /= 100
	}
	return value
}

func boolOrError(value byte, isError bool) Cell {
	if !isError {
		return boolCell(value != 0)
	}
	names := map[byte]string{
		0x00: "#NULL!", 0x07: "#DIV/0!", 0x0F: "#VALUE!", 0x17: "#REF!", 0x1D: "#NAME?", 0x24: "#NUM!", 0x2A: "#N/A",
	}
	name, known := names[value]
	if !known {
		name = "#ERROR!"
	}
	return Cell{Text: name, Kind: ErrorValue}
}
