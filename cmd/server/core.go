package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	domain "github.com/payment-services/accounts/internal/core"
	"github.com/payment-services/accounts/internal/postgres"
)

// core is the domain service with everything below it, and the logger.
type core struct {
	*domain.Core
	log      *slog.Logger
	closeLog func() error
	logFile  *logFile // nil without LOG_DIR
}

// openCore connects to nothing, so servers may be down. Without a LOG_DIR the log goes to logTo. The error
// names every problem of cfg.
func openCore(cfg Core, logTo *os.File, metrics prometheus.Registerer) (*core, error) {
	var problems []string
	log, file, closeLog, err := newLogger(cfg, logTo)
	if err != nil {
		problems = append(problems, err.Error())
		log, closeLog = slog.New(slog.DiscardHandler), func() error { return nil }
	}
	redis.SetLogger(redisLogger{log})
	c, err := domain.Open(domain.Config{
		Write:    postgres.Config{URL: cfg.WriteURL, MaxConns: cfg.WriteConns},
		Read:     postgres.Config{URL: cfg.ReadURL, MaxConns: cfg.ReadConns},
		RedisURL: cfg.RedisURL, PhoneRegion: cfg.PhoneRegion, UserTTL: cfg.UserTTL, DictionaryTTL: cfg.DictionaryTTL,
		Logger: log, Metrics: metrics,
	})
	if err != nil {
		problems = append(problems, strings.Split(err.Error(), "\n")...)
	}
	if problems != nil {
		return nil, errors.Join(configError(problems), closeLog())
	}
	return &core{Core: c, log: log, logFile: file, closeLog: closeLog}, nil
}

func (c *core) close() error { return errors.Join(c.Close(), c.closeLog()) }

// redisLogger keeps go-redis from writing to standard error: what it has to say is in the errors
// that it returns, too.
type redisLogger struct{ *slog.Logger }

func (l redisLogger) Printf(ctx context.Context, format string, v ...any) {
	l.DebugContext(ctx, "redis client", "message", fmt.Sprintf(format, v...))
}

// newLogger returns the logger, which writes to out or to a file in LOG_DIR, the file if there is one,
// and a function that writes what is pending and closes the file.
func newLogger(cfg Core, out io.Writer) (*slog.Logger, *logFile, func() error, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(cfg.LogLevel)); err != nil {
		return nil, nil, nil, errors.New("LOG_LEVEL: want debug, info, warn or error")
	}
	var file *logFile
	closeFile := func() error { return nil }
	if cfg.LogDir != "" {
		var err error
		if file, err = openLogFile(filepath.Join(cfg.LogDir, "accounts.log")); err != nil {
			return nil, nil, nil, fmt.Errorf("LOG_DIR: %w", err)
		}
		out, closeFile = file, file.Close
	}
	lines := newLogWriter(out)
	closeLog := func() error {
		if !lines.Flush() {
			return errors.New("the last lines of the log could not be written in time")
		}
		return closeFile()
	}
	options := &slog.HandlerOptions{Level: level}
	var log *slog.Logger
	switch cfg.LogFormat {
	case "json":
		log = slog.New(lineHandler{slog.NewJSONHandler(lines, options), lines})
	case "text":
		log = slog.New(slog.NewTextHandler(lines, options))
	default:
		return nil, nil, nil, errors.New("LOG_FORMAT: want json or text")
	}
	lines.report = func(dropped int) {
		log.Warn("log lines were dropped because they could not be written", "since_start", dropped)
	}
	return log, file, closeLog, nil
}
