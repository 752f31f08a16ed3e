package httpapi

import (
	"context"
	"encoding/json"
	"net/http"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/payment-services/accounts/internal/accounts"
	"github.com/payment-services/accounts/internal/errcode"
)

// The page of a list that does not ask for one, and how far pages go.
const (
	defaultPageSize = 50
	maxPageSize     = 100
	// maxPage keeps the offset, and with it the rows that PostgreSQL must skip, within 32 bits.
	maxPage = (1<<31 - 1) / maxPageSize
	// maxCursorRunes is more than a cursor has, and keeps a wrong one out of the decoder.
	maxCursorRunes = 64
)

// User is a user in a list.
type User struct {
	ID        uuid.UUID  `json:"id"`
	CreatedAt time.Time  `json:"created_at"`
	UpdatedAt time.Time  `json:"updated_at"`
	IsActive  bool       `json:"is_active"`
	Profile   freeObject `json:"profile"`
	Version   int64      `json:"version" doc:"Rises with every change of the user, a contact or a membership."`
}

// UserDetail documents the answer for one user. The domain renders it, because it is cached as bytes.
type UserDetail struct {
	User
	Groups   []UserDetailGroup   `json:"groups" nullable:"false" doc:"Active memberships, by name."`
	Contacts []UserDetailContact `json:"contacts" nullable:"false" doc:"Active ones, by type and creation."`
}

// UserDetailGroup is a group of a UserDetail.
type UserDetailGroup struct {
	ID   uuid.UUID `json:"id"`
	Name string    `json:"name" example:"client"`
}

// UserDetailContact is a contact of a UserDetail.
type UserDetailContact struct {
	ID    uuid.UUID `json:"id"`
	Type  string    `json:"type" example:"phone"`
	Value string    `json:"value" example:"+79991234567"`
}

// MatchedUser documents the answer of a lookup by identifier.
type MatchedUser struct {
	UserDetail
	MatchedBy string `json:"matched_by" enum:"uuid,phone,email,second_login"`
}

// UserPage is one page of users.
type UserPage struct {
	Items          []User `json:"items" nullable:"false"`
	Page           int    `json:"page"`
	Size           int    `json:"size"`
	Total          int64  `json:"total"`
	Pages          int64  `json:"pages"`
	TotalEstimated bool   `json:"total_estimated,omitempty" doc:"Total and pages are estimates."`
}

// UserSlice is a part of the users in the order of creation, from a cursor on.
type UserSlice struct {
	Items      []User  `json:"items" nullable:"false"`
	NextCursor *string `json:"next_cursor" example:"AZmhsgAAcACAAAAAAAAAAQ" doc:"Where the next slice begins; null at the end."`
}

// userList documents the two forms of the list of users.
type userList struct{}

// Schema implements huma.SchemaProvider.
func (userList) Schema(r huma.Registry) *huma.Schema {
	return &huma.Schema{OneOf: []*huma.Schema{
		r.Schema(reflect.TypeFor[UserPage](), true, ""), r.Schema(reflect.TypeFor[UserSlice](), true, ""),
	}}
}

// writtenUser documents the two answers to a write of a user.
type writtenUser struct{}

// Schema implements huma.SchemaProvider.
func (writtenUser) Schema(r huma.Registry) *huma.Schema {
	return eitherOf(r, reflect.TypeFor[UserDetail](), reflect.TypeFor[Written]())
}

// NewUser is the body that creates a user.
type NewUser struct {
	Profile  freeObject       `json:"profile,omitempty"`
	IsActive *bool            `json:"is_active,omitempty" doc:"True if left out."`
	Contacts []NewUserContact `json:"contacts,omitempty" nullable:"false" maxItems:"100"`
	Groups   []string         `json:"groups,omitempty" nullable:"false" maxItems:"100" doc:"Names of groups."`
}

// NewUserContact is a contact of a NewUser.
type NewUserContact struct {
	Type  string `json:"type" minLength:"1" maxLength:"255" example:"phone"`
	Value string `json:"value" minLength:"1" maxLength:"255" example:"+7 (999) 123-45-67"`
}

// UserPatch is the body that changes a user.
type UserPatch struct {
	Profile  freeObject `json:"profile,omitempty" doc:"A merge patch (RFC 7396) of the profile."`
	IsActive *bool      `json:"is_active,omitempty"`
}

