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

const (
	// limitWindow is the time that all limits are for.
	limitWindow = time.Minute
	// maxLimiterKeys bounds the keys that one limiter keeps for a window, about 40 MB. When there are
	// more tokens or addresses, the others share one count.
	maxLimiterKeys = 1 << 20
	// pendingWait is what a client waits for requests of its own that are still running.
	pendingWait = time.Second
)

// RateLimits are counted in this process, for each token and for each address, over a sliding minute.
type RateLimits struct {
	// PerMinute is how many requests below /accounts each may send. 0: any number.
	PerMinute int
	// NotFoundPerMinute is how many identifiers that name no user each may ask for, so that guessing them
	// is not worthwhile. 0: any number.
	NotFoundPerMinute int
	// TrustedProxies are those whose X-Forwarded-For says who the client is.
	TrustedProxies []netip.Prefix
}

// caller is who a request is counted for: the client's address, and the token once it is verified. The
// token's id does not depend on how the Authorization header is spelled.
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
		hop, ok := parseHop(hops[i])
		if !ok {
			break // not an address: the proxy that passed it on stands for it
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

// parseHop reads one element of X-Forwarded-For: an address, which some proxies write with brackets or a port.
func parseHop(text string) (netip.Addr, bool) {
	text = strings.Trim(text, " \t")
	if withPort, err := netip.ParseAddrPort(text); err == nil {
		return withPort.Addr(), true
	}
	if inner, ok := strings.CutPrefix(text, "["); ok {
		text = strings.TrimSuffix(inner, "]")
	}
	address, err := netip.ParseAddr(text)
	return address, err == nil
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
// reaches into the last minute. Events can be reserved before it is known whether they happen. Safe for
// concurrent use; it keeps keys for two windows.
type limiter struct {
	limit   int
	maxKeys int
	seed    maphash.Seed // the keys are hashed, so that no tokens and addresses are kept
	now     func() time.Time

	mu                sync.Mutex
	window            time.Time // when the current one began
	current, previous map[uint64]int
	reserved          map[uint64]int // by requests that are running
}

// newLimiter returns nil, which limits nothing, if limit is 0.
func newLimiter(limit int) *limiter {
	if limit == 0 {
		return nil
	}
	return &limiter{
		limit: limit, maxKeys: maxLimiterKeys, seed: maphash.MakeSeed(), now: time.Now,
		current: map[uint64]int{}, reserved: map[uint64]int{},
	}
}

// quota is what a key has left.
type quota struct {
	remaining int
	wait      time.Duration // until there is one more; 0 if there is one
	reset     time.Duration // until the window ends
}

// take counts one event, or none if there is none left.
func (l *limiter) take(key string) quota {
	l.mu.Lock()
	defer l.mu.Unlock()
	id := l.id(key)
	q := l.quota(id)
	if q.wait == 0 {
		l.current[id]++
		q.remaining--
	}
	return q
}

// reserve takes up to n events out of what is left, without counting them, and returns how many: at
// least one, or none if the quota makes the caller wait. settle ends the reservation.
func (l *limiter) reserve(key string, n int) (granted int, q quota) {
	l.mu.Lock()
	defer l.mu.Unlock()
	id := l.id(key)
	q = l.quota(id)
	if q.wait > 0 {
		return 0, q
	}
	granted = min(n, q.remaining)
	l.reserved[id] += granted
	return granted, q
}

// settle ends a reservation of granted events, of which happened are counted.
func (l *limiter) settle(key string, granted, happened int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	id := l.id(key)
	if l.reserved[id] -= granted; l.reserved[id] <= 0 {
		delete(l.reserved, id)
	}
	if happened > 0 {
		l.current[id] += happened
	}
}

// quota returns what is left for the key with this id.
func (l *limiter) quota(id uint64) quota {
	left := limitWindow - l.now().Sub(l.window)
	before, count, reserved := float64(l.previous[id]), float64(l.current[id]), float64(l.reserved[id])
	free := float64(l.limit) - before*float64(left)/float64(limitWindow) - count
	q := quota{remaining: max(0, int(free-reserved)), reset: left}
	switch {
	case free < 1:
		q.wait = l.waitFor(before, count, left)
	case free-reserved < 1:
		q.wait = pendingWait
	}
	return q
}

// id starts a new window if it is time, and returns what the key is counted under.
func (l *limiter) id(key string) uint64 {
	l.advance(l.now())
	id := maphash.String(l.seed, key)
	if _, known := l.current[id]; !known && len(l.current) >= l.maxKeys {
		return 0
	}
	return id
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
	q := a.requests.take(key)
	h := w.Header()
	if shown, err := strconv.Atoi(h.Get("RateLimit-Remaining")); err != nil || q.remaining < shown {
		setRateLimit(h, a.requests.limit, q)
	}
	return refusal(q)
}

// unknownIdentifiers is a request's reservation of identifiers that may turn out to name no user. It is
// made before the users are searched, so that parallel requests cannot use the same quota.
type unknownIdentifiers struct {
	limiter *limiter // nil: no limit
	caller  caller
	granted int
	counted int
}

// reserveUnknown reserves up to n identifiers for this request, or refuses it if the address or the
// token has none left. The caller calls settle when it knows how many of them name no user.
func (a *API) reserveUnknown(w *response, n int) (*unknownIdentifiers, error) {
	u := &unknownIdentifiers{limiter: a.guesses, caller: w.caller, granted: n}
	if u.limiter == nil {
		return u, nil
	}
	var q quota
	if u.granted, q = u.limiter.reserve(u.caller.address, n); u.granted > 0 {
		byAddress := u.granted
		u.granted, q = u.limiter.reserve(u.caller.token, byAddress)
		u.limiter.settle(u.caller.address, byAddress-u.granted, 0)
	}
	if u.granted == 0 {
		setRateLimit(w.Header(), u.limiter.limit, q)
		return nil, refusal(q)
	}
	return u, nil
}

// count records that n of the request's identifiers name no user. It returns RATE_LIMITED if that is
// more than was reserved: then the answer must not say which ones they are.
func (u *unknownIdentifiers) count(n int) error {
	u.counted = min(n, u.granted)
	if n > u.granted {
		return refusal(quota{wait: limitWindow})
	}
	return nil
}

// settle counts the identifiers that named no user, and gives the rest of the reservation back.
func (u *unknownIdentifiers) settle() {
	if u.limiter == nil {
		return
	}
	u.limiter.settle(u.caller.address, u.granted, u.counted)
	u.limiter.settle(u.caller.token, u.granted, u.counted)
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

// seconds rounds up, because a client that repeats too early is refused again.
func seconds(d time.Duration) int { return int((d + time.Second - 1) / time.Second) }
