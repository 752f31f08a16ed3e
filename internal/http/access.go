package httpapi

import (
	"net/http"
	"reflect"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/payment-services/accounts/internal/auth"
	"github.com/payment-services/accounts/internal/errcode"
)

// access is who may use a route.
type access int

const (
	public      access = iota // every client; such a route is not below /accounts
	anyToken                  // every valid token: the dictionaries
	ownerOrRead               // accounts:read, or the user {user_id} itself
	readAccess                // accounts:read
	writeAccess               // accounts:write
)

func (a access) check(p *auth.Principal, r *http.Request) error {
	switch a {
	case public, anyToken:
		return nil
	case ownerOrRead:
		if p.Has(auth.ScopeRead) || isUser(p.Subject, r.PathValue("user_id")) {
			return nil
		}
		return errcode.New(errcode.Forbidden, "this needs the scope "+auth.ScopeRead+", or the token of the user itself")
	}
	if scope := a.scope(); !p.Has(scope) {
		return errcode.New(errcode.Forbidden, "this needs the scope "+scope)
	}
	return nil
}

// scope returns the scope that a token without it is refused for; empty if there is none.
func (a access) scope() string {
	switch a {
	case ownerOrRead, readAccess:
		return auth.ScopeRead
	case writeAccess:
		return auth.ScopeWrite
	}
	return ""
}

// isUser reports whether subject is this user's id. Both are compared as ids: a subject may be in upper
// case. Every other spelling of a UUID is the name of something else.
func isUser(subject, pathID string) bool {
	s, ok := parseUUID(subject)
	if !ok {
		return false
	}
	id, ok := parseUUID(pathID)
	return ok && s == id
}

// Written is the answer to a write for a token that may not read what it wrote.
type Written struct {
	ID      uuid.UUID `json:"id"`
	Version int64     `json:"version" doc:"Rises with every change of the resource."`
}

const writtenDescription = "A token without the scope " + auth.ScopeRead + " gets the id and the version only."

// mayRead reports whether the token may read every user, contact and membership.
func (w *response) mayRead() bool { return w.principal.Has(auth.ScopeRead) }

// mayReadUser reports whether the token may read this user: every user with the scope, and without it
// its own while that is active. The scopes of a token are the issuer's decision; the right to read
// oneself comes from being a user, and a deactivated user has lost it.
func (w *response) mayReadUser(id uuid.UUID, active bool) bool {
	return w.mayRead() || active && isUser(w.principal.Subject, id.String())
}

// eitherOf is the schema of an answer that has one of these types.
func eitherOf(r huma.Registry, types ...reflect.Type) *huma.Schema {
	schema := &huma.Schema{}
	for _, t := range types {
		schema.AnyOf = append(schema.AnyOf, r.Schema(t, true, ""))
	}
	return schema
}
