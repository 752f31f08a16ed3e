package main

import (
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const (
	// adminReadTimeout is how long a request to the admin server may take to arrive.
	adminReadTimeout = 5 * time.Second
	// adminWriteTimeout is how long an answer may take. pprof extends it for a profile that takes longer.
	adminWriteTimeout = 30 * time.Second
	// adminIdleTimeout is longer than the scrape interval of most Prometheus servers.
	adminIdleTimeout = 2 * time.Minute
	// adminBodyTimeout is how long a body may take. Only /debug/pprof/symbol reads one: a list of addresses.
	adminBodyTimeout = time.Second
	// adminMaxHeaderBytes bounds a request's header.
	adminMaxHeaderBytes = 16 << 10
	// adminMaxConnections bounds the open connections: a few scrapers and people.
	adminMaxConnections = 64
)

// newAdminServer serves metrics and pprof.
func newAdminServer(metrics prometheus.Gatherer) *http.Server {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return &http.Server{
		Handler:        closeAfterBody(mux),
		ReadTimeout:    adminReadTimeout,
		WriteTimeout:   adminWriteTimeout,
		IdleTimeout:    adminIdleTimeout,
		MaxHeaderBytes: adminMaxHeaderBytes,
	}
}

// closeAfterBody closes the connection of a request with a body after the answer, so that a body that
// does not arrive cannot hold it.
func closeAfterBody(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength != 0 {
			w.Header().Set("Connection", "close")
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(adminBodyTimeout)) // a test's recorder has none
		}
		next.ServeHTTP(w, r)
	})
}
