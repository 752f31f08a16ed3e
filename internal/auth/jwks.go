package auth

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"
)

const (
	// jwksInterval, and once more jwksUnknownKeyPause at worst, is how long a key that the issuer
	// withdrew is still accepted.
	jwksInterval = 5 * time.Minute
	// jwksUnknownKeyPause: tokens with invented key ids cause at most one fetch in this time, and a
	// new key that was not published ahead of its use is unknown for at most this time.
	jwksUnknownKeyPause = time.Minute
	// jwksRetry is the pause after a fetch that failed.
	jwksRetry = 5 * time.Second
	// jwksTimeout bounds one fetch; a request with an unknown key waits for it.
	jwksTimeout = 3 * time.Second
	// maxJWKSBytes and maxJWKSKeys are far above any real set.
	maxJWKSBytes = 256 << 10
	maxJWKSKeys  = 64
	// RSA keys below are too weak (RFC 7518 section 3.3), above too slow to verify with.
	minRSABits = 2048
	maxRSABits = 8192
)

// This is not MicahParks/keyfunc: that accepts 1024-bit RSA keys, follows redirects, reads a document
// of any size, drops the known keys when the issuer publishes none, and cannot tell an unknown key from
// an issuer that is down.

// keyID names a public key. The algorithm is part of the name, so that a key never verifies a token
// of another algorithm.
type keyID struct{ alg, kid string }

// keySet is an immutable set of keys: the secret alone, or what a JWKS server published.
type keySet struct {
	secret []byte
	public map[keyID]crypto.PublicKey
	source []byte // the document that public was read from
}

func (s *keySet) find(alg, kid string) (any, bool) {
	if alg == algHS256 {
		return s.secret, s.secret != nil
	}
	key, ok := s.public[keyID{alg, kid}]
	return key, ok
}

// keyring holds the keys in force. Keys stay in force while the JWKS server cannot be reached.
type keyring struct {
	url    string // empty for a secret, which never changes
	client *http.Client
	now    func() time.Time
	logger *slog.Logger
	set    atomic.Pointer[keySet]

	// flight runs one refresh at a time; what follows is used inside it only.
	flight    singleflight.Group
	nextFetch time.Time
	lastError error
}

func newKeyring(cfg Config, now func() time.Time) *keyring {
	k := &keyring{
		url: cfg.JWKSURL,
		// A redirect could lead to the keys of another party.
		client: &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		}},
		now:    now,
		logger: cfg.Logger,
	}
	if k.url == "" {
		k.set.Store(&keySet{secret: bytes.Clone(cfg.SecretKey)})
	} else {
		k.set.Store(&keySet{})
	}
	return k
}

// run fetches the keys again and again until ctx ends.
func (k *keyring) run(ctx context.Context) {
	log := failureLog{logger: k.logger, what: "fetch of the signing keys"}
	every(ctx, func(ctx context.Context) time.Duration {
		err := k.refresh(ctx)
		log.report(ctx, err)
		if err != nil {
			return jwksRetry
		}
		return jwksInterval
	})
}

// find returns the key and the set that it is from. An unknown key makes it look at the server, if
// the last look is long enough ago.
func (k *keyring) find(ctx context.Context, alg, kid string) (any, *keySet, error) {
	set := k.set.Load()
	if key, ok := set.find(alg, kid); ok {
		return key, set, nil
	}
	if k.url == "" || kid == "" {
		return nil, nil, errUnknownKey
	}
	err := k.refresh(ctx)
	set = k.set.Load()
	if key, ok := set.find(alg, kid); ok {
		return key, set, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", errKeysUnavailable, err)
	}
	return nil, nil, errUnknownKey
}

// refresh fetches the keys unless that was done a moment ago, and returns how the last fetch ended.
// Callers share one fetch, which goes on when the first of them gives up.
func (k *keyring) refresh(ctx context.Context) error {
	done := k.flight.DoChan("", func() (any, error) {
		if k.now().Before(k.nextFetch) {
			return nil, k.lastError
		}
		k.lastError = k.fetch(context.WithoutCancel(ctx))
		pause := jwksUnknownKeyPause
		if k.lastError != nil {
			pause = jwksRetry
		}
		k.nextFetch = k.now().Add(pause)
		return nil, k.lastError
	})
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case result := <-done:
		return result.Err
	}
}

