//go:build mutation

package mutation

import (
	"os"
	"strings"
)

// Point reports whether the check called name is active: every check except the one that the
// environment variable CACHE_MUTATION names.
func Point(name string) bool { return name != os.Getenv("CACHE_MUTATION") }

// Script removes from a Lua script the line whose mark names the inactive check.
func Script(text string) string {
	var kept []string
	for line := range strings.Lines(text) {
		if _, name, marked := strings.Cut(line, "-- guard:"); !marked || Point(strings.TrimSpace(name)) {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "")
}
