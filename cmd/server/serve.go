package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/payment-services/accounts/internal/auth"
	httpapi "github.com/payment-services/accounts/internal/http"
)

const (
	// A load balancer that asks every second or two notices /readyz before connections are refused.
	drainDelay = 2 * time.Second
	// Setup checks ask two Redis servers that may be down.
	setupTimeout = time.Second
	// Nobody may hold an admin connection open for nothing.
	adminHeaderTimeout = 5 * time.Second
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
	core.primary.Register(registry)
	core.replica.Register(registry)
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
		DefaultScopes: strings.Fields(cfg.DefaultScopes), Redis: authRedis, Logger: log,
	})
	if err != nil {
		return configError([]string{err.Error()})
	}
	setupCtx, cancel := context.WithTimeout(ctx, setupTimeout)
	defer cancel()
	if err := core.cache.CheckSetup(setupCtx, authRedis); err != nil {
		return err
	}
	api := httpapi.New(httpapi.Config{
		Accounts: core.accounts, Auth: verifier, Logger: log, Metrics: registry, DrainDelay: drainDelay,
		MaxUploadBytes: cfg.MaxUploadBytes, MaxUploads: cfg.MaxUploads, UploadExtensions: cfg.UploadExtensions, Origins: cfg.Origins,
		Limits: httpapi.RateLimits{
			PerMinute: cfg.RateLimit, NotFoundPerMinute: cfg.NotFoundLimit, TrustedProxies: cfg.TrustedProxies,
		},
	})

	listener, err := net.Listen("tcp", cfg.HTTPAddr)
	if err != nil {
		return fmt.Errorf("HTTP_ADDR: %w", err)
	}
	adminListener, err := net.Listen("tcp", cfg.AdminAddr)
	if err != nil {
		return fmt.Errorf("ADMIN_ADDR: %w", errors.Join(err, listener.Close()))
	}
	admin := &http.Server{Handler: adminHandler(registry), ReadHeaderTimeout: adminHeaderTimeout}

	// The background work outlives the requests that depend on it.
	background, stopBackground := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	running.Go(func() { core.cache.Run(background) })
	running.Go(func() { core.accounts.RunImports(ctx, log) })
	running.Go(func() { verifier.Run(background) })
	running.Go(func() {
		if err := admin.Serve(adminListener); !errors.Is(err, http.ErrServerClosed) {
			log.Error("admin server", "error", err)
		}
	})
	log.Info("listening", "http", listener.Addr().String(), "admin", adminListener.Addr().String())
	err = api.Serve(ctx, listener)
	stopBackground()
	err = errors.Join(err, admin.Close())
	running.Wait()
	log.Info("stopped")
	return err
}

func adminHandler(registry *prometheus.Registry) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}
