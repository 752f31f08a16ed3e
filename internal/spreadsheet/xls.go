package spreadsheet

import (
	"context"
	"encoding/binary"
	"io"
	"math"

	"github.com/richardlehane/mscfb"
)

const (
	biff8    = 0x0600 // version in a BOF record: Excel 97 to 2003
	cellHead = 6      // bytes of row, column and format that a cell record begins with
)

// xlsRows streams the first visible worksheet of a BIFF8 workbook. Cell records come in the order
// of rows, as every writer stores them and as the format's row blocks want it.
type xlsRows struct {
	*records
	shared  texts
	last    int  // row of the previous record, from 1
	pending bool // the current record is a cell of the next row
	nested  int  // depth of charts inside the sheet
	done    bool
	text    []byte
}

func openXLS(ctx context.Context, file *source) (rows, error) {
	file.budget = directoryBudget
	compound, err := mscfb.New(file)
	exhausted := file.budget == 0
	file.budget = unlimited
	if exhausted {
		return nil, &Error{Code: TooManyParts, Message: "the workbook has too many parts; save it again and retry"}
	}
	if err != nil {
		return nil, err
	}
	var workbook *mscfb.File
	for _, entry := range compound.File {
		if len(entry.Path) > 0 {
			continue
		}
		switch entry.Name {
		case "EncryptedPackage": // an XLSX with a password
			return nil, encrypted()
		case "Workbook":
			workbook = entry
		case "Book":
			return nil, unknownFormat("the file was written by Excel 95 or older")
		}
	}
	if workbook == nil {
		return nil, unknownFormat("the file is not a workbook")
	}
	// Sectors may be chained in a circle, so that a small file holds a stream of any length.
	if workbook.Size > file.size {
		return nil, broken()
	}
	return openWorkbook(ctx, workbook)
}

// openWorkbook reads the globals of a workbook stream and moves to its first visible worksheet.
func openWorkbook(ctx context.Context, stream io.ReadSeeker) (rows, error) {
	x := &xlsRows{records: newRecords(stream)}
	if err := x.begin(); err != nil {
		return nil, err
	}
	sheet := int64(-1)
	for steps := 0; x.id != recordEOF; steps++ {
		if steps%checkEvery == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
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
			if visible, worksheet := bound[4]&3 == 0, bound[5] == 0; sheet < 0 && visible && worksheet {
				sheet = int64(binary.LittleEndian.Uint32(bound))
			}
		case recordSST:
			if err := x.readShared(ctx); err != nil {
				return nil, err
			}
		}
	}
	if sheet < 0 {
		return nil, noSheet()
	}
	if _, err := stream.Seek(sheet, io.SeekStart); err != nil {
		return nil, err
	}
	x.stream.Reset(stream)
	if err := x.begin(); err != nil {
		return nil, err
	}
	return x, nil
}

// next collects the cell records of one row.
func (x *xlsRows) next(ctx context.Context, row *Row) error {
	for steps := 1; !x.done; steps++ {
		if steps%checkEvery == 0 && ctx.Err() != nil {
			return ctx.Err()
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
		case recordNumber, recordRK, recordMulRK, recordLabel, recordRString, recordLabelSST, recordBoolErr, recordFormula:
			if x.nested > 0 {
				continue
			}
			place, err := x.fields(cellHead)
			if err != nil {
				return err
			}
			number := int(binary.LittleEndian.Uint16(place)) + 1
			switch {
			case number < x.last:
				return broken()
			case number > x.last && row.Number != 0:
				x.pending = true
				return nil
			}
			x.last, row.Number = number, number
			if err := x.readCell(row); err != nil {
				return err
			}
		}
	}
	if row.Number != 0 {
		return nil
	}
	return io.EOF
}

func (x *xlsRows) close() {}

