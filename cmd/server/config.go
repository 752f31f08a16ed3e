package main

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/caarlos0/env/v11"
	"github.com/joho/godotenv"
	"golang.org/x/net/http/httpguts"
)

// Config is the environment of the service. Every secret may instead be given as NAME_FILE, the path
// of a file that holds the value (a Docker secret). README.md has the same table for operators.
type Config struct {
	Core
	Tokens
	// AuthRedisURL is the auth service's revocation list, database 0 of another server.
	AuthRedisURL string `env:"AUTH_REDIS_URL,required,notEmpty"`
	// JWKSURL is where the public keys are published; instead of JWT_SECRET_KEY.
	JWKSURL string `env:"JWT_JWKS_URL"`
	// RevocationKey is the Redis key that revokes a token; {jti} and {token_sha256} are filled in.
	RevocationKey string `env:"AUTH_REVOCATION_KEY" envDefault:"black_list_access_tokens:{jti}"`
	// RevocationOutage says how tokens are judged without that Redis: snapshot, deny or allow.
	RevocationOutage string `env:"AUTH_REVOCATION_OUTAGE" envDefault:"snapshot"`
	// DefaultScopes are those of tokens without a scope claim, separated by spaces.
	DefaultScopes string `env:"AUTH_DEFAULT_SCOPES"`
	// ScopeClaim is the claim that holds the scopes; empty: scope, scopes and scp together.
	ScopeClaim string `env:"AUTH_SCOPE_CLAIM"`
	// ClockSkew is how long after exp a token is accepted, and how far in the future iat and nbf may be.
	ClockSkew time.Duration `env:"AUTH_CLOCK_SKEW" envDefault:"0s"`

	// HTTPAddr is the API, AdminAddr metrics and pprof.
	HTTPAddr  string `env:"HTTP_ADDR" envDefault:":8002"`
	AdminAddr string `env:"ADMIN_ADDR" envDefault:"127.0.0.1:9102"`

	// MaxUploadBytes bounds the file of an upload; UploadExtensions may end its name.
	MaxUploadBytes int64 `env:"MAX_UPLOAD_FILE_SIZE" envDefault:"10485760"`
	// MaxUploads is how many uploads may run at once.
	MaxUploads       int      `env:"MAX_CONCURRENT_UPLOADS" envDefault:"6"`
	UploadExtensions []string `env:"ALLOWED_UPLOAD_EXTENSIONS" envDefault:"csv,xlsx,xls"`
	// Origins are those whose pages may use the API (CORS): https://example.com, or *.
	Origins []string `env:"CORS_ALLOWED_ORIGINS"`
	// AllowedHeaders and ExposedHeaders are those that such pages may send and read besides the API's own;
	// the defaults are those of W3C Trace Context and Baggage.
	AllowedHeaders []string `env:"CORS_ALLOWED_HEADERS" envDefault:"traceparent,tracestate,baggage"`
	ExposedHeaders []string `env:"CORS_EXPOSED_HEADERS" envDefault:"traceresponse,Server-Timing"`
	// MaxConnections bounds the open connections of the API, so that idle ones cannot use up the memory.
	MaxConnections int `env:"HTTP_MAX_CONNECTIONS" envDefault:"4096"`
	// RateLimit and NotFoundLimit are per minute, for each token and for each address; 0 is off.
	// NotFoundLimit counts identifiers that name no user.
	RateLimit     int `env:"RATE_LIMIT_PER_MINUTE" envDefault:"0"`
	NotFoundLimit int `env:"RATE_LIMIT_NOT_FOUND_PER_MINUTE" envDefault:"0"`
	// TrustedProxies are the networks of proxies whose X-Forwarded-For names the client.
	TrustedProxies []netip.Prefix `env:"TRUSTED_PROXIES"`

	// RabbitMQURL is accepted and not used yet.
	RabbitMQURL string `env:"RABBITMQ_URL"`
}

// check returns what is wrong with values that parse.
func (c *Config) check() (problems []string) {
	for name, value := range map[string]int64{
		"MAX_UPLOAD_FILE_SIZE": c.MaxUploadBytes - 1, "MAX_CONCURRENT_UPLOADS": int64(c.MaxUploads) - 1,
		"RATE_LIMIT_PER_MINUTE": int64(c.RateLimit), "RATE_LIMIT_NOT_FOUND_PER_MINUTE": int64(c.NotFoundLimit),
		"HTTP_MAX_CONNECTIONS": int64(c.MaxConnections) - 1,
	} {
		if value < 0 {
			problems = append(problems, name+": the value is too small")
		}
	}
	for i, extension := range c.UploadExtensions {
		c.UploadExtensions[i] = strings.ToLower(strings.TrimPrefix(strings.TrimSpace(extension), "."))
	}
	for _, origin := range c.Origins {
		u, err := url.Parse(origin)
		if origin != "*" && (err != nil || u.Host == "" || origin != u.Scheme+"://"+u.Host) {
			problems = append(problems, "CORS_ALLOWED_ORIGINS: want origins such as https://example.com, or *")
			break
		}
	}
	for name, headers := range map[string][]string{
		"CORS_ALLOWED_HEADERS": c.AllowedHeaders, "CORS_EXPOSED_HEADERS": c.ExposedHeaders,
	} {
		for i, header := range headers {
			if headers[i] = strings.TrimSpace(header); !httpguts.ValidHeaderFieldName(headers[i]) {
				problems = append(problems, name+": want header names separated by commas, or *")
				break
			}
		}
	}
	return problems
}

