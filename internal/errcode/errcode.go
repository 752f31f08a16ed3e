// Package errcode holds the error that every layer of the service speaks: a stable code that a
// client can program against, and the facts that belong to it. internal/postgres makes one from a
// SQLSTATE or a constraint, internal/accounts and internal/auth from their own rules, and
// internal/http turns one into a problem body. docs/errors.md lists all codes.
package errcode

import (
	"errors"
	"fmt"
	"time"
)

// Code is the value of error_code in a problem body. It never changes once released.
type Code string

// The codes of the HTTP contract.
const (
	Validation            Code = "VALIDATION_ERROR"
	NotFound              Code = "NOT_FOUND"
	Database              Code = "DATABASE_ERROR"
	FileUpload            Code = "FILE_UPLOAD_ERROR"
	InvalidSecondLogin    Code = "INVALID_SECOND_LOGIN"
	ContactTypeConflict   Code = "CONTACT_TYPE_CONFLICT"
	Unauthenticated       Code = "UNAUTHENTICATED"
	Forbidden             Code = "FORBIDDEN"
	IdentifierTaken       Code = "IDENTIFIER_TAKEN"
	NameTaken             Code = "NAME_TAKEN"
	PreconditionFailed    Code = "PRECONDITION_FAILED"
	PayloadTooLarge       Code = "PAYLOAD_TOO_LARGE"
	UnsupportedMediaType  Code = "UNSUPPORTED_MEDIA_TYPE"
	MethodNotAllowed      Code = "METHOD_NOT_ALLOWED"
	RateLimited           Code = "RATE_LIMITED"
	RevocationUnavailable Code = "REVOCATION_UNAVAILABLE"
	OutcomeUnknown        Code = "OUTCOME_UNKNOWN"
	Overloaded            Code = "OVERLOADED"
	Internal              Code = "INTERNAL_ERROR"
)

// All lists every code once, in the order of docs/errors.md.
func All() []Code {
	return []Code{
		Validation, NotFound, Database, FileUpload, InvalidSecondLogin, ContactTypeConflict,
		Unauthenticated, Forbidden, IdentifierTaken, NameTaken, PreconditionFailed, PayloadTooLarge,
		UnsupportedMediaType, MethodNotAllowed, RateLimited, RevocationUnavailable, OutcomeUnknown,
		Overloaded, Internal,
	}
}

// Field names one faulty field of a request. It never carries the rejected value.
type Field struct {
	Field   string `json:"field"`   // path in the request: "identifier", "contacts[1].value"
	Code    string `json:"code"`    // machine-readable: "required", "unknown", "taken", "invalid_phone"
	Message string `json:"message"` // what to do about it
}

// Error is an error with a code. Message is shown to clients, so it names no value that they sent
// and nothing from inside; Cause is for the log alone.
type Error struct {
	Code    Code
	Message string

	Entity string  // NotFound: User, Group, Contact, ContactType, Membership
	ID     string  // NotFound: the id asked for; empty for a lookup by identifier (personal data)
	Fields []Field // Validation and conflicts: every faulty field

	// Version is the current version of the row when an expected version did not match.
	Version int64
	// RetryAfter says when to try again; zero means that trying again does not help.
	RetryAfter time.Duration

	Cause error
}

// Error returns the code, the message and the cause; it is meant for logs.
func (e *Error) Error() string {
	if e.Cause != nil {
		return fmt.Sprintf("%s: %s: %v", e.Code, e.Message, e.Cause)
	}
	return fmt.Sprintf("%s: %s", e.Code, e.Message)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// New returns an error with this code and message.
func New(code Code, message string) *Error { return &Error{Code: code, Message: message} }

// Missing returns the NotFound error of an entity. id is left empty where it is personal data.
func Missing(entity, id string) *Error {
	return &Error{Code: NotFound, Message: entity + " not found", Entity: entity, ID: id}
}

// Invalid returns the Validation error of these fields.
func Invalid(fields ...Field) *Error {
	return &Error{Code: Validation, Message: "the request is not valid; see details.errors", Fields: fields}
}

// Of returns the code of err: that of the Error in its chain, else Internal.
func Of(err error) Code {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return Internal
}
