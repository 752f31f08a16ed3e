package spreadsheet_test

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/stretchr/testify/require"
)

// part is a file of a package.
type part struct{ name, content string }

// pack makes a zip of parts in this order.
func pack(t testing.TB, parts ...part) []byte {
	t.Helper()
	var file bytes.Buffer
	w := zip.NewWriter(&file)
	for _, p := range parts {
		content, err := w.Create(p.name)
		require.NoError(t, err)
		_, err = content.Write([]byte(p.content))
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return file.Bytes()
}

func rel(id, kind, target string) string {
	return fmt.Sprintf(`<Relationship Id="%s" Type="http://x/relationships/%s" Target="%s"/>`, id, kind, target)
}

func relationships(relations ...string) string {
	return `<Relationships>` + strings.Join(relations, "") + `</Relationships>`
}

// xlsx makes a workbook by hand of the inside of sheetData and of sst.
func xlsx(t testing.TB, rows, shared string, more ...part) []byte {
	t.Helper()
	return pack(t, append(parts(rows, shared), more...)...)
}

func parts(rows, shared string) []part {
	return []part{
		{"[Content_Types].xml", `<Types/>`},
		{"_rels/.rels", relationships(rel("1", "officeDocument", "/xl/workbook.xml"))},
		{"xl/workbook.xml", `<?xml version="1.0" encoding="UTF-8"?><workbook xmlns:r="r"><sheets>` +
			`<sheet name="0" state="veryHidden" r:id="r9"/><sheet name="1" r:id="r1"/></sheets></workbook>`},
		{"xl/_rels/workbook.xml.rels", relationships(
			rel("r9", "worksheet", "worksheets/hidden.xml"),
			rel("r1", "worksheet", "worksheets/sheet1.xml"),
			rel("r2", "sharedStrings", "SharedStrings.xml"))},
		{"xl/worksheets/sheet1.xml", `<worksheet><sheetData>` + rows + `</sheetData></worksheet>`},
		{"xl/sharedStrings.xml", `<sst>` + shared + `</sst>`},
	}
}

// record makes a BIFF record of integers (by their size), byte slices and strings (as bytes).
func record(id uint16, values ...any) []byte {
	var body []byte
	for _, value := range values {
		if text, ok := value.(string); ok {
			value = []byte(text)
		}
		body, _ = binary.Append(body, binary.LittleEndian, value)
	}
	head := binary.LittleEndian.AppendUint16(nil, id)
	return append(binary.LittleEndian.AppendUint16(head, uint16(len(body))), body...)
}

// wide returns a text as UTF-16LE.
func wide(text string) []byte {
	var raw []byte
	for _, unit := range utf16.Encode([]rune(text)) {
		raw = binary.LittleEndian.AppendUint16(raw, unit)
	}
	return raw
}

var (
	bof = record(0x0809, uint16(0x0600), uint16(0x10))
	eof = record(0x000A)
)

// stream makes a workbook stream of the records of its globals and of its sheet.
func stream(globals, sheet [][]byte) []byte {
	const boundSheet = 4 + 4 + 2 + 2 + 1
	inside := bytes.Join(globals, nil)
	begin := uint32(len(bof) + boundSheet + len(inside) + len(eof))
	return bytes.Join([][]byte{
		bof, record(0x0085, begin, uint8(0), uint8(0), uint16(1), "S"), inside, eof,
		bof, bytes.Join(sheet, nil), eof,
	}, nil)
}

// xls makes a workbook by hand.
func xls(globals, sheet [][]byte) []byte {
	return compound(map[string][]byte{"Workbook": stream(globals, sheet)})
}

const (
	sectorSize = 512
	endOfChain = 0xFFFFFFFE
	noStream   = 0xFFFFFFFF
	fatSector  = 0xFFFFFFFD
	// smallStream is where streams begin to have sectors of their own.
	smallStream = 4096
)

// compound makes an OLE2 file of at most three streams. The table of sectors (FAT) is at 512, the
// directory behind it.
func compound(streams map[string][]byte) []byte {
	var data, fat, directory []byte
	sectors := func(length int) int { return (length + sectorSize - 1) / sectorSize }
	total := 1 // the directory
	for _, content := range streams {
		total += sectors(max(len(content), smallStream))
	}
	fats := 1
	for fats*sectorSize/4 < total+fats {
		fats++
	}
	for range fats {
		fat = binary.LittleEndian.AppendUint32(fat, fatSector)
	}
	fat = binary.LittleEndian.AppendUint32(fat, endOfChain) // the directory
	next := uint32(fats + 1)
	directory = append(directory, entry("Root Entry", 5, 1, endOfChain, 0)...)
	index := uint32(1)
	for name, content := range streams {
		content = append(bytes.Clone(content), make([]byte, max(0, smallStream-len(content)))...)
		e := entry(name, 2, noStream, next, uint32(len(content)))
		if index < uint32(len(streams)) {
			binary.LittleEndian.PutUint32(e[72:], index+1) // right sibling
		}
		directory = append(directory, e...)
		for i := range sectors(len(content)) {
			next++
			if i == sectors(len(content))-1 {
				fat = binary.LittleEndian.AppendUint32(fat, endOfChain)
			} else {
				fat = binary.LittleEndian.AppendUint32(fat, next)
			}
		}
		data = append(data, content...)
		data = append(data, make([]byte, sectors(len(content))*sectorSize-len(content))...)
		index++
	}
	file := header(uint32(fats), uint32(fats))
	file = append(file, fat...)
	file = append(file, make([]byte, (fats+1)*sectorSize-len(file))...)
	file = append(file, directory...)
	file = append(file, make([]byte, (fats+2)*sectorSize-len(file))...)
	return append(file, data...)
}

// header makes the head of an OLE2 file whose first fats sectors are its FAT.
func header(fats, directory uint32) []byte {
	head := make([]byte, 0, sectorSize)
	head = append(head, 0xD0, 0xCF, 0x11, 0xE0, 0xA1, 0xB1, 0x1A, 0xE1)
	head = append(head, make([]byte, 16)...)
	for _, field := range []uint16{0x3E, 3, 0xFFFE, 9, 6, 0, 0, 0} {
		head = binary.LittleEndian.AppendUint16(head, field)
	}
	for _, field := range []uint32{0, fats, directory, 0, smallStream, endOfChain, 0, endOfChain, 0} {
		head = binary.LittleEndian.AppendUint32(head, field)
	}
	for i := range uint32((sectorSize - len(head)) / 4) {
		if i >= fats {
			i = noStream
		}
		head = binary.LittleEndian.AppendUint32(head, i)
	}
	return head
}

// entry makes a directory entry without siblings.
func entry(name string, kind byte, child, sector, size uint32) []byte {
	e := make([]byte, 128)
	copy(e, wide(name))
	binary.LittleEndian.PutUint16(e[64:], uint16(2*len(name)+2))
	e[66] = kind
	for at, value := range map[int]uint32{68: noStream, 72: noStream, 76: child, 116: sector, 120: size} {
		binary.LittleEndian.PutUint32(e[at:], value)
	}
	return e
}
