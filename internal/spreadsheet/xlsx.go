package spreadsheet

import (
	"context"
	"encoding/xml"
	"io"
	"regexp"
	"strconv"
	"strings"
)

// xlsxRows streams the first visible worksheet of an Office Open XML workbook (ECMA-376).
type xlsxRows struct {
	sheet  *part
	shared texts
	row    int // number of the last row
	text   []byte
	done   bool
}

func openXLSX(ctx context.Context, file *source) (rows, error) {
	c, err := openContainer(file)
	if err != nil {
		return nil, err
	}
	if c.parts["_rels/.rels"] == nil {
		return nil, unknownFormat("the file is an archive and not a workbook")
	}
	root, err := c.relations(ctx, "")
	if err != nil {
		return nil, err
	}
	workbook := find(root, func(r relation) bool { return r.kind == "officeDocument" })
	if !strings.HasSuffix(workbook.target, ".xml") || c.parts[workbook.target] == nil {
		return nil, unknownFormat("the file is not a workbook of the XLSX kind")
	}
	related, err := c.relations(ctx, workbook.target)
	if err != nil {
		return nil, err
	}
	sheet, err := c.firstVisible(ctx, workbook.target, related)
	if err != nil {
		return nil, err
	}
	x := &xlsxRows{}
	if shared := find(related, func(r relation) bool { return r.kind == "sharedStrings" }); shared.target != "" {
		if err := x.readShared(ctx, c, shared.target); err != nil {
			return nil, err
		}
	}
	if x.sheet, err = c.open(sheet, maxSheetBytes); err != nil {
		return nil, err
	}
	return x, nil
}

// next returns the cells of the next row element.
func (x *xlsxRows) next(ctx context.Context, row *Row) error {
	for !x.done {
		token, err := x.sheet.next(ctx)
		if err == io.EOF {
			return broken() // sheetData was not seen to end
		}
		if err != nil {
			return err
		}
		switch t := token.(type) {
		case xml.StartElement:
			switch t.Name.Local {
			case "row":
				return x.readRow(ctx, t, row)
			case "dialogsheet", "chartsheet":
				return &Error{Code: NoSheet, Message: "the first visible sheet has no cells"}
			}
		case xml.EndElement:
			x.done = t.Name.Local == "sheetData"
		}
	}
	if err := x.sheet.drain(ctx); err != nil {
		return err
	}
	return io.EOF
}

func (x *xlsxRows) close() { x.sheet.close() }

func (x *xlsxRows) readRow(ctx context.Context, start xml.StartElement, row *Row) error {
	number := x.row + 1
	if r := attribute(start, "r"); r != "" {
		n, err := strconv.Atoi(r)
		if err != nil || n < number || n > maxGridRows {
			return broken()
		}
		number = n
	}
	x.row, row.Number = number, number
	for column := 0; ; {
		token, err := x.sheet.next(ctx)
		if err != nil {
			return unexpectedEnd(err)
		}
		switch t := token.(type) {
		case xml.EndElement:
			return nil
		case xml.StartElement:
			if t.Name.Local != "c" {
				if err := x.skip(ctx); err != nil {
					return err
				}
				continue
			}
			if ref := attribute(t, "r"); ref != "" {
				if column, err = columnOf(ref); err != nil {
					return err
				}
			}
			cell, err := x.readCell(ctx, attribute(t, "t"))
			if err != nil {
				return err
			}
			row.set(column, cell)
			column++
		}
	}
}

// readCell reads to the end of a c element whose start was just read.
func (x *xlsxRows) readCell(ctx context.Context, kind string) (Cell, error) {
	x.text = x.text[:0]
	for depth := len(x.sheet.open); len(x.sheet.open) >= depth; {
		token, err := x.sheet.next(ctx)
		if err != nil {
			return Cell{}, unexpectedEnd(err)
		}
		if start, ok := token.(xml.StartElement); ok {
			switch start.Name.Local {
			case "v", "is":
				if x.text, err = readText(ctx, x.sheet, x.text); err != nil {
					return Cell{}, err
				}
			default:
				if err := x.skip(ctx); err != nil {
					return Cell{}, err
				}
			}
		}
	}
	return x.cell(kind, string(x.text))
}

