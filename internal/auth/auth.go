// Package auth decides who sent a request: it verifies the signature and the claims of a JWT, asks
// the revocation list of the auth service (a Redis of its own) on every request, and reports the
// scopes that the token grants. internal/http decides which scope a route needs.
//
// The order of one Authenticate: size, signature and claims (remembered by the token's hash until
// it expires), then EXISTS on the revocation list. While that Redis is unreachable, Config.Outage
// decides; see Outage for what each policy exposes.
package auth

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/payment-services/accounts/internal/errcode"
)

// The scopes of the service.
const (
	ScopeRead  = "accounts:read"
	ScopeWrite = "accounts:write"
)

const (
	// maxTokenBytes bounds what a client can make us decode. Real tokens have 300 to 2,000 bytes.
	maxTokenBytes = 8 << 10
	// retryAfter is what a client is told when the answer is 503: long enough for the next probe of
	// Redis or the next fetch of the keys, short enough not to be felt.
	retryAfter = time.Second
)

// Principal is the authenticated sender of a request.
type Principal struct {
	// Subject is the sub claim: the id of a user, or the name of a service.
	Subject string
	// Scopes are those of the token, or Config.DefaultScopes if it has no scope claim. The slice is
	// shared between requests and must not be changed.
	Scopes []string
	// TokenID identifies the token: a hash of what its issuer signed. It is the same however the
	// Authorization header is spelled, and whichever of several valid signatures the token has.
	TokenID string
}

// Has reports whether the token grants this scope.
func (p Principal) Has(scope string) bool { return slices.Contains(p.Scopes, scope) }

// Verifier authenticates tokens. It is safe for concurrent use.
type Verifier struct {
	parser        *jwt.Parser
	keys          *keyring
	tokens        *lru.Cache[[sha256.Size]byte, *verifiedToken] // by the hash of the token
	revocations   *revocations
	pattern       keyPattern
	scopeClaims   []string
	defaultScopes []string
	clockSkew     time.Duration // after exp
	now           func() time.Time
}

// New returns a Verifier, or one error that names every problem of cfg. It calls neither Redis nor
// the JWKS server: both may be down when the service starts.
func New(cfg Config) (*Verifier, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	return newVerifier(cfg, time.Now), nil
}

func newVerifier(cfg Config, now func() time.Time) *Verifier {
	options := []jwt.ParserOption{
		jwt.WithValidMethods(cfg.algorithms()),
		jwt.WithLeeway(max(cfg.ClockSkew, minIssueSkew)),
		jwt.WithIssuedAt(),
		jwt.WithTimeFunc(now),
		// Without it the last character of a signature can be changed and the token still verifies,
		// under another {token_sha256}.
		jwt.WithStrictDecoding(),
	}
	if cfg.Issuer != "" {
		options = append(options, jwt.WithIssuer(cfg.Issuer))
	}
	if cfg.Audience != "" {
		options = append(options, jwt.WithAudience(cfg.Audience))
	}
	tokens, err := lru.New[[sha256.Size]byte, *verifiedToken](maxVerifiedTokens)
	if err != nil {
		panic(err) // the size is a positive constant
	}
	pattern := keyPattern(cfg.RevocationKey)
	return &Verifier{
		parser:        jwt.NewParser(options...),
		keys:          newKeyring(cfg, now),
		tokens:        tokens,
		revocations:   newRevocations(cfg, pattern, now),
		pattern:       pattern,
		scopeClaims:   cfg.scopeClaims(),
		defaultScopes: slices.Clone(cfg.DefaultScopes),
		clockSkew:     cfg.ClockSkew,
		now:           now,
	}
}

// Run keeps the snapshot of the revocation list and the keys of the JWKS server fresh, as far as
// the configuration uses them, and returns when ctx ends. Without it Authenticate still works, but
// the snapshot policy has no snapshot.
func (v *Verifier) Run(ctx context.Context) {
	var loops sync.WaitGroup
	if v.revocations.snapshot != nil {
		loops.Go(func() { v.revocations.snapshot.run(ctx) })
	}
	if v.keys.url != "" {
		loops.Go(func() { v.keys.run(ctx) })
	}
	loops.Wait()
}

// BearerToken returns the token of a request's Authorization headers: one, with the scheme Bearer in
// any case, spaces, and the token. Its errors are Unauthenticated and quote nothing of the header.
func BearerToken(headers []string) (string, error) {
	if len(headers) == 0 {
		return "", refused("this route needs a bearer token")
	}
	scheme, token, _ := strings.Cut(headers[0], " ")
	token = strings.Trim(token, " ")
	if len(headers) > 1 || !strings.EqualFold(scheme, "Bearer") || token == "" {
		return "", refused("Authorization must be one bearer token")
	}
	return token, nil
}

// Authenticate returns the sender of a token, as BearerToken returned it. Its errors are
// *errcode.Error: Unauthenticated, whose message says what is wrong with the token and quotes
// nothing of it, or RevocationUnavailable with RetryAfter when the list, or the signing keys, cannot
// be had now. If ctx ended first, the error wraps the cause of that instead.
//
// It waits for Redis at most askTimeout, and for a JWKS server at most jwksTimeout when a token names
// a key that is not known yet.
func (v *Verifier) Authenticate(ctx context.Context, token string) (Principal, error) {
	if len(token) > maxTokenBytes {
		return Principal{}, refused("token too long")
	}
	hash := sha256.Sum256([]byte(token))
	known, ok := v.tokens.Get(hash)
	if ok && (known.keys != v.keys.set.Load() || !v.now().Before(known.expires)) {
		v.tokens.Remove(hash)
		ok = false
	}
	if !ok {
		var err error
		if known, err = v.verify(ctx, token, hash); err != nil {
			return Principal{}, err
		}
		v.tokens.Add(hash, known) // refused tokens are not kept, so strangers cannot fill the cache
	}
	revoked, err := v.revocations.contains(ctx, known.revocationKey)
	if err != nil {
		return Principal{}, err
	}
	if revoked {
		return Principal{}, refused("token revoked")
	}
	return known.principal, nil
}

func refused(message string) error { return errcode.New(errcode.Unauthenticated, message) }

func unavailable(message string, cause error) error {
	return &errcode.Error{
		Code:       errcode.RevocationUnavailable,
		Message:    message,
		RetryAfter: retryAfter,
		Cause:      cause,
	}
}

// every calls task at once and again after each pause that it returns, until ctx ends.
func every(ctx context.Context, task func(context.Context) (pause time.Duration)) {
	for sleep(ctx, task(ctx)) {
	}
}

// sleep waits for d and reports whether ctx is still alive.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return ctx.Err() == nil
	}
}

// failureLog logs the first failure of a series and its end, so that an outage is two lines.
type failureLog struct {
	logger  *slog.Logger
	what    string
	failing bool
}

func (l *failureLog) report(ctx context.Context, err error) {
	switch {
	case ctx.Err() != nil: // the process stops
	case err != nil && !l.failing:
		l.logger.WarnContext(ctx, l.what+" failed", "error", err)
	case err == nil && l.failing:
		l.logger.InfoContext(ctx, l.what+" works again")
	}
	l.failing = err != nil
}