// Core is the environment of everything that works on accounts.
type Core struct {
	// WriteURL leads to the primary (HAProxy's write port, or hosts with target_session_attrs).
	WriteURL string `env:"DATABASE_WRITE_URL,required,notEmpty"`
	// ReadURL leads to the replica (HAProxy's read port).
	ReadURL string `env:"DATABASE_READ_URL,required,notEmpty"`
	// WriteConns and ReadConns bound the pools.
	WriteConns int32 `env:"DATABASE_WRITE_MAX_CONNS" envDefault:"16"`
	ReadConns  int32 `env:"DATABASE_READ_MAX_CONNS" envDefault:"16"`
	// RedisURL is the cache's Redis, database 1.
	RedisURL string `env:"REDIS_URL,required,notEmpty"`

	// UserTTL and DictionaryTTL are the times to live of cached entries.
	UserTTL       time.Duration `env:"USER_CACHE_TTL" envDefault:"600s"`
	DictionaryTTL time.Duration `env:"DICTIONARY_CACHE_TTL" envDefault:"3h"`
	// PhoneRegion is where phones without a country code are.
	PhoneRegion string `env:"DEFAULT_PHONE_REGION" envDefault:"RU"`

	// LogLevel is debug, info, warn or error; LogFormat json or text; LogDir a folder for the log
	// file accounts.log, or empty for standard output.
	LogLevel  string `env:"LOG_LEVEL" envDefault:"info"`
	LogFormat string `env:"LOG_FORMAT" envDefault:"json"`
	LogDir    string `env:"LOG_DIR"`
}

// Tokens is what signing and verifying have in common.
type Tokens struct {
	// SecretKey is the HS256 key, at least 32 bytes.
	SecretKey string `env:"JWT_SECRET_KEY"`
	// Algorithm is the only accepted one; empty is HS256, or with JWT_JWKS_URL any of RS256, ES256, EdDSA.
	Algorithm string `env:"JWT_ALGORITHM"`
	// Issuer and Audience are required of tokens when set.
	Issuer   string `env:"JWT_ISSUER"`
	Audience string `env:"JWT_AUDIENCE"`
}

// Migration is the environment of the migrate command.
type Migration struct {
	// MigrateURL is the primary as accounts_migrator.
	MigrateURL string `env:"DATABASE_MIGRATE_URL,required,notEmpty"`
}

// load fills cfg, a pointer to a struct, from the environment and, in development, from .env in the
// working directory. The error names every problem at once and quotes no value.
func load(cfg any) error {
	if err := godotenv.Load(); err != nil && !errors.Is(err, os.ErrNotExist) {
		return errors.New(".env is malformed") // the cause quotes a line of it
	}
	environment, problems := readFiles(os.Environ())
	err := env.ParseWithOptions(cfg, env.Options{Environment: environment})
	if all, ok := errors.AsType[env.AggregateError](err); ok {
		for _, one := range all.Errors {
			problems = append(problems, problem(cfg, one))
		}
	} else if err != nil {
		return fmt.Errorf("read the environment: %w", err)
	}
	if len(problems) == 0 {
		return nil
	}
	return configError(problems)
}

// configError is the one message about everything that is wrong.
func configError(problems []string) error {
	slices.Sort(problems)
	return fmt.Errorf("the environment is not complete (README.md lists all variables):\n  %s",
		strings.Join(problems, "\n  "))
}

// problem words one error of env without the value that env found.
func problem(cfg any, err error) string {
	parse, ok := errors.AsType[env.ParseError](err)
	if !ok {
		return strings.TrimPrefix(err.Error(), "env: ")
	}
	name := parse.Name
	for _, field := range reflect.VisibleFields(reflect.TypeOf(cfg).Elem()) {
		if field.Name == parse.Name {
			name, _, _ = strings.Cut(field.Tag.Get("env"), ",")
		}
	}
	return fmt.Sprintf("%s: the value is no %s", name, parse.Type)
}

// readFiles replaces each NAME_FILE of a secret by NAME with the content of the file.
func readFiles(environ []string) (values map[string]string, problems []string) {
	values = env.ToMap(environ)
	for _, name := range secretVariables {
		path := values[name+"_FILE"]
		if path == "" {
			continue
		}
		if values[name] != "" {
			problems = append(problems, fmt.Sprintf("%s and %s_FILE are both set: choose one", name, name))
			continue
		}
		content, err := os.ReadFile(path)
		if err != nil {
			problems = append(problems, fmt.Sprintf("%s_FILE: %v", name, err))
			continue
		}
		values[name] = strings.TrimRight(string(content), "\r\n")
	}
	return values, problems
}

// secretVariables may be given as files.
var secretVariables = []string{
	"DATABASE_WRITE_URL", "DATABASE_READ_URL", "DATABASE_MIGRATE_URL", "REDIS_URL", "AUTH_REDIS_URL",
	"JWT_SECRET_KEY", "RABBITMQ_URL",
}
