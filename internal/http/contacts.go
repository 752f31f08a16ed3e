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

// Contact is a contact, active or not.
type Contact struct {
	ID            uuid.UUID  `json:"id"`
	UserID        uuid.UUID  `json:"user_id"`
	Type          string     `json:"type" example:"phone"`
	Value         string     `json:"value" example:"+7 (999) 123-45-67" doc:"As it was given."`
	IsActive      bool       `json:"is_active"`
	CreatedAt     time.Time  `json:"created_at"`
	UpdatedAt     time.Time  `json:"updated_at"`
	DeactivatedAt *time.Time `json:"deactivated_at"`
}

// writtenContact documents the two answers to a write of a contact.
type writtenContact struct{}

// Schema implements huma.SchemaProvider.
func (writtenContact) Schema(r huma.Registry) *huma.Schema {
	return eitherOf(r, reflect.TypeFor[Contact](), reflect.TypeFor[Written]())
}

// ContactList is the contacts of a user.
type ContactList struct {
	Items []Contact `json:"items" nullable:"false"`
}

// NewContact is the body that adds a contact.
type NewContact struct {
	UserID uuid.UUID `json:"user_id"`
	Type   string    `json:"type" minLength:"1" maxLength:"255" example:"phone"`
	Value  string    `json:"value" minLength:"1" maxLength:"255" example:"+7 (999) 123-45-67"`
}

// ContactPatch is the body that changes a contact.
type ContactPatch struct {
	Value    *string `json:"value,omitempty" minLength:"1" maxLength:"255" example:"+7 (999) 765-43-21"`
	IsActive *bool   `json:"is_active,omitempty" example:"true"`
}

var includeInactiveParam = queryBoolean("include_inactive", "With the deactivated ones: the history. False if left out.")

func (a *API) addContacts() {
	a.add(route{
		method: http.MethodPost, path: "/accounts/contacts", id: "add-contact", tag: tagContacts,
		summary: "Add a contact to a user", access: writeAccess,
		description: "on_second of the contact type decides what a second active contact of the type does. A user has at most 100 active " +
			"contacts, and 1,000 with the deactivated ones. " + writtenDescription,
		body:   reflect.TypeFor[NewContact](),
		status: http.StatusCreated, result: reflect.TypeFor[writtenContact](), headers: []string{"ETag", "Location"},
		errors: []errcode.Code{
			errcode.NotFound, errcode.IdentifierTaken, errcode.ContactTypeConflict, errcode.LimitReached, errcode.InvalidSecondLogin, errcode.OutcomeUnknown,
		},
		handle: a.addContact,
	})
	a.add(route{
		method: http.MethodGet, path: "/accounts/contacts/{id}", id: "get-contact", tag: tagContacts,
		summary: "A contact", access: readAccess,
		params: []*huma.Param{idParam, ifNoneMatchParam},
		status: http.StatusOK, result: reflect.TypeFor[Contact](), headers: []string{"ETag", "X-Cache", "X-Data-Source"},
		errors: []errcode.Code{errcode.NotFound}, handle: a.getContact,
	})
	a.add(route{
		method: http.MethodPatch, path: "/accounts/contacts/{id}", id: "update-contact", tag: tagContacts,
		summary: "Change the value of a contact, deactivate or reactivate it", access: writeAccess,
		description: "A deactivated contact is history: its value changes only together with is_active true. " + writtenDescription,
		params:      []*huma.Param{idParam, ifMatchParam},
		body:        reflect.TypeFor[ContactPatch](), mergePatch: true,
		status: http.StatusOK, result: reflect.TypeFor[writtenContact](), headers: []string{"ETag"},
		errors: []errcode.Code{
			errcode.NotFound, errcode.IdentifierTaken, errcode.ContactTypeConflict, errcode.LimitReached, errcode.InvalidSecondLogin,
			errcode.PreconditionFailed, errcode.OutcomeUnknown,
		},
		handle: a.updateContact,
	})
	a.add(route{
		method: http.MethodDelete, path: "/accounts/contacts/{id}", id: "deactivate-contact", tag: tagContacts,
		summary: "Deactivate a contact", access: writeAccess,
		description: "It stays as history, and its value is free again.",
		params:      []*huma.Param{idParam, ifMatchParam},
		status:      http.StatusNoContent,
		errors:      []errcode.Code{errcode.NotFound, errcode.PreconditionFailed, errcode.OutcomeUnknown}, handle: a.deactivateContact,
	})
	a.add(route{
		method: http.MethodGet, path: "/accounts/contacts/user/{user_id}", id: "list-user-contacts", tag: tagContacts,
		summary: "The contacts of a user", access: readAccess,
		params: []*huma.Param{userIDParam, includeInactiveParam},
		status: http.StatusOK, result: reflect.TypeFor[ContactList](), headers: []string{"X-Cache", "X-Data-Source"},
		errors: []errcode.Code{errcode.NotFound}, compress: true, handle: a.listUserContacts,
	})
}

