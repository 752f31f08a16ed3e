package auth

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"
)

// jwksServer publishes a key set that tests change.
type jwksServer struct {
	*httptest.Server
	fetches atomic.Int32
	answer  atomic.Value // string; empty: 500
}

func newJWKSServer(t *testing.T) *jwksServer {
	t.Helper()
	s := &jwksServer{}
	s.answer.Store("")
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.fetches.Add(1)
		answer := s.answer.Load().(string)
		switch {
		case answer == "":
			w.WriteHeader(http.StatusInternalServerError)
		case strings.HasPrefix(answer, "http"):
			http.Redirect(w, r, answer, http.StatusFound)
		default:
			_, _ = w.Write([]byte(answer))
		}
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *jwksServer) publish(keys ...map[string]string) {
	document, _ := json.Marshal(map[string]any{"keys": keys})
	s.answer.Store(string(document))
}

func segment(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func rsaJWK(kid string, key *rsa.PublicKey) map[string]string {
	return map[string]string{
		"kty": "RSA", "kid": kid, "use": "sig", "alg": "RS256",
		"n": segment(key.N.Bytes()), "e": segment(big.NewInt(int64(key.E)).Bytes()),
	}
}

func ecJWK(t *testing.T, kid string, key *ecdsa.PublicKey) map[string]string {
	t.Helper()
	point, err := key.Bytes()
	require.NoError(t, err)
	half := len(point) / 2
	return map[string]string{
		"kty": "EC", "kid": kid, "crv": "P-256", "x": segment(point[1 : half+1]), "y": segment(point[half+1:]),
	}
}

func edJWK(kid string, key ed25519.PublicKey) map[string]string {
	return map[string]string{"kty": "OKP", "kid": kid, "crv": "Ed25519", "x": segment(key)}
}

func newEdKey(t *testing.T) (ed25519.PublicKey, ed25519.PrivateKey) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	return public, private
}

func TestJWKSAlgorithms(t *testing.T) {
	t.Parallel()
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	edPublic, edKey := newEdKey(t)
	server := newJWKSServer(t)
	server.publish(rsaJWK("rsa", &rsaKey.PublicKey), ecJWK(t, "ec", &ecKey.PublicKey), edJWK("ed", edPublic))
	any3 := newTestVerifier(t, Config{JWKSURL: server.URL}, time.Now)
	onlyES256 := newTestVerifier(t, Config{JWKSURL: server.URL, Algorithm: algES256}, time.Now)

	token := func(method jwt.SigningMethod, kid any, key any) string {
		return signWith(t, method, map[string]any{"kid": kid}, key, validClaims())
	}
	for _, good := range []string{
		token(jwt.SigningMethodRS256, "rsa", rsaKey),
		token(jwt.SigningMethodES256, "ec", ecKey),
		token(jwt.SigningMethodEdDSA, "ed", edKey),
	} {
		_, err := any3.Authenticate(t.Context(), good)
		require.NoError(t, err)
	}
	_, err = onlyES256.Authenticate(t.Context(), token(jwt.SigningMethodES256, "ec", ecKey))
	require.NoError(t, err)
	_, err = onlyES256.Authenticate(t.Context(), token(jwt.SigningMethodRS256, "rsa", rsaKey))
	requireRefused(t, err, "token signature or algorithm not accepted")

	for name, test := range map[string]struct{ token, want string }{
		"RS384":          {token(jwt.SigningMethodRS384, "rsa", rsaKey), "token signature or algorithm not accepted"},
		"PS256":          {token(jwt.SigningMethodPS256, "rsa", rsaKey), "token signature or algorithm not accepted"},
		"other key's id": {token(jwt.SigningMethodRS256, "ec", rsaKey), "token signed with an unknown key"},
		"no kid":         {signWith(t, jwt.SigningMethodEdDSA, nil, edKey, validClaims()), "token signed with an unknown key"},
		"kid number":     {token(jwt.SigningMethodEdDSA, 5, edKey), "token signed with an unknown key"},
		"strange kid":    {token(jwt.SigningMethodEdDSA, "../../etc/passwd", edKey), "token signed with an unknown key"},
		"jwk in header": {signWith(t, jwt.SigningMethodEdDSA, map[string]any{"jwk": edJWK("mine", edPublic), "kid": "mine"}, edKey, validClaims()),
			"token signed with an unknown key"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := any3.Authenticate(t.Context(), test.token)
			requireRefused(t, err, test.want)
		})
	}
	require.EqualValues(t, 2, server.fetches.Load(), "unknown keys cause no fetch within a minute of the last")
}

