package httpapi

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/payment-services/accounts/internal/errcode"
)

// minRetryAfter is what a 429 or 503 says when its error does not know better.
const minRetryAfter = time.Second

// errClientGone ends a request whose client left before its body was complete.
var errClientGone = errors.New("the client went away")

// statuses is the only place that knows the status of a code.
var statuses = map[errcode.Code]int{
	errcode.Validation:            http.StatusBadRequest,
	errcode.NotFound:              http.StatusNotFound,
	errcode.Database:              http.StatusServiceUnavailable,
	errcode.FileUpload:            http.StatusBadRequest,
	errcode.InvalidSecondLogin:    http.StatusBadRequest,
	errcode.ContactTypeConflict:   http.StatusConflict,
	errcode.Unauthenticated:       http.StatusUnauthorized,
	errcode.Forbidden:             http.StatusForbidden,
	errcode.IdentifierTaken:       http.StatusConflict,
	errcode.NameTaken:             http.StatusConflict,
	errcode.PreconditionFailed:    http.StatusPreconditionFailed,
	errcode.PayloadTooLarge:       http.StatusRequestEntityTooLarge,
	errcode.UnsupportedMediaType:  http.StatusUnsupportedMediaType,
	errcode.MethodNotAllowed:      http.StatusMethodNotAllowed,
	errcode.RateLimited:           http.StatusTooManyRequests,
	errcode.RevocationUnavailable: http.StatusServiceUnavailable,
	errcode.OutcomeUnknown:        http.StatusServiceUnavailable,
	errcode.Overloaded:            http.StatusServiceUnavailable,
	errcode.Internal:              http.StatusInternalServerError,
}

// Problem is the body of every error: the members of RFC 9457, and those that clients of the service
// before this one know (error_code, message, details).
type Problem struct {
	Type      string         `json:"type" doc:"Always about:blank: the title is that of the status."`
	Title     string         `json:"title" example:"Not Found"`
	Status    int            `json:"status" example:"404"`
	Detail    string         `json:"detail" example:"User not found"`
	Instance  string         `json:"instance" doc:"Path of the request, without the query." example:"/accounts/users/by-identifier"`
	RequestID string         `json:"request_id" doc:"As in X-Request-ID and in the log."`
	ErrorCode errcode.Code   `json:"error_code" doc:"What to program against." example:"NOT_FOUND"`
	Message   string         `json:"message" doc:"The same text as detail."`
	Details   ProblemDetails `json:"details"`
}

// ProblemDetails is what belongs to one error code.
type ProblemDetails struct {
	Entity  string          `json:"entity,omitempty" doc:"NOT_FOUND: what was not found." example:"User"`
	ID      string          `json:"id,omitempty" doc:"NOT_FOUND: the id asked for; absent for an identifier."`
	Version int64           `json:"version,omitempty" doc:"PRECONDITION_FAILED: the current version."`
	Errors  []errcode.Field `json:"errors,omitempty" nullable:"false" doc:"Every faulty field, never with the value sent."`
}

// problem answers with an error. It logs nothing itself: the request's line has the code, and the
// cause if it is a fault of ours.
func (w *response) problem(r *http.Request, err error) {
	w.cause = err
	if errors.Is(err, errClientGone) || errors.Is(err, context.Canceled) && errors.Is(r.Context().Err(), context.Canceled) {
		w.status = statusClientGone
		return
	}
	e := coded(err)
	w.code = e.Code
	if w.status != 0 {
		return // a panic in the middle of an answer
	}
	status := statuses[e.Code]
	w.setErrorHeaders(r, e, status)
	w.Header().Set("Content-Type", "application/problem+json")
	body, err := encode(newProblem(e, r.URL.EscapedPath(), w.requestID))
	if err != nil {
		panic(err) // a struct of strings
	}
	w.send(status, body)
}

func newProblem(e *errcode.Error, path, requestID string) Problem {
	status := statuses[e.Code]
	return Problem{
		Type:      "about:blank",
		Title:     http.StatusText(status),
		Status:    status,
		Detail:    e.Message,
		Instance:  path,
		RequestID: requestID,
		ErrorCode: e.Code,
		Message:   e.Message,
		Details:   ProblemDetails{Entity: e.Entity, ID: e.ID, Version: e.Version, Errors: e.Fields},
	}
}

// coded returns the error with a code that err is or stands for.
func coded(err error) *errcode.Error {
	if e, ok := errors.AsType[*errcode.Error](err); ok && e.Code != errcode.Internal {
		return e
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return errcode.New(errcode.Database, "the answer took too long")
	}
	return errcode.New(errcode.Internal, "an error of the service; its log has the cause under this request_id")
}

func (w *response) setErrorHeaders(r *http.Request, e *errcode.Error, status int) {
	h := w.Header()
	switch status {
	case http.StatusUnauthorized:
		challenge := `Bearer realm="accounts"`
		if r.Header["Authorization"] != nil { // RFC 6750, section 3.1: no error code without a token
			challenge += `, error="invalid_token"`
		}
		h.Set("WWW-Authenticate", challenge)
	case http.StatusForbidden:
		h.Set("WWW-Authenticate", `Bearer realm="accounts", error="insufficient_scope"`)
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		wait := max(e.RetryAfter, minRetryAfter)
		h.Set("Retry-After", strconv.Itoa(seconds(wait)))
	}
}
