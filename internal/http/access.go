package httpapi

import (
	"net/http"

	"github.com/google/uuid"

	"github.com/payment-services/accounts/internal/auth"
	"github.com/payment-services/accounts/internal/errcode"
)

// access says who may use a route.
type access int

const (
	public      access = iota // everybody; such a route is not below /accounts
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

// isUser compares as ids: a subject may be written in upper case.
func isUser(subject, pathID string) bool {
	s, err := uuid.Parse(subject)
	if err != nil {
		return false
	}
	id, err := uuid.Parse(pathID)
	return err == nil && s == id
}
