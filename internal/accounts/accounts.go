// Package accounts is the domain: users, contacts, groups, contact types and memberships. It alone
// calls the generated functions and the cache, it canonicalises what comes in (internal/identifier)
// and renders the JSON documents that are cached. It knows nothing of HTTP.
//
// Every error is an *errcode.Error, a cancelled context, or a fault of ours.
package accounts

import (
	"context"
	"errors"
	"runtime"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/payment-services/accounts/internal/cache"
	"github.com/payment-services/accounts/internal/dbgen/write"
	"github.com/payment-services/accounts/internal/errcode"
	"github.com/payment-services/accounts/internal/identifier"
	"github.com/payment-services/accounts/internal/postgres"
)

// minReading is how many uploaded files are read at once on a machine with few processors.
const minReading = 2

// Config is what New needs.
type Config struct {
	Primary *postgres.Primary
	Cache   *cache.Cache // reads go where its protocol sends them
	Parser  *identifier.Parser

	UserLife       time.Duration // of cached users and identifiers
	DictionaryLife time.Duration // of the two cached dictionaries
	SchemaVersion  int64         // the newest migration that this build knows

	// ReadFunctions and WriteFunctions are the signatures of those that this build calls.
	ReadFunctions, WriteFunctions []string
}

// Service answers all questions about accounts. Safe for concurrent use.
type Service struct {
	primary *postgres.Primary
	cache   *cache.Cache
	parser  *identifier.Parser

	userLife, dictionaryLife time.Duration
	schema                   *schemaCheck

	staged  chan struct{} // wakes RunImports
	reading chan struct{} // one element for each uploaded file that is being read
}

// New returns the service.
func New(cfg Config) *Service {
	return &Service{
		primary: cfg.Primary, cache: cfg.Cache, parser: cfg.Parser,
		userLife: cfg.UserLife, dictionaryLife: cfg.DictionaryLife,
		schema:  newSchemaCheck(cfg),
		staged:  make(chan struct{}, 1),
		reading: make(chan struct{}, max(minReading, runtime.GOMAXPROCS(0))),
	}
}

// Answer is a document that is ready to be sent.
type Answer struct {
	Body        []byte // JSON; nil if NotModified
	ETag        string // strong and quoted
	NotModified bool   // the If-None-Match of the call names this ETag
	Origin
}

// Origin says where an answer came from.
type Origin struct {
	Cache  cache.Status // hit, miss, bypass
	Source cache.Source // cache, replica, primary
}

// change is what a write function reports of itself.
type change struct {
	touched  []string
	outboxID *int64
}

// write calls one write function and invalidates what it touched, also when nobody knows whether it
// was committed.
func (s *Service) write(ctx context.Context, fn func(context.Context, write.Querier) (change, error)) error {
	deadline, cancel := context.WithTimeout(ctx, postgres.WriteTimeout)
	defer cancel()
	if !s.cache.AwaitCurrent(deadline, postgres.WriteRetryBudget) {
		return &errcode.Error{
			Code: errcode.Database, RetryAfter: time.Second,
			Message: "the database was failed over a moment ago; nothing was changed",
		}
	}
	var made change
	err := s.primary.Write(deadline, func(ctx context.Context, q write.Querier) (err error) {
		made, err = fn(ctx, q)
		return err
	})
	switch {
	case err == nil:
		s.cache.Invalidate(ctx, made.touched, made.outboxID)
	case errcode.Of(err) == errcode.OutcomeUnknown:
		s.cache.Invalidate(ctx, made.touched, nil) // if it was committed, the relay has its row
	}
	return err
}

// read runs an uncached read that belongs to keys; what is not there becomes missing
// (nil for lists, which are never missing).
func (s *Service) read(ctx context.Context, keys []cache.Key, missing error, query cache.Query) (Origin, error) {
	source, err := s.cache.Read(ctx, keys, query)
	if errors.Is(err, pgx.ErrNoRows) && missing != nil {
		err = missing
	}
	return Origin{Cache: cache.Bypass, Source: source}, err
}
