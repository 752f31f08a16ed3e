package auth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const (
	// clockLeeway forgives an issuer whose clock is ahead of ours: it applies to nbf only. An expired
	// token gets none, because its revocation key expires in Redis together with the token: in a
	// leeway after exp a revoked token would live again.
	clockLeeway = 5 * time.Second
	// maxJTIBytes bounds the Redis key. A jti is an opaque text; it needs no other check.
	maxJTIBytes = 256
	// tokenGeneration is the size of one of the two generations of verified tokens: 16,384 senders
	// at once, about 8 MB.
	tokenGeneration = 8192
)

// The reasons of our own key function; jwt wraps them.
var (
	errUnknownKey      = errors.New("unknown signing key")
	errKeysUnavailable = errors.New("signing keys unavailable")
	errCriticalHeader  = errors.New("critical header")
)

// Sign returns an HS256 token with a random jti for sub, valid for ttl from now. With nil scopes it
// has no scope claim; issuer and audience are left out when empty. It serves `server token`,
// `make run` and tests; real tokens come from the auth service.
func Sign(secret []byte, sub string, scopes []string, ttl time.Duration, issuer, audience string) (string, error) {
	switch {
	case len(secret) < minSecretBytes:
		return "", fmt.Errorf("sign token: the secret must have at least %d bytes", minSecretBytes)
	case sub == "":
		return "", errors.New("sign token: the subject is empty")
	case ttl <= 0:
		return "", errors.New("sign token: the lifetime must be positive")
	}
	now := time.Now()
	claims := jwt.MapClaims{"sub": sub, "jti": rand.Text(), "iat": now.Unix(), "exp": now.Add(ttl).Unix()}
	if scopes != nil {
		claims["scope"] = strings.Join(scopes, " ")
	}
	if issuer != "" {
		claims["iss"] = issuer
	}
	if audience != "" {
		claims["aud"] = audience
	}
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString(secret)
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	return token, nil
}

// verifiedToken is what is known of a token whose signature and claims were found good.
type verifiedToken struct {
	principal     Principal
	revocationKey string
	expires       time.Time
	keys          *keySet // the set that verified it: a later set may lack its key
}

// verify checks the signature and the claims of a token that the cache does not know.
func (v *Verifier) verify(ctx context.Context, token string, hash [sha256.Size]byte) (*verifiedToken, error) {
	// base64 decoders skip CR and LF: inside the signature they would give one token many hashes.
	if strings.ContainsAny(token, "\r\n") {
		return nil, refused("token malformed")
	}
	var keys *keySet
	// MapClaims, not a struct: encoding/json would take "SUB" or "Exp" for the claim too.
	claims := jwt.MapClaims{}
	_, err := v.parser.ParseWithClaims(token, claims, func(t *jwt.Token) (key any, err error) {
		if _, ok := t.Header["crit"]; ok {
			return nil, errCriticalHeader // RFC 7515 section 4.1.11: we understand none
		}
		kid, _ := t.Header["kid"].(string)
		key, keys, err = v.keys.find(ctx, t.Method.Alg(), kid)
		return key, err
	})
	if err != nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("verify token: %w", context.Cause(ctx))
		}
		return nil, refusal(err)
	}

	exp, err := claims.GetExpirationTime()
	if err != nil || exp == nil {
		return nil, refused("token has no exp claim")
	}
	if !v.now().Before(exp.Time) {
		return nil, refused("token expired")
	}
	sub, err := claims.GetSubject()
	if err != nil || sub == "" {
		return nil, refused("token has no sub claim")
	}
	jti, _ := claims["jti"].(string)
	if jti == "" && v.pattern.usesJTI() {
		return nil, refused("token has no jti claim")
	}
	if len(jti) > maxJTIBytes {
		return nil, refused("token has a jti claim that is too long")
	}
	scopes, err := v.scopes(claims)
	if err != nil {
		return nil, err
	}
	return &verifiedToken{
		principal:     Principal{Subject: sub, Scopes: scopes},
		revocationKey: v.pattern.key(jti, hex.EncodeToString(hash[:])),
		expires:       exp.Time,
		keys:          keys,
	}, nil
}