func (x *xlsxRows) cell(kind, text string) (Cell, error) {
	if text == "" {
		return Cell{}, nil
	}
	switch kind {
	case "s":
		index, err := strconv.Atoi(strings.TrimSpace(text))
		if err != nil || index < 0 || index >= x.shared.count() {
			return Cell{}, broken()
		}
		return textCell(x.shared.at(index)), nil
	case "b":
		return boolCell(strings.TrimSpace(text) == "1"), nil
	case "e":
		return Cell{Text: text, Kind: Fault}, nil
	case "", "n":
		return numberCell(strings.TrimSpace(text)), nil
	}
	return textCell(unescape(text)), nil // str, inlineStr and the ISO dates of d
}

// skip reads to the end of the element whose start was just read.
func (x *xlsxRows) skip(ctx context.Context) error {
	for depth := len(x.sheet.open); len(x.sheet.open) >= depth; {
		if _, err := x.sheet.next(ctx); err != nil {
			return unexpectedEnd(err)
		}
	}
	return nil
}

func (x *xlsxRows) readShared(ctx context.Context, c *container, name string) error {
	part, err := c.open(name, maxSharedBytes)
	if err != nil {
		return err
	}
	defer part.close()
	for {
		token, err := part.next(ctx)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if start, ok := token.(xml.StartElement); ok && start.Name.Local == "si" {
			if x.text, err = readText(ctx, part, x.text[:0]); err != nil {
				return err
			}
			x.shared.add([]byte(unescape(string(x.text))))
		}
	}
}

// firstVisible returns the part of the first sheet that a user sees.
func (c *container) firstVisible(ctx context.Context, workbook string, related []relation) (string, error) {
	part, err := c.open(workbook, maxIndexBytes)
	if err != nil {
		return "", err
	}
	defer part.close()
	for {
		token, err := part.next(ctx)
		if err == io.EOF {
			return "", noSheet()
		}
		if err != nil {
			return "", err
		}
		start, ok := token.(xml.StartElement)
		if !ok || start.Name.Local != "sheet" || strings.HasSuffix(strings.ToLower(attribute(start, "state")), "hidden") {
			continue
		}
		for _, a := range start.Attr {
			if a.Name.Local != "id" || a.Name.Space == "" {
				continue
			}
			sheet := find(related, func(r relation) bool { return r.id == a.Value && r.kind == "worksheet" })
			if sheet.target != "" {
				return sheet.target, nil
			}
		}
	}
}

func find(all []relation, wanted func(relation) bool) relation {
	for _, r := range all {
		if wanted(r) {
			return r
		}
	}
	return relation{}
}

// readText appends the text inside the element whose start was just read. Phonetic hints (rPh) are
// not part of it, and what is too long for a cell is cut.
func readText(ctx context.Context, p *part, text []byte) ([]byte, error) {
	hint := 0 // depth of the rPh element we are in
	for depth := len(p.open); len(p.open) >= depth; {
		token, err := p.next(ctx)
		if err != nil {
			return nil, unexpectedEnd(err)
		}
		switch t := token.(type) {
		case xml.StartElement:
			if hint == 0 && t.Name.Local == "rPh" {
				hint = len(p.open)
			}
		case xml.EndElement:
			if len(p.open) < hint {
				hint = 0
			}
		case xml.CharData:
			if hint == 0 {
				text = truncateCell(append(text, t...))
			}
		}
	}
	return text, nil
}

// columnOf returns the column of a reference such as AB12, from 0.
func columnOf(ref string) (int, error) {
	const lastColumn = 1 << 14 // XFD
	column := 0
	for i := 0; i < len(ref) && ref[i] >= 'A' && ref[i] <= 'Z' && column <= lastColumn; i++ {
		column = column*26 + int(ref[i]-'A') + 1
	}
	if column == 0 || column > lastColumn {
		return 0, broken()
	}
	return column - 1, nil
}

// escapes are how a worksheet writes characters that XML 1.0 cannot hold: _x000D_.
var escapes = regexp.MustCompile(`_x[0-9A-Fa-f]{4}_`)

func unescape(text string) string {
	// A text that was cut stays too long: without its escapes it might pass for a whole one.
	if len(text) > MaxCellBytes || !strings.Contains(text, "_x") {
		return text
	}
	return escapes.ReplaceAllStringFunc(text, func(s string) string {
		code, err := strconv.ParseUint(s[2:6], 16, 16)
		if err != nil {
			return s
		}
		return string(rune(code))
	})
}

func unexpectedEnd(err error) error {
	if err == io.EOF {
		return broken()
	}
	return err
}

func noSheet() *Error {
	return &Error{Code: NoSheet, Message: "the workbook has no visible worksheet"}
}
