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

// WrittenMembership is the answer to a write of a membership for a token that may not read it.
type WrittenMembership struct {
	UserID  uuid.UUID `json:"user_id"`
	GroupID uuid.UUID `json:"group_id"`
	Version int64     `json:"version" doc:"Rises with every change of the membership."`
}

// writtenMembership documents the two answers to a write of a membership.
type writtenMembership struct{}

// Schema implements huma.SchemaProvider.
func (writtenMembership) Schema(r huma.Registry) *huma.Schema {
	return eitherOf(r, reflect.TypeFor[Membership](), reflect.TypeFor[WrittenMembership]())
}

// MembershipList is the active memberships of a user, or a part of those of a group.
type MembershipList struct {
	Items      []Membership `json:"items" nullable:"false"`
	NextCursor *string      `json:"next_cursor" example:"AZmhsgAAcACAAAAAAAAAAQ" doc:"Where the next members of the group begin; null at the end, and for a user."`
}

// NewMembership is the body that puts a user into a group.
type NewMembership struct {
	UserID   uuid.UUID `json:"user_id"`
	GroupID  uuid.UUID `json:"group_id"`
	IsActive *bool     `json:"is_active,omitempty" doc:"True if left out."`
}

// MembershipPatch is the body that changes a membership.
type MembershipPatch struct {
	IsActive *bool `json:"is_active,omitempty" example:"false"`
}

// NewMemberships is the body that puts many users into a group.
type NewMemberships struct {
	GroupID  uuid.UUID   `json:"group_id"`
	UserIDs  []uuid.UUID `json:"user_ids" nullable:"false" minItems:"1" maxItems:"1000"`
	IsActive *bool       `json:"is_active,omitempty" example:"true" doc:"True if left out; false ends the memberships."`
}

// MembershipResults says what became of each user.
type MembershipResults struct {
	Results []MembershipResult `json:"results" nullable:"false" doc:"One for each distinct user, in the order given."`
}

// MembershipResult is what became of one user.
type MembershipResult struct {
	UserID uuid.UUID `json:"user_id"`
	Result string    `json:"result" enum:"changed,unchanged,user_not_found"`
}

var (
	memberParam      = queryUUID("user_id", "Whose memberships; excludes the other parameters.")
	memberGroupParam = queryUUID("group_id", "Whose members.")
	groupPathParam   = pathUUID("group_id")
)

func (a *API) addMemberships() {
	a.add(route{
		method: http.MethodGet, path: "/accounts/user-group-memberships", id: "list-user-group-memberships", tag: tagMemberships,
		summary: "The active memberships of a user, by group name, or of a group", access: readAccess,
		description: "Either user_id, or group_id with cursor and limit.",
		params:      []*huma.Param{memberParam, memberGroupParam, cursorParam, limitParam},
		status:      http.StatusOK, result: reflect.TypeFor[MembershipList](), headers: []string{"X-Cache", "X-Data-Source"},
		errors: []errcode.Code{errcode.NotFound}, compress: true, handle: a.listMemberships,
	})
	a.add(route{
		method: http.MethodPost, path: "/accounts/user-group-memberships", id: "set-user-group-membership", tag: tagMemberships,
		summary: "Put a user into a group", access: writeAccess,
		description: "Idempotent: it sets what the membership is to be. " + writtenDescription,
		body:        reflect.TypeFor[NewMembership](),
		status:      http.StatusOK, result: reflect.TypeFor[writtenMembership](), headers: []string{"ETag"},
		errors: []errcode.Code{errcode.NotFound, errcode.OutcomeUnknown}, handle: a.setMembership,
	})
	a.add(route{
		method: http.MethodPost, path: "/accounts/user-group-memberships/bulk", id: "set-user-group-memberships", tag: tagMemberships,
		summary: "Put up to 1000 users into a group", access: writeAccess,
		description: "All in one transaction. Idempotent: it sets what the memberships are to be.",
		body:        reflect.TypeFor[NewMemberships](),
		status:      http.StatusOK, result: reflect.TypeFor[MembershipResults](),
		errors: []errcode.Code{errcode.NotFound, errcode.OutcomeUnknown}, handle: a.setMemberships,
	})
	path := "/accounts/user-group-memberships/{user_id}/{group_id}"
	a.add(route{
		method: http.MethodGet, path: path, id: "get-user-group-membership", tag: tagMemberships,
		summary: "A membership, active or ended", access: readAccess,
		params: []*huma.Param{userIDParam, groupPathParam, ifNoneMatchParam},
		status: http.StatusOK, result: reflect.TypeFor[Membership](), headers: []string{"ETag", "X-Cache", "X-Data-Source"},
		errors: []errcode.Code{errcode.NotFound}, handle: a.getMembership,
	})
	a.add(route{
		method: http.MethodPatch, path: path, id: "update-user-group-membership", tag: tagMemberships,
		summary: "End a membership or begin it again", access: writeAccess,
		description: writtenDescription,
		params:      []*huma.Param{userIDParam, groupPathParam, ifMatchParam},
		body:        reflect.TypeFor[MembershipPatch](), mergePatch: true,
		status: http.StatusOK, result: reflect.TypeFor[writtenMembership](), headers: []string{"ETag"},
		errors: []errcode.Code{errcode.NotFound, errcode.PreconditionFailed, errcode.OutcomeUnknown}, handle: a.updateMembership,
	})
	a.add(route{
		method: http.MethodDelete, path: path, id: "end-user-group-membership", tag: tagMemberships,
		summary: "End a membership", access: writeAccess,
		description: "It stays as history. Ending it again changes nothing.",
		params:      []*huma.Param{userIDParam, groupPathParam, ifMatchParam},
		status:      http.StatusNoContent,
		errors:      []errcode.Code{errcode.NotFound, errcode.PreconditionFailed, errcode.OutcomeUnknown}, handle: a.endMembership,
	})
}

