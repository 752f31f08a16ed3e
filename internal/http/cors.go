package httpapi

import (
	"net/http"
	"time"

	"github.com/go-chi/cors"
)

// preflightLife is how long a browser may remember what it may do.
const preflightLife = 10 * time.Minute

// newCORS lets pages of these origins use the API, and send and read these headers besides those of the
// API. Tokens come in a header that the page sets, so there are no cookies to allow.
func newCORS(origins, allowedHeaders, exposedHeaders []string) *cors.Cors {
	return cors.New(cors.Options{
		AllowedOrigins: origins,
		AllowedMethods: []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPatch, http.MethodDelete},
		AllowedHeaders: append([]string{
			"Authorization", "Content-Type", "If-Match", "If-None-Match", "Prefer", "X-Request-ID",
		}, allowedHeaders...),
		ExposedHeaders: append([]string{
			"Content-Disposition", "ETag", "Location", "Preference-Applied", "RateLimit-Limit", "RateLimit-Remaining",
			"RateLimit-Reset", "Retry-After", "WWW-Authenticate", "X-Cache", "X-Data-Source", "X-Request-ID",
		}, exposedHeaders...),
		MaxAge: int(preflightLife / time.Second),
	})
}
