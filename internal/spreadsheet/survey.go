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
	err := func() error {
		inOrder, err := increasing(ctx, file, sheet)
		if err != nil {
			return err
		}
		if err := sheet.begin(ctx); err != nil || inOrder {
			return err
		}
		sorted, err := sortRows(ctx, file, sheet)
		sheet = sorted
		return err
	}()
	if err != nil {
		sheet.close()
		return nil, err
	}
	return sheet, nil
}

// increasing reads all rows and reports whether each number is larger than the one before.
func increasing(ctx context.Context, file *source, sheet rows) (bool, error) {
	inOrder, row := true, Row{}
	for last := 0; ; last = row.Number {
		row = Row{Cells: row.Cells[:0]}
		if err := file.check(ctx); err != nil {
			return false, err
		}
		if err := sheet.next(ctx, &row); err == io.EOF {
			return inOrder, nil
		} else if err != nil {
			return false, err
		}
		inOrder = inOrder && row.Number > last
	}
}

// sortedRows are the rows of a sheet that was not in order.
type sortedRows struct {
	twoPasses
	cells []sortedCell
}

// sortedCell is a cell, or an error of its row. A row has one sortedCell at least.
type sortedCell struct {
	row    int32
	column int32
	cell   Cell
	err    *Error
}

func sortRows(ctx context.Context, file *source, sheet twoPasses) (*sortedRows, error) {
	s := &sortedRows{twoPasses: sheet}
	var row Row
	for text := 0; ; {
		row = Row{Cells: row.Cells[:0]}
		if err := file.check(ctx); err != nil {
			return s, err
		}
		if err := sheet.next(ctx, &row); err == io.EOF {
			break
		} else if err != nil {
			return s, err
		}
		if row.Err != nil {
			s.cells = append(s.cells, sortedCell{row: int32(row.Number), err: row.Err})
		}
		for column, cell := range row.Cells {
			if cell.Kind != Empty {
				s.cells = append(s.cells, sortedCell{row: int32(row.Number), column: int32(column), cell: cell})
				text += len(cell.Text)
			}
		}
		if len(s.cells) > maxSorted || text > maxSortedText {
			return s, &Error{
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
	row.Number = int(s.cells[0].row)
	for len(s.cells) > 0 && int(s.cells[0].row) == row.Number {
		c := s.cells[0]
		s.cells = s.cells[1:]
		if c.err != nil {
			row.rejectWith(c.err)
			continue
		}
		row.set(int(c.column), c.cell)
	}
	return nil
}
