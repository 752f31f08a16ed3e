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
	drainDelay   time.Duration
	draining     atomic.Bool

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
	status       int          // of success
	result       reflect.Type // of the body of success; nil if there is none
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
	a.openAPI = newOpenAPI(cfg.Version, a.registry)
	a.router.NotFound(a.notFound)
	a.router.MethodNotAllowed(a.methodNotAllowed)

	a.addHealth()
	a.addUsers()
	a.addContacts()
	a.addUserGroups()
	a.addContactTypes()
	a.addMemberships()

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
	err := rt.access.check(&w.principal, r)
	if err == nil {
		err = rt.handle(r.Context(), w, newInput(a, w, r, rt))
	}
	if err != nil {
		w.problem(r, err)
	}
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
