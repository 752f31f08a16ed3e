package spreadsheet

import (
	"archive/zip"
	"context"
	"encoding/xml"
	"errors"
	"io"
	"path"
	"strings"
)

const (
	// maxParts is the number of files in an XLSX package; honest workbooks have 10 to 100.
	maxParts = 200
	// maxRatio is how far a part may inflate. Measured: 3 to 16 for honest sheets, about 300 to 1000
	// for bombs. Parts below ratioFloor are not worth the question.
	maxRatio   = 100
	ratioFloor = 1 << 20

	// maxIndexBytes is for the parts that say where the others are.
	maxIndexBytes = 4 << 20
	// maxSharedBytes of sharedStrings.xml, the one part that is kept in memory (as bare text).
	maxSharedBytes = 16 << 20
	// maxSheetBytes is an upload of 10 MB at the ratio of a very repetitive sheet. A sheet of MaxRows
	// and seven columns has 30 MB. It also bounds the time: encoding/xml reads 10 to 20 MB a second.
	maxSheetBytes = 128 << 20
)

// container is the zip of an XLSX file: parts by their name in lower case, as Excel compares them.
// Only the parts that a table needs are ever inflated, and nested archives are not among those.
type container struct {
	parts map[string]*zip.File
	size  int64
}

// relation is one entry of a .rels part.
type relation struct {
	id     string
	kind   string // last word of the type's URI: officeDocument, worksheet, sharedStrings
	target string // name of the part in lower case
}

func openContainer(file *source) (*container, error) {
	file.budget = directoryBudget
	archive, err := zip.NewReader(file, file.size)
	file.budget = unlimited
	if errors.Is(err, errBudget) || err == nil && len(archive.File) > maxParts {
		return nil, &Error{Code: TooManyParts, Message: "the workbook has too many parts; save it again and retry"}
	}
	if err != nil {
		return nil, err
	}
	c := &container{parts: make(map[string]*zip.File, len(archive.File)), size: file.size}
	for _, part := range archive.File {
		name := strings.ToLower(part.Name)
		if _, twice := c.parts[name]; twice || name == "" || strings.Contains(name, `\`) ||
			path.Clean("/"+name) != "/"+strings.TrimSuffix(name, "/") {
			return nil, broken()
		}
		if part.Flags&1 != 0 { // bit 0 of a zip entry: encrypted
			return nil, encrypted()
		}
		if c.inflatesTooFar(part) {
			return nil, tooLargeUncompressed()
		}
		c.parts[name] = part
	}
	return c, nil
}

// inflatesTooFar compares what a part says about its size with the bytes that it can have in the
// file. What it says is binding: archive/zip fails when a part inflates to more.
func (c *container) inflatesTooFar(part *zip.File) bool {
	packed := min(part.CompressedSize64, uint64(c.size))
	return part.UncompressedSize64 > ratioFloor && part.UncompressedSize64/maxRatio > packed
}

// open starts to inflate a part of at most limit bytes.
func (c *container) open(name string, limit uint64) (*part, error) {
	file := c.parts[name]
	if file == nil {
		return nil, broken()
	}
	if file.UncompressedSize64 > limit {
		return nil, tooLargeUncompressed()
	}
	stream, err := file.Open()
	if err != nil {
		return nil, err
	}
	return newPart(stream), nil
}

// relations reads the .rels part of the part named; targets are resolved against its folder.
func (c *container) relations(ctx context.Context, name string) ([]relation, error) {
	folder, base := path.Split(name)
	part, err := c.open(folder+"_rels/"+base+".rels", maxIndexBytes)
	if err != nil {
		return nil, err
	}
	defer part.close()
	var all []relation
	for {
		token, err := part.next(ctx)
		if err == io.EOF {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		start, ok := token.(xml.StartElement)
		if !ok || start.Name.Local != "Relationship" {
			continue
		}
		target := strings.ToLower(attribute(start, "Target"))
		if !strings.HasPrefix(target, "/") {
			target = "/" + folder + target
		}
		all = append(all, relation{
			id:     attribute(start, "Id"),
			kind:   path.Base(attribute(start, "Type")),
			target: strings.TrimPrefix(path.Clean(target), "/"),
		})
	}
}

func tooLargeUncompressed() *Error {
	return &Error{Code: TooLargeUncompressed, Message: "the workbook unpacks to more than is allowed; save it again, or split it"}
}
