package main

import (
	"bytes"
	"io"
	"runtime"
	"sync"
	"time"
)

const (
	// maxUnwritten bounds the bytes of lines that wait to be written. Further lines are dropped.
	maxUnwritten = 4 << 20
	// flushTimeout bounds the wait for the last lines at the end of the process.
	flushTimeout = 2 * time.Second
)

// logWriter writes the lines that arrive during a write together with the next one: under load many lines
// share a system call, and without load each line is written at once. A process that is killed loses the
// lines of some microseconds.
//
// A log that cannot be written does not hold up requests. If a pipe is not read or the disk is full, lines
// are dropped and counted, and the number is reported when a write succeeds again. Safe for concurrent use.
type logWriter struct {
	out    io.Writer
	report func(dropped int) // called without locks, with the number of lines dropped since the start; or nil

	mu       sync.Mutex
	changed  sync.Cond
	buffer   []byte // not yet handed to out
	spare    []byte
	writing  bool
	dropped  int // lines, since the start
	reported int // value of dropped at the last report
}

func newLogWriter(out io.Writer) *logWriter {
	w := &logWriter{out: out}
	w.changed.L = &w.mu
	return w
}

// Write implements io.Writer, for one line. It returns no error: a logger could do nothing about it.
func (w *logWriter) Write(line []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.buffer)+len(line) > maxUnwritten {
		w.dropped++
		return len(line), nil
	}
	w.buffer = append(w.buffer, line...)
	if !w.writing {
		w.writing = true
		go w.drain()
	}
	return len(line), nil
}

// Flush waits until everything has been written, for at most flushTimeout, and returns whether it has.
func (w *logWriter) Flush() bool {
	late := false
	timer := time.AfterFunc(flushTimeout, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		late = true
		w.changed.Broadcast()
	})
	defer timer.Stop()
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.writing && !late {
		w.changed.Wait()
	}
	return !w.writing
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
		_, err := w.out.Write(lines)
		w.mu.Lock()
		if cap(lines) <= maxPooledLine {
			w.spare = lines
		}
		if err != nil {
			w.dropped += bytes.Count(lines, []byte("\n"))
		} else if w.dropped > w.reported && w.report != nil && len(w.buffer) <= maxUnwritten/2 {
			w.reported = w.dropped
			dropped := w.dropped
			w.mu.Unlock()
			w.report(dropped)
			w.mu.Lock()
		}
	}
	w.writing = false
	w.changed.Broadcast()
}
