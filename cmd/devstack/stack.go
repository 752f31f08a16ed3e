package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"github.com/payment-services/accounts/internal/auth"
	"github.com/payment-services/accounts/internal/localservers"
)

const (
	database = "accounts"

	// The first ports that are tried for the server, those of its production defaults.
	firstHTTPPort  = 8002
	firstAdminPort = 9102
	// portTries is how many ports in a row may be taken.
	portTries = 100

	// readyTimeout bounds the server's start after its build.
	readyTimeout = 60 * time.Second
	readyPoll    = 50 * time.Millisecond
	// serverGrace is longer than the server's own drain.
	serverGrace = 30 * time.Second

	tokenLife = 24 * time.Hour
)

// stack is everything that runs. What has not been started is nil.
type stack struct {
	dir   *directory
	state *state

	cluster *localservers.Cluster
	cache   *localservers.Redis
	auth    *localservers.Redis
	server  *localservers.Process
	httpURL string
}

// startDatabases starts PostgreSQL and Redis, on the ports of the last time if they are free, and
// brings the schema up to date.
func (s *stack) startDatabases(ctx context.Context) (err error) {
	if s.cache, err = s.startRedis(ctx, localservers.CacheRedis, s.state.CachePassword, s.state.CachePort); err != nil {
		return err
	}
	if s.auth, err = s.startRedis(ctx, localservers.AuthRedis, s.state.AuthPassword, s.state.AuthPort); err != nil {
		return err
	}
	pg, err := s.dir.postgres()
	if err != nil {
		return err
	}
	s.cluster, err = localservers.NewCluster(ctx, localservers.ClusterConfig{
		Dir:         pg,
		Password:    s.state.SuperPassword,
		Durable:     true,
		PrimaryPort: s.state.PrimaryPort,
		StandbyPort: s.state.StandbyPort,
	})
	if err != nil {
		return err
	}
	if err := s.cluster.Start(ctx); err != nil {
		return err
	}
	s.state.CachePort, s.state.AuthPort = s.cache.Port(), s.auth.Port()
	s.state.PrimaryPort, s.state.StandbyPort = s.cluster.Primary.Port(), s.cluster.Standby.Port()
	if err := s.dir.saveState(s.state); err != nil {
		return err
	}
	return s.cluster.Prepare(ctx, database, s.state.Passwords, slog.New(slog.DiscardHandler))
}

func (s *stack) startRedis(ctx context.Context, kind localservers.RedisKind, password string, port int) (*localservers.Redis, error) {
	dir, err := s.dir.sub(string(kind))
	if err != nil {
		return nil, err
	}
	r, err := localservers.NewRedis(localservers.RedisConfig{Kind: kind, Dir: dir, Password: password, Port: port})
	if err != nil {
		return nil, err
	}
	return r, r.Start(ctx)
}

// startServer builds and starts cmd/server, and returns when it is ready.
func (s *stack) startServer(ctx context.Context) error {
	binary := s.dir.file("server")
	build := exec.CommandContext(ctx, "go", "build", "-o", binary, "github.com/payment-services/accounts/cmd/server")
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("build the server: %w", err)
	}
	httpAddress, err := freeAddress(firstHTTPPort)
	if err != nil {
		return err
	}
	adminAddress, err := freeAddress(firstAdminPort)
	if err != nil {
		return err
	}
	s.httpURL = "http://" + httpAddress
	cmd := exec.Command(binary)
	cmd.Env = os.Environ() // so that LOG_LEVEL and the like can be set on the command line
	for _, v := range s.configuration() {
		cmd.Env = append(cmd.Env, v.name+"="+v.value)
	}
	cmd.Env = append(cmd.Env, "JWT_ALGORITHM=HS256", "HTTP_ADDR="+httpAddress, "ADMIN_ADDR="+adminAddress)
	s.server, err = localservers.StartProcess("the server", cmd, s.dir.file("server.log"), syscall.SIGTERM)
	if err != nil {
		return err
	}
	return s.server.AwaitOK(ctx, s.httpURL+"/readyz", readyPoll, readyTimeout)
}

