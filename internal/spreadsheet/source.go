package spreadsheet

import (
	"bytes"
	"context"
	"errors"
	"io"
)

const (
	// directoryBudget is what may be read while a library parses the directory of a container. Both
	// libraries build an entry in memory for each record they find, and mscfb a path for each,
	// without a limit: 10 MB of records would take gigabytes. An honest workbook has a directory of
	// 1 to 10 KiB; 64 KiB of it are where zip looks for the end of the archive.
	directoryBudget = 192 << 10

	unlimited = -1
)

var (
	zipMagic = []byte("PK\x03\x04")
	oleMagic = []byte{0xD0, 0xCF, 0x11, 0xE0, 0xA1, 0xB1, 0x1A, 0xE1}

	errBudget = errors.New("directory is too large")
)

// source is the file below a reader. It remembers an error of the disk, which parsers would
// report as a fault of the content, and can limit how much is read.
type source struct {
	r      io.ReaderAt
	size   int64
	budget int // bytes that may still be read, or unlimited
	err    error
}

// ReadAt implements io.ReaderAt.
func (s *source) ReadAt(p []byte, offset int64) (int, error) {
	if s.budget != unlimited {
		if s.budget < len(p) {
			s.budget = 0
			return 0, errBudget
		}
		s.budget -= len(p)
	}
	// mscfb computes offsets from what the file says; a disk must not be asked for such ones.
	if offset < 0 || offset >= s.size {
		return 0, io.EOF
	}
	n, err := s.r.ReadAt(p, offset)
	if err != nil && !errors.Is(err, io.EOF) && s.err == nil {
		s.err = err
	}
	return n, err
}

// open picks the format by the first bytes.
func open(ctx context.Context, file *source) (Format, rows, error) {
	magic := make([]byte, len(oleMagic))
	n, err := file.ReadAt(magic, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", nil, err
	}
	switch magic = magic[:n]; {
	case bytes.HasPrefix(magic, zipMagic):
		rows, err := openXLSX(ctx, file)
		return XLSX, rows, err
	case bytes.Equal(magic, oleMagic):
		rows, err := openXLS(ctx, file)
		return XLS, rows, err
	default:
		rows, err := openCSV(file)
		return CSV, rows, err
	}
}
