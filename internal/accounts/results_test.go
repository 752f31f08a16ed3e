package accounts

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestHarmlessCell(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"": "", "client": "client", "x;y,z": "x;y,z", "O'Hara": "O'Hara", "'quoted'": "'quoted'",
		"+79991234567": "+79991234567", "+7 (999) 123-45-67": "+7 (999) 123-45-67", "8-999": "8-999", "-1": "-1",
		"=1+1": "'=1+1", "@SUM(A1)": "'@SUM(A1)", "-A1": "'-A1", "+A1": "'+A1", "\t=1": "'\t'=1", "\r=1": "'\r'=1", "-": "-",
		"x;=1+2;": "x;'=1+2;", "x,=1": "x,'=1", "x\t=1": "x\t'=1", "x|=1": "x|'=1", "x\n=1": "x\n'=1", "x\r\n@a": "x\r'\n'@a",
		"|calc": "'|calc", "\nx": "'\nx", "\uFEFF=1": "'\uFEFF=1", "\uFEFFx": "'\uFEFFx",
		"＝1": "'＝1", "＋A": "'＋A", "－A": "'－A", "＠A": "'＠A", "x;＝1": "x;'＝1",
		" =1": "' =1", "\u00A0=1": "'\u00A0=1", "\"=1": "'\"=1", "x; =1": "x;' =1", "\u200B=1": "'\u200B=1",
		"\v=1": "'\v=1", "\f=1": "'\f=1", "\x00=1": "'\x00=1", "\u0085=1": "'\u0085=1", "\u2003=1": "'\u2003=1", "\u2028=1": "'\u2028=1",
		"\u00AD=1": "'\u00AD=1", "\u202E=1": "'\u202E=1", "\u3164=1": "'\u3164=1", "﹦1": "'﹦1", "﹢A": "'﹢A", "﹣A": "'﹣A", "﹫A": "'﹫A",
		"=cmd|' /C calc'!A0": "'=cmd|' /C calc'!A0", "x;\v@SUM(A1)": "x;'\v@SUM(A1)", "＋79991234567": "'＋79991234567",
		"'=1": "''=1", "''=1": "'''=1", "client,-2+x": "client,'-2+x", "+7999,+7998": "+7999,+7998",
	} {
		require.Equal(t, want, HarmlessCell(text), "%q", text)
		require.Equal(t, text, originalCell(HarmlessCell(text)), "%q", text)
	}
}

// Every text comes back, and no part of the result starts a formula.
func TestHarmlessCell_CanBeUndone(t *testing.T) {
	t.Parallel()
	alphabet := []rune("a1=+-@＝＋－＠'\"\t|\r\n,; \uFEFF\u00A0\u200B(.\v\u2003\u00AD﹦")
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringOf(rapid.SampledFrom(alphabet)).Draw(t, "text")
		harmless := HarmlessCell(text)
		require.Equal(t, text, originalCell(harmless))
		mapCellParts(harmless, func(part string) string {
			require.False(t, part[0] != apostrophe && startsFormula(part), "%q in %q", part, harmless)
			return part
		})
	})
}
