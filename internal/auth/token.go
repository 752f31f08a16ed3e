package auth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const (
	// minIssueSkew is how far iat and nbf may be in the future if Config.ClockSkew is less: the clock of
	// an issuer may be a little ahead.
	minIssueSkew = 5 * time.Second
	// maxJTIBytes bounds the Redis key. A jti is an opaque text; it needs no other check.
	maxJTIBytes = 256
	// maxVerifiedTokens bounds the tokens whose verification is remembered: about 8 MB. The cache has no
	// expiry, because each token has a different one; Authenticate checks it.
	maxVerifiedTokens = 16384
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
	expires := exp.Add(v.clockSkew)
	if !v.now().Before(expires) {
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
		principal:     Principal{Subject: sub, Scopes: scopes, TokenID: tokenID(token)},
		revocationKey: v.pattern.key(jti, hex.EncodeToString(hash[:])),
		expires:       expires,
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
	case errors.Is(err, jwt.ErrTokenNotValidYet), errors.Is(err, jwt.ErrTokenUsedBeforeIssued):
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

// tokenID returns the hash of the signed part of a token. The signature is left out, because ES256 has
// two valid ones for each token.
func tokenID(token string) string {
	sum := sha256.Sum256([]byte(token[:strings.LastIndexByte(token, '.')]))
	return hex.EncodeToString(sum[:16])
}

// scopes returns the union of the scope claims. A claim that is present but empty or null grants
// nothing: the defaults are for tokens whose issuer does not use scopes.
func (v *Verifier) scopes(claims jwt.MapClaims) ([]string, error) {
	var granted []string
	present := false
	for _, name := range v.scopeClaims {
		claim, ok := claims[name]
		if !ok {
			continue
		}
		present = true
		scopes, ok := scopesOf(claim)
		if !ok {
			return nil, refused("token has a malformed scope claim")
		}
		granted = append(granted, scopes...)
	}
	if !present {
		return v.defaultScopes, nil
	}
	return granted, nil
}

// scopesOf returns the scopes of one claim: a text that separates them by spaces (RFC 8693, section
// 4.2), or an array of texts, each of which is one scope.
func scopesOf(claim any) (scopes []string, ok bool) {
	switch claim := claim.(type) {
	case nil:
		return nil, true
	case string:
		return strings.Fields(claim), true
	case []any:
		for _, element := range claim {
			scope, ok := element.(string)
			if !ok {
				return nil, false
			}
			scopes = append(scopes, scope)
		}
		return scopes, true
	}
	return nil, false
}
