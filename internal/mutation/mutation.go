//go:build !mutation

// Package mutation marks the checks of the cache protocol, so that the mutation gate (make mutation)
// can switch off one at a time and verify that a test fails without it.
package mutation

// Point reports whether the check called name is active. In a normal build it is always active and the
// compiler removes the call. The build tag mutation replaces this file by mutation_on.go.
func Point(string) bool { return true }

// Script returns the text of a Lua script unchanged.
func Script(text string) string { return text }
