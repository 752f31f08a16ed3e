package httpapi

import (
	"hash/maphash"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/payment-services/accounts/internal/errcode"
)

// limitWindow is the time that all limits are for.
const limitWindow = time.Minute

// RateLimits are counted in this process, for each token and for each address, over a sliding minute.
type RateLimits struct {
	// PerMinute is how many requests below /accounts each may send. 0: any number.
	PerMinute int
	// NotFoundPerMinute is how many identifiers that name nobody each may ask for: guessing them must
	// not be worthwhile. 0: any number.
	NotFoundPerMinute int
	// TrustedProxies are those whose X-Forwarded-For says who the client is.
	TrustedProxies []netip.Prefix
}

// caller is who a request is counted for.
type caller struct{ address, token string }

// clientAddress returns the last address on the request's way that is none of ours. Of IPv6 it is the
// network, which one client has to itself.
func (l *RateLimits) clientAddress(r *http.Request) string {
	hops := strings.Split(strings.Join(r.Header["X-Forwarded-For"], ","), ",")
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	address, err := netip.ParseAddr(host)
	address = address.WithZone("") // no network contains an address with a zone
	for i := len(hops) - 1; i >= 0 && err == nil && l.trusts(address.Unmap()); i-- {
		hop, err := netip.ParseAddr(strings.TrimSpace(hops[i]))
		if err != nil {
			break // nobody's address: the proxy that passed it on stands for it
		}
		address = hop.WithZone("")
	}
	if err != nil {
		return host
	}
	address = address.Unmap()
	if address.Is6() {
		const clientBits = 64
		return netip.PrefixFrom(address, clientBits).Masked().String()
	}
	return address.String()
}

func (l *RateLimits) trusts(address netip.Addr) bool {
	for _, proxies := range l.TrustedProxies {
		if proxies.Contains(address) {
			return true
		}
	}
	return false
}

// limiter counts events by key: those of this window, and those of the one before as far as it still
// reaches into the last minute. Safe for concurrent use; it keeps keys for two windows.
type limiter struct {
	limit int
	seed  maphash.Seed // so that no tokens and addresses are kept
	now   func() time.Time

	mu                sync.Mutex
	window            time.Time // when the current one began
	current, previous map[uint64]int
}

// newLimiter returns nil, which limits nothing, if limit is 0.
func newLimiter(limit int) *limiter {
	if limit == 0 {
		return nil
	}
	return &limiter{limit: limit, seed: maphash.MakeSeed(), now: time.Now, current: map[uint64]int{}}
}

// quota is what a key has left.
type quota struct {
	remaining int
	wait      time.Duration // until there is one more; 0 if there is one
	reset     time.Duration // until the window ends
}

// take counts n events, or none if there are not n left; n may be 0.
func (l *limiter) take(key string, n int) quota {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	l.advance(now)
	id := maphash.String(l.seed, key)
	elapsed := now.Sub(l.window)
	before, count := float64(l.previous[id]), l.current[id]
	left := limitWindow - elapsed
	free := float64(l.limit) - before*float64(left)/float64(limitWindow) - float64(count)
	q := quota{remaining: max(0, int(free)), reset: left}
	if free < 1 || free < float64(n) {
		q.wait = l.waitFor(before, float64(count), left)
		return q
	}
	if n > 0 {
		l.current[id] = count + n
		q.remaining -= n
	}
	return q
}

// add counts n events, allowed or not.
func (l *limiter) add(key string, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.advance(l.now())
	l.current[maphash.String(l.seed, key)] += n
}

// waitFor returns how long it takes until one more event is free, if none happens meanwhile.
func (l *limiter) waitFor(before, count float64, left time.Duration) time.Duration {
	most := float64(l.limit) - 1 // events that may remain in the last minute
	if count <= most && before > 0 {
		// before * rest/window + count = most
		rest := time.Duration((most - count) / before * float64(limitWindow))
		return max(left-rest, time.Millisecond)
	}
	if count == 0 {
		return left
	}
	rest := time.Duration(most / count * float64(limitWindow))
	return left + max(limitWindow-rest, 0)
}

func (l *limiter) advance(now time.Time) {
	passed := now.Sub(l.window)
	if passed < limitWindow {
		return
	}
	l.previous = nil
	if passed < 2*limitWindow {
		l.previous = l.current
	}
	l.current = map[uint64]int{}
	l.window = now.Truncate(limitWindow)
}

// limitRequests counts the request for one key and says what is left.
func (a *API) limitRequests(w *response, key string) error {
	if a.requests == nil {
		return nil
	}
	q := a.requests.take(key, 1)
	h := w.Header()
	if shown, err := strconv.Atoi(h.Get("RateLimit-Remaining")); err != nil || q.remaining < shown {
		setRateLimit(h, a.requests.limit, q)
	}
	return refusal(q)
}

// limitGuesses refuses a client that has asked for too many identifiers that name nobody.
func (a *API) limitGuesses(w *response) error {
	if a.guesses == nil {
		return nil
	}
	for _, key := range []string{w.caller.address, w.caller.token} {
		q := a.guesses.take(key, 0)
		if err := refusal(q); err != nil {
			setRateLimit(w.Header(), a.guesses.limit, q)
			return err
		}
	}
	return nil
}

func (a *API) countGuesses(w *response) {
	if a.guesses == nil || w.guesses == 0 {
		return
	}
	a.guesses.add(w.caller.address, w.guesses)
	a.guesses.add(w.caller.token, w.guesses)
}

func setRateLimit(h http.Header, limit int, q quota) {
	h.Set("RateLimit-Limit", strconv.Itoa(limit))
	h.Set("RateLimit-Remaining", strconv.Itoa(q.remaining))
	h.Set("RateLimit-Reset", strconv.Itoa(seconds(max(q.reset, q.wait))))
}

func refusal(q quota) error {
	if q.wait == 0 {
		return nil
	}
	return &errcode.Error{
		Code: errcode.RateLimited, Message: "too many requests; see Retry-After", RetryAfter: q.wait,
	}
}

// seconds rounds up: who comes too early is refused again.
func seconds(d time.Duration) int { return int((d + time.Second - 1) / time.Second) }
