// Package httpapi is the HTTP face of the service: routes on chi, strict parameters and JSON bodies,
// problem bodies, authentication, and the OpenAPI document. It alone knows HTTP statuses.
//
// Each route is one value of type route: it names the method, path, scope, parameters and body, from
// which both the checks and the document are made, and the handler. A handler reads its input, calls
// one method of the domain, and renders the answer or returns the error.
//
// The types and the document come from huma, its request handling does not: its validator accepts
// {"profile": null} and field names in another case by default, repeats rejected values, does not say
// which field is missing, and it decodes the query before a literal "+" can be told from a space.
package httpapi

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"reflect"
	"strings"
	"sync/atomic"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-chi/chi/v5"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/semaphore"

	"github.com/payment-services/accounts/internal/accounts"
	"github.com/payment-services/accounts/internal/auth"
	"github.com/payment-services/accounts/internal/errcode"
)

// defaultMaxBodyBytes bounds a JSON body: a user with a full profile has 20 KiB.
const defaultMaxBodyBytes = 1 << 20

// Config is what an API is made of.
type Config struct {
	// Accounts answers all questions.
	Accounts *accounts.Service
	// Auth verifies the tokens.
	Auth *auth.Verifier
	// Logger gets one line a request. slog.Default() if nil.
	Logger *slog.Logger
	// Metrics is where the request histogram is registered; nil: nowhere. A second API on the same
	// registerer panics.
	Metrics prometheus.Registerer
	// MaxBodyBytes bounds a JSON body. 1 MiB if 0.
	MaxBodyBytes int64
	// BodyMemory bounds the bytes of all JSON bodies that are held at once; a request beyond it gets 503.
	// 40 MiB if 0.
	BodyMemory int64
	// MaxUploadBytes bounds the file of an upload. 10 MiB if 0.
	MaxUploadBytes int64
	// MaxUploads is how many uploads may run at once. 6 if 0.
	MaxUploads int
	// UploadExtensions are those that the name of such a file may have, in lower case and without a
	// dot. csv, xlsx and xls if nil.
	UploadExtensions []string
	// Limits are the rate limits; the zero value has none.
	Limits RateLimits
	// Origins are those whose pages may use the API (CORS), such as https://example.com; "*" is all of
	// them, none means that no page of another origin may.
	Origins []string
	// AllowedHeaders are request headers that such pages may send besides those of the API, such as
	// traceparent. "*" is all of them.
	AllowedHeaders []string
	// ExposedHeaders are answer headers, set by a proxy for example, that such pages may read besides those
	// of the API.
	ExposedHeaders []string
	// Version of the service, for the OpenAPI document.
	Version string
	// DrainDelay is how long Serve goes on accepting connections after its context ended, so that a
	// load balancer sees /readyz answer 503 and stops sending. 0: it stops at once.
	DrainDelay time.Duration
}

// API serves the whole HTTP interface. It is an http.Handler, safe for concurrent use.
type API struct {
	accounts     *accounts.Service
	auth         *auth.Verifier
	logger       *slog.Logger
	latency      *prometheus.HistogramVec
	maxBodyBytes int64
	bodyTimeout  time.Duration
	bodyMemory   *semaphore.Weighted // bytes of bodies
	answerMemory *semaphore.Weighted // bytes of large answers
	drainDelay   time.Duration
	draining     atomic.Bool

	maxUploadBytes   int64
	uploadExtensions []string
	uploads          *uploadSlots

	limits   RateLimits
	requests *limiter // nil: no limit
	guesses  *limiter

	entry http.Handler // dispatch, behind CORS

	router   *chi.Mux
	registry huma.Registry
	openAPI  *huma.OpenAPI
	document []byte // openAPI as JSON
}

// route is one operation of the interface.
type route struct {
	method, path string
	id           string // operationId
	tag          string
	summary      string
	description  string
	access       access
	params       []*huma.Param
	body         reflect.Type // of the JSON body; nil if there is none
	mergePatch   bool         // the body may also be called application/merge-patch+json
	upload       bool         // the body is multipart/form-data with a file
	maxBody      int64        // of the JSON body in bytes; 0: the API's
	maxValues    int          // of the JSON body; 0: the constant maxValues
	slow         bool         // body and work may take longer than elsewhere
	compress     bool         // the answer is large; never where there is an ETag
	status       int          // of success
	result       reflect.Type // of the body of success; nil if there is none
	mediaType    string       // of the body of success; JSON if empty
	accepted     reflect.Type // of the body of 202; nil if the route has no such answer
	headers      []string     // of success, besides those of every answer
	errors       []errcode.Code
	handle       func(ctx context.Context, w *response, in *input) error

	schema *huma.Schema // of body
}

