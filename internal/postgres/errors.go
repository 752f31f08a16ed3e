package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/payment-services/accounts/internal/errcode"
)

// SQLSTATEs of our functions. Class UA is ours; the SQL standard reserves 0-4 and A-H.
const (
	stateNotFound     = "UA001" // DETAIL {"entity", "id"}
	stateInvalid      = "UA002" // DETAIL {"errors": [{"field", "code"}]}
	stateOtherVersion = "UA003" // DETAIL {"version"}
	stateLimit        = "UA004" // DETAIL {"limit", "maximum"}
)

// Retry-After of a 503: a switchover takes about as long.
const retryAfter = 2 * time.Second

var (
	errDemoted     = errors.New("the server behind the write address is a standby")
	errPrimaryGone = errors.New("the primary is gone, and this call was not chosen to see whether it is back")
	// The cause of a context that this package ended because the server did not answer. A live server
	// cancels a statement earlier (readStatementTimeout, statementTimeout).
	errSilent = errors.New("the server did not answer in time")
	// The connection was available too late to run a statement before the caller's deadline.
	errNoTimeLeft = errors.New("all connections were in use until it was too late to send the statement")
)

// outcomeUnknownError means that a statement may have been committed although it failed.
type outcomeUnknownError struct{ error }

func (e *outcomeUnknownError) Unwrap() error { return e.error }

// violation describes the violation of a constraint to a client.
type violation struct {
	code    errcode.Code
	field   string // the request's field unless the function names others
	reason  string // the field's code
	message string
}

// violations maps every constraint that a request can violate. A constraint that only a defect of the
// service can violate is not in it and becomes INTERNAL_ERROR.
var violations = map[string]violation{
	"users_profile_is_object": {errcode.Validation, "profile", "not_an_object", "must be a JSON object"},
	"users_profile_size":      {errcode.Validation, "profile", "too_large", "must not exceed 16 KiB"},
	"users_profile_depth":     {errcode.Validation, "profile", "too_deep", "must not nest deeper than 32 levels"},

	"user_contacts_value_length":      {errcode.Validation, "value", "invalid_length", "must have 1 to 255 characters"},
	"user_contacts_normalized_length": {errcode.Validation, "value", "invalid_length", "must have 1 to 255 characters"},
	"user_contacts_custom_canonical": {errcode.Validation, "value", "invalid_text",
		"must have visible characters and spaces only"},
	"user_contacts_phone_canonical": {errcode.Validation, "value", "invalid_phone", "must be a phone number"},
	"user_contacts_email_canonical": {errcode.Validation, "value", "invalid_email", "must be an email address"},
	"user_contacts_second_login_canonical": {errcode.InvalidSecondLogin, "value", "invalid_second_login",
		"must not look like a phone number, an email address or a uuid"},
	"user_contacts_active_normalized_key": {errcode.IdentifierTaken, "value", "taken",
		"belongs to another active contact"},
	"user_contacts_single_active_key": {errcode.ContactTypeConflict, "type", "second_of_type",
		"a user has at most one active contact of this type"},

	"contact_types_name_key": {errcode.NameTaken, "name", "taken", "another contact type has this name"},
	"contact_types_name_form": {errcode.Validation, "name", "invalid_name",
		"must be 1 to 63 lower-case letters, digits and underscores, a letter first"},
	"contact_types_on_second_known": {errcode.Validation, "on_second", "unknown",
		"must be replace, reject or allow"},
	"contact_types_identifier_name_fixed": {errcode.Validation, "name", "reserved",
		"phone, email, second_login and uuid are reserved, and the first three cannot be renamed"},

	"user_groups_name_key": {errcode.NameTaken, "name", "taken", "another group has this name"},
	"user_groups_name_form": {errcode.Validation, "name", "invalid_name",
		"must have 1 to 100 characters, no comma, no control or invisible character, no space at either end"},
	"user_groups_name_key_agrees": {errcode.Validation, "name", "invalid_name",
		"must have 1 to 100 characters, no comma, no control or invisible character, no space at either end"},
}

