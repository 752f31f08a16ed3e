//go:build !mutation

package cache

// guard marks a check that the mutation gate switches off, one at a time, in a build of its own
// (-tags mutation), to see the tests fail without it. Here it is always on and costs nothing.
func guard(string) bool { return true }

func guardScript(text string) string { return text }
