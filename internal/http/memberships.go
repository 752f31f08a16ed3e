package httpapi

import (
	"context"
	"net/http"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/payment-services/accounts/internal/accounts"
	"github.com/payment-services/accounts/internal/errcode"
)

// Membership is a user's place in a group.
type Membership struct {
	UserID    uuid.UUID `json:"user_id"`
	GroupID   uuid.UUID `json:"group_id"`
	GroupName string    `json:"group_name" example:"client"`
	IsActive  bool      `json:"is_active"`
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
}

// MembershipList is the active memberships of a user.
type MembershipList struct {
	Items []Membership `json:"items" nullable:"false"`
}

// NewMembership is the body that puts a user into a group.
type NewMembership struct {
	UserID   uuid.UUID `json:"user_id"`
	GroupID  uuid.UUID `json:"group_id"`
	IsActive *bool     `json:"is_active,omitempty" doc:"True if left out."`
}

var memberParam = &huma.Param{
	Name: "user_id", In: "query", Required: true, Description: "Whose memberships.", Schema: uuidText("").Schema(nil),
}

func (a *API) addMemberships() {
	a.add(route{
		method: http.MethodGet, path: "/accounts/user-group-memberships", id: "list-user-group-memberships", tag: tagMemberships,
		summary: "The active memberships of a user, by group name", access: readAccess,
		params: []*huma.Param{memberParam},
		status: http.StatusOK, result: reflect.TypeFor[MembershipList](), headers: []string{"X-Cache", "X-Data-Source"},
		errors: []errcode.Code{errcode.NotFound}, handle: a.listMemberships,
	})
	a.add(route{
		method: http.MethodPost, path: "/accounts/user-group-memberships", id: "set-user-group-membership", tag: tagMemberships,
		summary: "Put a user into a group", access: writeAccess,
		description: "Idempotent: it sets what the membership is to be.",
		body:        reflect.TypeFor[NewMembership](),
		status:      http.StatusOK, result: reflect.TypeFor[Membership](),
		errors: []errcode.Code{errcode.NotFound, errcode.OutcomeUnknown}, handle: a.setMembership,
	})
}

func (a *API) listMemberships(ctx context.Context, w *response, in *input) error {
	userID := in.uuid(memberParam)
	if err := in.err(); err != nil {
		return err
	}
	memberships, origin, err := a.accounts.UserMemberships(ctx, userID)
	if err != nil {
		return err
	}
	answer := MembershipList{Items: make([]Membership, len(memberships))}
	for i, m := range memberships {
		answer.Items[i] = newMembership(m)
	}
	w.from(origin)
	return w.json(http.StatusOK, answer)
}

func (a *API) setMembership(ctx context.Context, w *response, in *input) error {
	body := readBody[NewMembership](in)
	if err := in.err(); err != nil {
		return err
	}
	active := body.IsActive == nil || *body.IsActive
	membership, err := a.accounts.SetMembership(ctx, body.UserID, body.GroupID, active)
	if err != nil {
		return err
	}
	return w.json(http.StatusOK, newMembership(membership))
}

func newMembership(m accounts.Membership) Membership {
	return Membership{
		UserID: m.UserID, GroupID: m.GroupID, GroupName: m.GroupName, IsActive: m.IsActive,
		CreatedAt: m.CreatedAt.UTC(), UpdatedAt: m.UpdatedAt.UTC(),
	}
}
