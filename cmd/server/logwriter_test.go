package main

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
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

func TestALogThatIsNotReadHoldsItsWritersUp(t *testing.T) {
	t.Parallel()
	out := &slowOut{begun: make(chan struct{}, 1000)}
	w := newLogWriter(out)
	out.hold.Lock()
	line := bytes.Repeat([]byte("x"), maxUnwritten+1)
	_, _ = w.Write(line)
	<-out.begun
	_, _ = w.Write(line)
	var third sync.WaitGroup
	var written bool
	third.Go(func() {
		_, _ = w.Write(line)
		written = true
	})
	w.mu.Lock()
	held := len(w.buffer)
	w.mu.Unlock()
	require.Equal(t, len(line), held) // the third is not among them
	out.hold.Unlock()
	third.Wait()
	w.Flush()
	require.True(t, written)
	require.Equal(t, 3*len(line), out.text.Len())
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
