package spreadsheet

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"io"
	"net/url"
	"path"
	"strings"
)

const (
	// maxParts is the number of files in an XLSX package. Most workbooks have 10 to 100; each picture,
	// comment and drawing of a catalogue adds one.
	maxParts = 10_000
	// maxRelations is the number of entries in one .rels part.
	maxRelations = 10_000
	// maxRatio is how far a part may inflate. Measured: 3 to 16 for honest sheets, about 300 to 1000
	// for bombs. A part smaller than ratioFloor may inflate further.
	maxRatio   = 100
	ratioFloor = 1 << 20

	// maxIndexBytes limits a part that names other parts.
	maxIndexBytes = 4 << 20
	// maxSharedBytes limits sharedStrings.xml. It may belong to many sheets; only the strings of the
	// sheet that is read are kept.
	maxSharedBytes = 32 << 20
	// maxSheetBytes limits the worksheet. A sheet of MaxRows and seven columns has 30 MB.
	maxSheetBytes = 64 << 20
)

// container is the zip of an XLSX file. Only the parts that a table needs are inflated and checked: an
// unused part may be damaged, and a nested archive is never opened.
type container struct {
	file  *source
	parts map[string]*zip.File // by partName; nil if several parts have the name
}

// relation is one entry of a .rels part.
type relation struct {
	id     string
	kind   string // last word of the type's URI: officeDocument, worksheet, sharedStrings
	target string // partName
}

func openContainer(file *source) (*container, error) {
	file.budget = zipDirectoryBudget
	archive, err := zip.NewReader(file, file.size)
	file.budget = unlimited
	if errors.Is(err, errBudget) || err == nil && len(archive.File) > maxParts {
		return nil, tooManyParts()
	}
	if err != nil {
		return nil, err
	}
	c := &container{file: file, parts: make(map[string]*zip.File, len(archive.File))}
	for _, part := range archive.File {
		name := partName("", part.Name)
		if _, twice := c.parts[name]; twice {
			part = nil
		}
		c.parts[name] = part
	}
	return c, nil
}

// partName returns the name by which a part is found: without escapes, in lower case, with slashes and
// relative to the root of the package. Writers spell names in many ways: with '\', a leading '/' or './'.
func partName(folder, name string) string {
	if unescaped, err := url.PathUnescape(name); err == nil {
		name = unescaped
	}
	name = strings.ReplaceAll(name, `\`, "/")
	if !strings.HasPrefix(name, "/") {
		name = folder + "/" + name
	}
	return strings.ToLower(strings.TrimPrefix(path.Clean("/"+name), "/"))
}

func (c *container) has(name string) bool {
	_, ok := c.parts[name]
	return ok
}

// open starts to inflate a part of at most limit bytes. What the directory says about the size of a part
// is binding: archive/zip fails when the part inflates to more.
func (c *container) open(name string, limit uint64) (*part, error) {
	file := c.parts[name]
	if file == nil {
		return nil, broken()
	}
	if file.Flags&1 != 0 { // bit 0 of a zip entry: encrypted
		return nil, encrypted()
	}
	size, packed := file.UncompressedSize64, min(file.CompressedSize64, uint64(c.file.size))
	if size > limit || size > ratioFloor && size/maxRatio > packed {
		return nil, tooLargeUncompressed()
	}
	stream, err := file.Open()
	if err != nil {
		return nil, unexpectedEnd(err) // io.EOF must not pass for the end of the rows
	}
	return newPart(c.file, stream)
}

// relations reads the .rels part of the part with this name.
func (c *container) relations(ctx context.Context, name string) ([]relation, error) {
	folder, base := path.Split(name)
	part, err := c.open(folder+"_rels/"+base+".rels", maxIndexBytes)
	if err != nil {
		return nil, err
	}
	defer part.close()
	var all []relation
	for {
		kind, err := part.next(ctx)
		if err == io.EOF {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		if kind != startTag || !part.is("Relationship") || bytes.EqualFold(part.attribute("TargetMode"), []byte("External")) {
			continue
		}
		if len(all) == maxRelations {
			return nil, tooManyParts()
		}
		raw := string(part.attribute("Target"))
		target := partName(folder, raw)
		if other := partName("", raw); !c.has(target) && c.has(other) { // some writers always start at the root
			target = other
		}
		all = append(all, relation{
			id:     string(part.attribute("Id")),
			kind:   path.Base(string(part.attribute("Type"))),
			target: target,
		})
	}
}

func tooManyParts() *Error {
	return &Error{Code: TooManyParts, Message: "the workbook has too many parts; save it again and retry"}
}

func tooLargeUncompressed() *Error {
	return &Error{Code: TooLargeUncompressed, Message: "the workbook unpacks to more than is allowed; save it again, or split it"}
}
