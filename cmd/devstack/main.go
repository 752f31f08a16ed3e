// Command devstack runs the whole service on a developer's machine: a private PostgreSQL primary with
// a streaming standby, two Redis servers, and cmd/server, all on free ports of 127.0.0.1. `make run`
// starts it. Its data stay in .devstack and are used again by the next start; Ctrl-C stops everything.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

type options struct {
	dir      string
	noServer bool
	users    int
}

func main() {
	var opts options
	flag.StringVar(&opts.dir, "dir", ".devstack", "where data, logs and secrets are kept")
	flag.BoolVar(&opts.noServer, "no-server", false, "start the databases only")
	flag.IntVar(&opts.users, "users", 1000, "how many demo users the first start creates")
	flag.Parse()

	// SIGHUP: the terminal was closed.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	// A second signal does not wait: the kernel ends the children with this process.
	context.AfterFunc(ctx, stop)

	err := run(ctx, opts)
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		err = nil // stopped while starting
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "devstack:", err)
		os.Exit(1)
	}
}

// run starts everything, waits until ctx ends or the server dies, and stops everything.
func run(ctx context.Context, opts options) (err error) {
	dir, err := openDirectory(opts.dir)
	if err != nil {
		return err
	}
	defer dir.close()
	state, err := dir.loadState()
	if err != nil {
		return err
	}
	s := &stack{dir: dir, state: state}
	defer func() {
		say("stopping")
		err = errors.Join(err, s.stop())
	}()

	say("starting PostgreSQL (primary and standby) and Redis (cache and auth)")
	if err := s.startDatabases(ctx); err != nil {
		return err
	}
	demoID, err := s.ensureDemoUsers(ctx, opts.users)
	if err != nil {
		return err
	}
	// The first request may go to the standby.
	if err := s.cluster.WaitForReplay(ctx); err != nil {
		return err
	}
	if !opts.noServer {
		say("building and starting the server")
		if err := s.startServer(ctx); err != nil {
			return err
		}
	}
	token, err := s.token(demoID)
	if err != nil {
		return err
	}
	if err := dir.writeEnv(s.environment(token)); err != nil {
		return err
	}
	s.greet(token, demoID)
	return s.wait(ctx)
}

func say(format string, args ...any) { fmt.Fprintf(os.Stderr, "devstack: "+format+"\n", args...) }