// refusal turns an error of the parser, whose text may quote the token, into one for the client.
func refusal(err error) error {
	switch {
	case errors.Is(err, errKeysUnavailable):
		return unavailable("the signing keys are unavailable", err)
	case errors.Is(err, errUnknownKey):
		return refused("token signed with an unknown key")
	case errors.Is(err, errCriticalHeader):
		return refused("token has a critical header that is not supported")
	case errors.Is(err, jwt.ErrTokenMalformed):
		return refused("token malformed")
	case errors.Is(err, jwt.ErrTokenUnverifiable), errors.Is(err, jwt.ErrTokenSignatureInvalid):
		return refused("token signature or algorithm not accepted")
	case errors.Is(err, jwt.ErrTokenExpired):
		return refused("token expired")
	case errors.Is(err, jwt.ErrTokenNotValidYet):
		return refused("token not valid yet")
	case errors.Is(err, jwt.ErrTokenInvalidIssuer):
		return refused("token of another issuer")
	case errors.Is(err, jwt.ErrTokenInvalidAudience):
		return refused("token for another audience")
	case errors.Is(err, jwt.ErrTokenRequiredClaimMissing):
		return refused("token has no iss or no aud claim")
	default:
		return refused("token has a malformed claim")
	}
}

// scopes returns the union of the scope and scopes claims. A claim that is there but empty or null
// grants nothing: the defaults are for tokens whose issuer knows no scopes.
func (v *Verifier) scopes(claims jwt.MapClaims) ([]string, error) {
	scope, hasScope := claims["scope"]
	list, hasScopes := claims["scopes"]
	if !hasScope && !hasScopes {
		return v.defaultScopes, nil
	}
	var granted []string
	for _, claim := range []any{scope, list} {
		switch c := claim.(type) {
		case nil:
		case string:
			granted = append(granted, strings.Fields(c)...)
		case []any:
			for _, element := range c {
				s, ok := element.(string)
				if !ok {
					return nil, refused("token has a malformed scope claim")
				}
				granted = append(granted, s)
			}
		default:
			return nil, refused("token has a malformed scope claim")
		}
	}
	return granted, nil
}

// tokenCache remembers verified tokens by their SHA-256, so that a signature is checked once and not
// in each request. Two generations bound it: when the young one is full it becomes the old one, and
// what nobody asked for since the last change is forgotten. Refused tokens are not kept, so strangers
// cannot fill it.
type tokenCache struct {
	mu         sync.Mutex
	young, old map[[sha256.Size]byte]*verifiedToken
}

func newTokenCache() *tokenCache {
	return &tokenCache{young: make(map[[sha256.Size]byte]*verifiedToken)}
}

// get returns the token if it was verified with these keys and has not expired.
func (c *tokenCache) get(hash [sha256.Size]byte, keys *keySet, now time.Time) (*verifiedToken, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	token, young := c.young[hash]
	if !young {
		var old bool
		if token, old = c.old[hash]; !old {
			return nil, false
		}
		delete(c.old, hash)
	}
	if token.keys != keys || !now.Before(token.expires) {
		delete(c.young, hash)
		return nil, false
	}
	if !young {
		c.store(hash, token)
	}
	return token, true
}

func (c *tokenCache) put(hash [sha256.Size]byte, token *verifiedToken) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.store(hash, token)
}

// store adds a token that is not in the young generation, or replaces one there.
func (c *tokenCache) store(hash [sha256.Size]byte, token *verifiedToken) {
	if len(c.young) >= tokenGeneration {
		c.young, c.old = make(map[[sha256.Size]byte]*verifiedToken), c.young
	}
	c.young[hash] = token
}
