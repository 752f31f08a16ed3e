package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/net/netutil"

	"github.com/payment-services/accounts/internal/auth"
	httpapi "github.com/payment-services/accounts/internal/http"
)

const (
	// A load balancer that asks every second or two notices /readyz before connections are refused.
	drainDelay = 2 * time.Second
	// Setup checks ask two Redis servers that may be down.
	setupTimeout = time.Second
	// The heap may grow by this share, in percent, before garbage is collected: a few MB of live data and
	// 10 KB a request would otherwise mean ten collections a second. GOGC in the environment wins.
	gcPercent = 200
)

// memoryRatio is the part of the cgroup's memory limit that the Go runtime may use. The rest is for what
// the runtime does not count: thread stacks of C, the kernel's buffers, files in a TMPDIR that is in memory.
const memoryRatio = 0.9

// limitMemory sets the runtime's memory limit below that of the cgroup, so that garbage is collected more
// often before the kernel kills the process. It returns the limit, math.MaxInt64 if there is none.
// GOMEMLIMIT in the environment wins.
func limitMemory() int64 {
	limit, err := memlimit.Set(memlimit.WithRatio(memoryRatio), memlimit.WithProvider(memlimit.FromCgroup))
	if err != nil { // such as on a system without cgroups: the limit is what it was
		return debug.SetMemoryLimit(-1)
	}
	return limit
}

// sendBufferBytes is the send buffer of each connection of the API. The kernel would let it grow to 4 MiB, so
// that clients that do not read large answers would use up the memory of a container.
const sendBufferBytes = 256 << 10

// limitSendBuffer sets the send buffer of a listening socket, which its connections inherit.
func limitSendBuffer(_, _ string, socket syscall.RawConn) error {
	var failed error
	err := socket.Control(func(fd uintptr) {
		failed = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_SNDBUF, sendBufferBytes)
	})
	return errors.Join(err, failed)
}

// checkTemporaryFolder tries whether uploads can be stored.
func checkTemporaryFolder() error {
	file, err := os.CreateTemp("", "accounts-upload-*")
	if err != nil {
		return err
	}
	return errors.Join(os.Remove(file.Name()), file.Close())
}

// serve runs the service until ctx ends: then it finishes what it is doing and returns nil.
func serve(ctx context.Context) (err error) {
	// From the start: a SIGHUP that is not waited for ends the process.
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	// The reader of standard output may end, such as a log collector that is restarted: the log then loses
	// lines, and the service goes on.
	signal.Ignore(syscall.SIGPIPE)

	var cfg Config
	if err := load(&cfg); err != nil {
		return err
	}
	if problems := cfg.check(); problems != nil {
		return configError(problems)
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	memory := limitMemory()
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	core, err := openCore(cfg.Core, os.Stdout, registry)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, core.close()) }()
	core.Primary.Register(registry)
	core.Replica.Register(registry)
	log := core.log
	if memory < math.MaxInt64 {
		log.Info("the Go runtime has a memory limit", "bytes", memory)
	}
	if err := checkTemporaryFolder(); err != nil {
		log.Warn("uploads will be refused: TMPDIR takes no file", "error", err)
	}

	authRedis, err := auth.NewRedis(cfg.AuthRedisURL)
	if err != nil {
		return configError([]string{"AUTH_REDIS_URL: " + err.Error()})
	}
	defer func() { err = errors.Join(err, authRedis.Close()) }()
	verifier, err := auth.New(auth.Config{
		SecretKey: []byte(cfg.SecretKey), Algorithm: cfg.Algorithm, JWKSURL: cfg.JWKSURL,
		Issuer: cfg.Issuer, Audience: cfg.Audience,
		RevocationKey: cfg.RevocationKey, RevocationOutage: auth.Outage(cfg.RevocationOutage),
		ScopeClaim:    cfg.ScopeClaim,
		DefaultScopes: strings.Fields(cfg.DefaultScopes), ClockSkew: cfg.ClockSkew, Redis: authRedis, Logger: log,
	})
	if err != nil {
		return configError([]string{err.Error()})
	}
	setupCtx, cancel := context.WithTimeout(ctx, setupTimeout)
	defer cancel()
	if err := core.Cache.CheckSetup(setupCtx, authRedis); err != nil {
		return err
	}
	release := currentRelease()
	api := httpapi.New(httpapi.Config{
		Accounts: core.Accounts, Auth: verifier, Logger: log, Metrics: registry, DrainDelay: drainDelay,
		Version:        release.version,
		MaxUploadBytes: cfg.MaxUploadBytes, MaxUploads: cfg.MaxUploads, UploadExtensions: cfg.UploadExtensions, Origins: cfg.Origins,
		AllowedHeaders: cfg.AllowedHeaders, ExposedHeaders: cfg.ExposedHeaders,
		Limits: httpapi.RateLimits{
			PerMinute: cfg.RateLimit, NotFoundPerMinute: cfg.NotFoundLimit, TrustedProxies: cfg.TrustedProxies,
		},
	})

	listener, err := (&net.ListenConfig{Control: limitSendBuffer}).Listen(ctx, "tcp", cfg.HTTPAddr)
	if err != nil {
		return fmt.Errorf("HTTP_ADDR: %w", err)
	}
	adminListener, err := net.Listen("tcp", cfg.AdminAddr)
	if err != nil {
		return fmt.Errorf("ADMIN_ADDR: %w", errors.Join(err, listener.Close()))
	}
	admin := newAdminServer(registry)

	// The background work outlives the requests that depend on it.
	background, stopBackground := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	running.Go(func() { core.Run(background) })
	running.Go(func() { core.Accounts.RunImports(ctx, log) })
	running.Go(func() { verifier.Run(background) })
	go core.reopenLog(background, hangups) // not waited for: it may wait for a write to the old file
	running.Go(func() {
		if err := admin.Serve(netutil.LimitListener(adminListener, adminMaxConnections)); !errors.Is(err, http.ErrServerClosed) {
			log.Error("admin server", "error", err)
		}
	})
	log.Info("listening", "http", listener.Addr().String(), "admin", adminListener.Addr().String(),
		"version", release.version, "commit", release.commit)
	err = api.Serve(ctx, netutil.LimitListener(listener, cfg.MaxConnections))
	stopBackground()
	err = errors.Join(err, admin.Close())
	running.Wait()
	log.Info("stopped")
	return err
}

// reopenLog opens the log file again at each hangup, as logrotate expects of a service, until ctx ends.
func (c *core) reopenLog(ctx context.Context, hangups <-chan os.Signal) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangups:
		}
		if c.logFile == nil {
			continue
		}
		if err := c.logFile.Reopen(); err != nil {
			c.log.Error("reopen the log file; the old one stays in use", "error", err)
		}
	}
}
