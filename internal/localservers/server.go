package localservers

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// startTimeout bounds every start of a server, crash recovery of a development database included.
	startTimeout = 60 * time.Second
	// stopTimeout bounds a fast shutdown, whose checkpoint writes all dirty pages.
	stopTimeout = 30 * time.Second
	// immediateTimeout bounds an immediate shutdown: the postmaster kills its children after 5 s.
	immediateTimeout = 10 * time.Second
	// toolTimeout bounds initdb and the copy of a data directory.
	toolTimeout = 2 * time.Minute

	superuser = "postgres"
)

// commonSettings of every server. DETAIL lines carry personal data: terse keeps them out of the log.
// The intervals make a standby notice its primary's return at once. mmap leaves no shared memory
// behind when a killed server's directory is removed.
const commonSettings = `listen_addresses = '127.0.0.1'
port = %d
unix_socket_directories = ''
max_connections = 200
dynamic_shared_memory_type = mmap
wal_level = replica
wal_keep_size = 256MB
hot_standby = on
hot_standby_feedback = on
wal_receiver_status_interval = 1s
wal_retrieve_retry_interval = 100ms
synchronous_commit = on
track_functions = all
log_error_verbosity = terse
log_line_prefix = '%%m [%%p] %%q%%u@%%d '
log_timezone = UTC
timezone = UTC
lc_messages = C
`

// errNotRunning is returned by what needs a running server.
var errNotRunning = errors.New("is not running")

// Server is one PostgreSQL server. Its port stays the same, and refuses connections while the
// server is down. The methods are safe for concurrent use, except that starting and stopping must
// be left to one goroutine.
type Server struct {
	name     string
	bin      *binaries
	data     string
	log      string
	port     *Port
	password string
	settings string // lines of postgresql.conf beside the common ones

	mu    sync.Mutex
	proc  *Process
	admin *pgx.Conn
}

// Start starts the server and returns when it accepts connections. It ends a server that an
// earlier, killed process may have left on the same data.
func (s *Server) Start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := EndOrphan(ctx, s.data); err != nil {
		return err
	}
	if err := s.write("postgresql.conf", s.config()); err != nil {
		return err
	}
	// SIGQUIT is the immediate shutdown: it ends the children too and cannot be held up by clients.
	cmd := s.bin.command(context.WithoutCancel(ctx), s.data, "postgres", "-D", s.data)
	proc, err := StartProcess(s.name, cmd, s.log, syscall.SIGQUIT)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.proc = proc
	s.mu.Unlock()
	err = poll(ctx, func() (bool, error) {
		if proc.ended() {
			return false, proc.Failure("ended while starting")
		}
		return s.ready(proc.cmd.Process.Pid), nil
	})
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		err = errors.Join(proc.Failure("did not start: "+err.Error()), s.Kill())
	}
	return err
}

// Stop is a fast shutdown: open transactions are rolled back and everything is checkpointed. It does
// nothing when the server is down.
func (s *Server) Stop() error { return s.stop(syscall.SIGINT, stopTimeout) }

// Kill ends every process of the server at once, as a power cut would, and keeps the data.
func (s *Server) Kill() error {
	proc, err := s.detach()
	if err != nil {
		return nil
	}
	children, err := freeze(proc)
	for _, pid := range children {
		err = errors.Join(err, signalPID(pid, syscall.SIGKILL))
	}
	// PostgreSQL does not start again while one of them still holds the shared memory.
	ctx, cancel := context.WithTimeout(context.Background(), killWait)
	defer cancel()
	gone := func() (bool, error) { return !slices.ContainsFunc(children, running), nil }
	return errors.Join(err, poll(ctx, gone), proc.Kill())
}

// Freeze stops every process of the server with SIGSTOP: connections stay open and nothing answers.
func (s *Server) Freeze() error {
	proc, err := s.process()
	if err != nil {
		return err
	}
	_, err = freeze(proc)
	return err
}

// Thaw lets a frozen server go on.
func (s *Server) Thaw() error {
	proc, err := s.process()
	if err != nil {
		return err
	}
	for _, pid := range Children(proc.cmd.Process.Pid) {
		err = errors.Join(err, signalPID(pid, syscall.SIGCONT))
	}
	return errors.Join(err, proc.Signal(syscall.SIGCONT))
}

// Done is closed when the running server has ended, for whatever reason; nil when it is down.
func (s *Server) Done() <-chan struct{} {
	proc, err := s.process()
	if err != nil {
		return nil
	}
	return proc.Done()
}

// Failure returns an error that says what happened to the server, with the end of its log.
func (s *Server) Failure(what string) error {
	proc, err := s.process()
	if err != nil {
		return err
	}
	return proc.Failure(what)
}

// Address returns the server's "127.0.0.1:port".
func (s *Server) Address() string { return s.port.Address() }

// Port returns the number of the server's port.
func (s *Server) Port() int { return s.port.number }

// URL returns the connection string of a login to a database.
func (s *Server) URL(user, password, database string) string {
	u := url.URL{
		Scheme:   "postgres",
		User:     url.UserPassword(user, password),
		Host:     s.Address(),
		Path:     "/" + database,
		RawQuery: "sslmode=disable",
	}
	return u.String()
}

// DataDir returns the server's data directory.
func (s *Server) DataDir() string { return s.data }

// StartCommand returns a shell command that starts the server on its data and port without this process.
func (s *Server) StartCommand() string {
	command := filepath.Join(s.bin.dir, "postgres") + " -D " + s.data
	if s.bin.account != nil {
		command = "setpriv --reuid=postgres --regid=postgres --clear-groups " + command
	}
	return command
}

