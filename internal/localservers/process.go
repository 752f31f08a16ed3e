package localservers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// logTailBytes of a dead server's log go into the error: enough for its last messages.
	logTailBytes = 2048
	// killWait bounds the wait for a process after SIGKILL; only the kernel can delay it.
	killWait = 5 * time.Second
	// pollInterval paces every wait for a state that can only be asked for.
	pollInterval = 5 * time.Millisecond
)

// Process is a child process that does not outlive this one. It is safe for concurrent use.
type Process struct {
	name     string
	cmd      *exec.Cmd
	log      string
	logStart int64
	done     chan struct{}
	err      error // why it ended; read after done is closed
}

// StartProcess starts cmd under a name for error texts, with both outputs appended to the file log.
// The child has a process group of its own, so that a Ctrl-C in the terminal does not reach it, and
// the kernel sends it deathSignal when this process dies by any means.
func StartProcess(name string, cmd *exec.Cmd, log string, deathSignal syscall.Signal) (*Process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	defer out.Close()
	start, err := out.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	cmd.Stdout, cmd.Stderr = out, out
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	cmd.SysProcAttr.Pdeathsig = deathSignal

	started := make(chan error)
	launcher() <- func() { started <- cmd.Start() }
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p := &Process{name: name, cmd: cmd, log: log, logStart: start, done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Signal sends sig; a process that has ended already is no error.
func (p *Process) Signal(sig syscall.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("send %s to %s: %w", sig, p.name, err)
	}
	return nil
}

// Stop sends sig and waits for the end. A process that needs longer than grace is killed, and that
// is an error.
func (p *Process) Stop(sig syscall.Signal, grace time.Duration) error {
	if err := p.Signal(sig); err != nil {
		return err
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(grace):
		err := p.Failure(fmt.Sprintf("did not stop within %s and was killed", grace))
		return errors.Join(err, p.Kill())
	}
}

// Kill sends SIGKILL and waits for the end.
func (p *Process) Kill() error {
	if err := p.Signal(syscall.SIGKILL); err != nil {
		return err
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(killWait):
		return p.Failure("is still there after SIGKILL")
	}
}

// AwaitOK returns when a GET of url, asked for after each pause, is answered with 200. A process that ends
// or does not get so far within limit is an error with the tail of its log.
func (p *Process) AwaitOK(ctx context.Context, url string, pause, limit time.Duration) error {
	inTime, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	last := "no answer yet"
	for {
		status, err := get(inTime, client, url)
		switch {
		case err != nil:
		case status == http.StatusOK:
			return nil
		default:
			last = "it answers " + strconv.Itoa(status)
		}
		select {
		case <-p.done:
			return p.Failure("ended while starting")
		case <-inTime.Done():
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return p.Failure(fmt.Sprintf("is not ready after %s (%s)", limit, last))
		case <-time.After(pause):
		}
	}
}

func get(ctx context.Context, client *http.Client, url string) (status int, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, err
	}
	return response.StatusCode, response.Body.Close()
}

// Failure returns an error saying what happened to the process, with the tail of its log.
func (p *Process) Failure(what string) error {
	if p.ended() && p.err != nil {
		what += fmt.Sprintf(" (%v)", p.err)
	}
	return fmt.Errorf("%s %s; the end of %s:\n%s", p.name, what, p.log, p.logTail())
}

func (p *Process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func (p *Process) logTail() string {
	f, err := os.Open(p.log)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err.Error()
	}
	from := max(p.logStart, end-logTailBytes)
	tail, err := io.ReadAll(io.NewSectionReader(f, from, end-from))
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(tail))
}

// launcher returns the queue of the one goroutine that starts children. The kernel sends a parent
// death signal when the *thread* that started the child ends, so that thread must not end before the process.
var launcher = sync.OnceValue(func() chan<- func() {
	queue := make(chan func())
	go func() {
		runtime.LockOSThread()
		for start := range queue {
			start()
		}
	}()
	return queue
})

// Children lists the direct children of a process.
func Children(parent int) []int {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat") // the only error is a bad pattern
	var children []int
	for _, path := range stats {
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			continue
		}
		if stat := ProcessStat(pid); stat != nil && stat[1] == strconv.Itoa(parent) {
			children = append(children, pid)
		}
	}
	return children
}

// running reports whether a process is there and more than a zombie, which holds nothing any more.
func running(pid int) bool {
	stat := ProcessStat(pid)
	return stat != nil && stat[0] != "Z" && stat[0] != "X"
}

// ProcessStat returns what /proc/PID/stat says of a process after its name, the state and the parent
// first (proc_pid_stat(5), from its third field on), and nil for one that has ended. The file can be read
// for every user's processes, also where a container may not trace them.
func ProcessStat(pid int) []string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	// "pid (name) state ppid ...", where the name may hold anything.
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(fields) < 2 {
		return nil
	}
	return fields
}