func TestJWKSRotation(t *testing.T) {
	t.Parallel()
	oldPublic, oldKey := newEdKey(t)
	newPublic, newKey := newEdKey(t)
	server, clock := newJWKSServer(t), newClock()
	server.publish(edJWK("old", oldPublic))
	v := newTestVerifier(t, Config{JWKSURL: server.URL}, clock.Now)
	oldToken := signWith(t, jwt.SigningMethodEdDSA, map[string]any{"kid": "old"}, oldKey, validClaims())
	newToken := signWith(t, jwt.SigningMethodEdDSA, map[string]any{"kid": "new"}, newKey, validClaims())
	_, err := v.Authenticate(t.Context(), oldToken)
	require.NoError(t, err)

	server.publish(edJWK("old", oldPublic), edJWK("new", newPublic))
	_, err = v.Authenticate(t.Context(), newToken)
	requireRefused(t, err, "token signed with an unknown key")
	clock.advance(jwksUnknownKeyPause)
	_, err = v.Authenticate(t.Context(), newToken)
	require.NoError(t, err)
	_, err = v.Authenticate(t.Context(), oldToken)
	require.NoError(t, err)

	// The same set again keeps the verified tokens; a set without the old key forgets them.
	clock.advance(jwksUnknownKeyPause)
	set := v.keys.set.Load()
	require.NoError(t, v.keys.refresh(t.Context()))
	require.Same(t, set, v.keys.set.Load())
	server.publish(edJWK("new", newPublic))
	clock.advance(jwksUnknownKeyPause)
	require.NoError(t, v.keys.refresh(t.Context()))
	_, err = v.Authenticate(t.Context(), newToken)
	require.NoError(t, err)
	_, err = v.Authenticate(t.Context(), oldToken)
	requireRefused(t, err, "token signed with an unknown key")
}

func TestJWKSServerDown(t *testing.T) {
	t.Parallel()
	public, key := newEdKey(t)
	server, clock := newJWKSServer(t), newClock()
	v := newTestVerifier(t, Config{JWKSURL: server.URL}, clock.Now)
	token := signWith(t, jwt.SigningMethodEdDSA, map[string]any{"kid": "a"}, key, validClaims())
	for range 3 {
		_, err := v.Authenticate(t.Context(), token)
		requireUnavailable(t, err) // nobody knows whether the token is good
	}
	require.EqualValues(t, 1, server.fetches.Load())

	server.publish(edJWK("a", public))
	clock.advance(jwksRetry)
	_, err := v.Authenticate(t.Context(), token)
	require.NoError(t, err)

	// Whatever becomes of the server, the known keys stay in force.
	stranger := newJWKSServer(t)
	stranger.publish(edJWK("b", public))
	for _, answer := range []string{"", "not json", `{"keys":[]}`, stranger.URL, strings.Repeat(" ", maxJWKSBytes+1)} {
		server.answer.Store(answer)
		clock.advance(jwksUnknownKeyPause)
		require.Error(t, v.keys.refresh(t.Context()))
		_, err = v.Authenticate(t.Context(), token)
		require.NoError(t, err)
	}
	server.Close()
	clock.advance(jwksUnknownKeyPause)
	require.Error(t, v.keys.refresh(t.Context()))
	other := signWith(t, jwt.SigningMethodEdDSA, map[string]any{"kid": "b"}, key, validClaims())
	_, err = v.Authenticate(t.Context(), other)
	requireUnavailable(t, err)
	_, err = v.Authenticate(t.Context(), token)
	require.NoError(t, err)
}

