package auth

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/errcode"
)

const testIssuer, testAudience = "https://issuer.example", "accounts"

var testSecret = []byte("0123456789abcdef0123456789abcdef")

// clock is a clock that tests move by hand.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Now()} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// newTestVerifier returns a Verifier on the shared Redis unless cfg says otherwise.
func newTestVerifier(t testing.TB, cfg Config, now func() time.Time) *Verifier {
	t.Helper()
	if cfg.JWKSURL == "" {
		cfg.SecretKey = testSecret
	}
	if cfg.Redis == nil {
		cfg.Redis = sharedRedis.client(t)
	}
	cfg.Logger = discard()
	require.NoError(t, cfg.complete())
	return newVerifier(cfg, now)
}

func validClaims() jwt.MapClaims {
	return jwt.MapClaims{
		"sub": "0199a1b2-0000-7000-8000-000000000001", "jti": rand.Text(), "exp": time.Now().Add(time.Hour).Unix(),
		"iss": testIssuer, "aud": testAudience, "scope": ScopeRead,
	}
}

func sign(t testing.TB, claims jwt.MapClaims) string {
	return signWith(t, jwt.SigningMethodHS256, nil, testSecret, claims)
}

func signWith(t testing.TB, method jwt.SigningMethod, header map[string]any, key any, claims jwt.MapClaims) string {
	t.Helper()
	token := jwt.NewWithClaims(method, claims)
	for name, value := range header {
		token.Header[name] = value
	}
	text, err := token.SignedString(key)
	require.NoError(t, err)
	return text
}

// requireRefused checks that err is Unauthenticated with this message.
func requireRefused(t testing.TB, err error, message string) {
	t.Helper()
	var coded *errcode.Error
	require.ErrorAs(t, err, &coded)
	require.Equal(t, errcode.Unauthenticated, coded.Code)
	require.Equal(t, message, coded.Message)
}

func requireUnavailable(t testing.TB, err error) {
	t.Helper()
	var coded *errcode.Error
	require.ErrorAs(t, err, &coded)
	require.Equal(t, errcode.RevocationUnavailable, coded.Code)
	require.Positive(t, coded.RetryAfter)
}

func TestAuthenticate(t *testing.T) {
	t.Parallel()
	v := newTestVerifier(t, Config{Issuer: testIssuer, Audience: testAudience}, time.Now)
	token := sign(t, validClaims())
	for range 2 { // the second time from the cache
		principal, err := v.Authenticate(t.Context(), token)
		require.NoError(t, err)
		require.Equal(t, Principal{
			Subject: "0199a1b2-0000-7000-8000-000000000001", Scopes: []string{ScopeRead}, TokenID: tokenID(token),
		}, principal)
		require.True(t, principal.Has(ScopeRead))
		require.False(t, principal.Has(ScopeWrite))
	}
	require.Equal(t, 1, v.tokens.Len())
}

func TestAuthenticateSigned(t *testing.T) {
	t.Parallel()
	v := newTestVerifier(t, Config{Issuer: testIssuer, Audience: testAudience}, time.Now)
	token, err := Sign(testSecret, "reporting", []string{ScopeRead, ScopeWrite}, time.Minute, testIssuer, testAudience)
	require.NoError(t, err)
	principal, err := v.Authenticate(t.Context(), token)
	require.NoError(t, err)
	require.Equal(t, Principal{Subject: "reporting", Scopes: []string{ScopeRead, ScopeWrite}, TokenID: tokenID(token)}, principal)

	_, err = Sign(testSecret[:31], "reporting", nil, time.Minute, "", "")
	require.Error(t, err)
	_, err = Sign(testSecret, "", nil, time.Minute, "", "")
	require.Error(t, err)
	_, err = Sign(testSecret, "reporting", nil, 0, "", "")
	require.Error(t, err)
}

