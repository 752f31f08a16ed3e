package httpapi

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/payment-services/accounts/internal/auth"
)

const (
	// requestTimeout is the deadline of a handler: more than the 5 s after which the database layer
	// gives up, and a body's arrival on top of that.
	requestTimeout = bodyTimeout + 6*time.Second
	// slowRequestTimeout is the same for the bulk routes: 100,000 rows take half a minute to be staged
	// or sent.
	slowRequestTimeout = slowBodyTimeout + 50*time.Second
	// maxRequestIDBytes bounds the id that a client may choose.
	maxRequestIDBytes = 64
	// unmatched is the route of requests that no route matched, in logs and metrics.
	unmatched = "unmatched"
	// statusClientGone is logged when the client closed the connection, or its side of it, before the answer
	// (nginx's convention). No answer is sent.
	statusClientGone = 499
)

// Header values that every answer shares, so that they cost no allocation. Header.Set replaces them and
// Header.Add copies them; nothing writes into them.
var (
	noSniff         = []string{"nosniff"}
	privateNoCache  = []string{"private, no-cache"}
	applicationJSON = []string{"application/json"}
)

// ServeHTTP answers one request. What it does for every route stands here, in its order: request id
// and headers, recovery, log line and metric, CORS, trailing slash, rate limits and authentication, routing.
func (a *API) ServeHTTP(writer http.ResponseWriter, r *http.Request) {
	w := &response{ResponseWriter: writer, requestID: requestID(r), route: unmatched}
	if r.ContentLength != 0 {
		w.unread, w.waitsToSend = r.Body, r.Header["Expect"] != nil
	}
	h := w.Header()
	h["X-Request-Id"] = []string{w.requestID}
	h["X-Content-Type-Options"] = noSniff
	h["Cache-Control"] = privateNoCache
	defer a.finish(w, r, time.Now())
	a.entry.ServeHTTP(w, r)
}

// dispatch is what follows once the answer will be logged, and CORS has its headers.
func (a *API) dispatch(writer http.ResponseWriter, r *http.Request) {
	w := writer.(*response)
	r = withoutTrailingSlash(r)

	if r.URL.Path == "/accounts" || strings.HasPrefix(r.URL.Path, "/accounts/") {
		// Before routing, so that a stranger cannot tell which routes exist.
		if err := a.admit(w, r); err != nil {
			w.problem(r, err)
			return
		}
	}
	a.router.ServeHTTP(w, r)
}

// finish ends every request: it turns a panic into a 500, writes the log line and counts. Neither
// holds a path, a query or an address of the client: they are personal data.
func (a *API) finish(w *response, r *http.Request, start time.Time) {
	var stack []byte
	recovered := recover()
	abort := recovered == http.ErrAbortHandler
	if recovered != nil && !abort {
		stack = debug.Stack()
		abort = w.status != 0 // too late for a problem: the client must see a broken answer
		w.problem(r, fmt.Errorf("panic: %v", recovered))
	}
	switch w.status {
	case 0:
		w.WriteHeader(http.StatusOK) // as net/http answers for a handler that wrote nothing
	case statusClientGone:
		abort = true // net/http would send an empty 200
	}
	duration := time.Since(start)
	a.latency.WithLabelValues(methodLabel(r.Method), w.route, statusClass(w.status)).Observe(duration.Seconds())
	a.log(w, r, duration, stack)
	if abort {
		panic(http.ErrAbortHandler)
	}
	w.linger()
}