var (
	identifierParam = &huma.Param{
		Name: "identifier", In: "query", Required: true,
		Description: "A uuid, phone, email address or second_login of an active user. A leading plus need not be encoded.",
		Schema:      &huma.Schema{Type: huma.TypeString, MinLength: new(1), MaxLength: new(maxIdentifierRunes), Examples: []any{"+79991234567"}},
	}
	pageParam         = queryInteger("page", "From 1.", 1, maxPage, 1)
	sizeParam         = queryInteger("size", "Users a page.", 1, maxPageSize, defaultPageSize)
	isActiveParam     = queryBoolean("is_active", "Only active, or only inactive users.")
	groupIDParam      = queryUUID("group_id", "Only users with an active membership in this group.")
	updatedSinceParam = &huma.Param{
		Name: "updated_since", In: "query", Description: "Only users whose updated_at is this time or later. " +
			"updated_at is the time of the statement, and the change is visible after its commit. To miss nothing, ask for the start of the " +
			"last complete poll minus 2 minutes, and compare id and version: 60 s for the longest transaction, 5 s for the replica that " +
			"answers, 55 s for clocks of database nodes that differ.",
		Schema: &huma.Schema{Type: huma.TypeString, Format: "date-time"},
	}
)

func (a *API) addUsers() {
	documentHeaders := []string{"ETag", "X-Cache", "X-Data-Source"}
	a.add(route{
		method: http.MethodGet, path: "/accounts/users/by-identifier", id: "get-user-by-identifier", tag: tagUsers,
		summary: "Find an active user by uuid, phone, email or second login", access: readAccess,
		params: []*huma.Param{identifierParam, ifNoneMatchParam},
		status: http.StatusOK, result: reflect.TypeFor[MatchedUser](), headers: documentHeaders,
		errors: []errcode.Code{errcode.NotFound}, handle: a.getUserByIdentifier,
	})
	a.add(route{
		method: http.MethodGet, path: "/accounts/users/{user_id}", id: "get-user", tag: tagUsers,
		summary: "A user with groups and contacts", access: ownerOrRead,
		description: "A token without the scope gets its own user, as long as that is active.",
		params:      []*huma.Param{userIDParam, ifNoneMatchParam},
		status:      http.StatusOK, result: reflect.TypeFor[UserDetail](), headers: documentHeaders,
		errors: []errcode.Code{errcode.NotFound}, handle: a.getUser,
	})
	a.add(route{
		method: http.MethodGet, path: "/accounts/users", id: "list-users", tag: tagUsers,
		summary: "Users in the order of creation, by page or by cursor", access: readAccess,
		description: "With cursor or limit the answer is a UserSlice: every slice costs the same, and no user is " +
			"missed or seen twice while others are created. Otherwise it is a UserPage.",
		params: []*huma.Param{pageParam, sizeParam, cursorParam, limitParam, isActiveParam, groupIDParam, updatedSinceParam},
		status: http.StatusOK, result: reflect.TypeFor[userList](), headers: []string{"X-Cache", "X-Data-Source"},
		compress: true, handle: a.listUsers,
	})
	a.add(route{
		method: http.MethodPost, path: "/accounts/users", id: "create-user", tag: tagUsers,
		summary: "Create a user with contacts and groups", access: writeAccess,
		description: writtenDescription,
		body:        reflect.TypeFor[NewUser](),
		status:      http.StatusCreated, result: reflect.TypeFor[writtenUser](), headers: []string{"ETag", "Location"},
		errors: []errcode.Code{
			errcode.IdentifierTaken, errcode.ContactTypeConflict, errcode.LimitReached, errcode.InvalidSecondLogin, errcode.OutcomeUnknown,
		},
		handle: a.createUser,
	})
	a.add(route{
		method: http.MethodPatch, path: "/accounts/users/{user_id}", id: "update-user", tag: tagUsers,
		summary: "Change a user's profile or activity", access: writeAccess,
		description: writtenDescription,
		params:      []*huma.Param{userIDParam, ifMatchParam},
		body:        reflect.TypeFor[UserPatch](), mergePatch: true,
		status: http.StatusOK, result: reflect.TypeFor[writtenUser](), headers: []string{"ETag"},
		errors: []errcode.Code{errcode.NotFound, errcode.PreconditionFailed, errcode.OutcomeUnknown},
		handle: a.updateUser,
	})
}

func (a *API) getUserByIdentifier(ctx context.Context, w *response, in *input) error {
	text := in.identifier(identifierParam)
	in.alsoCheck(func() []errcode.Field { return a.accounts.CheckIdentifier(text) })
	if err := in.err(); err != nil {
		return err
	}
	unknown, err := a.reserveUnknown(w, 1)
	if err != nil {
		return err
	}
	defer unknown.settle()
	answer, err := a.accounts.UserByIdentifier(ctx, text, in.ifNoneMatch())
	if errcode.Of(err) == errcode.NotFound {
		unknown.counted = 1
	}
	if err != nil {
		return err
	}
	w.answer(http.StatusOK, answer)
	return nil
}

