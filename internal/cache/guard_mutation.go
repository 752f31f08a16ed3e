//go:build mutation

package cache

import (
	"os"
	"strings"
)

// guard reports whether the check of this name is on: all but the one that CACHE_MUTATION names.
func guard(name string) bool { return name != os.Getenv("CACHE_MUTATION") }

// guardScript removes the line of a script that is marked with the guard that is off.
func guardScript(text string) string {
	var kept []string
	for line := range strings.Lines(text) {
		if _, name, marked := strings.Cut(line, "-- guard:"); !marked || guard(strings.TrimSpace(name)) {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "")
}