// New returns the API.
func New(cfg Config) *API {
	a := &API{
		accounts:     cfg.Accounts,
		auth:         cfg.Auth,
		logger:       cfg.Logger,
		latency:      newLatency(cfg.Metrics),
		maxBodyBytes: cfg.MaxBodyBytes,
		bodyTimeout:  bodyTimeout,
		drainDelay:   cfg.DrainDelay,
		router:       chi.NewRouter(),
		registry:     huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer),
	}
	if a.logger == nil {
		a.logger = slog.Default()
	}
	if a.maxBodyBytes == 0 {
		a.maxBodyBytes = defaultMaxBodyBytes
	}
	if cfg.BodyMemory == 0 {
		cfg.BodyMemory = defaultBodyMemory
	}
	a.bodyMemory = semaphore.NewWeighted(cfg.BodyMemory)
	a.answerMemory = semaphore.NewWeighted(defaultAnswerMemory)
	a.limits = cfg.Limits
	a.requests, a.guesses = newLimiter(cfg.Limits.PerMinute), newLimiter(cfg.Limits.NotFoundPerMinute)
	a.entry = http.HandlerFunc(a.dispatch)
	if len(cfg.Origins) > 0 {
		a.entry = newCORS(cfg.Origins, cfg.AllowedHeaders, cfg.ExposedHeaders).Handler(a.entry)
	}
	a.maxUploadBytes, a.uploadExtensions = cfg.MaxUploadBytes, cfg.UploadExtensions
	if a.maxUploadBytes == 0 {
		a.maxUploadBytes = defaultMaxUploadBytes
	}
	if cfg.MaxUploads == 0 {
		cfg.MaxUploads = defaultMaxUploads
	}
	a.uploads = newUploadSlots(cfg.MaxUploads, int64(cfg.MaxUploads)*a.maxUploadBytes)
	if a.uploadExtensions == nil {
		a.uploadExtensions = defaultUploadExtensions
	}
	a.openAPI = newOpenAPI(cfg.Version, a.registry)
	a.router.NotFound(a.notFound)
	a.router.MethodNotAllowed(a.methodNotAllowed)

	a.addHealth()
	a.addDocs()
	a.addUsers()
	a.addContacts()
	a.addUserGroups()
	a.addContactTypes()
	a.addMemberships()
	a.addLookup()
	a.addBulk()
	a.addUploads()
	a.addImports()

	a.allowNewMembersInAnswers()
	var err error
	if a.document, err = json.Marshal(a.openAPI); err != nil {
		panic(err) // made of constants of this package
	}
	return a
}

// add makes a route answer, under HEAD too if it is a GET, and documents it.
func (a *API) add(rt route) {
	if rt.body != nil {
		rt.schema = a.registry.Schema(rt.body, false, "")
	}
	a.openAPI.AddOperation(a.operation(&rt))
	endpoint := func(w http.ResponseWriter, r *http.Request) { a.answer(w.(*response), r, &rt) }
	a.router.MethodFunc(rt.method, rt.path, endpoint)
	if rt.method == http.MethodGet {
		a.router.MethodFunc(http.MethodHead, rt.path, endpoint)
	}
}

func (a *API) answer(w *response, r *http.Request, rt *route) {
	w.route = rt.path
	ctx := newDeadline(r.Context(), rt.timeout())
	defer ctx.release()
	if rt.slow { // it outlives what the server gives every answer
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(rt.timeout() + slowReaderTime))
	}
	if rt.compress {
		w.Header().Add("Vary", "Accept-Encoding")
		w.compress = acceptsGzip(r)
	}
	if rt.access == readAccess {
		w.memory = a.answerMemory
	}
	err := rt.access.check(&w.principal, r)
	if err == nil {
		if rt.slow && w.unread != nil {
			body := a.newSteadyBody(w, r.Body)
			r = r.WithContext(r.Context()) // the request belongs to net/http
			r.Body = body
		}
		in := newInput(a, w, r, rt)
		defer in.release()
		err = rt.handle(ctx, w, in)
	}
	if err != nil {
		begun := w.status != 0
		if w.problem(r, err); begun {
			panic(http.ErrAbortHandler) // half an answer must not look like a whole one
		}
	}
}

// timeout is the deadline of the route's handler.
func (rt *route) timeout() time.Duration {
	if rt.slow {
		return slowRequestTimeout
	}
	return requestTimeout
}

func (a *API) notFound(w http.ResponseWriter, r *http.Request) {
	w.(*response).problem(r, errcode.Missing("Route", ""))
}

// methodNotAllowed answers OPTIONS too, which no route declares.
func (a *API) methodNotAllowed(w http.ResponseWriter, r *http.Request) {
	x := w.(*response)
	path := r.URL.Path
	if r.URL.RawPath != "" {
		path = r.URL.RawPath // as chi matches
	}
	var allowed []string
	for _, method := range []string{
		http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPatch, http.MethodDelete,
	} {
		if pattern := a.router.Find(chi.NewRouteContext(), method, path); pattern != "" {
			allowed = append(allowed, method)
			x.route = pattern
		}
	}
	if allowed == nil { // chi says so of every path when it does not know the method
		a.notFound(w, r)
		return
	}
	w.Header().Set("Allow", strings.Join(append(allowed, http.MethodOptions), ", "))
	if r.Method == http.MethodOptions {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	x.problem(r, errcode.New(errcode.MethodNotAllowed, "this route does not have this method; see Allow"))
}
