package httpapi

import (
	"context"
	"net/http"
	"reflect"
	"time"

	"github.com/payment-services/accounts/internal/accounts"
)

// readyTimeout bounds a readiness probe: less than the time after which load balancers give up on one.
const readyTimeout = 2 * time.Second

// Health is the answer of /healthz and /readyz.
type Health struct {
	Status string           `json:"status" enum:"ok,degraded,unavailable,draining"`
	Checks map[string]Check `json:"checks,omitempty" doc:"write, replica, redis, schema"`
}

// Check is one dependency of the service.
type Check struct {
	OK       bool   `json:"ok"`
	Degraded bool   `json:"degraded,omitempty" doc:"Not as it should be, but requests are answered."`
	Detail   string `json:"detail,omitempty"`
	Value    string `json:"value,omitempty" doc:"What was measured, such as the lag of the replica."`
}

func (a *API) addHealth() {
	a.add(route{
		method: http.MethodGet, path: "/healthz", id: "get-health", tag: tagOperation,
		summary: "The process lives", access: public,
		status: http.StatusOK, result: reflect.TypeFor[Health](), handle: a.getHealth,
	})
	a.add(route{
		method: http.MethodGet, path: "/readyz", id: "get-readiness", tag: tagOperation,
		summary: "The service can take requests", access: public,
		description: "degraded: requests are answered, but not all as they should be; the checks say why. 503 with the same " +
			"body if no database has answered for 5 s, it lacks a function that this build calls, or the service is about to stop.",
		status: http.StatusOK, result: reflect.TypeFor[Health](), handle: a.getReadiness,
	})
	ready := a.openAPI.Paths["/readyz"].Get.Responses
	ready["503"] = ready["200"]
	a.add(route{
		method: http.MethodGet, path: "/openapi.json", id: "get-openapi", tag: tagOperation,
		summary: "This document", access: public,
		status: http.StatusOK, result: reflect.TypeFor[map[string]any](), compress: true, handle: a.getOpenAPI,
	})
}

func (a *API) getHealth(_ context.Context, w *response, _ *input) error {
	return w.json(http.StatusOK, Health{Status: "ok"})
}

func (a *API) getReadiness(ctx context.Context, w *response, _ *input) error {
	if a.draining.Load() {
		w.Header().Set("Retry-After", "1")
		return w.json(http.StatusServiceUnavailable, Health{Status: "draining"})
	}
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	health := a.accounts.Health(ctx)
	answer := Health{Status: "ok", Checks: make(map[string]Check, len(health.Checks))}
	for name, c := range health.Checks {
		answer.Checks[name] = newCheck(c)
		if c.Degraded {
			answer.Status = "degraded"
		}
	}
	if health.Ready {
		return w.json(http.StatusOK, answer)
	}
	answer.Status = "unavailable"
	w.Header().Set("Retry-After", "1")
	return w.json(http.StatusServiceUnavailable, answer)
}

func (a *API) getOpenAPI(_ context.Context, w *response, _ *input) error {
	w.Header()["Content-Type"] = applicationJSON
	w.send(http.StatusOK, a.document)
	return nil
}

func newCheck(c accounts.Check) Check {
	return Check{OK: c.OK, Degraded: c.Degraded, Detail: c.Detail, Value: c.Value}
}