func TestAuthenticateClaims(t *testing.T) {
	t.Parallel()
	v := newTestVerifier(t, Config{Issuer: testIssuer, Audience: testAudience}, time.Now)
	for name, test := range map[string]struct {
		change func(jwt.MapClaims)
		want   string // empty: accepted
	}{
		"aud is one of a list": {func(c jwt.MapClaims) { c["aud"] = []string{"other", testAudience} }, ""},
		"nbf within leeway":    {func(c jwt.MapClaims) { c["nbf"] = time.Now().Add(minIssueSkew - time.Second).Unix() }, ""},
		"iat within leeway":    {func(c jwt.MapClaims) { c["iat"] = time.Now().Add(minIssueSkew - time.Second).Unix() }, ""},
		"jti of any characters": {func(c jwt.MapClaims) {
			c["jti"] = rand.Text() + "* ?[a]\\{jti}\r\n\x00:\"" + strings.Repeat("я", 100)
		}, ""},
		"expired":           {func(c jwt.MapClaims) { c["exp"] = time.Now().Add(-time.Second).Unix() }, "token expired"},
		"expired long ago":  {func(c jwt.MapClaims) { c["exp"] = 1 }, "token expired"},
		"exp of year 1e300": {func(c jwt.MapClaims) { c["exp"] = 1e300 }, "token expired"},
		"nbf":               {func(c jwt.MapClaims) { c["nbf"] = time.Now().Add(time.Minute).Unix() }, "token not valid yet"},
		"iat in the future": {func(c jwt.MapClaims) { c["iat"] = time.Now().Add(time.Minute).Unix() }, "token not valid yet"},
		"iat is text":       {func(c jwt.MapClaims) { c["iat"] = "1" }, "token has a malformed claim"},
		"no exp":            {func(c jwt.MapClaims) { delete(c, "exp") }, "token has no exp claim"},
		"exp null":          {func(c jwt.MapClaims) { c["exp"] = nil }, "token has a malformed claim"},
		"exp is text":       {func(c jwt.MapClaims) { c["exp"] = "9999999999" }, "token has a malformed claim"},
		"EXP":               {func(c jwt.MapClaims) { c["EXP"] = c["exp"]; delete(c, "exp") }, "token has no exp claim"},
		"no sub":            {func(c jwt.MapClaims) { delete(c, "sub") }, "token has no sub claim"},
		"sub is a number":   {func(c jwt.MapClaims) { c["sub"] = 5 }, "token has no sub claim"},
		"no jti":            {func(c jwt.MapClaims) { delete(c, "jti") }, "token has no jti claim"},
		"jti is a number":   {func(c jwt.MapClaims) { c["jti"] = 5 }, "token has no jti claim"},
		"jti too long": {func(c jwt.MapClaims) { c["jti"] = strings.Repeat("j", maxJTIBytes+1) },
			"token has a jti claim that is too long"},
		"wrong iss":       {func(c jwt.MapClaims) { c["iss"] = "https://other.example" }, "token of another issuer"},
		"no iss":          {func(c jwt.MapClaims) { delete(c, "iss") }, "token has no iss or no aud claim"},
		"wrong aud":       {func(c jwt.MapClaims) { c["aud"] = []string{"other"} }, "token for another audience"},
		"no aud":          {func(c jwt.MapClaims) { delete(c, "aud") }, "token has no iss or no aud claim"},
		"scope is number": {func(c jwt.MapClaims) { c["scope"] = 1 }, "token has a malformed scope claim"},
		"scp is object":   {func(c jwt.MapClaims) { c["scp"] = map[string]any{} }, "token has a malformed scope claim"},
		"scopes has number": {func(c jwt.MapClaims) { c["scopes"] = []any{ScopeRead, 1} },
			"token has a malformed scope claim"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			claims := validClaims()
			test.change(claims)
			_, err := v.Authenticate(t.Context(), sign(t, claims))
			if test.want == "" {
				require.NoError(t, err)
				return
			}
			requireRefused(t, err, test.want)
		})
	}
}

