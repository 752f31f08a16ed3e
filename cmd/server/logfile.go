package main

import (
	"os"
	"sync"
	"syscall"
)

// logFile is a file that is appended to and can be opened again under its name after a log rotation has
// renamed it. Safe for concurrent use.
type logFile struct {
	path string

	mu   sync.Mutex
	file *os.File
}

func openLogFile(path string) (*logFile, error) {
	f := &logFile{path: path}
	return f, f.Reopen()
}

// Write implements io.Writer.
func (f *logFile) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.file.Write(p)
}

// Reopen opens the file again, and creates it if there is none. If that fails, the file that is open
// stays in use.
func (f *logFile) Reopen() error {
	// O_NONBLOCK: to open a FIFO that is not read is an error then, and otherwise would not return.
	file, err := os.OpenFile(f.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY|syscall.O_NONBLOCK, 0o640)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	old := f.file
	f.file = file
	if old == nil {
		return nil
	}
	return old.Close()
}

// Close closes the file.
func (f *logFile) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.file.Close()
}
