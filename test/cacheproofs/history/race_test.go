//go:build race

package history

// raceDetector says that this test was built with the race detector.
const raceDetector = true