func (a *API) getUser(ctx context.Context, w *response, in *input) error {
	id := in.uuid(userIDParam)
	if err := in.err(); err != nil {
		return err
	}
	answer, err := a.accounts.UserByID(ctx, id, in.ifNoneMatch())
	if err != nil {
		return err
	}
	if !w.mayReadUser(id, answer.Active) {
		return errcode.New(errcode.Forbidden, "the user of this token is deactivated")
	}
	w.answer(http.StatusOK, answer)
	return nil
}

func (a *API) listUsers(ctx context.Context, w *response, in *input) error {
	if in.has(cursorParam, limitParam) {
		return a.listUsersAfter(ctx, w, in)
	}
	page, size := in.integer(pageParam), in.integer(sizeParam)
	filter := in.userFilter()
	if err := in.err(); err != nil {
		return err
	}
	found, origin, err := a.accounts.ListUsers(ctx, filter, page, size)
	if err != nil {
		return err
	}
	answer := UserPage{
		Items: newUsers(found.Items), Page: found.Page, Size: found.Size,
		Total: found.Total, Pages: found.Pages, TotalEstimated: found.TotalEstimated,
	}
	w.from(origin)
	return w.json(http.StatusOK, answer)
}

func (a *API) listUsersAfter(ctx context.Context, w *response, in *input) error {
	cursor, limit := in.shortText(cursorParam), in.integer(limitParam)
	in.excludes("cursor or limit", pageParam, sizeParam)
	filter := in.userFilter()
	in.alsoCheck(func() []errcode.Field { return a.accounts.CheckCursor(cursor) })
	if err := in.err(); err != nil {
		return err
	}
	found, origin, err := a.accounts.ListUsersAfter(ctx, filter, cursor, limit)
	if err != nil {
		return err
	}
	w.from(origin)
	return w.json(http.StatusOK, UserSlice{Items: newUsers(found.Items), NextCursor: nextCursor(found.Next)})
}

func (in *input) userFilter() accounts.UserFilter {
	return accounts.UserFilter{
		IsActive:     in.boolean(isActiveParam),
		GroupID:      in.optionalUUID(groupIDParam),
		UpdatedSince: in.time(updatedSinceParam),
	}
}

func newUsers(found []accounts.User) []User {
	users := make([]User, len(found))
	for i, u := range found {
		users[i] = User{
			ID: u.ID, CreatedAt: u.CreatedAt.UTC(), UpdatedAt: u.UpdatedAt.UTC(),
			IsActive: u.IsActive, Profile: freeObject(u.Profile), Version: u.Version,
		}
	}
	return users
}

// nextCursor is null at the end of a list.
func nextCursor(next string) *string {
	if next == "" {
		return nil
	}
	return &next
}

func (a *API) createUser(ctx context.Context, w *response, in *input) error {
	body := readBody[NewUser](in)
	user := accounts.NewUser{
		IsActive: body.IsActive == nil || *body.IsActive,
		Profile:  json.RawMessage(body.Profile),
		Groups:   body.Groups,
	}
	for _, c := range body.Contacts {
		user.Contacts = append(user.Contacts, accounts.NewUserContact{Type: c.Type, Value: c.Value})
	}
	in.alsoCheck(func() []errcode.Field { return a.accounts.CheckNewUser(ctx, user) })
	if err := in.err(); err != nil {
		return err
	}
	id, answer, err := a.accounts.CreateUser(ctx, user)
	if err != nil {
		return err
	}
	w.Header().Set("Location", "/accounts/users/"+id.String())
	w.answer(http.StatusCreated, w.writtenUser(id, answer))
	return nil
}

func (a *API) updateUser(ctx context.Context, w *response, in *input) error {
	id := in.uuid(userIDParam)
	versions := in.ifMatch()
	body := readBody[UserPatch](in)
	patch := accounts.UserPatch{Profile: json.RawMessage(body.Profile), IsActive: body.IsActive, Versions: versions}
	in.alsoCheck(func() []errcode.Field { return a.accounts.CheckUserPatch(patch) })
	if err := in.err(); err != nil {
		return err
	}
	answer, err := a.accounts.UpdateUser(ctx, id, patch)
	answer = w.writtenUser(id, answer)
	if err != nil {
		if answer.Tag != "" { // PRECONDITION_FAILED
			w.setTag(answer.Tag)
		}
		return err
	}
	w.answer(http.StatusOK, answer)
	return nil
}

// writtenUser returns the answer to a write of this user: a itself, or Written in its place if the
// token may not read the user.
func (w *response) writtenUser(id uuid.UUID, a accounts.Answer) accounts.Answer {
	if a.Version == 0 || w.mayReadUser(id, a.Active) {
		return a
	}
	body, err := encode(Written{ID: id, Version: a.Version})
	if err != nil {
		panic(err) // an id and a number
	}
	a.Body, a.Tag = body, versionTag(a.Version, body)
	return a
}
