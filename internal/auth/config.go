package auth

import (
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// minSecretBytes is the output size of SHA-256: RFC 7518 section 3.2 forbids a shorter HS256 key.
const minSecretBytes = 32

// defaultRevocationKey is where the inherited auth service puts revoked tokens.
const defaultRevocationKey = keyPattern("black_list_access_tokens:" + placeholderJTI)

// The algorithms; with a JWKS a key serves only the one of its own type.
const (
	algHS256 = "HS256"
	algRS256 = "RS256"
	algES256 = "ES256"
	algEdDSA = "EdDSA"
)

// MaxClockSkew is the largest difference between clocks that can be configured.
const MaxClockSkew = 5 * time.Minute

// maxClaimNameBytes bounds the name of the scope claim.
const maxClaimNameBytes = 256

// registeredClaims have another meaning (RFC 7519, section 4.1).
var registeredClaims = []string{"iss", "sub", "aud", "exp", "nbf", "iat", "jti"}

// Outage says how tokens are judged while the Redis of the revocation list is unreachable.
type Outage string

const (
	// OutageSnapshot decides by this process's own copy of the list, at most snapshotMaxAge old, and
	// without one like OutageDeny. Nobody can revoke while Redis is down; exposed are revocations
	// made in the last seconds before (snapshotInterval), and all later ones if it is only this
	// process that is cut off.
	OutageSnapshot Outage = "snapshot"
	// OutageDeny answers every request with RevocationUnavailable.
	OutageDeny Outage = "deny"
	// OutageAllow accepts every token that is otherwise valid, revoked ones too.
	OutageAllow Outage = "allow"
)

// Config configures a Verifier.
type Config struct {
	// SecretKey verifies HS256 tokens; at least 32 bytes. Either it or JWKSURL is set.
	SecretKey []byte
	// Algorithm is the only accepted one: HS256 (the default) with SecretKey; RS256, ES256 or EdDSA
	// with JWKSURL, where empty accepts these three.
	Algorithm string
	// JWKSURL is the http(s) address of the issuer's public keys (RFC 7517).
	JWKSURL string
	// Issuer is the iss that a token must have; empty accepts any.
	Issuer string
	// Audience must be among the aud of a token; empty accepts any.
	Audience string
	// RevocationKey is the pattern of the Redis key whose existence revokes a token: any text with
	// {jti}, {token_sha256} (hex of the whole token) or both. Default black_list_access_tokens:{jti}.
	RevocationKey string
	// RevocationOutage is the policy while Redis is unreachable; OutageSnapshot by default.
	RevocationOutage Outage
	// ScopeClaim is the name of the claim that holds the scopes, as a text or an array. If it is empty,
	// the scopes are those of the claims scope, scopes and scp together.
	ScopeClaim string
	// DefaultScopes are granted to tokens that have no scope claim.
	DefaultScopes []string
	// ClockSkew is how much the clocks of the issuer and of this process may differ, at most
	// MaxClockSkew: a token is accepted until exp + ClockSkew, and iat and nbf may be that far in the
	// future, or minIssueSkew if that is more. 0 by default, because auth services let the revocation
	// entry of a token expire at exp: after that a revoked token would be accepted again.
	ClockSkew time.Duration
	// Redis holds the revocation list; see NewRedis. The caller closes it after Run has returned.
	Redis *redis.Client
	// Logger is told when Redis or the JWKS server goes and comes back; slog.Default() if nil.
	Logger *slog.Logger
}

// complete fills in the defaults and returns all problems as one error. Its texts name the
// environment variables of the service, for they are what its reader can change.
func (c *Config) complete() error {
	if c.RevocationKey == "" {
		c.RevocationKey = string(defaultRevocationKey)
	}
	if c.RevocationOutage == "" {
		c.RevocationOutage = OutageSnapshot
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}

	problems := c.keyProblems()
	report := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	pattern := keyPattern(c.RevocationKey)
	if !pattern.usesJTI() && !pattern.usesToken() {
		report("AUTH_REVOCATION_KEY must contain %s or %s", placeholderJTI, placeholderToken)
	}
	if pattern.usesToken() && slices.Contains(c.algorithms(), algES256) {
		// From (r, s) anyone makes (r, n-s): the same token under another hash.
		report("AUTH_REVOCATION_KEY uses %s, which ES256 cannot: its signatures can be rewritten into "+
			"other valid ones; use %s or set JWT_ALGORITHM to RS256 or EdDSA", placeholderToken, placeholderJTI)
	}
	if !slices.Contains([]Outage{OutageSnapshot, OutageDeny, OutageAllow}, c.RevocationOutage) {
		report("AUTH_REVOCATION_OUTAGE must be snapshot, deny or allow")
	}
	if c.ClockSkew < 0 || c.ClockSkew > MaxClockSkew {
		report("AUTH_CLOCK_SKEW must be from 0s to %s", MaxClockSkew)
	}
	if len(c.ScopeClaim) > maxClaimNameBytes || slices.Contains(registeredClaims, c.ScopeClaim) {
		report("AUTH_SCOPE_CLAIM must be the name of a claim for scopes, such as scp or permissions")
	}
	for _, scope := range c.DefaultScopes {
		if scope != ScopeRead && scope != ScopeWrite {
			report("AUTH_DEFAULT_SCOPES may name %s and %s only", ScopeRead, ScopeWrite)
			break
		}
	}
	if c.Redis == nil {
		report("AUTH_REDIS_URL is required")
	}
	if len(problems) > 0 {
		return fmt.Errorf("auth configuration: %w", errors.Join(problems...))
	}
	return nil
}

func (c *Config) keyProblems() []error {
	switch {
	case len(c.SecretKey) > 0 && c.JWKSURL != "":
		return []error{errors.New("JWT_SECRET_KEY and JWT_JWKS_URL are both set: choose one")}
	case len(c.SecretKey) == 0 && c.JWKSURL == "":
		return []error{errors.New("JWT_SECRET_KEY or JWT_JWKS_URL is required")}
	}

	var problems []error
	if c.JWKSURL == "" {
		if len(c.SecretKey) < minSecretBytes {
			problems = append(problems, fmt.Errorf("JWT_SECRET_KEY must have at least %d bytes", minSecretBytes))
		}
		if c.Algorithm != "" && c.Algorithm != algHS256 {
			problems = append(problems, errors.New("JWT_ALGORITHM must be HS256 with JWT_SECRET_KEY"))
		}
		return problems
	}
	u, err := url.Parse(c.JWKSURL)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		problems = append(problems, errors.New("JWT_JWKS_URL must be an http or https URL"))
	}
	if c.Algorithm != "" && !slices.Contains([]string{algRS256, algES256, algEdDSA}, c.Algorithm) {
		problems = append(problems,
			errors.New("JWT_ALGORITHM must be RS256, ES256, EdDSA or empty with JWT_JWKS_URL"))
	}
	return problems
}

