package spreadsheet_test

import (
	"archive/zip"
	"bytes"
	"compress/flate"
	"context"
	"encoding/binary"
	"hash/crc32"
	"math/rand/v2"
	"runtime"
	"runtime/metrics"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/spreadsheet"
)

const (
	// maxUpload is the largest file that the service takes.
	maxUpload = 10 << 20
	// maxCompound is the largest stream that compound can write.
	maxCompound = 6 << 20
	// maxHeap is what reading any file may add to the heap, garbage included.
	maxHeap = 64 << 20
	// maxDirectory is what may be read to find the parts of a container.
	maxDirectory = 256 << 10
	// maxTime is far above what any of these files takes (at most 3 s), also with -race.
	maxTime = time.Minute
)

// peakHeap returns the most that f adds to the heap.
func peakHeap(f func()) uint64 {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	heap := func() uint64 {
		metrics.Read(sample)
		return sample[0].Value.Uint64()
	}
	runtime.GC() // what earlier tests left is not ours
	stop, peak := make(chan struct{}), make(chan uint64)
	before := heap()
	go func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		most := before
		for {
			select {
			case <-tick.C:
				most = max(most, heap())
			case <-stop:
				peak <- max(most, heap())
				return
			}
		}
	}()
	f()
	close(stop)
	return <-peak - before
}

// deflated makes a part whose directory entry says what the caller likes.
func deflated(t testing.TB, w *zip.Writer, name, unit string, times int, declare func(*zip.FileHeader)) {
	t.Helper()
	var packed bytes.Buffer
	f, err := flate.NewWriter(&packed, flate.BestSpeed)
	require.NoError(t, err)
	sum := crc32.NewIEEE()
	block := []byte(strings.Repeat(unit, 1000))
	for range times / 1000 {
		_, err := f.Write(block)
		require.NoError(t, err)
		_, _ = sum.Write(block)
	}
	require.NoError(t, f.Close())
	head := &zip.FileHeader{
		Name: name, Method: zip.Deflate, CRC32: sum.Sum32(),
		UncompressedSize64: uint64(len(block) * (times / 1000)), CompressedSize64: uint64(packed.Len()),
	}
	declare(head)
	raw, err := w.CreateRaw(head)
	require.NoError(t, err)
	_, err = raw.Write(packed.Bytes())
	require.NoError(t, err)
}

// bomb makes a workbook one part of which is a bomb.
func bomb(t testing.TB, name, unit string, times int, declare func(*zip.FileHeader), rows ...string) []byte {
	t.Helper()
	var file bytes.Buffer
	w := zip.NewWriter(&file)
	for _, p := range parts(xlsxHeader+strings.Join(rows, ""), "") {
		if p.name == name {
			continue
		}
		content, err := w.Create(p.name)
		require.NoError(t, err)
		_, err = content.Write([]byte(p.content))
		require.NoError(t, err)
	}
	deflated(t, w, name, unit, times, declare)
	require.NoError(t, w.Close())
	return file.Bytes()
}

