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

// ContactType is a kind of contact.
type ContactType struct {
	ID        uuid.UUID `json:"id"`
	Name      string    `json:"name" example:"phone"`
	OnSecond  string    `json:"on_second" enum:"replace,reject,allow" doc:"What a second active contact of the type does."`
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
}

// ContactTypeList documents the list of all contact types, which the domain renders and caches.
type ContactTypeList struct {
	Items []ContactType `json:"items" nullable:"false"`
}

// NewContactType is the body that creates a contact type.
type NewContactType struct {
	Name     string `json:"name" minLength:"1" maxLength:"255" example:"telegram" doc:"Stored in lower case, without invisible characters and spaces at the ends: at most 63 characters, a letter, then letters, digits and underscores."`
	OnSecond string `json:"on_second" enum:"replace,reject,allow"`
}

// ContactTypePatch is the body that changes a contact type.
type ContactTypePatch struct {
	Name     *string `json:"name,omitempty" minLength:"1" maxLength:"255" example:"telegram" doc:"As in NewContactType."`
	OnSecond *string `json:"on_second,omitempty" enum:"replace,reject,allow"`
}

func (a *API) addContactTypes() {
	a.add(route{
		method: http.MethodGet, path: "/accounts/contact-types", id: "list-contact-types", tag: tagContactTypes,
		summary: "All contact types", access: anyToken,
		params: []*huma.Param{ifNoneMatchParam},
		status: http.StatusOK, result: reflect.TypeFor[ContactTypeList](), headers: []string{"ETag", "X-Cache", "X-Data-Source"},
		handle: a.listContactTypes,
	})
	a.add(route{
		method: http.MethodGet, path: "/accounts/contact-types/{id}", id: "get-contact-type", tag: tagContactTypes,
		summary: "A contact type", access: anyToken,
		params: []*huma.Param{idParam, ifNoneMatchParam},
		status: http.StatusOK, result: reflect.TypeFor[ContactType](), headers: []string{"ETag", "X-Cache", "X-Data-Source"},
		errors: []errcode.Code{errcode.NotFound}, handle: a.getContactType,
	})
	a.add(route{
		method: http.MethodPost, path: "/accounts/contact-types", id: "create-contact-type", tag: tagContactTypes,
		summary: "Create a contact type", access: writeAccess,
		body:   reflect.TypeFor[NewContactType](),
		status: http.StatusCreated, result: reflect.TypeFor[ContactType](), headers: []string{"ETag", "Location"},
		errors: []errcode.Code{errcode.NameTaken, errcode.LimitReached, errcode.OutcomeUnknown}, handle: a.createContactType,
	})
	a.add(route{
		method: http.MethodPatch, path: "/accounts/contact-types/{id}", id: "update-contact-type", tag: tagContactTypes,
		summary: "Change a contact type", access: writeAccess,
		params: []*huma.Param{idParam, ifMatchParam},
		body:   reflect.TypeFor[ContactTypePatch](), mergePatch: true,
		status: http.StatusOK, result: reflect.TypeFor[ContactType](), headers: []string{"ETag"},
		errors: []errcode.Code{
			errcode.NotFound, errcode.NameTaken, errcode.ContactTypeConflict, errcode.PreconditionFailed, errcode.OutcomeUnknown,
		},
		handle: a.updateContactType,
	})
}

func (a *API) listContactTypes(ctx context.Context, w *response, in *input) error {
	if err := in.err(); err != nil {
		return err
	}
	answer, err := a.accounts.ContactTypes(ctx, in.ifNoneMatch())
	if err != nil {
		return err
	}
	w.answer(http.StatusOK, answer)
	return nil
}

func (a *API) getContactType(ctx context.Context, w *response, in *input) error {
	id := in.uuid(idParam)
	tags := in.ifNoneMatch()
	if err := in.err(); err != nil {
		return err
	}
	contactType, origin, err := a.accounts.ContactType(ctx, id)
	if err != nil {
		return err
	}
	w.from(origin)
	return w.resource(http.StatusOK, contactType.Version(), newContactType(contactType), tags)
}

func (a *API) createContactType(ctx context.Context, w *response, in *input) error {
	body := readBody[NewContactType](in)
	in.alsoCheck(func() []errcode.Field { return a.accounts.CheckNewContactTypeName(body.Name) })
	if err := in.err(); err != nil {
		return err
	}
	contactType, err := a.accounts.CreateContactType(ctx, body.Name, body.OnSecond)
	if err != nil {
		return err
	}
	w.Header().Set("Location", "/accounts/contact-types/"+contactType.ID.String())
	return w.resource(http.StatusCreated, contactType.Version(), newContactType(contactType), nil)
}

func (a *API) updateContactType(ctx context.Context, w *response, in *input) error {
	id := in.uuid(idParam)
	versions := in.ifMatch()
	body := readBody[ContactTypePatch](in)
	in.alsoCheck(func() []errcode.Field { return a.accounts.CheckContactTypeName(body.Name) })
	if err := in.err(); err != nil {
		return err
	}
	contactType, err := a.accounts.UpdateContactType(ctx, id, body.Name, body.OnSecond, versions)
	if err != nil {
		return w.refused(err, contactType.Version(), newContactType(contactType))
	}
	return w.resource(http.StatusOK, contactType.Version(), newContactType(contactType), nil)
}

func newContactType(t accounts.ContactType) ContactType {
	return ContactType{
		ID: t.ID, Name: t.Name, OnSecond: t.OnSecond, CreatedAt: t.CreatedAt.UTC(), UpdatedAt: t.UpdatedAt.UTC(),
	}
}
