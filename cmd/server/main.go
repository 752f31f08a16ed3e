// Command server is the accounts service. Without a subcommand it serves; `server help` lists the
// others. Everything is configured by the environment (README.md).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/google/uuid"

	"github.com/payment-services/accounts/db"
	"github.com/payment-services/accounts/internal/auth"
)

const usage = `usage: server [command]

  serve        answer requests (the default)
  migrate      apply pending migrations to the primary (DATABASE_MIGRATE_URL)
  import FILE  create users from a CSV, XLSX or XLS file (server import -h)
  functions    print the database functions that this build needs
  token        print a signed token (server token -h)
  healthcheck  exit 0 if the service on this machine is alive
  version      print the version, the commit and the Go version of this build
  help         print this
`

const (
	// The health check runs every few seconds; a process that is alive answers in milliseconds.
	healthcheckTimeout = 2 * time.Second
	defaultTokenTTL    = 24 * time.Hour
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "server:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout io.Writer) error {
	command := "serve"
	if len(args) > 0 {
		command, args = args[0], args[1:]
	}
	switch command {
	case "serve":
		return serve(ctx)
	case "migrate":
		return migrate(ctx)
	case "import":
		return importFile(ctx, args, stdout)
	case "functions":
		return functions(stdout)
	case "token":
		return token(args, stdout)
	case "healthcheck":
		return healthcheck(ctx)
	case "version":
		return currentRelease().write(stdout)
	case "help", "-h", "--help":
		_, err := io.WriteString(stdout, usage)
		return err
	default:
		return fmt.Errorf("unknown command %q\n%s", command, usage)
	}
}

func migrate(ctx context.Context) error {
	var cfg Migration
	if err := load(&cfg); err != nil {
		return err
	}
	return db.Migrate(ctx, cfg.MigrateURL, slog.New(slog.NewTextHandler(os.Stderr, nil)))
}

func functions(stdout io.Writer) error {
	read, write := db.NeededFunctions()
	for _, list := range []struct {
		kind       string
		signatures []string
	}{{db.ReadFunction, read}, {db.WriteFunction, write}} {
		for _, signature := range list.signatures {
			if _, err := fmt.Fprintln(stdout, list.kind, signature); err != nil {
				return err
			}
		}
	}
	return nil
}

func token(args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("token", flag.ContinueOnError)
	subject := flags.String("sub", uuid.NewString(), "whom the token is for")
	scopes := flags.String("scopes", auth.ScopeRead+" "+auth.ScopeWrite, "what it allows, separated by spaces")
	ttl := flags.Duration("ttl", defaultTokenTTL, "how long it is valid")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	var cfg Tokens
	if err := load(&cfg); err != nil {
		return err
	}
	if cfg.SecretKey == "" || (cfg.Algorithm != "" && cfg.Algorithm != "HS256") {
		return errors.New("tokens are signed here with HS256 and JWT_SECRET_KEY only; otherwise their issuer makes them")
	}
	signed, err := auth.Sign([]byte(cfg.SecretKey), *subject, strings.Fields(*scopes), *ttl, cfg.Issuer, cfg.Audience)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(stdout, signed)
	return err
}

func healthcheck(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, healthcheckTimeout)
	defer cancel()
	addr := os.Getenv("HTTP_ADDR")
	if addr == "" {
		addr = ":8002"
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("HTTP_ADDR: %w", err)
	}
	if host == "" || host == "0.0.0.0" || host == "::" {
		host = "127.0.0.1"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+"/healthz", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the service answers %s", resp.Status)
	}
	return nil
}
