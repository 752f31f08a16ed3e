package httpapi

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/payment-services/accounts/internal/auth"
	"github.com/payment-services/accounts/internal/errcode"
)

func TestRequestLimit(t *testing.T) {
	t.Parallel()
	s := newBareAPI(t, func(c *Config) { c.Limits.PerMinute = 3 })
	start := time.Now().Truncate(limitWindow)
	now := start
	s.requests.now = func() time.Time { return now }
	ask := func(headers ...string) answer { return s.call(http.MethodGet, "/accounts/nowhere", "", headers...) }
	for left := 2; left >= 0; left-- {
		a := ask()
		a.problem(errcode.NotFound)
		require.Equal(t, "3", a.Header().Get("RateLimit-Limit"))
		require.Equal(t, strconv.Itoa(left), a.Header().Get("RateLimit-Remaining"))
		require.Equal(t, "60", a.Header().Get("RateLimit-Reset"))
	}
	a := ask()
	a.problem(errcode.RateLimited)
	require.Equal(t, "0", a.Header().Get("RateLimit-Remaining"))
	require.Equal(t, "80", a.Header().Get("Retry-After"), "a third of the requests is out of the last minute by then")
	now = start.Add(79 * time.Second)
	ask().problem(errcode.RateLimited)
	now = start.Add(80 * time.Second)
	ask().problem(errcode.NotFound)
	ask().problem(errcode.RateLimited)
	// Routes for probes and people have no limit.
	s.call(http.MethodGet, "/healthz", "").ok(http.StatusOK, nil)

	// A token is counted wherever it comes from, an address whatever it says.
	now = start.Add(time.Hour)
	from := func(address, token string) answer {
		r := httptest.NewRequest(http.MethodGet, "/accounts/nowhere", nil)
		r.RemoteAddr = address
		r.Header.Set("Authorization", token)
		return s.send(r)
	}
	for _, address := range []string{"10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"} {
		from(address, s.auth).problem(errcode.NotFound)
	}
	from("10.0.0.4:1", s.auth).problem(errcode.RateLimited)
	for range 3 {
		from("[2001:db8::1]:1", "Bearer guess").problem(errcode.Unauthenticated)
	}
	from("[2001:db8::2]:1", "Bearer guess").problem(errcode.RateLimited)
	from("[2001:db8:0:1::2]:1", "Bearer guess").problem(errcode.Unauthenticated)
}

func TestNotFoundLimit(t *testing.T) {
	t.Parallel()
	s := newStackWith(t, func(c *Config) { c.Limits.NotFoundPerMinute = 5 })
	user := s.createIvan()
	find := func(identifier string) answer {
		return s.call(http.MethodGet, "/accounts/users/by-identifier?identifier="+identifier, "")
	}
	for range 10 {
		find("ivan").ok(http.StatusOK, nil)
		s.call(http.MethodGet, "/accounts/users/"+absentID, "").problem(errcode.NotFound)
	}
	find("nobody").problem(errcode.NotFound)
	s.lookup(`{"identifiers":["a","b","ivan","+7"]}`).ok(http.StatusOK, nil)
	find("ivan").ok(http.StatusOK, nil)
	find("nobody").problem(errcode.NotFound)
	for _, a := range []answer{find("ivan"), s.lookup(`{"identifiers":["ivan"]}`)} {
		a.problem(errcode.RateLimited)
		require.NotEmpty(t, a.Header().Get("Retry-After"))
		require.Equal(t, "0", a.Header().Get("RateLimit-Remaining"))
	}
	s.user(user.ID.String()) // other routes go on
	s.auth = bearer(t, testSubject, auth.ScopeRead)
	find("ivan").problem(errcode.RateLimited) // another token, the same address
}

