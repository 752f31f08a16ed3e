//go:build race

package model

// thinner divides the number of schedules. The race detector makes coroutines ten times slower and
// has nothing to find in a model that runs one at a time; the full counts run without it.
const thinner = 20
