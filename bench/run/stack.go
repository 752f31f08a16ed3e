package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"github.com/payment-services/accounts/db"
	"github.com/payment-services/accounts/internal/localservers"
)

const (
	database = "accounts"
	module   = "github.com/payment-services/accounts/"
	// startTimeout bounds the start of one server.
	startTimeout = 30 * time.Second
	// startPoll paces the wait for a server: how exactly its start is measured.
	startPoll = time.Millisecond
)

// stack is everything that is measured, in a directory of its own that close removes.
type stack struct {
	dir     string
	cluster *localservers.Cluster
	cache   *localservers.Redis
	auth    *localservers.Redis
	urls    localservers.URLs
	secret  string
	servers []*server

	super       *pgx.Conn     // to the primary
	redisCache  *redis.Client // as the service is connected
	redisAuth   *redis.Client
	postgresIDs []int // processes of primary and standby
	redisIDs    []int
}

// server is a yardstick or the service.
type server struct {
	name    string
	base    string // URL
	admin   string // URL of the service's metrics and profiles
	cmd     *exec.Cmd
	process *localservers.Process
	log     string
	started time.Duration // from the start of the process until it was ready
}

func (s *server) pid() int { return s.cmd.Process.Pid }

// openStack starts the databases, with the schema in place.
func openStack(ctx context.Context) (_ *stack, err error) {
	s := &stack{secret: rand.Text() + rand.Text()}
	if s.dir, err = os.MkdirTemp("", "accounts-bench-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if err := os.Chmod(s.dir, 0o755); err != nil { // PostgreSQL may run as another account
		return nil, err
	}
	if s.cache, err = s.startRedis(ctx, localservers.CacheRedis); err != nil {
		return nil, err
	}
	if s.auth, err = s.startRedis(ctx, localservers.AuthRedis); err != nil {
		return nil, err
	}
	passwords := db.Passwords{Migrator: rand.Text(), Reader: rand.Text(), Writer: rand.Text()}
	s.cluster, err = localservers.NewCluster(ctx, localservers.ClusterConfig{Dir: s.dir, Password: rand.Text(), Durable: true})
	if err != nil {
		return nil, err
	}
	if err := s.cluster.Start(ctx); err != nil {
		return nil, err
	}
	if err := s.cluster.Prepare(ctx, database, passwords, slog.New(slog.DiscardHandler)); err != nil {
		return nil, err
	}
	s.urls = s.cluster.URLs(database, passwords)
	if s.super, err = pgx.Connect(ctx, s.urls.SuperURL); err != nil {
		return nil, err
	}
	if s.redisCache, err = s.connectRedis(ctx, s.cache.URL); err != nil {
		return nil, err
	}
	if s.redisAuth, err = s.connectRedis(ctx, s.auth.URL); err != nil {
		return nil, err
	}
	for _, role := range []string{"primary", "standby"} {
		text, err := os.ReadFile(filepath.Join(s.dir, role, "postmaster.pid"))
		if err != nil {
			return nil, err
		}
		first, _, _ := strings.Cut(string(text), "\n")
		pid, err := strconv.Atoi(first)
		if err != nil {
			return nil, err
		}
		s.postgresIDs = append(s.postgresIDs, pid)
	}
	return s, nil
}

func (s *stack) startRedis(ctx context.Context, kind localservers.RedisKind) (*localservers.Redis, error) {
	dir := filepath.Join(s.dir, string(kind))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	r, err := localservers.NewRedis(localservers.RedisConfig{Kind: kind, Dir: dir, Password: rand.Text()})
	if err != nil {
		return nil, err
	}
	return r, r.Start(ctx)
}

func (s *stack) connectRedis(ctx context.Context, url string) (*redis.Client, error) {
	options, err := redis.ParseURL(url)
	if err != nil {
		return nil, err
	}
	client := redis.NewClient(options)
	info, err := client.InfoMap(ctx, "server").Result()
	if err != nil {
		return nil, err
	}
	pid, err := strconv.Atoi(info["Server"]["process_id"])
	s.redisIDs = append(s.redisIDs, pid)
	return client, err
}

// build compiles a command of the module as it is deployed.
func (s *stack) build(ctx context.Context, name, pkg string) (binary string, err error) {
	binary = filepath.Join(s.dir, name)
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", binary, module+pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", pkg, err, out)
	}
	return binary, nil
}

// start starts a binary and returns when a GET of ready is answered with 200.
func (s *stack) start(ctx context.Context, name, binary, ready string, environment ...string) (*server, error) {
	var addresses [2]string
	for i := range addresses {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		addresses[i] = listener.Addr().String()
		if err := listener.Close(); err != nil {
			return nil, err
		}
	}
	v := &server{
		name: name, base: "http://" + addresses[0], admin: "http://" + addresses[1],
		cmd: exec.Command(binary), log: filepath.Join(s.dir, name+".log"),
	}
	v.cmd.Env = append(environment, "ADDR="+addresses[0], "HTTP_ADDR="+addresses[0], "ADMIN_ADDR="+addresses[1],
		"PATH="+os.Getenv("PATH"), "TMPDIR="+s.dir)
	began := time.Now()
	var err error
	if v.process, err = localservers.StartProcess(name, v.cmd, v.log, syscall.SIGTERM); err != nil {
		return nil, err
	}
	if err := v.process.AwaitOK(ctx, v.base+ready, startPoll, startTimeout); err != nil {
		return nil, errors.Join(err, v.process.Kill())
	}
	v.started = time.Since(began)
	s.servers = append(s.servers, v)
	return v, nil
}

// exchange sends one request that is not measured; read gets the answer, whose body ends with it.
func exchange(ctx context.Context, method, url string, header http.Header, body io.Reader, read func(*http.Response) error) error {
	r, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return err
	}
	if header != nil {
		r.Header = header
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	return read(answer)
}

// startService starts a binary of cmd/server as it is deployed: authentication, revocation list, log
// and metrics are on.
func (s *stack) startService(ctx context.Context, name, binary string) (*server, error) {
	return s.start(ctx, name, binary, "/readyz",
		"JWT_SECRET_KEY="+s.secret, "DATABASE_WRITE_URL="+s.urls.WriteURL, "DATABASE_READ_URL="+s.urls.ReadURL,
		"REDIS_URL="+s.cache.URL, "AUTH_REDIS_URL="+s.auth.URL, "MAX_UPLOAD_FILE_SIZE=20971520")
}

// forgetLogs keeps the request logs from filling the disk.
func (s *stack) forgetLogs() error {
	for _, v := range s.servers {
		if err := os.Truncate(v.log, 0); err != nil {
			return err
		}
	}
	return nil
}

func (s *stack) close() error {
	var errs []error
	for _, v := range s.servers {
		errs = append(errs, v.process.Kill())
	}
	for _, r := range []*localservers.Redis{s.cache, s.auth} {
		if r != nil {
			errs = append(errs, r.Close())
		}
	}
	if s.cluster != nil {
		errs = append(errs, s.cluster.Close())
	}
	return errors.Join(append(errs, os.RemoveAll(s.dir))...)
}
