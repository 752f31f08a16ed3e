package main

import (
	"io"
	"runtime"
	"sync"
)

// maxUnwritten is what may wait for a slow reader of the log; then its writers wait too.
const maxUnwritten = 1 << 20

// logWriter writes what came while the last write was on its way in one go: under load many lines share
// a system call, and without load each is written at once. Nothing waits for company. A process that is
// killed loses the lines of some microseconds. Safe for concurrent use.
type logWriter struct {
	out io.Writer

	mu      sync.Mutex
	changed sync.Cond
	buffer  []byte // not yet handed to out
	spare   []byte
	writing bool
}

func newLogWriter(out io.Writer) *logWriter {
	w := &logWriter{out: out}
	w.changed.L = &w.mu
	return w
}

// Write implements io.Writer. It reports no error: who logs could do nothing about it.
func (w *logWriter) Write(line []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.buffer) > maxUnwritten {
		w.changed.Wait()
	}
	w.buffer = append(w.buffer, line...)
	if !w.writing {
		w.writing = true
		go w.drain()
	}
	return len(line), nil
}

// Flush returns when everything has been written.
func (w *logWriter) Flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.writing {
		w.changed.Wait()
	}
}

// drain writes until nothing is left.
func (w *logWriter) drain() {
	runtime.Gosched() // requests that are about to end have their lines ready a moment later
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.buffer) > 0 {
		lines := w.buffer
		w.buffer, w.spare = w.spare[:0], nil
		w.mu.Unlock()
		_, _ = w.out.Write(lines)
		w.mu.Lock()
		if cap(lines) <= maxPooledLine {
			w.spare = lines
		}
		w.changed.Broadcast()
	}
	w.writing = false
	w.changed.Broadcast()
}
