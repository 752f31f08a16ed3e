package auth

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/errcode"
)

// FuzzToken sends an Authorization header, and the same payload under a good signature, through
// everything that reads a token. Whatever is accepted must be signed, unexpired and have a subject, and
// no error may quote the token.
func FuzzToken(f *testing.F) {
	const user = "0199a1b2-0000-7000-8000-000000000001"
	good := sign(f, validClaims())
	payload := func(change string) string {
		return `{"sub":"` + user + `","jti":"a","exp":4102444800` + change + `}`
	}
	for _, scheme := range []string{"Bearer ", "bearer ", "BEARER  ", "Bearer\t", " Bearer ", "Basic ", ""} {
		f.Add(scheme+good, payload(""))
	}
	for _, sub := range []string{
		"X" + user + "Y", "{" + user + "}", "urn:uuid:" + user, strings.ReplaceAll(user, "-", ""), strings.ToUpper(user), "",
	} {
		f.Add("Bearer "+good, `{"sub":"`+sub+`","jti":"a","exp":4102444800,"scope":"accounts:read"}`)
	}
	for _, change := range []string{
		`,"scope":"accounts:read accounts:write"`, `,"scopes":["accounts:read"]`, `,"scp":["accounts:read",1]`, `,"scp":"accounts:read"`,
		`,"scope":null`, `,"scope":{}`, `,"nbf":1e300`, `,"iat":-1`, `,"iat":4102444799`, `,"exp":1e400`, `,"exp":"1"`, `,"sub":[]`,
		`,"jti":{"a":[[[[]]]]}`, `,"aud":[1]`, `,"exp":1`,
	} {
		f.Add("Bearer "+good+".", payload(change))
	}
	f.Add("Bearer ..", "")
	f.Add("Bearer "+good[:len(good)-1], "[]")
	f.Add("Bearer eyJhbGciOiJub25lIn0."+base64.RawURLEncoding.EncodeToString([]byte(payload("")))+".", "null")

	client, err := NewRedis("redis://127.0.0.1:1/0")
	require.NoError(f, err)
	f.Cleanup(func() { _ = client.Close() })
	now := time.Now()
	v := newTestVerifier(f, Config{Redis: client, RevocationOutage: OutageAllow}, func() time.Time { return now })
	v.revocations.retryAt.Store(1 << 62) // Redis is not asked

	f.Fuzz(func(t *testing.T, header, claims string) {
		if token, err := BearerToken([]string{header}); err == nil {
			if strings.Trim(token, " ") != token || token == "" || !strings.HasSuffix(strings.TrimRight(header, " "), token) {
				t.Fatalf("%q is not the token of %q", token, header)
			}
			checkToken(t, v, token)
		}
		method := jwt.SigningMethodHS256
		text := segment([]byte(`{"alg":"HS256"}`)) + "." + segment([]byte(claims))
		signature, err := method.Sign(text, testSecret)
		require.NoError(t, err)
		checkToken(t, v, text+"."+segment(signature))
	})
}

// checkToken authenticates a token twice, the second time from the cache if it is good.
func checkToken(t *testing.T, v *Verifier, token string) {
	principal, err := v.Authenticate(t.Context(), token)
	again, err2 := v.Authenticate(t.Context(), token)
	require.Equal(t, err == nil, err2 == nil)
	require.Equal(t, principal, again)
	if err != nil {
		require.Equal(t, errcode.Unauthenticated, errcode.Of(err))
		if len(token) > 16 && strings.Contains(err.Error(), token) {
			t.Fatal("the error quotes the token")
		}
		return
	}
	parts := strings.Split(token, ".")
	require.Len(t, parts, 3)
	require.NoError(t, jwt.SigningMethodHS256.Verify(parts[0]+"."+parts[1], decodeSegment(t, parts[2]), testSecret))
	var claims map[string]any
	require.NoError(t, json.Unmarshal(decodeSegment(t, parts[1]), &claims))
	require.Equal(t, claims["sub"], principal.Subject)
	require.NotEmpty(t, principal.Subject)
	require.Greater(t, claims["exp"].(float64), float64(v.now().Unix()))
	if len(principal.Scopes) > 0 {
		granted, err := json.Marshal([]any{claims["scope"], claims["scopes"], claims["scp"]})
		require.NoError(t, err)
		for _, scope := range []string{ScopeRead, ScopeWrite} {
			require.True(t, !principal.Has(scope) || strings.Contains(string(granted), scope))
		}
	}
}

func decodeSegment(t *testing.T, text string) []byte {
	t.Helper()
	decoded, err := base64.RawURLEncoding.Strict().DecodeString(text)
	require.NoError(t, err)
	return decoded
}

// TestRefusalsQuoteNothing checks that the error of a forged token does not repeat its parts.
func TestRefusalsQuoteNothing(t *testing.T) {
	t.Parallel()
	v := newTestVerifier(t, Config{}, time.Now)
	secret := rand.Text()
	for _, claims := range []jwt.MapClaims{
		{"sub": secret}, {"sub": "a", "exp": secret}, {"sub": "a", "exp": 4102444800, "jti": "a", "scope": map[string]any{secret: 1}},
	} {
		_, err := v.Authenticate(t.Context(), sign(t, claims))
		require.Error(t, err)
		require.NotContains(t, err.Error(), secret)
	}
}