// begin reads the BOF record that a substream starts with.
func (x *xlsRows) begin() error {
	if err := x.records.next(); err != nil {
		return err
	}
	version, err := x.fields(2)
	if err != nil || x.id != recordBOF {
		return broken()
	}
	if binary.LittleEndian.Uint16(version) != biff8 {
		return unknownFormat("the file was written by Excel 95 or older")
	}
	return nil
}

// readShared reads the table of shared strings. The number of strings is not taken from its head:
// some writers get it wrong.
func (x *xlsRows) readShared(ctx context.Context) error {
	if err := x.skip(8); err != nil {
		return err
	}
	for {
		if x.shared.count()%checkEvery == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		for len(x.data) == 0 {
			if more, err := x.resume(); err != nil || !more {
				return err
			}
		}
		text, err := x.richString(x.text[:0])
		if err != nil {
			return err
		}
		x.text = text
		if len(x.shared.all)+len(text) > maxSharedBytes {
			return tooLargeUncompressed()
		}
		x.shared.add(text)
	}
}

// readCell puts the cell, or the cells, of the current record into the row.
func (x *xlsRows) readCell(row *Row) error {
	column := int(binary.LittleEndian.Uint16(x.data[2:]))
	value := x.data[cellHead:]
	switch x.id {
	case recordNumber:
		if len(value) < 8 {
			return broken()
		}
		row.set(column, floatCell(math.Float64frombits(binary.LittleEndian.Uint64(value))))
	case recordRK:
		if len(value) < 4 {
			return broken()
		}
		row.set(column, floatCell(rk(binary.LittleEndian.Uint32(value))))
	case recordMulRK: // pairs of format and value, then the last column
		for pairs := x.data[4:]; len(pairs) >= 6+2; pairs = pairs[6:] {
			row.set(column, floatCell(rk(binary.LittleEndian.Uint32(pairs[2:]))))
			column++
		}
	case recordLabelSST:
		if len(value) < 4 {
			return broken()
		}
		index := binary.LittleEndian.Uint32(value)
		if uint64(index) >= uint64(x.shared.count()) {
			return broken()
		}
		row.set(column, textCell(x.shared.at(int(index))))
	case recordLabel, recordRString:
		return x.readLabel(row, column, cellHead)
	case recordBoolErr:
		if len(value) < 2 {
			return broken()
		}
		row.set(column, boolOrFault(value[0], value[1] != 0))
	case recordFormula:
		if len(value) < 8 {
			return broken()
		}
		return x.readFormula(row, column, value[:8])
	}
	return nil
}

// readLabel reads a string that begins after the first bytes of the record.
func (x *xlsRows) readLabel(row *Row, column, after int) error {
	x.data = x.data[after:]
	text, err := x.shortString(x.text[:0])
	if err != nil {
		return err
	}
	x.text = text
	row.set(column, textCell(string(text)))
	return nil
}

// readFormula reads the last result of a formula. A text stands in a STRING record of its own, with
// at most the definition of a shared or array formula before it.
func (x *xlsRows) readFormula(row *Row, column int, result []byte) error {
	const special = 0xFFFF // in the last two bytes, where no number has it
	if binary.LittleEndian.Uint16(result[6:]) != special {
		row.set(column, floatCell(math.Float64frombits(binary.LittleEndian.Uint64(result))))
		return nil
	}
	switch result[0] {
	case 1, 2:
		row.set(column, boolOrFault(result[2], result[0] == 2))
	case 0:
		for range 3 {
			if err := x.records.next(); err != nil {
				return err
			}
			if x.id == recordString {
				return x.readLabel(row, column, 0)
			}
		}
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

func boolOrFault(value byte, fault bool) Cell {
	if !fault {
		return boolCell(value != 0)
	}
	names := map[byte]string{
		0x00: "#NULL!", 0x07: "#DIV/0!", 0x0F: "#VALUE!", 0x17: "#REF!", 0x1D: "#NAME?", 0x24: "#NUM!", 0x2A: "#N/A",
	}
	name, known := names[value]
	if !known {
		name = "#ERROR!"
	}
	return Cell{Text: name, Kind: Fault}
}