// configuration is what the server must be told.
func (s *stack) configuration() []variable {
	urls := s.cluster.URLs(database, s.state.Passwords)
	return []variable{
		{"JWT_SECRET_KEY", s.state.JWTSecret},
		{"DATABASE_WRITE_URL", urls.WriteURL},
		{"DATABASE_READ_URL", urls.ReadURL},
		{"DATABASE_MIGRATE_URL", urls.MigrateURL},
		{"REDIS_URL", s.cache.URL},
		{"AUTH_REDIS_URL", s.auth.URL},
	}
}

// environment is the content of the env file; BASE_URL is missing without a server.
func (s *stack) environment(token string) []variable {
	variables := append(s.configuration(), variable{"TOKEN", token})
	if s.server != nil {
		variables = append(variables, variable{"BASE_URL", s.httpURL})
	}
	return variables
}

func (s *stack) token(subject string) (string, error) {
	scopes := []string{"accounts:read", "accounts:write"}
	return auth.Sign([]byte(s.state.JWTSecret), subject, scopes, tokenLife, "", "")
}

// greet prints how to use the running stack.
func (s *stack) greet(token, demoID string) {
	if s.server == nil {
		fmt.Printf("\nThe databases are ready; %s says how to reach them. Ctrl-C stops them.\n", s.dir.file("env"))
		return
	}
	call := "curl -sS -H 'Authorization: Bearer " + token + "'"
	fmt.Printf(`
The service is ready at %[1]s (its page: %[1]s/docs, its log: %[2]s).
Ctrl-C stops everything; the data stay for the next start. TOKEN, BASE_URL and more: . %[3]s

A token for accounts:read and accounts:write, valid for a day:
%[4]s

One user by phone, the user changed, and the first five users:
%[5]s '%[1]s/accounts/users/by-identifier?identifier=%[6]s'
%[5]s -X PATCH -H 'Content-Type: application/json' -d '{"profile":{"city":"Казань"}}' '%[1]s/accounts/users/%[7]s'
%[5]s '%[1]s/accounts/users?page=1&size=5'

`, s.httpURL, s.dir.file("server.log"), s.dir.file("env"), token, call, demoPhone, demoID)
}

// wait returns nil when ctx ends, and an error when the server does. A database that ends is only
// reported: how the service does without it is something to be tried here.
func (s *stack) wait(ctx context.Context) error {
	for _, part := range []interface {
		Done() <-chan struct{}
		Failure(what string) error
	}{s.cluster.Primary, s.cluster.Standby, s.cache, s.auth} {
		ended := part.Done() // now: stop forgets it
		go func() {
			select {
			case <-ended:
				if ctx.Err() == nil {
					say("%v\nThe service goes on without it; make run starts it again.", part.Failure("ended"))
				}
			case <-ctx.Done():
			}
		}()
	}
	var server <-chan struct{}
	if s.server != nil {
		server = s.server.Done()
	}
	select {
	case <-ctx.Done():
		return nil
	case <-server:
		return s.server.Failure("ended unexpectedly")
	}
}

// stop ends what runs, users before what they use.
func (s *stack) stop() error {
	errs := []error{s.dir.removeEnv()}
	if s.server != nil {
		errs = append(errs, s.server.Stop(syscall.SIGTERM, serverGrace))
	}
	for _, r := range []*localservers.Redis{s.cache, s.auth} {
		if r != nil {
			errs = append(errs, r.Stop())
		}
	}
	if s.cluster != nil {
		errs = append(errs, s.cluster.Stop())
	}
	return errors.Join(errs...)
}

// freeAddress returns the first address of 127.0.0.1 from port on that nobody listens on.
func freeAddress(port int) (string, error) {
	for candidate := port; candidate < port+portTries; candidate++ {
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(candidate))
		if listener, err := net.Listen("tcp", address); err == nil {
			return address, listener.Close()
		}
	}
	return "", fmt.Errorf("no free port from %d to %d", port, port+portTries-1)
}