// stored makes a workbook that is not compressed at all, so that no ratio gives it away.
func stored(t testing.TB, rows, shared string) []byte {
	t.Helper()
	var file bytes.Buffer
	w := zip.NewWriter(&file)
	for _, p := range parts(rows, shared) {
		content, err := w.CreateHeader(&zip.FileHeader{Name: p.name, Method: zip.Store})
		require.NoError(t, err)
		_, err = content.Write([]byte(p.content))
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return file.Bytes()
}

// manyParts makes an archive with a directory of this many entries.
func manyParts(t testing.TB, count int) []byte {
	t.Helper()
	more := make([]part, count)
	for i := range more {
		more[i].name = strconv.Itoa(i)
	}
	return xlsx(t, xlsxHeader, "", more...)
}

// directoryChain makes a compound file whose directory is one path of this many folders: mscfb
// keeps the whole path of each, which is quadratic.
func directoryChain(entries int) []byte {
	sectors := entries * 128 / sectorSize
	fats := (sectors+1)*4/sectorSize + 2
	file := header(uint32(fats), uint32(fats))
	for range fats {
		file = binary.LittleEndian.AppendUint32(file, fatSector)
	}
	for i := range sectors {
		next := uint32(fats + i + 1)
		if i == sectors-1 {
			next = endOfChain
		}
		file = binary.LittleEndian.AppendUint32(file, next)
	}
	file = append(file, make([]byte, (fats+1)*sectorSize-len(file))...)
	for i := range entries {
		child := uint32(i + 1)
		if i == entries-1 {
			child = noStream
		}
		file = append(file, entry("folder", 1, child, endOfChain, 0)...)
	}
	return file
}

// circle makes a compound file whose stream never ends: the sector after its 20th is its 11th.
func circle(workbook []byte) []byte {
	return patch(compound(map[string][]byte{"Workbook": workbook}), sectorSize+4*(2+19), 2+10)
}

// patch overwrites 32 bits of a file.
func patch(file []byte, at int, value uint32) []byte {
	binary.LittleEndian.PutUint32(file[at:], value)
	return file
}

// Not parallel: the heap has to be that of this test alone.
func TestHostileFilesCostLittle(t *testing.T) {
	const (
		sheet  = "xl/worksheets/sheet1.xml"
		shared = "xl/sharedStrings.xml"
	)
	honest := func(*zip.FileHeader) {}
	records := append(bytes.Clone(bof), bytes.Repeat(record(0x0012, make([]byte, sectorSize-4)), 60)...)
	workbook := stream([][]byte{record(0x00FC, uint32(1), uint32(1))}, [][]byte{xlsHeader})
	tests := map[string]struct {
		file func() []byte
		code spreadsheet.Code // "" if the file is merely large
	}{
		"sheet":          {func() []byte { return bomb(t, sheet, "<row/>", 10_000_000, honest) }, spreadsheet.TooLargeUncompressed},
		"shared strings": {func() []byte { return bomb(t, shared, "<si/>", 3_000_000, honest, `<row><c t="s"><v>0</v></c></row>`) }, spreadsheet.TooLargeUncompressed},
		"unused part":    {func() []byte { return bomb(t, "xl/theme.xml", " ", 60_000_000, honest) }, ""},
		"declared too small": {func() []byte {
			return bomb(t, sheet, "      ", 10_000_000, func(h *zip.FileHeader) { h.UncompressedSize64 = 1 << 19 })
		}, spreadsheet.BrokenFile},
		"declared well packed": {func() []byte {
			return bomb(t, sheet, "<row/>", 10_000_000, func(h *zip.FileHeader) { h.CompressedSize64 = 1 << 40 })
		}, spreadsheet.TooLargeUncompressed},
		"declared enormous": {func() []byte {
			return bomb(t, sheet, "x", 1000, func(h *zip.FileHeader) { h.UncompressedSize64, h.CompressedSize64 = 1<<60, 1<<60 })
		}, spreadsheet.TooLargeUncompressed},
		"index": {func() []byte { return bomb(t, "xl/workbook.xml", "<a/>", 200_000_000/4, honest) }, spreadsheet.TooLargeUncompressed},
		"nested archives": {func() []byte {
			return xlsx(t, xlsxHeader, "", part{"xl/embeddings/book.xlsx", string(bomb(t, sheet, "<row/>", 1_000_000, honest))})
		}, ""},
		"two million shared": {func() []byte {
			return stored(t, xlsxHeader+`<row><c t="s"><v>2000000</v></c></row>`, strings.Repeat("<si/>", maxUpload/5))
		}, spreadsheet.TooMuchText},
		"a million shared": {func() []byte {
			return stored(t, xlsxHeader+`<row><c><v>1</v></c><c t="s"><v>1048575</v></c></row>`, strings.Repeat("<si/>", maxUpload/5))
		}, ""},
		"elements of no use": {func() []byte { return stored(t, xlsxHeader+strings.Repeat("<a/>", maxUpload/4), "") }, ""},
		"cells of no use":    {func() []byte { return stored(t, xlsxHeader+"<row>"+strings.Repeat("<c/>", maxUpload/4)+"</row>", "") }, ""},
		"attributes": {func() []byte {
			return stored(t, xlsxHeader+strings.Repeat("<row "+strings.Repeat(`a="" `, 16_000)+"/>", 120), "")
		}, spreadsheet.BrokenFile},
		"5,000 parts":           {func() []byte { return manyParts(t, 5000) }, ""},
		"100,000 parts":         {func() []byte { return manyParts(t, 100_000) }, spreadsheet.TooManyParts},
		"deep directory":        {func() []byte { return directoryChain(8_000) }, spreadsheet.TooManyParts},
		"deep directory, small": {func() []byte { return directoryChain(1_000) }, spreadsheet.UnknownFormat},
		"directory in a circle": {func() []byte { return patch(directoryChain(400), sectorSize+4*101, 50) }, spreadsheet.BrokenFile},
		"directory that grows":  {func() []byte { return patch(directoryChain(400), sectorSize+4*101, 0x7FFFFFFF) }, spreadsheet.BrokenFile},
		"endless stream":        {func() []byte { return patch(circle(records), 2*sectorSize+128+120, 1<<30) }, spreadsheet.BrokenFile},
		"stream in a circle":    {func() []byte { return circle(append(workbook, make([]byte, 1<<15)...)) }, ""},
		"a million FAT sectors": {func() []byte { return patch(patch(bytes.Clone(fixture(t, "sheetjs.xls")), 44, 1<<20), 72, 1<<13) }, spreadsheet.BrokenFile},
		"two million strings (XLS)": {func() []byte {
			return xls([][]byte{record(0x00FC, uint32(1), uint32(1)), bytes.Repeat(record(0x003C, make([]byte, 8220)), maxCompound/8224)}, [][]byte{xlsHeader})
		}, ""},
		"only CONTINUE (XLS)": {func() []byte {
			return xls([][]byte{record(0x00FC, uint32(1), uint32(1)), bytes.Repeat(record(0x003C), maxCompound/4)}, [][]byte{xlsHeader})
		}, ""},
		"one cell, many times (XLS)": {func() []byte { return xls(nil, [][]byte{xlsHeader, bytes.Repeat(number(1, 1, 1), maxCompound/18)}) }, ""},
		"line ends (CSV)":            {func() []byte { return []byte("a" + strings.Repeat("\n", maxUpload)) }, spreadsheet.RowTooLong},
		"delimiters (CSV)":           {func() []byte { return []byte("a\n" + strings.Repeat(",", maxUpload)) }, spreadsheet.RowTooLong},
		"short lines of nothing":     {func() []byte { return []byte("a\n" + strings.Repeat(strings.Repeat(",", 120_000)+"\n", 80)) }, ""},
		"quotes (CSV)":               {func() []byte { return []byte("a\n" + strings.Repeat("\"\"", maxUpload/2)) }, spreadsheet.RowTooLong},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var got result
			file := test.file()
			begin := time.Now()
			disk := &countingDisk{Reader: bytes.NewReader(file)}
			peak := peakHeap(func() { got = readFrom(t, disk, disk.Size()) })
			took := time.Since(begin)
			t.Logf("%d bytes: %v, %d MiB, %v", len(file), took.Round(time.Millisecond), peak>>20, got.err)
			if test.code == "" {
				require.NoError(t, got.err)
			} else {
				requireCode(t, test.code, got.err)
			}
			require.Less(t, peak, uint64(maxHeap))
			require.Less(t, took, maxTime)
			require.LessOrEqual(t, disk.read, 3*len(file)+maxDirectory)
			if test.code == spreadsheet.TooManyParts {
				require.LessOrEqual(t, disk.read, 5*maxDirectory)
			}
		})
	}
}

