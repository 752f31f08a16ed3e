package accounts

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"

	"github.com/payment-services/accounts/internal/cache"
	"github.com/payment-services/accounts/internal/dbgen/read"
	"github.com/payment-services/accounts/internal/dbgen/write"
	"github.com/payment-services/accounts/internal/errcode"
	"github.com/payment-services/accounts/internal/identifier"
)

// Contact is one contact of a user. Type is the name of its type.
type Contact struct {
	ID, UserID    uuid.UUID
	Type, Value   string
	IsActive      bool
	CreatedAt     time.Time
	UpdatedAt     time.Time
	DeactivatedAt *time.Time
}

// Version rises with every change of the contact.
func (c Contact) Version() int64 { return c.UpdatedAt.UnixMicro() }

// AddContact adds an active contact to a user. What a second one of the type does is up to the type.
func (s *Service) AddContact(ctx context.Context, userID uuid.UUID, typ, value string) (Contact, error) {
	typ = nameKey(typ)
	normalized, err := s.normalize(typ, value)
	if err != nil {
		return Contact{}, invalidValues(s.CheckNewContact(ctx, typ, value))
	}
	var row write.ContactWriteV1
	err = s.write(ctx, func(ctx context.Context, q write.Querier) (_ change, err error) {
		row, err = q.AddContactV1(ctx, write.AddContactV1Params{
			UserID: userID, Type: typ, Value: value, Normalized: normalized,
		})
		return change{row.Touched, row.OutboxID}, err
	})
	return writtenContact(row), err
}

// Contact returns the contact with this id, active or not.
func (s *Service) Contact(ctx context.Context, id uuid.UUID) (Contact, Origin, error) {
	var row read.ContactV1
	missing := errcode.Missing("Contact", id.String())
	origin, err := s.read(ctx, []cache.Key{cache.ContactKey(id)}, missing, func(ctx context.Context, q read.Querier) (err error) {
		row, err = q.GetContactV1(ctx, id)
		return err
	})
	return Contact(row), origin, err
}

// UserContacts returns the active contacts of a user, or all that it ever had.
func (s *Service) UserContacts(ctx context.Context, userID uuid.UUID, includeInactive bool) ([]Contact, Origin, error) {
	var contacts []Contact
	missing := errcode.Missing("User", userID.String())
	origin, err := s.read(ctx, []cache.Key{cache.UserKey(userID)}, missing, func(ctx context.Context, q read.Querier) error {
		rows, err := q.ListUserContactsV1(ctx, userID, includeInactive)
		if err == nil && len(rows) == 0 {
			_, err = q.GetUserDetailV1(ctx, userID) // none, or nobody to have any
		}
		if err != nil {
			return err
		}
		contacts = make([]Contact, len(rows))
		for i, row := range rows {
			contacts[i] = Contact(row)
		}
		return nil
	})
	return contacts, origin, err
}

// DeactivateContact deactivates a contact; one that is deactivated already stays as it is. versions
// and the contact that is returned are as in UpdateContact.
func (s *Service) DeactivateContact(ctx context.Context, id uuid.UUID, versions []int64) (Contact, error) {
	var row write.ContactWriteV1
	err := s.write(ctx, func(ctx context.Context, q write.Querier) (_ change, err error) {
		row, err = q.DeactivateContactV1(ctx, id, versions)
		return change{row.Touched, row.OutboxID}, err
	})
	return s.contactAfter(ctx, id, row, err)
}

// ContactPatch changes a contact; nil leaves a part as it is.
type ContactPatch struct {
	Value    *string
	IsActive *bool
	// Versions are those that the contact may have before the patch; nil: any, empty: none.
	Versions []int64
}

// UpdateContact changes the value of an active contact, deactivates or reactivates it. If the contact
// has none of the expected versions, the error is PreconditionFailed, and the contact that is returned
// is the current one, or the zero value if it could not be read.
func (s *Service) UpdateContact(ctx context.Context, id uuid.UUID, p ContactPatch) (Contact, error) {
	params := write.UpdateContactV1Params{
		ContactID: id, Value: p.Value, IsActive: p.IsActive, ExpectedVersions: p.Versions,
	}
	if p.Value != nil {
		// The type decides what the value must look like, and it never changes.
		contact, _, err := s.Contact(ctx, id)
		if err != nil {
			return Contact{}, err
		}
		normalized, err := s.normalize(contact.Type, *p.Value)
		if err != nil {
			return Contact{}, invalidValues([]errcode.Field{fieldOf("value", err)})
		}
		params.Normalized = &normalized
	}
	var row write.ContactWriteV1
	err := s.write(ctx, func(ctx context.Context, q write.Querier) (_ change, err error) {
		row, err = q.UpdateContactV1(ctx, params)
		return change{row.Touched, row.OutboxID}, err
	})
	return s.contactAfter(ctx, id, row, err)
}

// contactAfter returns the contact that a write returned, or the current one, as the primary has it, if
// its version was not expected.
func (s *Service) contactAfter(ctx context.Context, id uuid.UUID, row write.ContactWriteV1, err error) (Contact, error) {
	if errcode.Of(err) == errcode.PreconditionFailed {
		var current read.ContactV1
		readErr := s.router.ReadPrimary(ctx, func(ctx context.Context, q read.Querier) (err error) {
			current, err = q.GetContactV1(ctx, id)
			return err
		})
		if readErr == nil {
			return Contact(current), err
		}
	}
	return writtenContact(row), err
}

// normalize returns the canonical form of a contact's value: of an identifier for the three identifier
// types, else of a name without regard to case. typ is the canonical name of the type.
func (s *Service) normalize(typ, value string) (string, error) {
	switch kind := identifier.Kind(typ); kind {
	case identifier.Phone, identifier.Email, identifier.SecondLogin:
		return s.parser.Canonical(kind, value)
	}
	name, err := identifier.ParseName(value)
	return name.Key, err
}

// fieldOf returns the error of internal/identifier as the error of a field.
func fieldOf(field string, err error) errcode.Field {
	if e, ok := errors.AsType[*identifier.Error](err); ok {
		return errcode.Field{Field: field, Code: e.Code, Message: e.Message}
	}
	return errcode.Field{Field: field, Code: "invalid", Message: "is not valid"}
}

func invalidIdentifier(field string, err error) error { return errcode.Invalid(fieldOf(field, err)) }

// invalidValues is INVALID_SECOND_LOGIN when malformed logins are all that is wrong.
func invalidValues(fields []errcode.Field) error {
	e := errcode.Invalid(fields...)
	for _, f := range fields {
		if f.Code != "invalid_second_login" {
			return e
		}
	}
	e.Code = errcode.InvalidSecondLogin
	return e
}

func writtenContact(row write.ContactWriteV1) Contact {
	return Contact{
		ID: row.ID, UserID: row.UserID, Type: row.Type, Value: row.Value, IsActive: row.IsActive,
		CreatedAt: row.CreatedAt, UpdatedAt: row.UpdatedAt, DeactivatedAt: row.DeactivatedAt,
	}
}
