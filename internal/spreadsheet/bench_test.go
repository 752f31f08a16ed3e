package spreadsheet_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/spreadsheet"
)

// BenchmarkRead reads the largest import there is, two columns wide, and an XLS file of the height
// that its format allows. peak-MiB is what it adds to the heap, garbage included.
func BenchmarkRead(b *testing.B) {
	const rows = spreadsheet.MaxRows
	var text, cells, shared, inline strings.Builder
	text.WriteString("phone,user_groups\n")
	for i := range rows {
		phone := 79990000000 + i
		fmt.Fprintf(&text, "+%d,\"client,driver\"\n", phone)
		fmt.Fprintf(&shared, "<si><t>+%d</t></si>", phone)
		fmt.Fprintf(&cells, `<row r="%d"><c r="A%[1]d" t="s"><v>%d</v></c><c r="B%[1]d" t="s"><v>0</v></c></row>`, i+2, i)
		fmt.Fprintf(&inline, `<row r="%d"><c r="A%[1]d"><v>%d</v></c><c r="B%[1]d" t="inlineStr"><is><t>client,driver</t></is></c></row>`, i+2, phone)
	}
	sheet := [][]byte{xlsHeader}
	for i := range 65_535 {
		sheet = append(sheet, record(0x00FD, uint16(i+1), uint16(0), uint16(0), uint32(i%900)), number(uint16(i+1), 1, float64(79990000000+i)))
	}
	strs := []any{uint32(900), uint32(900)}
	for i := range 900 {
		strs = append(strs, uint16(12), uint8(1), wide(fmt.Sprintf("группа %05d", i)))
	}
	for _, file := range []struct {
		name string
		file []byte
		rows int
	}{
		{"csv", []byte(text.String()), rows},
		{"xlsx-shared", xlsx(b, xlsxHeader+cells.String(), shared.String()), rows},
		{"xlsx-inline", xlsx(b, xlsxHeader+inline.String(), ""), rows},
		{"xls", xls([][]byte{record(0x00FC, strs...)}, sheet), 65_535},
	} {
		b.Run(file.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(file.file)))
			peak := uint64(0)
			for b.Loop() {
				peak = max(peak, peakHeap(func() { require.Equal(b, file.rows, count(b, file.file)) }))
			}
			b.ReportMetric(float64(peak)/(1<<20), "peak-MiB")
		})
	}
}

func count(b *testing.B, file []byte) int {
	ctx := context.Background()
	reader, err := spreadsheet.Open(ctx, bytes.NewReader(file), int64(len(file)))
	require.NoError(b, err)
	for rows := 0; ; rows++ {
		row, err := reader.Next(ctx)
		if errors.Is(err, io.EOF) {
			return rows
		}
		require.NoError(b, err)
		if row.Err != nil {
			b.Fatal(row.Err)
		}
	}
}
