package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/payment-services/accounts/db"
	"github.com/payment-services/accounts/internal/accounts"
	"github.com/payment-services/accounts/internal/cache"
	"github.com/payment-services/accounts/internal/identifier"
	"github.com/payment-services/accounts/internal/postgres"
)

// core is the domain with everything below it.
type core struct {
	log      *slog.Logger
	closeLog func() error
	logFile  *logFile // nil without LOG_DIR
	primary  *postgres.Primary
	replica  *postgres.Replica
	cache    *cache.Cache
	accounts *accounts.Service
}

// openCore connects to nothing yet; servers may be down. Without a LOG_DIR the log goes to logTo. All
// that is wrong with cfg is in one error.
func openCore(cfg Core, logTo *os.File, metrics prometheus.Registerer) (_ *core, err error) {
	c := &core{}
	var problems []string
	note := func(name string, err error) {
		if err != nil {
			problems = append(problems, name+err.Error())
		}
	}
	c.log, c.logFile, c.closeLog, err = newLogger(cfg, logTo)
	note("", err)
	parser, err := identifier.NewParser(cfg.PhoneRegion)
	note("DEFAULT_PHONE_REGION: ", err)
	c.primary, err = postgres.OpenPrimary(postgres.Config{URL: cfg.WriteURL, MaxConns: cfg.WriteConns})
	note("DATABASE_WRITE_URL: ", err)
	c.replica, err = postgres.OpenReplica(postgres.Config{URL: cfg.ReadURL, MaxConns: cfg.ReadConns})
	note("DATABASE_READ_URL: ", err)
	if len(problems) > 0 {
		return nil, configError(problems)
	}
	redis.SetLogger(redisLogger{c.log})
	c.cache, err = cache.New(cache.Config{
		URL: cfg.RedisURL, Primary: c.primary, Replica: c.replica, Logger: c.log, Metrics: metrics,
	})
	if err != nil {
		return nil, configError([]string{"REDIS_URL: " + err.Error()})
	}
	version, err := db.LatestVersion()
	if err != nil {
		return nil, err
	}
	readFunctions, writeFunctions := db.NeededFunctions()
	c.accounts = accounts.New(accounts.Config{
		Primary: c.primary, Cache: c.cache, Parser: parser,
		UserLife: cfg.UserLife, DictionaryLife: cfg.DictionaryLife,
		SchemaVersion: version, ReadFunctions: readFunctions, WriteFunctions: writeFunctions,
	})
	return c, nil
}

func (c *core) close() error {
	c.primary.Close()
	c.replica.Close()
	return errors.Join(c.cache.Close(), c.closeLog())
}

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
		lines.Flush()
		return closeFile()
	}
	options := &slog.HandlerOptions{Level: level}
	switch cfg.LogFormat {
	case "json":
		return slog.New(lineHandler{slog.NewJSONHandler(lines, options), lines}), file, closeLog, nil
	case "text":
		return slog.New(slog.NewTextHandler(lines, options)), file, closeLog, nil
	default:
		return nil, nil, nil, errors.New("LOG_FORMAT: want json or text")
	}
}
