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
	"github.com/payment-services/accounts/internal/outbox"
	"github.com/payment-services/accounts/internal/routing"
)

// minReading is how many uploaded files are read at once on a machine with few processors.
const minReading = 2

// Config is what New needs.
type Config struct {
	Router *routing.Router
	Cache  *cache.Cache
	Outbox *outbox.Outbox
	Parser *identifier.Parser

	UserTTL       time.Duration // of cached users and identifiers
	DictionaryTTL time.Duration // of the two cached dictionaries
	SchemaVersion int64         // the newest migration that this build knows

	// ReadFunctions and WriteFunctions are the signatures of those that this build calls.
	ReadFunctions, WriteFunctions []string
}

// Service is the domain service. Safe for concurrent use.
type Service struct {
	router *routing.Router
	cache  *cache.Cache
	outbox *outbox.Outbox
	parser *identifier.Parser

	userTTL, dictionaryTTL time.Duration
	schema                 *schemaCheck

	staged  chan struct{} // wakes RunImports
	reading chan struct{} // one element for each uploaded file that is being read
}

// New returns the service.
func New(cfg Config) *Service {
	return &Service{
		router: cfg.Router, cache: cfg.Cache, outbox: cfg.Outbox, parser: cfg.Parser,
		userTTL: cfg.UserTTL, dictionaryTTL: cfg.DictionaryTTL,
		schema:  newSchemaCheck(cfg),
		staged:  make(chan struct{}, 1),
		reading: make(chan struct{}, max(minReading, runtime.GOMAXPROCS(0))),
	}
}

// Answer is a document that is ready to be sent.
type Answer struct {
	Body        []byte // JSON; nil if NotModified
	Tag         string // the strong entity tag, without quotes
	NotModified bool   // one of the call's tags is this one
	Version     int64  // of a user that was written, or whose version was not the expected one; else 0
	Active      bool   // whether the document's user is active; false for dictionaries
	Origin
}

// Origin says where an answer came from.
type Origin struct {
	Cache  cache.Status   // hit, miss, bypass
	Server routing.Server // cache, replica, primary
}

// change is what a write function reports of itself.
type change struct {
	touched  []string
	outboxID *int64
}

// write calls one write function and invalidates what it touched, also if the outcome of the commit is
// unknown.
func (s *Service) write(ctx context.Context, fn func(context.Context, write.Querier) (change, error)) error {
	var made change
	err := s.router.Write(ctx, func(ctx context.Context, q write.Querier) (err error) {
		made, err = fn(ctx, q)
		return err
	})
	switch {
	case err == nil:
		s.outbox.Invalidate(ctx, made.touched, made.outboxID)
	case errcode.Of(err) == errcode.OutcomeUnknown:
		s.outbox.Invalidate(ctx, made.touched, nil) // if it was committed, the relay has its row
	}
	return err
}

// read runs a query that is not cached and reads data of keys. If there is no row, it returns missing,
// unless missing is nil (lists).
func (s *Service) read(ctx context.Context, keys []cache.Key, missing error, query routing.Query) (Origin, error) {
	server, err := s.cache.Read(ctx, keys, query)
	if errors.Is(err, pgx.ErrNoRows) && missing != nil {
		err = missing
	}
	return Origin{Cache: cache.Bypass, Server: server}, err
}