// scopeClaims lists the names of the claims that may hold scopes.
func (c *Config) scopeClaims() []string {
	if c.ScopeClaim != "" {
		return []string{c.ScopeClaim}
	}
	return []string{"scope", "scopes", "scp"}
}

// algorithms lists what the parser may accept.
func (c *Config) algorithms() []string {
	switch {
	case c.JWKSURL == "":
		return []string{algHS256}
	case c.Algorithm == "":
		return []string{algRS256, algES256, algEdDSA}
	default:
		return []string{c.Algorithm}
	}
}

// keyPattern is the pattern of a revocation key.
type keyPattern string

const (
	placeholderJTI   = "{jti}"
	placeholderToken = "{token_sha256}"
)

func (p keyPattern) usesJTI() bool   { return strings.Contains(string(p), placeholderJTI) }
func (p keyPattern) usesToken() bool { return strings.Contains(string(p), placeholderToken) }

// key returns the Redis key of one token. A placeholder inside jti is not expanded again.
func (p keyPattern) key(jti, tokenSHA256 string) string {
	return strings.NewReplacer(placeholderJTI, jti, placeholderToken, tokenSHA256).Replace(string(p))
}

// glob returns the pattern for SCAN MATCH that finds all keys of the list.
func (p keyPattern) glob() string {
	return strings.NewReplacer(
		placeholderJTI, "*", placeholderToken, "*",
		`*`, `\*`, `?`, `\?`, `[`, `\[`, `]`, `\]`, `\`, `\\`,
	).Replace(string(p))
}