func TestAuthenticateForgedTokens(t *testing.T) {
	t.Parallel()
	v := newTestVerifier(t, Config{}, time.Now)
	good := sign(t, validClaims())
	parts := strings.Split(good, ".")
	_, err := v.Authenticate(t.Context(), good)
	require.NoError(t, err)

	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	segment := base64.RawURLEncoding.EncodeToString
	const badSignature = "token signature or algorithm not accepted"
	for name, test := range map[string]struct{ token, want string }{
		"other secret":     {signWith(t, jwt.SigningMethodHS256, nil, []byte(strings.Repeat("x", 32)), validClaims()), badSignature},
		"HS512":            {signWith(t, jwt.SigningMethodHS512, nil, testSecret, validClaims()), badSignature},
		"RS256":            {signWith(t, jwt.SigningMethodRS256, nil, rsaKey, validClaims()), badSignature},
		"none":             {signWith(t, jwt.SigningMethodNone, nil, jwt.UnsafeAllowNoneSignatureType, validClaims()), badSignature},
		"None":             {segment([]byte(`{"alg":"None"}`)) + "." + parts[1] + ".", badSignature},
		"no alg":           {segment([]byte(`{"typ":"JWT"}`)) + "." + parts[1] + "." + parts[2], badSignature},
		"no signature":     {parts[0] + "." + parts[1] + ".", badSignature},
		"swapped parts":    {parts[1] + "." + parts[0] + "." + parts[2], badSignature},
		"critical header":  {signWith(t, jwt.SigningMethodHS256, map[string]any{"crit": []string{"b64"}}, testSecret, validClaims()), "token has a critical header that is not supported"},
		"empty":            {"", "token malformed"},
		"garbage":          {"garbage", "token malformed"},
		"two dots":         {"..", "token malformed"},
		"binary":           {"\x00.\xff.\x00", "token malformed"},
		"JWE":              {good + ".AAAA.AAAA", "token malformed"},
		"padded":           {good + "=", "token malformed"},
		"claims no object": {parts[0] + "." + segment([]byte(`[]`)) + "." + parts[2], "token malformed"},
		"exp 1e400":        {parts[0] + "." + segment([]byte(`{"exp":1e400}`)) + "." + parts[2], "token malformed"},
		"1 MiB":            {strings.Repeat("a", 1<<20), "token too long"},
		"1 MiB of dots":    {strings.Repeat(".", 1<<20), "token too long"},
		// These decode to the same signature and would have a {token_sha256} of their own.
		"other last bits":     {good[:len(good)-1] + string(good[len(good)-1]+1), "token malformed"},
		"newline in the end":  {good + "\n", "token malformed"},
		"newline in the sign": {good[:len(good)-5] + "\r\n" + good[len(good)-5:], "token malformed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := v.Authenticate(t.Context(), test.token)
			requireRefused(t, err, test.want)
		})
	}
	t.Run("HS256 with a public key as the secret", func(t *testing.T) {
		t.Parallel()
		server := newJWKSServer(t)
		server.publish(rsaJWK("a", &rsaKey.PublicKey))
		v := newTestVerifier(t, Config{JWKSURL: server.URL}, time.Now)
		der, err := x509.MarshalPKIXPublicKey(&rsaKey.PublicKey)
		require.NoError(t, err)
		for _, secret := range [][]byte{der, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), nil} {
			token := signWith(t, jwt.SigningMethodHS256, map[string]any{"kid": "a"}, secret, validClaims())
			_, err = v.Authenticate(t.Context(), token)
			requireRefused(t, err, badSignature)
		}
	})
}

func TestAuthenticateScopes(t *testing.T) {
	t.Parallel()
	v := newTestVerifier(t, Config{DefaultScopes: []string{ScopeRead}}, time.Now)
	for name, test := range map[string]struct {
		claims map[string]any
		want   []string
	}{
		"neither":         {nil, []string{ScopeRead}},
		"scope":           {map[string]any{"scope": " accounts:write  other "}, []string{ScopeWrite, "other"}},
		"scopes array":    {map[string]any{"scopes": []string{ScopeWrite, "other"}}, []string{ScopeWrite, "other"}},
		"scopes string":   {map[string]any{"scopes": "accounts:write other"}, []string{ScopeWrite, "other"}},
		"both":            {map[string]any{"scope": ScopeRead, "scopes": []string{ScopeWrite}}, []string{ScopeRead, ScopeWrite}},
		"scp string":      {map[string]any{"scp": "accounts:write other"}, []string{ScopeWrite, "other"}},
		"scp array":       {map[string]any{"scp": []string{ScopeWrite, "other"}}, []string{ScopeWrite, "other"}},
		"scp empty":       {map[string]any{"scp": []string{}}, nil},
		"all three":       {map[string]any{"scope": "a", "scopes": "b", "scp": "c"}, []string{"a", "b", "c"}},
		"another name":    {map[string]any{"permissions": []string{ScopeWrite}}, []string{ScopeRead}},
		"another case":    {map[string]any{"Scope": ScopeWrite, "SCP": ScopeWrite}, []string{ScopeRead}},
		"scope empty":     {map[string]any{"scope": ""}, nil},
		"scope null":      {map[string]any{"scope": nil}, nil},
		"scopes empty":    {map[string]any{"scopes": []string{}}, nil},
		"no prefix match": {map[string]any{"scope": "accounts:reads"}, []string{"accounts:reads"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			claims := validClaims()
			delete(claims, "scope")
			for claim, value := range test.claims {
				claims[claim] = value
			}
			principal, err := v.Authenticate(t.Context(), sign(t, claims))
			require.NoError(t, err)
			require.Equal(t, test.want, principal.Scopes)
		})
	}
}

