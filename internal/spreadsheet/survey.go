package spreadsheet

import (
	"cmp"
	"context"
	"io"
	"slices"
)

const (
	// maxSorted is the number of cells with a value that a sheet may have whose rows are not in order:
	// three columns of MaxRows. They are kept in memory.
	maxSorted = 3 * MaxRows
	// maxSortedText limits the text of these cells.
	maxSortedText = 8 << 20
)

// twoPasses is a workbook whose sheet is read twice. Until begin is called, next makes no values.
type twoPasses interface {
	rows
	begin(ctx context.Context) error
}

// surveyed reads the sheet to its end and begins the second pass. If the numbers of the rows do not
// increase, because a program wrote the sheet column by column, the rows are sorted.
func surveyed(ctx context.Context, file *source, sheet twoPasses) (rows, error) {
	inOrder, cells, err := survey(ctx, file, sheet)
	if err == nil {
		err = sheet.begin(ctx)
	}
	var result rows = sheet
	if err == nil && !inOrder {
		result, err = sortRows(ctx, file, sheet, cells)
	}
	if err != nil {
		sheet.close()
		return nil, err
	}
	return result, nil
}

// survey reads all rows. It reports whether each number is larger than the one before, and counts the cells.
func survey(ctx context.Context, file *source, sheet rows) (inOrder bool, cells int, err error) {
	inOrder = true
	var row Row
	for last := 0; ; last = row.Number {
		row = Row{Cells: row.Cells[:0]}
		if err := file.check(ctx); err != nil {
			return false, 0, err
		}
		if err := sheet.next(ctx, &row); err == io.EOF {
			return inOrder, cells, nil
		} else if err != nil {
			return false, 0, err
		}
		inOrder = inOrder && row.Number > last
		cells += len(row.Cells)
	}
}

// sortedRows are the rows of a sheet that was not in order.
type sortedRows struct {
	rows
	cells  []sortedCell
	errors map[int32]*Error // by row
}

// sortedCell is a cell with a value, or an Empty one in a row that has only an error.
type sortedCell struct {
	text   string
	row    int32
	column int16
	kind   CellKind
}

func sortRows(ctx context.Context, file *source, sheet rows, cells int) (*sortedRows, error) {
	s := &sortedRows{rows: sheet, cells: make([]sortedCell, 0, min(cells, maxSorted)), errors: make(map[int32]*Error)}
	var row Row
	for text := 0; ; {
		row = Row{Cells: row.Cells[:0]}
		if err := file.check(ctx); err != nil {
			return nil, err
		}
		if err := sheet.next(ctx, &row); err == io.EOF {
			break
		} else if err != nil {
			return nil, err
		}
		number := int32(row.Number)
		if row.Err != nil {
			s.cells = append(s.cells, sortedCell{row: number})
			if s.errors[number] == nil {
				s.errors[number] = row.Err
			}
		}
		for column, cell := range row.Cells {
			if cell.Kind != Empty {
				s.cells = append(s.cells, sortedCell{row: number, column: int16(column), text: cell.Text, kind: cell.Kind})
				text += len(cell.Text)
			}
		}
		if len(s.cells) > maxSorted || text > maxSortedText {
			return nil, &Error{
				Code:    TooManyRows,
				Message: "the sheet is too large for one whose rows are not in order; save it again, or split it",
			}
		}
	}
	slices.SortStableFunc(s.cells, func(a, b sortedCell) int { return cmp.Compare(a.row, b.row) })
	return s, nil
}

func (s *sortedRows) next(_ context.Context, row *Row) error {
	if len(s.cells) == 0 {
		return io.EOF
	}
	number := s.cells[0].row
	row.Number = int(number)
	if err := s.errors[number]; err != nil {
		row.rejectWith(err)
	}
	for len(s.cells) > 0 && s.cells[0].row == number {
		c := s.cells[0]
		s.cells = s.cells[1:]
		row.set(int(c.column), Cell{Text: c.text, Kind: c.kind})
	}
	return nil
}
