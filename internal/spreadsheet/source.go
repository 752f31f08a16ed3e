package spreadsheet

import (
	"bytes"
	"context"
	"errors"
	"io"
	"time"
)

const (
	// zipDirectoryBudget and oleDirectoryBudget limit what may be read while a library parses the
	// directory of a container. Both libraries build an entry in memory for each record, and mscfb a
	// path for each: 10 MB of records would take gigabytes. A workbook with 10,000 parts has a zip
	// directory of 1 MB; an XLS file has a directory of 1 to 10 KiB.
	zipDirectoryBudget = 1 << 20
	oleDirectoryBudget = 192 << 10

	unlimited = -1

	// maxReading limits the time that one file may take, without the time that the caller takes between
	// two rows. The slowest file that the other limits allow takes about 2 s on one core; a server with
	// many uploads gives each a part of one.
	maxReading = time.Minute
)

var (
	zipMagic = []byte("PK\x03\x04")
	oleMagic = []byte{0xD0, 0xCF, 0x11, 0xE0, 0xA1, 0xB1, 0x1A, 0xE1}

	errBudget = errors.New("directory is too large")
)

// source is the file below a reader. It remembers an error of the disk, which parsers would report as
// an error of the content, and limits how much is read and how long reading takes.
type source struct {
	r      io.ReaderAt
	size   int64
	budget int // bytes that may still be read, or unlimited
	err    error
	begun  time.Time     // of the current call of Open or Next
	spent  time.Duration // by the calls before
}

func (s *source) begin() { s.begun = time.Now() }

func (s *source) end() { s.spent += time.Since(s.begun) }

// check returns an error if the caller has given up, or if the file takes too long to read.
func (s *source) check(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.spent+time.Since(s.begun) > maxReading {
		return &Error{Code: TooSlow, Message: "the file takes too long to read; save it again, or split it"}
	}
	return nil
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
		rows, err := openCSV(ctx, file)
		return CSV, rows, err
	}
}