// A token that was verified once is still refused when it expires.
func TestCachedTokenExpires(t *testing.T) {
	t.Parallel()
	clock := newClock()
	v := newTestVerifier(t, Config{}, clock.Now)
	claims := validClaims()
	claims["exp"] = clock.Now().Add(time.Minute).Unix()
	token := sign(t, claims)
	_, err := v.Authenticate(t.Context(), token)
	require.NoError(t, err)
	clock.advance(time.Minute)
	_, err = v.Authenticate(t.Context(), token)
	requireRefused(t, err, "token expired")
	require.Zero(t, v.tokens.Len())
}

// The cache of verified tokens keeps those in use, drops the others, and does not outlive the keys.
func TestVerifiedTokens(t *testing.T) {
	t.Parallel()
	v := newTestVerifier(t, Config{}, time.Now)
	token := sign(t, validClaims())
	hash := sha256.Sum256([]byte(token))
	_, err := v.Authenticate(t.Context(), token)
	require.NoError(t, err)
	known, ok := v.tokens.Peek(hash)
	require.True(t, ok)
	other := func(i int) [sha256.Size]byte { return sha256.Sum256([]byte{byte(i), byte(i >> 8), byte(i >> 16)}) }
	for i := range 3 * maxVerifiedTokens {
		v.tokens.Add(other(i), known)
		if i%(maxVerifiedTokens/2) == 0 {
			_, err := v.Authenticate(t.Context(), token)
			require.NoError(t, err)
		}
	}
	require.Equal(t, maxVerifiedTokens, v.tokens.Len())
	kept, ok := v.tokens.Peek(hash)
	require.True(t, ok && kept == known, "a token in use is kept")
	require.False(t, v.tokens.Contains(other(0)), "a token that is not used is forgotten")

	v.keys.set.Store(&keySet{secret: testSecret})
	_, err = v.Authenticate(t.Context(), token)
	require.NoError(t, err)
	again, _ := v.tokens.Peek(hash)
	require.NotSame(t, known, again, "a token verified with other keys is verified again")
}

func TestScopeClaim(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"permissions", "https://issuer.example/scope", "scp"} {
		v := newTestVerifier(t, Config{ScopeClaim: name, DefaultScopes: []string{ScopeRead}}, time.Now)
		for _, test := range []struct {
			value any
			want  []string
		}{
			{nil, []string{ScopeRead}}, // no such claim; scope does not count
			{"a " + ScopeWrite, []string{"a", ScopeWrite}},
			{[]string{ScopeWrite}, []string{ScopeWrite}},
		} {
			claims := validClaims()
			claims["scope"], claims["scopes"] = "other", []string{"other"}
			if test.value != nil {
				claims[name] = test.value
			}
			principal, err := v.Authenticate(t.Context(), sign(t, claims))
			require.NoError(t, err)
			require.Equal(t, test.want, principal.Scopes, name)
		}
	}
}

func TestClockSkew(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 0)
	for _, test := range []struct {
		skew     time.Duration
		claim    string
		offset   time.Duration
		accepted bool
	}{
		{0, "exp", time.Second, true}, {0, "exp", 0, false},
		{time.Minute, "exp", -59 * time.Second, true}, {time.Minute, "exp", -60 * time.Second, false},
		{time.Second, "exp", 0, true}, {time.Second, "exp", -2 * time.Second, false},
		{0, "nbf", 5 * time.Second, true}, {0, "nbf", 6 * time.Second, false},
		{time.Minute, "nbf", 60 * time.Second, true}, {time.Minute, "nbf", 61 * time.Second, false},
		{0, "iat", 5 * time.Second, true}, {0, "iat", 6 * time.Second, false},
		{time.Minute, "iat", 60 * time.Second, true}, {time.Minute, "iat", 61 * time.Second, false},
	} {
		clock := &clock{now: now}
		v := newTestVerifier(t, Config{ClockSkew: test.skew}, clock.Now)
		claims := validClaims()
		claims["exp"] = now.Add(time.Hour).Unix()
		claims[test.claim] = now.Add(test.offset).Unix()
		token := sign(t, claims)
		_, err := v.Authenticate(t.Context(), token)
		require.Equal(t, test.accepted, err == nil, "%+v: %v", test, err)
		if test.accepted && test.claim == "exp" { // from the cache it ends at the same time
			clock.advance(test.skew + time.Minute)
			_, err = v.Authenticate(t.Context(), token)
			requireRefused(t, err, "token expired")
		}
	}
}

