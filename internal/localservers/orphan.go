package localservers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// EndOrphan ends the server that an earlier, killed process left running on a data directory, and
// removes the pid file of a dead one: the kernel may have given its pid to another process, and
// PostgreSQL would then refuse to start.
func EndOrphan(ctx context.Context, data string) error {
	file := filepath.Join(data, "postmaster.pid")
	text, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for an earlier server: %w", err)
	}
	first, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(first)
	if err == nil && isServerOf(pid, data) {
		if err := endServer(ctx, pid, data); err != nil {
			return fmt.Errorf("end the earlier server %d of %s: %w", pid, data, err)
		}
	}
	if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove a stale pid file: %w", err)
	}
	return nil
}

// endServer ends a postmaster that is not a child of ours: politely first.
func endServer(ctx context.Context, pid int, data string) error {
	for _, child := range Children(pid) {
		_ = signalPID(child, syscall.SIGCONT)
	}
	gone := func() (bool, error) { return !isServerOf(pid, data), nil }
	err := errors.Join(signalPID(pid, syscall.SIGCONT), signalPID(pid, syscall.SIGQUIT))
	if err != nil {
		return err
	}
	polite, cancel := context.WithTimeout(ctx, immediateTimeout)
	defer cancel()
	if poll(polite, gone) == nil {
		return nil
	}
	if err := signalPID(pid, syscall.SIGKILL); err != nil {
		return err
	}
	return poll(ctx, gone)
}

func isServerOf(pid int, data string) bool {
	command, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return err == nil && bytes.Contains(command, []byte("\x00-D\x00"+data+"\x00"))
}