// countingDisk counts the bytes that are read.
type countingDisk struct {
	*bytes.Reader
	read int
}

func (d *countingDisk) ReadAt(p []byte, offset int64) (int, error) {
	d.read += len(p)
	return d.Reader.ReadAt(p, offset)
}

// stoppingDisk calls stop when so many bytes have been read.
type stoppingDisk struct {
	countingDisk
	stop  func()
	after int
}

func (d *stoppingDisk) ReadAt(p []byte, offset int64) (int, error) {
	if d.read < d.after && d.read+len(p) >= d.after {
		d.stop()
	}
	return d.countingDisk.ReadAt(p, offset)
}

// A job that is stopped stops at once, not only between rows.
func TestContextInsideRow(t *testing.T) {
	t.Parallel()
	const after = 300 << 10
	files := map[string][]byte{
		"shared strings": stored(t, xlsxHeader+`<row><c t="s"><v>999999</v></c></row>`, strings.Repeat("<si/>", 1_000_000)),
		"sheet":          stored(t, xlsxHeader+strings.Repeat("<a/>", 1_000_000), ""),
		"row":            stored(t, xlsxHeader+"<row>"+strings.Repeat("<c/>", 1_000_000), ""),
		"rest of sheet":  stored(t, xlsxHeader+"</sheetData>"+strings.Repeat(" ", 4_000_000), ""),
		"globals":        xls([][]byte{bytes.Repeat(record(0x0012), 1_000_000)}, [][]byte{xlsHeader}),
		"SST":            xls([][]byte{record(0x00FC, uint64(0)), bytes.Repeat(record(0x003C, make([]byte, 8220)), 500)}, [][]byte{shared(0, 0, 1_000_000)}),
		"sheet (XLS)":    xls(nil, [][]byte{xlsHeader, bytes.Repeat(record(0x0012), 1_000_000)}),
	}
	for name, file := range files {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancel(context.Background())
			disk := &stoppingDisk{countingDisk{Reader: bytes.NewReader(file)}, cancel, after}
			reader, err := spreadsheet.Open(ctx, disk, int64(len(file)))
			if err == nil {
				_, err = reader.Next(ctx)
			}
			require.ErrorIs(t, err, context.Canceled)
			require.Less(t, disk.read, 2*after)
		})
	}
}

func TestTruncatedFiles(t *testing.T) {
	t.Parallel()
	const steps = 50
	for _, name := range workbooks(t) {
		whole := fixture(t, name)
		want := read(t, whole)
		for i := range steps {
			got := read(t, whole[:len(whole)*i/steps])
			if got.err == nil { // nothing but padding was lost
				require.Equal(t, want, got, "%s at %d/%d", name, i, steps)
				require.NotContains(t, name, ".xlsx")
			}
		}
	}
}

// Whatever bit of an XLSX file is turned over, the file is refused or says the same as before.
func TestFlippedBits(t *testing.T) {
	t.Parallel()
	const flips = 200
	random := rand.New(rand.NewPCG(1, 2))
	for _, name := range workbooks(t) {
		whole := fixture(t, name)
		want := read(t, whole)
		damaged := bytes.Clone(whole)
		count := flips
		if strings.HasPrefix(name, "many") {
			count /= 10
		}
		for range count {
			at, bit := random.IntN(len(whole)), byte(1)<<random.IntN(8)
			damaged[at] ^= bit
			if got := read(t, damaged); got.err == nil && want.format == spreadsheet.XLSX {
				require.Equal(t, want, got, "%s: bit %#x at %d", name, bit, at)
			}
			damaged[at] ^= bit
		}
	}
}
