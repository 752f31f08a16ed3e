package identifier_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// maxParseTime is far above what the longest accepted text takes (below 1 ms), also on a busy machine.
const maxParseTime = 2 * time.Second

// FuzzIdentifier checks the properties of identifiers and of names for any text: no panic, canonical
// forms that are stable and of bounded size, kinds that exclude each other, and bounded time.
func FuzzIdentifier(f *testing.F) {
	for _, v := range vectors(f) {
		f.Add(v.In)
	}
	for _, v := range nameVectors(f) {
		f.Add(v.In)
	}
	for _, piece := range []string{"(", "+", "1(", "\u0301", "\u1100", "\u200d", "ß", "xn--", "a.", "@", "\xff", "ﷺ"} {
		f.Add(strings.Repeat(piece, 255))
		f.Add(strings.Repeat(piece, 100_000))
	}
	russia, states, argentina := parser(f, "RU"), parser(f, "US"), parser(f, "AR")
	f.Fuzz(func(t *testing.T, text string) {
		begin := time.Now()
		requireLaws(t, russia, text)
		requireLaws(t, states, text)
		requireLaws(t, argentina, text)
		requireNameProperties(t, text)
		require.Less(t, time.Since(begin), maxParseTime)
	})
}
