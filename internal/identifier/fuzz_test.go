package identifier_test

import "testing"

func FuzzParse(f *testing.F) {
	for _, v := range vectors(f) {
		f.Add(v.In)
	}
	russia, states := parser(f, "RU"), parser(f, "US")
	f.Fuzz(func(t *testing.T, text string) {
		requireLaws(t, russia, text)
		requireLaws(t, states, text)
	})
}
