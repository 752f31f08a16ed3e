package httpapi

import (
	"context"
	"net/http"
	"reflect"
	"slices"

	"github.com/danielgtaylor/huma/v2"

	"github.com/payment-services/accounts/internal/accounts"
)

// Lookup is the body that asks for many users.
type Lookup struct {
	Identifiers []identifierText `json:"identifiers" nullable:"false" minItems:"1" maxItems:"100"`
}

// LookupResults are the answers to a Lookup.
type LookupResults struct {
	Results []LookupResult `json:"results" nullable:"false" doc:"One for each identifier, in their order."`
}

// LookupResult is the answer to one identifier.
type LookupResult struct {
	Index     int          `json:"index" doc:"Of the identifier, from 0." example:"0"`
	Status    string       `json:"status" enum:"found,not_found,invalid"`
	MatchedBy string       `json:"matched_by,omitempty" enum:"uuid,phone,email,second_login"`
	User      renderedUser `json:"user,omitempty"`
}

// identifierText is a uuid, phone, email or second login as it was typed.
type identifierText string

// Schema implements huma.SchemaProvider.
func (identifierText) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{
		Type: huma.TypeString, MinLength: new(1), MaxLength: new(maxIdentifierRunes), Examples: []any{"+7 (999) 123-45-67"},
	}
}

// renderedUser is a UserDetail as the domain rendered it.
type renderedUser []byte

// Schema implements huma.SchemaProvider.
func (renderedUser) Schema(r huma.Registry) *huma.Schema {
	return r.Schema(reflect.TypeFor[UserDetail](), true, "")
}

// MarshalJSON implements json.Marshaler.
func (u renderedUser) MarshalJSON() ([]byte, error) { return u, nil }

// UnmarshalJSON implements json.Unmarshaler.
func (u *renderedUser) UnmarshalJSON(data []byte) error {
	*u = slices.Clone(data)
	return nil
}

func (a *API) addLookup() {
	a.add(route{
		method: http.MethodPost, path: "/accounts/users/lookup", id: "lookup-users", tag: tagUsers,
		summary: "Find up to 100 active users by any identifiers", access: readAccess,
		description: "Like by-identifier, and keeps personal data out of URLs. It changes nothing.",
		body:        reflect.TypeFor[Lookup](),
		status:      http.StatusOK, result: reflect.TypeFor[LookupResults](), headers: []string{"X-Cache", "X-Data-Source"},
		handle: a.lookup,
	})
}

func (a *API) lookup(ctx context.Context, w *response, in *input) error {
	body := readBody[Lookup](in)
	if err := in.err(); err != nil {
		return err
	}
	texts := make([]string, len(body.Identifiers))
	for i, text := range body.Identifiers {
		texts[i] = string(text)
	}
	unknown, err := a.reserveUnknown(w, len(texts))
	if err != nil {
		return err
	}
	defer unknown.settle()
	found, origin, err := a.accounts.Lookup(ctx, texts)
	if err != nil {
		return err
	}
	misses := 0
	answer := LookupResults{Results: make([]LookupResult, len(found))}
	for i, r := range found {
		answer.Results[i] = LookupResult{Index: i, Status: r.Status, User: r.User}
		if r.Status == accounts.LookupFound {
			answer.Results[i].MatchedBy = string(r.MatchedBy)
		} else {
			misses++
		}
	}
	if err := unknown.count(misses); err != nil {
		return err
	}
	w.from(origin)
	return w.json(http.StatusOK, answer)
}
