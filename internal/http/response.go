package httpapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/payment-services/accounts/internal/accounts"
	"github.com/payment-services/accounts/internal/auth"
	"github.com/payment-services/accounts/internal/errcode"
)

const (
	// unreadTimeout is how long an answer waits for a body that is not needed: it is in the socket's
	// buffer, or the client has not sent it yet.
	unreadTimeout = 10 * time.Millisecond
	// maxUnreadBytes is how much of such a body is read to keep the connection.
	maxUnreadBytes = 64 << 10
	// lingerTimeout is how long a connection stays open after an answer that closes it: more than a round
	// trip, in which the client gets the answer and stops sending.
	lingerTimeout = 500 * time.Millisecond
	// lingerWindow is how many bytes a client that goes on sending must send within each lingerTimeout.
	lingerWindow = 64 << 10
	// maxLinger bounds the time for such a client. 16 MiB at 30 Mbit/s take as long.
	maxLinger = 5 * time.Second
	// freeAnswerBytes of each answer are not counted against answerMemory.
	freeAnswerBytes = 64 << 10
	// defaultAnswerMemory bounds the large answers that are sent at once: 30 pages of 100 full profiles. A
	// client that does not read its answer holds the memory until the write deadline.
	defaultAnswerMemory = 48 << 20
)

var errTooManyAnswers = &errcode.Error{
	Code: errcode.Overloaded, RetryAfter: time.Second,
	Message: "the service is sending too many large answers at the moment; try again later, or ask for fewer items",
}

// response is one answer on its way out, and what the log line will say about it.
type response struct {
	http.ResponseWriter
	requestID string
	route     string // pattern
	principal auth.Principal
	origin    accounts.Origin
	caller    caller
	memory    *semaphore.Weighted // bytes of large answers; nil: this one is not limited
	compress  bool                // the route's answers are worth it, and the client understands

	unread      io.Reader // the request's body, until it was read to its end; nil if it has none
	waitsToSend bool      // the client sends the body after a 100 Continue only
	rest        io.Reader // what may still arrive after an answer that closes the connection, or nil

	status int // 0 until the header is written
	bytes  int64
	code   errcode.Code
	cause  error
}

// WriteHeader implements http.ResponseWriter.
func (w *response) WriteHeader(status int) {
	if w.status == 0 && status >= http.StatusOK {
		w.status = status
		if w.unread != nil {
			w.endUnread()
		}
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *response) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	n, err := w.ResponseWriter.Write(p)
	w.bytes += int64(n)
	return n, err
}

// endUnread keeps a body that is not needed from holding the connection. A body that has arrived
// already is read, and the connection can be used again. Otherwise the answer closes the connection,
// and linger follows.
func (w *response) endUnread() {
	body := w.unread
	w.unread = nil
	connection := http.NewResponseController(w.ResponseWriter)
	mayArrive := !w.waitsToSend && w.Header().Get("Connection") != "close"
	if mayArrive && connection.SetReadDeadline(time.Now().Add(unreadTimeout)) == nil {
		if _, err := io.CopyN(io.Discard, body, maxUnreadBytes); err == io.EOF {
			_ = connection.SetReadDeadline(time.Time{})
			return
		}
	}
	w.Header().Set("Connection", "close")
	_ = connection.SetReadDeadline(time.Now().Add(lingerTimeout))
	if !w.waitsToSend {
		w.rest = body
	}
}

// linger discards what the client still sends after an answer that closes the connection. If the server
// closed it with unread bytes, TCP would reset it, and a client that reads the answer only after it has
// sent the whole body would not get the answer. A client that sends too little is not waited for.
func (w *response) linger() {
	if w.rest == nil {
		return
	}
	connection := http.NewResponseController(w.ResponseWriter)
	if connection.Flush() != nil {
		return
	}
	for end := time.Now().Add(maxLinger); time.Now().Before(end); {
		deadline := time.Now().Add(lingerTimeout)
		if deadline.After(end) {
			deadline = end
		}
		if connection.SetReadDeadline(deadline) != nil {
			return
		}
		if _, err := io.CopyN(io.Discard, w.rest, lingerWindow); err != nil {
			return
		}
	}
}

// Unwrap lets http.ResponseController reach the connection.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// from says where the answer comes from.
func (w *response) from(origin accounts.Origin) {
	w.origin = origin
	if origin.Cache != "" {
		w.Header().Set("X-Cache", string(origin.Cache))
	}
	if origin.Server != "" {
		w.Header().Set("X-Data-Source", string(origin.Server))
	}
}

// answer sends a ready document, or 304 if the client has it.
func (w *response) answer(status int, a accounts.Answer) {
	w.from(a.Origin)
	w.setTag(a.Tag)
	if a.NotModified {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	w.Header()["Content-Type"] = applicationJSON
	w.send(status, a.Body)
}

// json sends v. A read may get errTooManyAnswers instead. A write may not: its change was made.
func (w *response) json(status int, v any) error {
	body, err := encode(v)
	if err != nil {
		return err
	}
	if large := int64(len(body)) - freeAnswerBytes; large > 0 && w.memory != nil {
		if !w.memory.TryAcquire(large) {
			return errTooManyAnswers
		}
		defer w.memory.Release(large)
	}
	w.Header()["Content-Type"] = applicationJSON
	w.send(status, body)
	return nil
}

func (w *response) send(status int, body []byte) {
	if w.compress && len(body) >= minCompressed {
		body = compressed(body)
		w.Header().Set("Content-Encoding", "gzip")
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // it fails when the client has left: nobody to tell
}

// encode is json.Marshal without the escapes that only matter inside HTML.
func encode(v any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("encode %T: %w", v, err)
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), nil
}