// limits are the messages of the limits that check_limit_v1 reports.
var limits = map[string]string{
	"active_contacts":  "a user has at most 100 active contacts; deactivate one first",
	"contacts":         "a user has at most 1,000 contacts, deactivated ones included; change the value of an existing contact instead",
	"contacts_of_type": "more than 2,000 contacts have this type, so on_second cannot change from or to allow here; see docs/operations.md",
	"contact_types":    "there are at most 100 contact types; rename one that is not used",
	"user_groups":      "there are at most 1,000 groups; rename one that is not used",
}

// messages of the field codes that functions report by themselves.
var messages = map[string]string{
	"unknown":     "there is no such name",
	"deactivated": "a deactivated contact is history and keeps its value",
}

// Uncallable reports whether err means that the function does not exist, or that the login may not
// execute it: the schema is not the one that this build needs.
func Uncallable(err error) bool {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return false
	}
	switch pgErr.Code {
	case "42883", "3F000", "42501": // undefined_function, invalid_schema_name, insufficient_privilege
		return true
	}
	return false
}

// StatementTimedOut reports whether err means that a live server cancelled the statement because it
// took too long. Another attempt, on this server or another, would cost the same again.
func StatementTimedOut(err error) bool { return hasState(err, "57014") } // query_canceled

// LockTimedOut reports whether err means that the statement waited too long for a lock on a live server.
func LockTimedOut(err error) bool { return hasState(err, "55P03") } // lock_not_available

// TimedOut reports whether a live server rolled a statement back because it took too long, or waited too
// long for a lock.
func TimedOut(err error) bool { return StatementTimedOut(err) || LockTimedOut(err) }

func hasState(err error, state string) bool {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	return ok && pgErr.Code == state
}

// statementStale reports whether err means that the prepared statements of the server's session are
// not those that pgx remembers, or do not fit the schema any more: after DEALLOCATE or DDL, or behind
// a pooler. PostgreSQL reports it as an ERROR of the statement, which therefore had no effect.
func statementStale(err error) bool {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || pgErr.SeverityUnlocalized == "FATAL" || pgErr.SeverityUnlocalized == "PANIC" {
		return false
	}
	switch pgErr.Code {
	case "26000", "42P05", "08P01": // invalid_sql_statement_name, duplicate_prepared_statement, protocol_violation
		return true
	case "0A000": // feature_not_supported: "cached plan must not change result type", which is translated
		return pgErr.Routine == "RevalidateCachedQuery"
	}
	return false
}

// serverGone reports whether err means that the server is gone, or has another role than was wanted,
// so that another connection or another server may do better.
func serverGone(err error) bool {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, errNoTimeLeft) || statementStale(err) {
		return false
	}
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch pgErr.Code {
		case "25006", // read_only_sql_transaction: the server was demoted
			"57P01", "57P02", "57P03", // admin_shutdown, crash_shutdown, cannot_connect_now
			"57P05", "25P03", "25P04": // idle_session_, idle_in_transaction_session_, transaction_timeout: closed
			return true
		}
		return strings.HasPrefix(pgErr.Code, "08") || unsent(err)
	}
	_, isNet := errors.AsType[net.Error](err)
	return isNet || unsent(err) || errors.Is(err, errDemoted) || errors.Is(err, errPrimaryGone) ||
		errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// retryable reports whether a write that failed with err had certainly no effect and may succeed
// when it is repeated.
func retryable(err error) bool {
	if _, unknown := errors.AsType[*outcomeUnknownError](err); unknown {
		return false
	}
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch pgErr.Code {
		case "40001", "40P01", "53300": // serialization_failure, deadlock_detected, too_many_connections
			return true
		}
	}
	return serverGone(err) || statementStale(err)
}

// coded turns an error of pgx into one with a code. pgx.ErrNoRows, a cancelled context and an error
// that has a code are returned as they are.
func coded(err error) error {
	if err == nil || errors.Is(err, pgx.ErrNoRows) || errors.Is(err, context.Canceled) {
		return err
	}
	if _, ok := errors.AsType[*errcode.Error](err); ok {
		return err
	}
	if _, ok := errors.AsType[*outcomeUnknownError](err); ok {
		return &errcode.Error{
			Code: errcode.OutcomeUnknown, RetryAfter: retryAfter, Cause: err,
			Message: "the connection was lost during the commit: the change may or may not have been made; look before repeating it",
		}
	}
	if serverGone(err) || statementStale(err) || errors.Is(err, errNoTimeLeft) {
		return unavailable(err)
	}
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok {
		return codedState(pgErr)
	}
	return err
}

