package db

import (
	_ "embed"
	"strings"
)

// The kinds of functions, as needed.txt and the folders of db/queries name them.
const (
	ReadFunction  = "read"
	WriteFunction = "write"
)

//go:embed needed.txt
var needed string

// NeededFunctions returns the signatures of the functions that this build calls, as regprocedure
// shows them: read functions, which both logins must be allowed to execute, and write functions.
func NeededFunctions() (read, write []string) {
	for line := range strings.Lines(needed) {
		switch kind, signature, _ := strings.Cut(strings.TrimSpace(line), " "); kind {
		case ReadFunction:
			read = append(read, signature)
		case WriteFunction:
			write = append(write, signature)
		}
	}
	return read, write
}
