package localservers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// redisStartTimeout bounds the start, the loading of an append-only file included.
	redisStartTimeout = 30 * time.Second
	// redisStopTimeout bounds a shutdown, which flushes the append-only file.
	redisStopTimeout = 10 * time.Second
	// redisPingTimeout bounds one try to reach a starting server.
	redisPingTimeout = time.Second
)

// RedisKind is one of the two Redis servers of the service.
type RedisKind string

// The two kinds. The cache evicts (volatile-lfu) and forgets everything when it restarts; the
// revocation list of the auth service does neither.
const (
	CacheRedis RedisKind = "redis-cache"
	AuthRedis  RedisKind = "redis-auth"
)

// redisSettings are those that differ, and the database that the service uses.
var redisSettings = map[RedisKind]struct {
	database int
	text     string
}{
	CacheRedis: {1, "maxmemory 256mb\nmaxmemory-policy volatile-lfu\nappendonly no\n"},
	AuthRedis:  {0, "maxmemory-policy noeviction\nappendonly yes\nappendfsync everysec\n"},
}

// RedisConfig says where a Redis server lives.
type RedisConfig struct {
	Kind     RedisKind
	Dir      string // existing; holds its configuration, data and log
	Password string // empty for none
	Port     int    // wanted; 0, or one in use, gives any free port
}

// Redis is one Redis server. Its port stays the same, and refuses connections while the server is
// down. The methods are safe for concurrent use, except that starting and stopping must be left to one
// goroutine.
type Redis struct {
	// URL names the database that the service uses: 1 of the cache, 0 of the auth service.
	URL string

	name     string
	dir      string
	password string
	port     *Port

	mu   sync.Mutex
	proc *Process // nil while down
}

// NewRedis prepares a server. Nothing runs yet.
func NewRedis(cfg RedisConfig) (*Redis, error) {
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("prepare %s: %w", cfg.Kind, err)
	}
	port, err := ReservePort(cfg.Port)
	if err != nil {
		return nil, err
	}
	settings := redisSettings[cfg.Kind]
	text := fmt.Sprintf("bind 127.0.0.1\nport %d\ndir %q\nsave \"\"\n%s", port.number, dir, settings.text)
	u := url.URL{Scheme: "redis", Host: port.Address(), Path: "/" + strconv.Itoa(settings.database)}
	if cfg.Password != "" {
		u.User = url.UserPassword("default", cfg.Password) // redis-cli -u takes no empty name
		text += "requirepass " + cfg.Password + "\n"
	}
	// In a file, not in arguments that every user of the machine can read.
	if err := os.WriteFile(filepath.Join(dir, "redis.conf"), []byte(text), 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("prepare %s: %w", cfg.Kind, err), port.Release())
	}
	return &Redis{URL: u.String(), name: string(cfg.Kind), dir: dir, password: cfg.Password, port: port}, nil
}

// Start starts the server and returns when it answers.
func (r *Redis) Start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, redisStartTimeout)
	defer cancel()
	cmd := exec.Command("redis-server", filepath.Join(r.dir, "redis.conf"))
	proc, err := StartProcess(r.name, cmd, filepath.Join(r.dir, "redis.log"), syscall.SIGKILL)
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("%w: run scripts/install-deps", err)
	}
	if err != nil {
		return err
	}
	r.mu.Lock()
	r.proc = proc
	r.mu.Unlock()
	err = poll(ctx, func() (bool, error) {
		if proc.ended() {
			return false, proc.Failure("ended while starting")
		}
		return r.answers(), nil
	})
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		err = errors.Join(proc.Failure("did not start: "+err.Error()), r.Kill())
	}
	return err
}

// Stop shuts the server down. It does nothing when the server is down.
func (r *Redis) Stop() error {
	proc := r.detach()
	if proc == nil {
		return nil
	}
	return errors.Join(proc.Signal(syscall.SIGCONT), proc.Stop(syscall.SIGTERM, redisStopTimeout))
}

// Kill ends the server with SIGKILL.
func (r *Redis) Kill() error {
	proc := r.detach()
	if proc == nil {
		return nil
	}
	return proc.Kill()
}

// Restart stops and starts the server: it has a new run_id, and the cache is empty.
func (r *Redis) Restart(ctx context.Context) error {
	if err := r.Stop(); err != nil {
		return err
	}
	return r.Start(ctx)
}

// Freeze stops the server with SIGSTOP: connections stay open and nothing answers.
func (r *Redis) Freeze() error { return r.signal(syscall.SIGSTOP) }

// Thaw lets a frozen server go on.
func (r *Redis) Thaw() error { return r.signal(syscall.SIGCONT) }

// Close kills the server and gives the port back.
func (r *Redis) Close() error { return errors.Join(r.Kill(), r.port.Release()) }

// Done is closed when the running server has ended, for whatever reason; nil when it is down.
func (r *Redis) Done() <-chan struct{} {
	proc, err := r.process()
	if err != nil {
		return nil
	}
	return proc.Done()
}

// Failure returns an error that says what happened to the server, with the end of its log.
func (r *Redis) Failure(what string) error {
	proc, err := r.process()
	if err != nil {
		return err
	}
	return proc.Failure(what)
}

// Address returns the server's "127.0.0.1:port".
func (r *Redis) Address() string { return r.port.Address() }

// Port returns the number of the server's port.
func (r *Redis) Port() int { return r.port.number }

func (r *Redis) signal(sig syscall.Signal) error {
	proc, err := r.process()
	if err != nil {
		return err
	}
	return proc.Signal(sig)
}

// detach forgets the process, which the caller ends; nil when the server is down.
func (r *Redis) detach() *Process {
	r.mu.Lock()
	defer r.mu.Unlock()
	proc := r.proc
	r.proc = nil
	return proc
}

func (r *Redis) process() (*Process, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.proc == nil {
		return nil, fmt.Errorf("%s %w", r.name, errNotRunning)
	}
	return r.proc, nil
}

// answers speaks the protocol itself: a client library would log each try.
func (r *Redis) answers() bool {
	conn, err := net.DialTimeout("tcp", r.Address(), redisPingTimeout)
	if err != nil {
		return false
	}
	defer conn.Close()
	commands := "PING\r\nQUIT\r\n"
	if r.password != "" {
		commands = "AUTH " + r.password + "\r\n" + commands
	}
	if err := conn.SetDeadline(time.Now().Add(redisPingTimeout)); err != nil {
		return false
	}
	if _, err := io.WriteString(conn, commands); err != nil {
		return false
	}
	replies, err := io.ReadAll(conn)
	return err == nil && strings.Contains(string(replies), "+PONG")
}