func unavailable(cause error) error {
	return &errcode.Error{
		Code: errcode.Database, RetryAfter: retryAfter, Cause: cause,
		Message: "the database is not available at the moment; try again later",
	}
}

// codedWrite is coded, and tells the client of a write that failed that nothing was changed.
func codedWrite(err error) error {
	err = coded(err)
	if e, ok := errors.AsType[*errcode.Error](err); ok && e.Code == errcode.Database {
		e.Message = "the database takes no writes at the moment; nothing was changed, try again later"
		if TimedOut(err) {
			e.Message = "the database did not finish in time; nothing was changed, try again later or send less at once"
		}
	}
	return err
}

func codedState(pgErr *pgconn.PgError) error {
	switch pgErr.Code {
	case stateNotFound:
		var d struct{ Entity, ID string }
		if json.Unmarshal([]byte(pgErr.Detail), &d) == nil {
			return errcode.Missing(d.Entity, d.ID)
		}
	case stateOtherVersion:
		var d struct{ Version int64 }
		if json.Unmarshal([]byte(pgErr.Detail), &d) == nil {
			return &errcode.Error{
				Code: errcode.PreconditionFailed, Version: d.Version,
				Message: "the resource has another version; read it again, then repeat the change",
			}
		}
	case stateLimit:
		var d struct{ Limit string }
		if json.Unmarshal([]byte(pgErr.Detail), &d) == nil && limits[d.Limit] != "" {
			return errcode.New(errcode.LimitReached, limits[d.Limit])
		}
	case stateInvalid:
		if fields := detailFields(pgErr, ""); fields != nil {
			return errcode.Invalid(fields...)
		}
	case "23505", "23514": // unique_violation, check_violation
		if v, ok := violations[pgErr.ConstraintName]; ok {
			fields := detailFields(pgErr, v.message)
			if fields == nil {
				fields = []errcode.Field{{Field: v.field, Code: v.reason, Message: v.message}}
			}
			return &errcode.Error{Code: v.code, Message: v.message, Fields: fields}
		}
	case "22P05", "22003", "22P02", "22021", "54001":
		// untranslatable_character (\u0000), numeric_value_out_of_range, invalid_text_representation,
		// character_not_in_repertoire, statement_too_complex: caused by hostile JSON and text.
		return &errcode.Error{
			Code: errcode.Validation, Cause: pgErr,
			Message: "the request holds a character, a number or a nesting that cannot be stored",
		}
	case "42883", "3F000": // undefined_function, invalid_schema_name: a migration was not applied yet
		return unavailable(pgErr)
	case "57014", "55P03": // query_canceled (statement_timeout), lock_not_available
		return unavailable(pgErr)
	}
	if strings.HasPrefix(pgErr.Code, "53") || strings.HasPrefix(pgErr.Code, "40") {
		return unavailable(pgErr) // insufficient_resources, transaction_rollback
	}
	return pgErr
}

// IsMapped reports whether an error that a function raises reaches a client with an error code. make
// check asks it for every RAISE.
func IsMapped(state, constraint, detail string) bool {
	_, ok := errors.AsType[*errcode.Error](codedState(&pgconn.PgError{Code: state, ConstraintName: constraint, Detail: detail}))
	return ok && state != "42883" && state != "3F000" // those tell of a schema that is too old
}

// detailFields returns the fields that a function named in DETAIL, or nil if it named none.
func detailFields(pgErr *pgconn.PgError, message string) []errcode.Field {
	var d struct{ Errors []errcode.Field }
	if json.Unmarshal([]byte(pgErr.Detail), &d) != nil || len(d.Errors) == 0 {
		return nil
	}
	for i := range d.Errors {
		if d.Errors[i].Message = message; message == "" {
			d.Errors[i].Message = messages[d.Errors[i].Code]
		}
	}
	return d.Errors
}