func (a *API) log(w *response, r *http.Request, duration time.Duration, stack []byte) {
	level := slog.LevelInfo
	if w.status >= http.StatusInternalServerError || w.status < http.StatusBadRequest && w.cause != nil {
		level = slog.LevelError
	}
	// The request's own context may have ended, and a handler may drop what comes with such a one.
	ctx := context.WithoutCancel(r.Context())
	if !a.logger.Enabled(ctx, level) {
		return
	}
	attrs := make([]slog.Attr, 0, 12)
	attrs = append(attrs,
		slog.String("method", methodLabel(r.Method)),
		slog.String("route", w.route),
		slog.Int("status", w.status),
		slog.Float64("duration_ms", float64(duration.Microseconds())/1e3),
		slog.Int64("bytes", w.bytes),
		slog.String("request_id", w.requestID),
	)
	if w.principal.Subject != "" {
		attrs = append(attrs, slog.String("subject", w.principal.Subject))
	}
	if w.origin.Cache != "" {
		attrs = append(attrs, slog.String("x_cache", string(w.origin.Cache)))
	}
	if w.origin.Server != "" {
		attrs = append(attrs, slog.String("source", string(w.origin.Server)))
	}
	if w.code != "" {
		attrs = append(attrs, slog.String("error_code", string(w.code)))
	}
	if w.cause != nil && level == slog.LevelError {
		attrs = append(attrs, slog.String("error", w.cause.Error()))
	}
	if stack != nil {
		attrs = append(attrs, slog.String("stack", string(stack)))
	}
	a.logger.LogAttrs(ctx, level, "request", attrs...)
}

func newLatency(registerer prometheus.Registerer) *prometheus.HistogramVec {
	latency := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "accounts_http_request_duration_seconds",
		Help: "Time from the request's header to the end of the handler, by method, route pattern and class of status.",
		// From a cache hit to the 5 s after which the database layer gives up.
		Buckets: []float64{.00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
	}, []string{"method", "route", "status"})
	if registerer != nil {
		registerer.MustRegister(latency)
	}
	return latency
}

// methodLabel keeps a client from filling logs and metrics with methods of its own invention.
func methodLabel(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch,
		http.MethodDelete, http.MethodOptions:
		return method
	}
	return "OTHER"
}

func statusClass(status int) string {
	switch status / 100 {
	case 2:
		return "2xx"
	case 3:
		return "3xx"
	case 4:
		return "4xx"
	}
	return "5xx"
}

// requestID returns the client's id if it is harmless in headers and logs, else a new one.
func requestID(r *http.Request) string {
	id := r.Header.Get("X-Request-Id")
	if id == "" || len(id) > maxRequestIDBytes {
		return rand.Text()
	}
	for _, c := range []byte(id) {
		if !isAlphanumeric(c) && c != '.' && c != '_' && c != '-' {
			return rand.Text()
		}
	}
	return id
}

func isAlphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || isDigit(c)
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// withoutTrailingSlash makes /x/ the same route as /x.
func withoutTrailingSlash(r *http.Request) *http.Request {
	path := r.URL.Path
	if len(path) < 2 || path[len(path)-1] != '/' {
		return r
	}
	u := *r.URL
	u.Path = path[:len(path)-1]
	u.RawPath = strings.TrimSuffix(u.RawPath, "/")
	r = r.WithContext(r.Context()) // the request is not ours to change
	r.URL = &u
	return r
}

// admit authenticates a request within its limits. The address is counted before the token is verified,
// so that guessing tokens is limited too; the token is counted under its verified id.
func (a *API) admit(w *response, r *http.Request) error {
	if a.requests != nil || a.guesses != nil {
		w.caller.address = "address " + a.limits.clientAddress(r)
	}
	if err := a.limitRequests(w, w.caller.address); err != nil {
		return err
	}
	if err := a.authenticate(w, r); err != nil {
		return err
	}
	w.caller.token = "token " + w.principal.TokenID
	return a.limitRequests(w, w.caller.token)
}

// authenticate stores who sent the request.
func (a *API) authenticate(w *response, r *http.Request) error {
	token, err := auth.BearerToken(r.Header["Authorization"])
	if err != nil {
		return err
	}
	principal, err := a.auth.Authenticate(r.Context(), token)
	w.principal = principal
	return err
}