func (a *API) listMemberships(ctx context.Context, w *response, in *input) error {
	if in.has(memberGroupParam) {
		return a.listMembers(ctx, w, in)
	}
	if !in.has(memberParam) {
		in.wrong(memberParam.Name, "required", "this route needs user_id or group_id")
	}
	in.excludes("user_id", cursorParam, limitParam)
	userID := in.uuid(memberParam)
	if err := in.err(); err != nil {
		return err
	}
	memberships, origin, err := a.accounts.UserMemberships(ctx, userID)
	if err != nil {
		return err
	}
	w.from(origin)
	return w.json(http.StatusOK, MembershipList{Items: newMemberships(memberships)})
}

func (a *API) listMembers(ctx context.Context, w *response, in *input) error {
	in.excludes("group_id", memberParam)
	groupID := in.uuid(memberGroupParam)
	cursor, limit := in.shortText(cursorParam), in.integer(limitParam)
	in.alsoCheck(func() []errcode.Field { return a.accounts.CheckCursor(cursor) })
	if err := in.err(); err != nil {
		return err
	}
	found, origin, err := a.accounts.GroupMembers(ctx, groupID, cursor, limit)
	if err != nil {
		return err
	}
	w.from(origin)
	return w.json(http.StatusOK, MembershipList{Items: newMemberships(found.Items), NextCursor: nextCursor(found.Next)})
}

func (a *API) getMembership(ctx context.Context, w *response, in *input) error {
	userID, groupID := in.uuid(userIDParam), in.uuid(groupPathParam)
	tags := in.ifNoneMatch()
	if err := in.err(); err != nil {
		return err
	}
	membership, origin, err := a.accounts.Membership(ctx, userID, groupID)
	if err != nil {
		return err
	}
	w.from(origin)
	return w.resource(http.StatusOK, membership.Version(), newMembership(membership), tags)
}

func (a *API) updateMembership(ctx context.Context, w *response, in *input) error {
	userID, groupID := in.uuid(userIDParam), in.uuid(groupPathParam)
	versions := in.ifMatch()
	body := readBody[MembershipPatch](in)
	if err := in.err(); err != nil {
		return err
	}
	membership, err := a.accounts.UpdateMembership(ctx, userID, groupID, body.IsActive, versions)
	if err != nil {
		return w.refused(err, membership.Version(), w.writtenMembership(membership))
	}
	return w.resource(http.StatusOK, membership.Version(), w.writtenMembership(membership), nil)
}

func (a *API) endMembership(ctx context.Context, w *response, in *input) error {
	userID, groupID := in.uuid(userIDParam), in.uuid(groupPathParam)
	versions := in.ifMatch()
	if err := in.err(); err != nil {
		return err
	}
	if membership, err := a.accounts.UpdateMembership(ctx, userID, groupID, new(false), versions); err != nil {
		return w.refused(err, membership.Version(), w.writtenMembership(membership))
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
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
	return w.resource(http.StatusOK, membership.Version(), w.writtenMembership(membership), nil)
}

func (a *API) setMemberships(ctx context.Context, w *response, in *input) error {
	body := readBody[NewMemberships](in)
	if err := in.err(); err != nil {
		return err
	}
	active := body.IsActive == nil || *body.IsActive
	results, err := a.accounts.SetMemberships(ctx, body.GroupID, body.UserIDs, active)
	if err != nil {
		return err
	}
	answer := MembershipResults{Results: make([]MembershipResult, len(results))}
	for i, r := range results {
		answer.Results[i] = MembershipResult{UserID: r.UserID, Result: r.Result}
	}
	return w.json(http.StatusOK, answer)
}

func newMemberships(found []accounts.Membership) []Membership {
	memberships := make([]Membership, len(found))
	for i, m := range found {
		memberships[i] = newMembership(m)
	}
	return memberships
}

// writtenMembership returns the answer to a write of this membership.
func (w *response) writtenMembership(m accounts.Membership) any {
	if w.mayRead() {
		return newMembership(m)
	}
	return WrittenMembership{UserID: m.UserID, GroupID: m.GroupID, Version: m.Version()}
}

func newMembership(m accounts.Membership) Membership {
	return Membership{
		UserID: m.UserID, GroupID: m.GroupID, GroupName: m.GroupName, IsActive: m.IsActive,
		CreatedAt: m.CreatedAt.UTC(), UpdatedAt: m.UpdatedAt.UTC(),
	}
}