func TestBearerToken(t *testing.T) {
	t.Parallel()
	for _, header := range []string{"Bearer abc", "bearer abc", "BEARER   abc  ", "bEaReR abc"} {
		token, err := BearerToken([]string{header})
		require.NoError(t, err, header)
		require.Equal(t, "abc", token, header)
	}
	for _, headers := range [][]string{
		nil, {}, {""}, {"Bearer"}, {"Bearer "}, {"Bearer\tabc"}, {" Bearer abc"}, {"Basic abc"}, {"abc"}, {"Bearer abc", "Bearer abc"},
	} {
		_, err := BearerToken(headers)
		require.Equal(t, errcode.Unauthenticated, errcode.Of(err), "%q", headers)
	}
}

// TestTokenID checks that one token has one id, also under the second signature that ES256 allows.
func TestTokenID(t *testing.T) {
	t.Parallel()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	server := newJWKSServer(t)
	server.publish(ecJWK(t, "ec", &key.PublicKey))
	v := newTestVerifier(t, Config{JWKSURL: server.URL}, time.Now)
	token := signWith(t, jwt.SigningMethodES256, map[string]any{"kid": "ec"}, key, validClaims())
	at := strings.LastIndexByte(token, '.') + 1
	signature, err := base64.RawURLEncoding.DecodeString(token[at:])
	require.NoError(t, err)
	half := len(signature) / 2
	s := new(big.Int).SetBytes(signature[half:])
	s.Sub(elliptic.P256().Params().N, s).FillBytes(signature[half:])
	twin := token[:at] + base64.RawURLEncoding.EncodeToString(signature)
	require.NotEqual(t, token, twin)
	first, err := v.Authenticate(t.Context(), token)
	require.NoError(t, err)
	second, err := v.Authenticate(t.Context(), twin)
	require.NoError(t, err)
	require.Equal(t, first.TokenID, second.TokenID)

	third, err := v.Authenticate(t.Context(), signWith(t, jwt.SigningMethodES256, map[string]any{"kid": "ec"}, key, validClaims()))
	require.NoError(t, err)
	require.NotEqual(t, first.TokenID, third.TokenID)
}

func TestRevocationKeyOfTokenHash(t *testing.T) {
	t.Parallel()
	v := newTestVerifier(t, Config{RevocationKey: "revoked:{token_sha256}"}, time.Now)
	claims := validClaims()
	delete(claims, "jti")
	token := sign(t, claims)
	_, err := v.Authenticate(t.Context(), token)
	require.NoError(t, err, "jti is not required")

	sum := sha256.Sum256([]byte(token))
	sharedRedis.set(t, "revoked:"+hex.EncodeToString(sum[:]))
	_, err = v.Authenticate(t.Context(), token)
	requireRefused(t, err, "token revoked")
}

func TestKeyPattern(t *testing.T) {
	t.Parallel()
	pattern := keyPattern(`a*[b]?\{jti}:{token_sha256}`)
	require.Equal(t, `a*[b]?\{token_sha256}*:ff`, pattern.key("{token_sha256}*", "ff"), "a jti is not a pattern")
	require.Equal(t, `a\*\[b\]\?\\*:*`, pattern.glob())
}

