package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/redis/go-redis/v9"

	"github.com/payment-services/accounts/db"
	"github.com/payment-services/accounts/internal/accounts"
	"github.com/payment-services/accounts/internal/auth"
	"github.com/payment-services/accounts/internal/cache"
	httpapi "github.com/payment-services/accounts/internal/http"
	"github.com/payment-services/accounts/internal/identifier"
	"github.com/payment-services/accounts/internal/postgres"
)

const (
	// A load balancer that asks every second or two notices /readyz before connections are refused.
	drainDelay = 2 * time.Second
	// Setup checks ask two Redis servers that may be down.
	setupTimeout = time.Second
	// Nobody may hold an admin connection open for nothing.
	adminHeaderTimeout = 5 * time.Second
)

// serve runs the service until ctx ends: then it finishes what it is doing and returns nil.
func serve(ctx context.Context) (err error) {
	var cfg Config
	if err := load(&cfg); err != nil {
		return err
	}
	log, closeLog, logErr := newLogger(cfg)
	parser, parserErr := identifier.NewParser(cfg.PhoneRegion)
	primary, primaryErr := postgres.OpenPrimary(postgres.Config{URL: cfg.WriteURL, MaxConns: cfg.WriteConns})
	replica, replicaErr := postgres.OpenReplica(postgres.Config{URL: cfg.ReadURL, MaxConns: cfg.ReadConns})
	authRedis, authRedisErr := auth.NewRedis(cfg.AuthRedisURL)
	var problems []string
	for name, err := range map[string]error{
		"": logErr, "DEFAULT_PHONE_REGION: ": parserErr, "DATABASE_WRITE_URL: ": primaryErr,
		"DATABASE_READ_URL: ": replicaErr, "AUTH_REDIS_URL: ": authRedisErr,
	} {
		if err != nil {
			problems = append(problems, name+err.Error())
		}
	}
	if len(problems) > 0 {
		return configError(problems)
	}
	defer func() { err = errors.Join(err, closeLog()) }()
	defer primary.Close()
	defer replica.Close()
	defer func() { err = errors.Join(err, authRedis.Close()) }()
	redis.SetLogger(redisLogger{log})

	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	registerPool(registry, "primary", primary.Stat)
	registerPool(registry, "replica", replica.Stat)

	entries, err := cache.New(cache.Config{
		URL: cfg.RedisURL, Primary: primary, Replica: replica, Logger: log, Metrics: registry,
	})
	if err != nil {
		return configError([]string{"REDIS_URL: " + err.Error()})
	}
	defer func() { err = errors.Join(err, entries.Close()) }()
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
	if err := entries.CheckSetup(setupCtx, authRedis); err != nil {
		return err
	}
	version, err := db.LatestVersion()
	if err != nil {
		return err
	}
	api := httpapi.New(httpapi.Config{
		Accounts: accounts.New(accounts.Config{
			Primary: primary, Cache: entries, Parser: parser,
			UserLife: cfg.UserLife, DictionaryLife: cfg.DictionaryLife, SchemaVersion: version,
		}),
		Auth: verifier, Logger: log, Metrics: registry, DrainDelay: drainDelay,
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
	running.Go(func() { entries.Run(background) })
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

// redisLogger keeps go-redis from writing to standard error: what it has to say is in the errors
// that it returns, too.
type redisLogger struct{ *slog.Logger }

func (l redisLogger) Printf(ctx context.Context, format string, v ...any) {
	l.DebugContext(ctx, "redis client", "message", fmt.Sprintf(format, v...))
}
