package httpapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"
)

const (
	// headerTimeout is how long a client may take to send a request's header.
	headerTimeout = 5 * time.Second
	// slowReaderTime is what a client may take to read an answer.
	slowReaderTime = 14 * time.Second
	// answerTimeout bounds handler and answer together.
	answerTimeout = requestTimeout + slowReaderTime
	// idleTimeout is longer than what load balancers keep a connection for, so that they close first.
	idleTimeout = 60 * time.Second
	// maxHeaderBytes: a token may have 8 KiB, and a URL names one identifier.
	maxHeaderBytes = 16 << 10
	// shutdownTimeout is how long running requests may take to end: they have requestTimeout anyway.
	shutdownTimeout = 20 * time.Second
)

// NewServer returns an http.Server with our limits for the API. Serve uses it; a caller needs it only
// to serve in its own way.
func (a *API) NewServer() *http.Server {
	return &http.Server{
		Handler: a,
		// OPTIONS * must have a request id and a log line too.
		DisableGeneralOptionsHandler: true,
		ReadHeaderTimeout:            headerTimeout,
		// For every request from its first byte to the end of its body. net/http sets or clears the deadline
		// of each request anyway, so this costs a request without a body no system call, only a timer.
		ReadTimeout:    a.bodyTimeout,
		WriteTimeout:   answerTimeout,
		IdleTimeout:    idleTimeout,
		MaxHeaderBytes: maxHeaderBytes,
		ErrorLog:       slog.NewLogLogger(a.logger.Handler(), slog.LevelWarn),
	}
}

// Drain makes /readyz answer 503 from now on. Everything else goes on.
func (a *API) Drain() { a.draining.Store(true) }

// Serve answers requests on the listener, which it closes, until ctx ends. Then it drains for
// Config.DrainDelay, accepts nothing more, and returns when the running requests have ended, or with
// an error after 20 s, when it cuts the rest off.
func (a *API) Serve(ctx context.Context, listener net.Listener) error {
	server := a.NewServer()
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve HTTP: %w", err)
	case <-ctx.Done():
	}
	a.Drain()
	select {
	case err := <-served:
		return fmt.Errorf("serve HTTP: %w", err)
	case <-time.After(a.drainDelay):
	}
	deadline, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	if err := server.Shutdown(deadline); err != nil {
		return errors.Join(fmt.Errorf("shut down HTTP with requests still running after %s: %w", shutdownTimeout, err), server.Close())
	}
	return nil
}