func (a *API) addContact(ctx context.Context, w *response, in *input) error {
	body := readBody[NewContact](in)
	in.alsoCheck(func() []errcode.Field { return a.accounts.CheckNewContact(ctx, body.Type, body.Value) })
	if err := in.err(); err != nil {
		return err
	}
	contact, err := a.accounts.AddContact(ctx, body.UserID, body.Type, body.Value)
	if err != nil {
		return err
	}
	w.Header().Set("Location", "/accounts/contacts/"+contact.ID.String())
	return w.resource(http.StatusCreated, contact.Version(), w.writtenContact(contact), nil)
}

func (a *API) getContact(ctx context.Context, w *response, in *input) error {
	id := in.uuid(idParam)
	tags := in.ifNoneMatch()
	if err := in.err(); err != nil {
		return err
	}
	contact, origin, err := a.accounts.Contact(ctx, id)
	if err != nil {
		return err
	}
	w.from(origin)
	return w.resource(http.StatusOK, contact.Version(), newContact(contact), tags)
}

func (a *API) updateContact(ctx context.Context, w *response, in *input) error {
	id := in.uuid(idParam)
	versions := in.ifMatch()
	body := readBody[ContactPatch](in)
	patch := accounts.ContactPatch{Value: body.Value, IsActive: body.IsActive, Versions: versions}
	in.alsoCheck(func() []errcode.Field { return a.accounts.CheckContactPatch(ctx, id, patch) })
	if err := in.err(); err != nil {
		return err
	}
	contact, err := a.accounts.UpdateContact(ctx, id, patch)
	if err != nil {
		return w.refused(err, contact.Version(), w.writtenContact(contact))
	}
	return w.resource(http.StatusOK, contact.Version(), w.writtenContact(contact), nil)
}

func (a *API) deactivateContact(ctx context.Context, w *response, in *input) error {
	id := in.uuid(idParam)
	versions := in.ifMatch()
	if err := in.err(); err != nil {
		return err
	}
	if contact, err := a.accounts.DeactivateContact(ctx, id, versions); err != nil {
		return w.refused(err, contact.Version(), w.writtenContact(contact))
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (a *API) listUserContacts(ctx context.Context, w *response, in *input) error {
	userID := in.uuid(userIDParam)
	includeInactive := in.boolean(includeInactiveParam)
	if err := in.err(); err != nil {
		return err
	}
	contacts, origin, err := a.accounts.UserContacts(ctx, userID, includeInactive != nil && *includeInactive)
	if err != nil {
		return err
	}
	answer := ContactList{Items: make([]Contact, len(contacts))}
	for i, c := range contacts {
		answer.Items[i] = newContact(c)
	}
	w.from(origin)
	return w.json(http.StatusOK, answer)
}

// writtenContact returns the answer to a write of this contact.
func (w *response) writtenContact(c accounts.Contact) any {
	if w.mayRead() {
		return newContact(c)
	}
	return Written{ID: c.ID, Version: c.Version()}
}

func newContact(c accounts.Contact) Contact {
	contact := Contact{
		ID: c.ID, UserID: c.UserID, Type: c.Type, Value: c.Value, IsActive: c.IsActive,
		CreatedAt: c.CreatedAt.UTC(), UpdatedAt: c.UpdatedAt.UTC(),
	}
	if c.DeactivatedAt != nil {
		contact.DeactivatedAt = new(c.DeactivatedAt.UTC())
	}
	return contact
}