// DataKey describes what the data directory of a new cluster is made with: the PostgreSQL version and the
// settings. Directories with the same key are interchangeable.
func DataKey(ctx context.Context) (string, error) {
	bin, err := findBinaries(ctx)
	if err != nil {
		return "", err
	}
	return bin.version + "\n" + commonSettings, nil
}

// initialise makes the data directory, unless there is one.
func (s *Server) initialise(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, toolTimeout)
	defer cancel()
	if _, err := os.Stat(s.data); err == nil {
		return nil
	}
	fresh := s.data + ".new"
	if err := os.RemoveAll(fresh); err != nil {
		return fmt.Errorf("initdb: %w", err)
	}
	if err := os.Mkdir(fresh, 0o700); err != nil {
		return fmt.Errorf("initdb: %w", err)
	}
	password := fresh + ".pw"
	defer os.Remove(password)
	err := errors.Join(os.WriteFile(password, []byte(s.password), 0o600), s.bin.give(password), s.bin.give(fresh))
	if err != nil {
		return fmt.Errorf("initdb: %w", err)
	}
	err = run(s.bin.command(ctx, fresh, "initdb",
		"--pgdata="+fresh, "--username="+superuser, "--pwfile="+password,
		"--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8", "--data-checksums", "--no-sync"))
	if err != nil {
		return err
	}
	return os.Rename(fresh, s.data)
}

// standbyOf makes the data directory a copy of that of the primary, which is down, and tells the
// server to follow it.
func (s *Server) standbyOf(ctx context.Context, primary *Server) error {
	fresh := s.data + ".new"
	err := errors.Join(os.RemoveAll(s.data), os.RemoveAll(fresh))
	if err != nil {
		return fmt.Errorf("make the standby: %w", err)
	}
	if err := CopyTree(ctx, primary.data, fresh); err != nil {
		return fmt.Errorf("make the standby: %w", err)
	}
	if err := os.Rename(fresh, s.data); err != nil {
		return fmt.Errorf("make the standby: %w", err)
	}
	return s.write("standby.signal", "")
}

// query runs one statement as superuser in database postgres, on a connection that is kept.
func (s *Server) query(ctx context.Context, sql string, args []any, dest ...any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc == nil {
		return fmt.Errorf("%s %w", s.name, errNotRunning)
	}
	if s.admin == nil || s.admin.IsClosed() {
		conn, err := pgx.Connect(ctx, s.URL(superuser, s.password, "postgres"))
		if err != nil {
			return fmt.Errorf("connect to %s: %w", s.name, err)
		}
		s.admin = conn
	}
	if len(dest) == 0 {
		_, err := s.admin.Exec(ctx, sql, args...)
		return err
	}
	return s.admin.QueryRow(ctx, sql, args...).Scan(dest...)
}

func (s *Server) stop(sig syscall.Signal, grace time.Duration) error {
	proc, err := s.detach()
	if err != nil {
		return nil
	}
	// A frozen server would not see the signal.
	for _, pid := range Children(proc.cmd.Process.Pid) {
		err = errors.Join(err, signalPID(pid, syscall.SIGCONT))
	}
	return errors.Join(err, proc.Signal(syscall.SIGCONT), proc.Stop(sig, grace))
}

// detach forgets the process, which the caller ends, and closes the kept connection.
func (s *Server) detach() (*Process, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc == nil {
		return nil, fmt.Errorf("%s %w", s.name, errNotRunning)
	}
	if s.admin != nil {
		// Close the socket without a Terminate message: a frozen server does not read it, and Close would wait.
		_ = s.admin.PgConn().Conn().Close()
		s.admin = nil
	}
	proc := s.proc
	s.proc = nil
	return proc, nil
}

func (s *Server) process() (*Process, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc == nil {
		return nil, fmt.Errorf("%s %w", s.name, errNotRunning)
	}
	return s.proc, nil
}

// ready reads the status that the postmaster keeps in its pid file for pg_ctl.
func (s *Server) ready(pid int) bool {
	text, err := os.ReadFile(filepath.Join(s.data, "postmaster.pid"))
	lines := strings.Split(string(text), "\n")
	const statusLine = 7
	return err == nil && len(lines) > statusLine &&
		lines[0] == strconv.Itoa(pid) && strings.TrimSpace(lines[statusLine]) == "ready"
}

func freeze(proc *Process) (children []int, err error) {
	// The postmaster first: it would start new children while the others are being stopped.
	if err := proc.Signal(syscall.SIGSTOP); err != nil {
		return nil, err
	}
	children = Children(proc.cmd.Process.Pid)
	for _, pid := range children {
		err = errors.Join(err, signalPID(pid, syscall.SIGSTOP))
	}
	return children, err
}

func signalPID(pid int, sig syscall.Signal) error {
	if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("send %s to process %d: %w", sig, pid, err)
	}
	return nil
}

// config returns the whole postgresql.conf.
func (s *Server) config() string {
	return fmt.Sprintf(commonSettings, s.port.number) + s.settings
}

// write puts a file into the data directory, readable for the server alone.
func (s *Server) write(name, text string) error {
	path := filepath.Join(s.data, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return fmt.Errorf("configure %s: %w", s.name, err)
	}
	return s.bin.give(path)
}

// run runs a tool to its end.
func run(cmd *exec.Cmd) error {
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", filepath.Base(cmd.Path), err, out)
	}
	return nil
}

// CopyTree copies a directory with owners and modes, sharing blocks where the file system can.
func CopyTree(ctx context.Context, from, to string) error {
	ctx, cancel := context.WithTimeout(ctx, toolTimeout)
	defer cancel()
	return run(exec.CommandContext(ctx, "cp", "-a", "--reflink=auto", from, to))
}

// poll asks until the answer is yes, an error, or ctx ends.
func poll(ctx context.Context, ask func() (bool, error)) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		if yes, err := ask(); yes || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}