func (k *keyring) fetch(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, jwksTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, k.url, http.NoBody)
	if err != nil {
		return fmt.Errorf("fetch the signing keys: %w", err)
	}
	response, err := k.client.Do(request)
	if err != nil {
		return fmt.Errorf("fetch the signing keys: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("fetch the signing keys: status %d", response.StatusCode)
	}
	document, err := io.ReadAll(io.LimitReader(response.Body, maxJWKSBytes+1))
	if err != nil {
		return fmt.Errorf("fetch the signing keys: %w", err)
	}
	if bytes.Equal(document, k.set.Load().source) {
		return nil // the same set: the tokens that it verified stay verified
	}
	set, err := parseJWKS(document)
	if err != nil {
		return fmt.Errorf("fetch the signing keys: %w", err)
	}
	k.set.Store(set)
	return nil
}

// parseJWKS reads a set of public keys. Keys of other kinds or uses, and keys that are too weak, are
// left out, as RFC 7517 section 5 asks; a set of which nothing is left is an error.
func parseJWKS(document []byte) (*keySet, error) {
	if len(document) > maxJWKSBytes {
		return nil, errors.New("the key set is too large")
	}
	var jwks struct {
		Keys []jsonWebKey `json:"keys"`
	}
	if err := json.Unmarshal(document, &jwks); err != nil {
		return nil, fmt.Errorf("decode the key set: %w", err)
	}
	if len(jwks.Keys) > maxJWKSKeys {
		return nil, errors.New("the key set has too many keys")
	}
	set := &keySet{public: make(map[keyID]crypto.PublicKey), source: document}
	for _, jwk := range jwks.Keys {
		alg, key, ok := jwk.publicKey()
		if ok && jwk.KeyID != "" && (jwk.Use == "" || jwk.Use == "sig") && (jwk.Algorithm == "" || jwk.Algorithm == alg) {
			set.public[keyID{alg, jwk.KeyID}] = key
		}
	}
	if len(set.public) == 0 {
		return nil, errors.New("the key set has no usable key")
	}
	return set, nil
}

// jsonWebKey has the members of a JWK that we use.
type jsonWebKey struct {
	Type      string    `json:"kty"`
	KeyID     string    `json:"kid"`
	Use       string    `json:"use"`
	Algorithm string    `json:"alg"`
	Curve     string    `json:"crv"`
	N         base64URL `json:"n"`
	E         base64URL `json:"e"`
	X         base64URL `json:"x"`
	Y         base64URL `json:"y"`
}

// publicKey returns the key and the only algorithm it may serve.
func (k *jsonWebKey) publicKey() (alg string, key crypto.PublicKey, ok bool) {
	switch {
	case k.Type == "RSA":
		n, e := new(big.Int).SetBytes(k.N), new(big.Int).SetBytes(k.E)
		if bits := n.BitLen(); bits < minRSABits || bits > maxRSABits {
			return "", nil, false
		}
		// Go's verifier wants an odd exponent above 1 that fits in 31 bits.
		if e.BitLen() < 2 || e.BitLen() > 31 || e.Bit(0) == 0 {
			return "", nil, false
		}
		return algRS256, &rsa.PublicKey{N: n, E: int(e.Int64())}, true
	case k.Type == "EC" && k.Curve == "P-256":
		point := append(append([]byte{4}, k.X...), k.Y...) // SEC 1, uncompressed
		key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
		return algES256, key, err == nil && len(k.X) == len(k.Y)
	case k.Type == "OKP" && k.Curve == "Ed25519":
		return algEdDSA, ed25519.PublicKey(k.X), len(k.X) == ed25519.PublicKeySize
	default:
		return "", nil, false
	}
}

// base64URL is the unpadded base64url text of JOSE.
type base64URL []byte

// UnmarshalText implements encoding.TextUnmarshaler. A member that cannot be decoded is left empty:
// it spoils its own key, not the set.
func (b *base64URL) UnmarshalText(text []byte) error {
	decoded, err := base64.RawURLEncoding.AppendDecode(nil, text)
	if err != nil {
		decoded = nil
	}
	*b = decoded
	return nil
}
