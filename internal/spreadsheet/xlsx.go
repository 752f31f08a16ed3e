package spreadsheet

import (
	"bytes"
	"context"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// xlsxRows streams the first visible worksheet of an Office Open XML workbook (ECMA-376, both the
// transitional and the strict namespaces).
type xlsxRows struct {
	c           *container
	worksheet   string // names of parts
	sharedTable string // "" if there is none
	sheet       *part
	shared      texts
	survey      bool // no values are made; shared.need is called instead
	row         int  // number of the last row
	inData      bool // within sheetData
	value       scratch
	inline      scratch
}

// openXLSX reads the worksheet twice. The first pass finds damage before a row is returned, which shared
// strings are needed, and whether the rows are in order.
func openXLSX(ctx context.Context, file *source) (rows, error) {
	c, err := openContainer(file)
	if err != nil {
		return nil, err
	}
	workbook, err := c.workbook(ctx)
	if err != nil {
		return nil, err
	}
	related, err := c.relations(ctx, workbook)
	if err != nil {
		return nil, err
	}
	x := &xlsxRows{c: c, survey: true, shared: texts{last: -1}}
	if x.worksheet, err = c.firstVisible(ctx, workbook, related); err != nil {
		return nil, err
	}
	x.sharedTable = find(related, func(r relation) bool { return r.kind == "sharedStrings" }).target
	return surveyed(ctx, file, x)
}

// workbook returns the name of the part that lists the sheets.
func (c *container) workbook(ctx context.Context) (string, error) {
	const usual = "xl/workbook.xml"
	if !c.has("_rels/.rels") {
		if c.has(usual) {
			return usual, nil
		}
		return "", unknownFormat("the file is an archive and not a workbook")
	}
	root, err := c.relations(ctx, "")
	if err != nil {
		return "", err
	}
	name := find(root, func(r relation) bool { return r.kind == "officeDocument" }).target
	if strings.HasSuffix(name, ".bin") || !c.has(name) {
		return "", unknownFormat("the file is not a workbook of the XLSX kind")
	}
	return name, nil
}

// begin starts the second pass.
func (x *xlsxRows) begin(ctx context.Context) error {
	x.survey = false
	if x.shared.last >= 0 {
		if err := x.readShared(ctx); err != nil {
			return err
		}
	}
	x.shared.freeze()
	x.sheet.close()
	x.sheet, x.row, x.inData = nil, 0, false
	return nil
}

// next returns the cells of the next row element.
func (x *xlsxRows) next(ctx context.Context, row *Row) error {
	if x.sheet == nil {
		if err := x.openSheet(ctx); err != nil {
			return err
		}
	}
	for x.inData {
		kind, err := x.sheet.next(ctx)
		if err != nil {
			return unexpectedEnd(err)
		}
		switch {
		case kind == endTag:
			x.inData = false
		case kind == startTag && x.sheet.is("row"):
			return x.readRow(ctx, row)
		case kind == startTag:
			if err := x.skip(ctx); err != nil {
				return err
			}
		}
	}
	for { // the rest of the worksheet
		kind, err := x.sheet.next(ctx)
		if err != nil {
			return err // io.EOF among others
		}
		if kind == startTag && x.sheet.is("sheetData") {
			return broken()
		}
	}
}

// openSheet moves into the sheetData element of the worksheet.
func (x *xlsxRows) openSheet(ctx context.Context) (err error) {
	if x.sheet, err = x.c.open(x.worksheet, maxSheetBytes); err != nil {
		return err
	}
	for {
		kind, err := x.sheet.next(ctx)
		if err != nil {
			return unexpectedEnd(err)
		}
		if kind != startTag {
			continue
		}
		switch {
		case x.sheet.depth() == 1 && !x.sheet.is("worksheet"):
			return &Error{Code: NoSheet, Message: "the first visible sheet has no cells"}
		case x.sheet.depth() == 2 && x.sheet.is("sheetData"):
			x.inData = true
			return nil
		case x.sheet.is("sheetData"): // one of several alternatives
			return broken()
		}
	}
}

func (x *xlsxRows) close() {
	if x.sheet != nil {
		x.sheet.close()
	}
}

// readRow reads to the end of a row element whose start tag was just read.
func (x *xlsxRows) readRow(ctx context.Context, row *Row) error {
	number := 0
	if r := x.sheet.attribute("r"); r != nil {
		n, err := strconv.Atoi(string(bytes.TrimSpace(r)))
		if err != nil || n < 1 {
			return broken()
		}
		number = n
	}
	for column := 0; ; {
		kind, err := x.sheet.next(ctx)
		if err != nil {
			return unexpectedEnd(err)
		}
		switch {
		case kind == endTag:
			return x.number(row, number)
		case kind == charData:
		case !x.sheet.is("c"):
			if err := x.skip(ctx); err != nil {
				return err
			}
		default:
			line := 0
			if ref := x.sheet.attribute("r"); ref != nil {
				if column, line, err = place(ref); err != nil {
					return err
				}
				if number == 0 {
					number = line
				}
			}
			if err := x.number(row, number); err != nil {
				return err
			}
			if line != 0 && line != row.Number {
				row.reject(MisplacedCell, "the row has a cell that belongs to another row", column+1)
			}
			cell, err := x.readCell(ctx)
			if err != nil {
				return at(err, row.Number, column+1)
			}
			row.set(column, cell)
			column++
		}
	}
}

// number gives the row its number, which is that of the previous row plus 1 if the file has none.
func (x *xlsxRows) number(row *Row, number int) error {
	if row.Number != 0 {
		return nil
	}
	if number == 0 {
		number = x.row + 1
	}
	if number > maxGridRows {
		return &Error{Code: TooManyRows, Message: "the sheet has too many rows; split it"}
	}
	x.row, row.Number = number, number
	return nil
}

// readCell reads to the end of a c element whose start tag was just read.
func (x *xlsxRows) readCell(ctx context.Context) (Cell, error) {
	kind, err := kindOfCell(x.sheet.attribute("t"))
	if err != nil {
		return Cell{}, err
	}
	x.value.reset()
	x.inline.reset()
	var hasValue, hasInline bool
	for depth := x.sheet.depth(); x.sheet.depth() >= depth; {
		token, err := x.sheet.next(ctx)
		if err != nil {
			return Cell{}, unexpectedEnd(err)
		}
		if token != startTag {
			continue
		}
		switch {
		case x.sheet.is("v") && hasValue, x.sheet.is("is") && hasInline:
			err = broken()
		case x.sheet.is("v"):
			hasValue = true
			err = readText(ctx, x.sheet, &x.value)
		case x.sheet.is("is"):
			hasInline = true
			err = readRich(ctx, x.sheet, &x.inline)
		default:
			err = x.skip(ctx)
		}
		if err != nil {
			return Cell{}, err
		}
	}
	if hasInline && (kind == cellInline || len(x.value.bytes) == 0 && !x.value.long) {
		return x.text(&x.inline)
	}
	return x.cell(kind)
}

// cellType is the t attribute of a c element.
type cellType uint8

const (
	cellText   cellType = iota // str
	cellDate                   // d, in ISO 8601
	cellNumber                 // n, the default
	cellShared                 // s
	cellBool                   // b
	cellError                  // e
	cellInline                 // inlineStr
)

// kindOfCell refuses the types that ECMA-376 does not know: such a value might be anything.
func kindOfCell(t []byte) (cellType, error) {
	switch string(t) {
	case "", "n":
		return cellNumber, nil
	case "s":
		return cellShared, nil
	case "b":
		return cellBool, nil
	case "d":
		return cellDate, nil
	case "e":
		return cellError, nil
	case "inlineStr":
		return cellInline, nil
	case "str":
		return cellText, nil
	}
	return 0, &Error{
		Code: UnsupportedCell, Message: "the sheet has a cell of an unknown type; save the file again and retry",
	}
}

// cell makes a cell of the value that was read.
func (x *xlsxRows) cell(kind cellType) (Cell, error) {
	trimmed := bytes.TrimSpace(x.value.bytes)
	switch {
	case kind == cellText, kind == cellInline, x.value.long:
		return x.text(&x.value)
	case len(trimmed) == 0:
		return Cell{}, nil
	case kind == cellShared:
		index, err := strconv.Atoi(string(trimmed))
		if err != nil {
			return Cell{}, broken()
		}
		if x.survey {
			return Cell{}, x.shared.need(index)
		}
		cell, ok := x.shared.at(index)
		if !ok {
			return Cell{}, broken()
		}
		return cell, nil
	case x.survey:
		return Cell{}, nil
	case !utf8.Valid(trimmed):
		return Cell{}, broken()
	case kind == cellBool:
		return boolCell(string(trimmed) == "1" || bytes.EqualFold(trimmed, []byte("true"))), nil
	case kind == cellError:
		return Cell{Text: string(trimmed), Kind: ErrorValue}, nil
	case kind == cellDate:
		return Cell{Text: string(trimmed), Kind: Date}, nil
	}
	return numberCell(trimmed), nil
}

// text makes a cell of a text that is not shared.
func (x *xlsxRows) text(text *scratch) (Cell, error) {
	if !utf8.Valid(text.bytes) {
		return Cell{}, broken()
	}
	if x.survey {
		return Cell{}, nil
	}
	unescape(text)
	return text.cell(), nil
}

// skip reads to the end of the element whose start tag was just read. An element that is not known could
// hold rows and cells, such as the alternatives that newer programs write: it is refused.
func (x *xlsxRows) skip(ctx context.Context) error {
	return x.sheet.skipWithout(ctx, "row", "c", "AlternateContent")
}

// readShared keeps the shared strings that the worksheet refers to.
func (x *xlsxRows) readShared(ctx context.Context) error {
	part, err := x.c.open(x.sharedTable, maxSharedBytes)
	if err != nil {
		return err
	}
	defer part.close()
	for !x.shared.complete() {
		kind, err := part.next(ctx)
		if err != nil {
			return unexpectedEnd(err) // the sheet refers to a string that is not there
		}
		if kind != startTag || part.depth() == 1 {
			continue
		}
		if !part.is("si") {
			if err := part.skipWithout(ctx, "si", "AlternateContent"); err != nil {
				return err
			}
			continue
		}
		x.value.reset()
		if !x.shared.wanted() {
			err = part.skip(ctx)
		} else {
			if err = readRich(ctx, part, &x.value); err == nil && !utf8.Valid(x.value.bytes) {
				err = broken()
			}
			unescape(&x.value)
		}
		if err != nil {
			return err
		}
		if err := x.shared.add(&x.value); err != nil {
			return err
		}
	}
	return part.drain(ctx)
}

// firstVisible returns the part of the first worksheet that a user sees. Sheets of other kinds, such as
// charts, are passed over.
func (c *container) firstVisible(ctx context.Context, workbook string, related []relation) (string, error) {
	part, err := c.open(workbook, maxIndexBytes)
	if err != nil {
		return "", err
	}
	defer part.close()
	for {
		kind, err := part.next(ctx)
		if err == io.EOF {
			return "", noSheet()
		}
		if err != nil {
			return "", err
		}
		if kind != startTag {
			continue
		}
		if part.depth() == 1 && !part.is("workbook") {
			return "", unknownFormat("the file is not a workbook of the XLSX kind")
		}
		if !part.is("sheet") || bytes.HasSuffix(bytes.ToLower(part.attribute("state")), []byte("hidden")) {
			continue
		}
		id := ""
		for _, a := range part.attributes {
			if bytes.HasSuffix(a.name, []byte(":id")) {
				id = string(a.value)
			}
		}
		sheet := find(related, func(r relation) bool { return r.id == id })
		switch sheet.kind {
		case "worksheet":
			return sheet.target, nil
		case "":
			return "", broken()
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

// readRich appends the text of an is or si element whose start tag was just read: its t elements and those
// of its runs. Phonetic hints (rPh) are not part of it.
func readRich(ctx context.Context, p *part, text *scratch) error {
	for depth := p.depth(); p.depth() >= depth; {
		kind, err := p.next(ctx)
		if err != nil {
			return unexpectedEnd(err)
		}
		if kind != startTag || p.is("r") {
			continue
		}
		switch {
		case p.is("t"):
			err = readText(ctx, p, text)
		case p.is("AlternateContent"), p.is("si"):
			err = broken()
		default:
			err = p.skip(ctx)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// readText appends the text directly inside the element whose start tag was just read. White space around
// the text is layout, as Excel reads it, unless the element has xml:space="preserve".
func readText(ctx context.Context, p *part, text *scratch) error {
	const space = " \t\r\n"
	preserve := string(p.attribute("xml:space")) == "preserve"
	from := len(text.bytes)
	for depth := p.depth(); p.depth() >= depth; {
		kind, err := p.next(ctx)
		if err != nil {
			return unexpectedEnd(err)
		}
		switch {
		case kind == startTag: // a part of the text might be missing
			return broken()
		case kind == charData && !text.long:
			if text.bytes, err = p.appendText(text.bytes); err != nil {
				return err
			}
			if !preserve {
				text.bytes = append(text.bytes[:from], bytes.TrimLeft(text.bytes[from:], space)...)
			}
			text.limit()
		}
		if err != nil {
			return err
		}
	}
	if !preserve && !text.long {
		text.bytes = text.bytes[:from+len(bytes.TrimRight(text.bytes[from:], space))]
	}
	return nil
}

// place returns the column of a reference such as AB12, from 0, and its row, 0 if it has none.
func place(ref []byte) (column, row int, err error) {
	const lastColumn = 1 << 14 // XFD
	i := 0
	for ; i < len(ref) && column <= lastColumn; i++ {
		c := ref[i] | 0x20
		if ref[i] == '$' {
			continue
		}
		if c < 'a' || c > 'z' {
			break
		}
		column = column*26 + int(c-'a') + 1
	}
	if column == 0 || column > lastColumn {
		return 0, 0, broken()
	}
	for _, c := range ref[i:] {
		switch {
		case c == '$' || c == ' ':
		case c < '0' || c > '9' || row > maxGridRows:
			return 0, 0, broken()
		default:
			row = row*10 + int(c-'0')
		}
	}
	return column - 1, row, nil
}

// escapes are how a worksheet writes characters that XML 1.0 cannot hold, in UTF-16: _x000D_.
var escapes = regexp.MustCompile(`(?:_x[Dd][89ABab][0-9A-Fa-f]{2}_)?_x[0-9A-Fa-f]{4}_`)

func unescape(text *scratch) {
	if !bytes.Contains(text.bytes, []byte("_x")) {
		return
	}
	text.bytes = escapes.ReplaceAllFunc(text.bytes, func(s []byte) []byte {
		var units []uint16
		for ; len(s) > 0; s = s[len("_x0000_"):] {
			unit, _ := strconv.ParseUint(string(s[2:6]), 16, 16) // the expression takes no other digits
			units = append(units, uint16(unit))
		}
		return []byte(string(utf16.Decode(units)))
	})
}

func noSheet() *Error {
	return &Error{Code: NoSheet, Message: "the workbook has no visible worksheet"}
}