// TestLimiter: in no minute are there more events than allowed, and who waits as told gets in.
func TestLimiter(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		l := newLimiter(rapid.IntRange(1, 20).Draw(t, "limit"))
		now := time.Unix(0, 0)
		l.now = func() time.Time { return now }
		for range rapid.IntRange(1, 100).Draw(t, "events") {
			now = now.Add(time.Duration(rapid.IntRange(0, 20_000).Draw(t, "ms")) * time.Millisecond)
			q := l.take("key")
			require.GreaterOrEqual(t, q.remaining, 0)
			require.LessOrEqual(t, l.current[onlyKey(l)], l.limit)
			if q.wait > 0 {
				now = now.Add(q.wait + time.Millisecond) // floats
				require.Zero(t, l.take("key").wait)
			}
		}
	})
	require.Nil(t, newLimiter(0))
}

func onlyKey(l *limiter) uint64 {
	for key := range l.current {
		return key
	}
	return 0
}

func TestClientAddress(t *testing.T) {
	t.Parallel()
	limits := RateLimits{TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}}
	for _, test := range []struct {
		remote, want string
		forwarded    []string
	}{
		{"192.0.2.1:5", "192.0.2.1", nil},
		{"192.0.2.1:5", "192.0.2.1", []string{"198.51.100.1"}}, // says a stranger
		{"10.0.0.1:5", "198.51.100.1", []string{"198.51.100.1"}},
		{"10.0.0.1:5", "198.51.100.1", []string{"1.2.3.4, 198.51.100.1", "10.0.0.2"}},
		{"[::ffff:10.0.0.1]:5", "198.51.100.1", []string{"198.51.100.1"}},
		{"10.0.0.1:5", "10.0.0.1", nil},
		{"10.0.0.1:5", "198.51.100.1", []string{"198.51.100.1:4711"}},
		{"10.0.0.1:5", "198.51.100.1", []string{"1.2.3.4", "198.51.100.1:1 , 10.0.0.2:4711"}},
		{"10.0.0.1:5", "198.51.100.1", []string{"1.2.3.4,::ffff:198.51.100.1\t,[::ffff:10.0.0.3]:9"}},
		{"10.0.0.1:5", "2001:db8:1:2::/64", []string{"[2001:db8:1:2:3::4]:4711"}},
		{"10.0.0.1:5", "2001:db8:1:2::/64", []string{"[2001:db8:1:2:3::5]"}},
		{"10.0.0.1:5", "10.0.0.1", []string{"198.51.100.1, unknown"}},
		{"10.0.0.1:5", "10.0.0.1", []string{"198.51.100.1,"}},
		{"10.0.0.1:5", "10.0.0.1", []string{"198.51.100.1, 010.0.0.2"}},
		{"10.0.0.1:5", "10.0.0.1", []string{"198.51.100.1, 198.51.100.1:x"}},
		{"192.0.2.1:5", "192.0.2.1", []string{"10.0.0.1, 10.0.0.2"}},
		{"10.0.0.1:5", "10.0.0.1", []string{"198.51.100.1, nonsense"}},
		{"10.0.0.1:5", "10.0.0.2", []string{"10.0.0.2"}},
		{"[fd00::1%eth0]:5", "2001:db8:1:2::/64", []string{"2001:db8:1:2:3::4"}},
		{"@", "@", nil},
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.RemoteAddr = test.remote
		r.Header["X-Forwarded-For"] = test.forwarded
		require.Equal(t, test.want, limits.clientAddress(r), "%+v", test)
	}
}

// TestLimiter_KeysAreBounded checks that keys beyond the bound share one count.
func TestLimiter_KeysAreBounded(t *testing.T) {
	t.Parallel()
	l := newLimiter(2)
	l.maxKeys = 2
	now := time.Unix(0, 0)
	l.now = func() time.Time { return now }
	require.Zero(t, l.take("known").wait)
	require.Zero(t, l.take("other").wait)
	require.Zero(t, l.take("a").wait)
	require.Zero(t, l.take("b").wait)
	require.Positive(t, l.take("c").wait)
	require.Zero(t, l.take("known").wait, "a key that is counted keeps its count")
	require.Len(t, l.current, 3)
}