// TestJWKSSlowServer checks that a server that accepts a request and does not answer it costs the
// requests that wait for it jwksTimeout together, and not jwksTimeout each.
func TestJWKSSlowServer(t *testing.T) {
	t.Parallel()
	_, key := newEdKey(t)
	release := make(chan struct{})
	var fetches atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fetches.Add(1)
		_, _ = w.Write([]byte(`{"keys":[`))
		_ = http.NewResponseController(w).Flush()
		<-release
	}))
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(release) })
	v := newTestVerifier(t, Config{JWKSURL: server.URL}, time.Now)
	start := time.Now()
	errs := make(chan error, 8)
	for range cap(errs) {
		token := signWith(t, jwt.SigningMethodEdDSA, map[string]any{"kid": rand.Text()}, key, validClaims())
		go func() {
			_, err := v.Authenticate(t.Context(), token)
			errs <- err
		}()
	}
	for range cap(errs) {
		requireUnavailable(t, <-errs)
	}
	require.Less(t, time.Since(start), 3*jwksTimeout)
	require.EqualValues(t, 1, fetches.Load())
}

func TestRunFetchesKeys(t *testing.T) {
	t.Parallel()
	public, key := newEdKey(t)
	server := newJWKSServer(t)
	server.publish(edJWK("a", public))
	v := newTestVerifier(t, Config{JWKSURL: server.URL, RevocationOutage: OutageDeny}, time.Now)
	go v.Run(t.Context())
	require.Eventually(t, func() bool {
		_, ok := v.keys.set.Load().find(algEdDSA, "a")
		return ok
	}, 10*time.Second, time.Millisecond)
	var users sync.WaitGroup
	for range 8 {
		token := signWith(t, jwt.SigningMethodEdDSA, map[string]any{"kid": rand.Text()}, key, validClaims())
		users.Go(func() { _, _ = v.Authenticate(t.Context(), token) })
	}
	users.Wait()
	require.EqualValues(t, 1, server.fetches.Load())
}

func TestParseJWKSLeavesOutUnusableKeys(t *testing.T) {
	t.Parallel()
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	require.NoError(t, err)
	strong, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	point, err := ecKey.PublicKey.Bytes()
	require.NoError(t, err)
	public, _ := newEdKey(t)
	with := func(jwk map[string]string, name, value string) map[string]string {
		jwk[name] = value
		return jwk
	}
	good := edJWK("good", public)
	for name, bad := range map[string]map[string]string{
		"weak RSA":     rsaJWK("x", &weak.PublicKey),
		"e = 1":        with(rsaJWK("x", &strong.PublicKey), "e", "AQ"),
		"even e":       with(rsaJWK("x", &strong.PublicKey), "e", "BA"),
		"encryption":   with(edJWK("x", public), "use", "enc"),
		"other alg":    with(rsaJWK("x", &strong.PublicKey), "alg", "PS256"),
		"symmetric":    {"kty": "oct", "kid": "x", "k": segment(testSecret)},
		"no kid":       edJWK("", public),
		"short Ed":     with(edJWK("x", public), "x", "AAAA"),
		"not base64":   with(edJWK("x", public), "x", segment(public)+"!"),
		"off curve":    {"kty": "EC", "kid": "x", "crv": "P-256", "x": segment(make([]byte, 32)), "y": segment(make([]byte, 32))},
		"EC unequal":   {"kty": "EC", "kid": "x", "crv": "P-256", "x": segment(point[1:]), "y": ""},
		"other curve":  {"kty": "EC", "kid": "x", "crv": "P-384", "x": "AAAA", "y": "AAAA"},
		"unknown type": {"kty": "AKP", "kid": "x"},
	} {
		document, err := json.Marshal(map[string]any{"keys": []any{bad, good}})
		require.NoError(t, err)
		set, err := parseJWKS(document)
		require.NoError(t, err, name)
		require.Len(t, set.public, 1, name)
	}
	decoded := base64URL("before")
	require.NoError(t, decoded.UnmarshalText([]byte(segment(public)+"!")))
	require.Empty(t, decoded, "the readable part of a broken member is not used")

	many := make([]map[string]string, maxJWKSKeys+1)
	for i := range many {
		many[i] = edJWK(rand.Text(), public)
	}
	document, err := json.Marshal(map[string]any{"keys": many})
	require.NoError(t, err)
	_, err = parseJWKS(document)
	require.Error(t, err)
}
