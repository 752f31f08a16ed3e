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

// Group is a group of users.
type Group struct {
	ID        uuid.UUID `json:"id"`
	Name      string    `json:"name" example:"client"`
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
}

// GroupList documents the list of all groups, which the domain renders and caches.
type GroupList struct {
	Items []Group `json:"items" nullable:"false"`
}

// NewGroup is the body that creates a group.
type NewGroup struct {
	Name string `json:"name" minLength:"1" maxLength:"255" example:"client" doc:"At most 100 characters and no comma, after invisible characters and spaces at the ends are removed. Unique without regard to case."`
}

// GroupPatch is the body that changes a group.
type GroupPatch struct {
	Name *string `json:"name,omitempty" minLength:"1" maxLength:"255" example:"customer" doc:"As in NewGroup."`
}

func (a *API) addUserGroups() {
	a.add(route{
		method: http.MethodGet, path: "/accounts/user-groups", id: "list-user-groups", tag: tagGroups,
		summary: "All groups", access: anyToken,
		params: []*huma.Param{ifNoneMatchParam},
		status: http.StatusOK, result: reflect.TypeFor[GroupList](), headers: []string{"ETag", "X-Cache", "X-Data-Source"},
		handle: a.listGroups,
	})
	a.add(route{
		method: http.MethodGet, path: "/accounts/user-groups/{id}", id: "get-user-group", tag: tagGroups,
		summary: "A group", access: anyToken,
		params: []*huma.Param{idParam, ifNoneMatchParam},
		status: http.StatusOK, result: reflect.TypeFor[Group](), headers: []string{"ETag", "X-Cache", "X-Data-Source"},
		errors: []errcode.Code{errcode.NotFound}, handle: a.getGroup,
	})
	a.add(route{
		method: http.MethodPost, path: "/accounts/user-groups", id: "create-user-group", tag: tagGroups,
		summary: "Create a group", access: writeAccess,
		body:   reflect.TypeFor[NewGroup](),
		status: http.StatusCreated, result: reflect.TypeFor[Group](), headers: []string{"ETag", "Location"},
		errors: []errcode.Code{errcode.NameTaken, errcode.LimitReached, errcode.OutcomeUnknown}, handle: a.createGroup,
	})
	a.add(route{
		method: http.MethodPatch, path: "/accounts/user-groups/{id}", id: "update-user-group", tag: tagGroups,
		summary: "Rename a group", access: writeAccess,
		params: []*huma.Param{idParam, ifMatchParam},
		body:   reflect.TypeFor[GroupPatch](), mergePatch: true,
		status: http.StatusOK, result: reflect.TypeFor[Group](), headers: []string{"ETag"},
		errors: []errcode.Code{errcode.NotFound, errcode.NameTaken, errcode.PreconditionFailed, errcode.OutcomeUnknown}, handle: a.updateGroup,
	})
}

func (a *API) listGroups(ctx context.Context, w *response, in *input) error {
	if err := in.err(); err != nil {
		return err
	}
	answer, err := a.accounts.Groups(ctx, in.ifNoneMatch())
	if err != nil {
		return err
	}
	w.answer(http.StatusOK, answer)
	return nil
}

func (a *API) getGroup(ctx context.Context, w *response, in *input) error {
	id := in.uuid(idParam)
	tags := in.ifNoneMatch()
	if err := in.err(); err != nil {
		return err
	}
	group, origin, err := a.accounts.Group(ctx, id)
	if err != nil {
		return err
	}
	w.from(origin)
	return w.resource(http.StatusOK, group.Version(), newGroup(group), tags)
}

func (a *API) createGroup(ctx context.Context, w *response, in *input) error {
	body := readBody[NewGroup](in)
	in.alsoCheck(func() []errcode.Field { return a.accounts.CheckGroupName(&body.Name) })
	if err := in.err(); err != nil {
		return err
	}
	group, err := a.accounts.CreateGroup(ctx, body.Name)
	if err != nil {
		return err
	}
	w.Header().Set("Location", "/accounts/user-groups/"+group.ID.String())
	return w.resource(http.StatusCreated, group.Version(), newGroup(group), nil)
}

func (a *API) updateGroup(ctx context.Context, w *response, in *input) error {
	id := in.uuid(idParam)
	versions := in.ifMatch()
	body := readBody[GroupPatch](in)
	in.alsoCheck(func() []errcode.Field { return a.accounts.CheckGroupName(body.Name) })
	if err := in.err(); err != nil {
		return err
	}
	group, err := a.accounts.UpdateGroup(ctx, id, body.Name, versions)
	if err != nil {
		return w.refused(err, group.Version(), newGroup(group))
	}
	return w.resource(http.StatusOK, group.Version(), newGroup(group), nil)
}

func newGroup(g accounts.Group) Group {
	return Group{ID: g.ID, Name: g.Name, CreatedAt: g.CreatedAt.UTC(), UpdatedAt: g.UpdatedAt.UTC()}
}
