package main

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// slowOut is a log that writes nothing while it is held.
type slowOut struct {
	hold   sync.Mutex
	begun  chan struct{}
	text   bytes.Buffer
	writes int
}

func (o *slowOut) Write(p []byte) (int, error) {
	o.begun <- struct{}{}
	o.hold.Lock()
	defer o.hold.Unlock()
	o.writes++
	return o.text.Write(p)
}

func TestLogLinesShareAWriteAndNoneIsLost(t *testing.T) {
	t.Parallel()
	out := &slowOut{begun: make(chan struct{}, 1000)}
	w := newLogWriter(out)
	out.hold.Lock()
	_, err := w.Write([]byte("0\n"))
	require.NoError(t, err)
	<-out.begun
	const lines = 100
	for i := 1; i < lines; i++ {
		_, err := fmt.Fprintf(w, "%d\n", i)
		require.NoError(t, err)
	}
	out.hold.Unlock()
	w.Flush()
	require.Equal(t, 2, out.writes)
	var want strings.Builder
	for i := range lines {
		fmt.Fprintf(&want, "%d\n", i)
	}
	require.Equal(t, want.String(), out.text.String())
	w.Flush() // nothing to wait for
}

func TestLogWriter_DropsLinesOfALogThatIsNotRead(t *testing.T) {
	t.Parallel()
	out := &slowOut{begun: make(chan struct{}, 1000)}
	w := newLogWriter(out)
	w.report = func(dropped int) { fmt.Fprintf(w, "dropped %d\n", dropped) }
	out.hold.Lock()
	line := append(bytes.Repeat([]byte("x"), maxUnwritten/2-1), '\n')
	_, _ = w.Write(line)
	<-out.begun
	for range 5 { // two fit
		_, _ = w.Write(line)
	}
	require.False(t, w.Flush(), "it does not wait without end")
	out.hold.Unlock()
	require.True(t, w.Flush())
	require.Equal(t, 3*len(line)+len("dropped 3\n"), out.text.Len())
	require.Equal(t, "dropped 3\n", string(out.text.Bytes()[3*len(line):]))
	_, _ = w.Write(line)
	require.True(t, w.Flush())
	require.Equal(t, 1, bytes.Count(out.text.Bytes(), []byte("dropped")), "a number is reported once")
}

func TestLogWriter_ReportsLinesThatWereNotWritten(t *testing.T) {
	t.Parallel()
	out := &fullOut{full: true}
	w := newLogWriter(out)
	w.report = func(dropped int) { fmt.Fprintf(w, "dropped %d\n", dropped) }
	for range 3 {
		_, err := w.Write([]byte("x\n"))
		require.NoError(t, err)
		require.True(t, w.Flush())
	}
	out.full = false
	_, _ = w.Write([]byte("y\n"))
	require.True(t, w.Flush())
	require.Equal(t, "y\ndropped 3\n", out.text.String())
}

// fullOut is a log on a disk that may be full.
type fullOut struct {
	full bool
	text bytes.Buffer
}

func (o *fullOut) Write(p []byte) (int, error) {
	if o.full {
		return 0, syscall.ENOSPC
	}
	return o.text.Write(p)
}

func TestConcurrentLogLinesStayWhole(t *testing.T) {
	t.Parallel()
	out := &slowOut{begun: make(chan struct{}, 100_000)}
	w := newLogWriter(out)
	const writers, lines = 8, 500
	var all sync.WaitGroup
	for i := range writers {
		all.Go(func() {
			for n := range lines {
				fmt.Fprintf(w, "writer %d line %d\n", i, n)
			}
		})
	}
	all.Wait()
	w.Flush()
	next := make([]int, writers)
	for line := range strings.Lines(out.text.String()) {
		var i, n int
		_, err := fmt.Sscanf(line, "writer %d line %d\n", &i, &n)
		require.NoError(t, err)
		require.Equal(t, next[i], n)
		next[i]++
	}
	for _, n := range next {
		require.Equal(t, lines, n)
	}
}