func TestConfigProblems(t *testing.T) {
	t.Parallel()
	_, err := New(Config{
		SecretKey: testSecret[:31], Algorithm: "none", RevocationKey: "list", RevocationOutage: "maybe",
		DefaultScopes: []string{"account:read"}, ScopeClaim: "sub", ClockSkew: MaxClockSkew + 1,
	})
	for _, want := range []string{
		"JWT_SECRET_KEY must have at least 32 bytes", "JWT_ALGORITHM must be HS256", "AUTH_REVOCATION_KEY must contain",
		"AUTH_REVOCATION_OUTAGE", "AUTH_DEFAULT_SCOPES", "AUTH_SCOPE_CLAIM",
		"AUTH_CLOCK_SKEW", "AUTH_REDIS_URL",
	} {
		require.ErrorContains(t, err, want)
	}
	client := sharedRedis.client(t)
	for want, cfg := range map[string]Config{
		"AUTH_CLOCK_SKEW must be from":   {SecretKey: testSecret, ClockSkew: -1},
		"choose one":                     {SecretKey: testSecret, JWKSURL: "https://issuer.example/jwks"},
		"or JWT_JWKS_URL is required":    {},
		"must be an http or https URL":   {JWKSURL: "file:///etc/keys"},
		"JWT_ALGORITHM must be RS256":    {JWKSURL: "https://issuer.example/jwks", Algorithm: "HS256"},
		"which ES256 cannot":             {JWKSURL: "https://issuer.example/jwks", RevocationKey: "r:{token_sha256}"},
		"JWT_ALGORITHM must be HS256 wi": {SecretKey: testSecret, Algorithm: "RS256"},
	} {
		cfg.Redis = client
		_, err := New(cfg)
		require.ErrorContains(t, err, want)
	}
	for _, cfg := range []Config{
		{SecretKey: testSecret},
		{SecretKey: testSecret, Algorithm: "HS256", RevocationKey: "r:{token_sha256}"},
		{JWKSURL: "https://issuer.example/jwks"},
		{JWKSURL: "https://issuer.example/jwks", Algorithm: "EdDSA", RevocationKey: "r:{token_sha256}"},
	} {
		cfg.Redis = client
		_, err := New(cfg)
		require.NoError(t, err)
	}
}

func TestNewRedisHidesThePassword(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"redis://user:pa/ssword@host", "redis://user:pa ssword%@host", "http://:password@host", ""} {
		_, err := NewRedis(url)
		require.Error(t, err)
		require.NotContains(t, err.Error(), "ssword")
	}
}

func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	v := newTestVerifier(t, Config{}, time.Now)
	ctx, cancel := context.WithCancel(t.Context())
	var running, users sync.WaitGroup
	running.Go(func() { v.Run(ctx) })
	good, revoked := sign(t, validClaims()), validClaims()
	sharedRedis.set(t, "black_list_access_tokens:"+revoked["jti"].(string))
	bad := sign(t, revoked)
	errs := make(chan error, 8)
	for range cap(errs) {
		users.Go(func() {
			for range 100 {
				if _, err := v.Authenticate(ctx, good); err != nil {
					errs <- err
					return
				}
				if _, err := v.Authenticate(ctx, bad); errcode.Of(err) != errcode.Unauthenticated {
					errs <- err
					return
				}
			}
		})
	}
	users.Wait()
	cancel()
	running.Wait()
	close(errs)
	for err := range errs {
		require.NoError(t, err, "a good token was refused or a revoked one was not")
	}
}

func TestAuthenticateEndedContext(t *testing.T) {
	t.Parallel()
	v := newTestVerifier(t, Config{RevocationOutage: OutageAllow}, time.Now)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := v.Authenticate(ctx, sign(t, validClaims()))
	require.ErrorIs(t, err, context.Canceled)
	require.Zero(t, v.revocations.retryAt.Load(), "a client that left is no failure of Redis")
}

func BenchmarkAuthenticate(b *testing.B) {
	v := newTestVerifier(b, Config{Issuer: testIssuer, Audience: testAudience}, time.Now)
	token := sign(b, validClaims())
	b.Run("cached", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := v.Authenticate(b.Context(), token); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("cached without Redis", func(b *testing.B) {
		v := *v
		v.revocations = newRevocations(Config{RevocationOutage: OutageAllow}, v.pattern, time.Now)
		v.revocations.retryAt.Store(1 << 62)
		b.ReportAllocs()
		for b.Loop() {
			if _, err := v.Authenticate(b.Context(), token); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("verify", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := v.verify(b.Context(), token, [sha256.Size]byte{}); err != nil {
				b.Fatal(err)
			}
		}
	})
}
