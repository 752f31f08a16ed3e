package accounts

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"

	"github.com/google/uuid"

	"github.com/payment-services/accounts/internal/cache"
	"github.com/payment-services/accounts/internal/errcode"
	"github.com/payment-services/accounts/internal/identifier"
)

// contactTypeForm is contact_types_name_form.
var contactTypeForm = regexp.MustCompile(`^[a-z][a-z0-9_]{0,62}$`)

// reservedTypes are the names that contact_types_identifier_name_fixed keeps for the types that the service knows.
var reservedTypes = []string{"phone", "email", "second_login", "uuid"}

// The Check methods look for errors in a request that is refused anyway, so that its client learns of all
// errors at once. They write nothing, and they leave out what only the write function can decide. The
// write methods decide by themselves whether a request is valid.

// CheckNewUser returns the faulty fields of a user to be created.
func (s *Service) CheckNewUser(ctx context.Context, u NewUser) []errcode.Field {
	fields := fieldList(checkProfile(u.Profile))
	types := make([]string, len(u.Contacts))
	for i, c := range u.Contacts {
		types[i] = nameKey(c.Type)
		if _, err := s.normalize(types[i], c.Value); err != nil {
			fields = append(fields, fieldOf(fmt.Sprintf("contacts[%d].value", i), err))
		}
	}
	for _, i := range s.unknownTypes(ctx, types) {
		fields = append(fields, unknownName(fmt.Sprintf("contacts[%d].type", i)))
	}
	for _, i := range s.unknownGroups(ctx, u.Groups) {
		fields = append(fields, unknownName(fmt.Sprintf("groups[%d]", i)))
	}
	return fields
}

// CheckUserPatch returns the faulty fields of a patch.
func (s *Service) CheckUserPatch(p UserPatch) []errcode.Field {
	return fieldList(checkProfilePatch(p.Profile))
}

// CheckNewContact returns the faulty fields of a contact to be added.
func (s *Service) CheckNewContact(ctx context.Context, typ, value string) []errcode.Field {
	var fields []errcode.Field
	if len(s.unknownTypes(ctx, []string{typ})) > 0 {
		fields = append(fields, unknownName("type"))
	}
	if _, err := s.normalize(nameKey(typ), value); err != nil {
		fields = append(fields, fieldOf("value", err))
	}
	return fields
}

// CheckContactPatch returns the faulty fields of the patch of a contact, whose type decides what its value
// must look like.
func (s *Service) CheckContactPatch(ctx context.Context, id uuid.UUID, p ContactPatch) []errcode.Field {
	if p.Value == nil {
		return nil
	}
	contact, _, err := s.Contact(ctx, id)
	if err != nil {
		return nil
	}
	if _, err := s.normalize(contact.Type, *p.Value); err != nil {
		return []errcode.Field{fieldOf("value", err)}
	}
	return nil
}

// CheckGroupName returns what is wrong with the name of a group to be written; nil is no name.
func (s *Service) CheckGroupName(name *string) []errcode.Field {
	if name == nil {
		return nil
	}
	_, err := groupName(*name)
	return fieldsOf(err)
}

// CheckContactTypeName returns what is wrong with the name of a contact type to be written; nil is no name.
func (s *Service) CheckContactTypeName(name *string) []errcode.Field {
	if name == nil {
		return nil
	}
	canonical, err := contactTypeName(*name)
	if err == nil && !contactTypeForm.MatchString(canonical) {
		err = errcode.Invalid(errcode.Field{Field: "name", Code: "invalid_name", Message: "must be 1 to 63 lower-case letters, digits and underscores, a letter first"})
	}
	return fieldsOf(err)
}

// CheckNewContactTypeName returns what is wrong with the name of a contact type to be created.
func (s *Service) CheckNewContactTypeName(name string) []errcode.Field {
	if fields := s.CheckContactTypeName(&name); fields != nil {
		return fields
	}
	if slices.Contains(reservedTypes, nameKey(name)) {
		return []errcode.Field{{Field: "name", Code: "reserved", Message: "phone, email, second_login and uuid are reserved"}}
	}
	return nil
}

// maxCheckedFields ends CheckBulk: an answer reports 50 faulty fields.
const maxCheckedFields = 200

// CheckBulk returns the faulty fields of rows: users[0].phone. BulkCreate reports them in the results of
// the rows.
func (s *Service) CheckBulk(ctx context.Context, rows []BulkRow) []errcode.Field {
	var fields []errcode.Field
	var groups, places []string // names, and the field of each
	for i, row := range rows {
		at := fmt.Sprintf("users[%d].", i)
		if _, err := s.normalize(string(identifier.Phone), row.Phone); err != nil {
			fields = append(fields, fieldOf(at+"phone", err))
		}
		if fault := checkProfilePatch(row.Profile); fault != nil {
			fields = append(fields, errcode.Field{Field: at + fault.Field, Code: fault.Code, Message: fault.Message})
		}
		for j, name := range row.Groups {
			groups, places = append(groups, name), append(places, fmt.Sprintf("%suser_groups[%d]", at, j))
		}
		if len(fields) >= maxCheckedFields {
			break
		}
	}
	for _, i := range s.unknownGroups(ctx, groups) {
		fields = append(fields, unknownName(places[i]))
	}
	return fields
}

// CheckIdentifier returns what is wrong with an identifier to be looked up.
func (s *Service) CheckIdentifier(text string) []errcode.Field {
	if _, err := s.parser.Parse(text); err != nil {
		return []errcode.Field{fieldOf("identifier", err)}
	}
	return nil
}

// CheckCursor returns what is wrong with the cursor of a list.
func (s *Service) CheckCursor(cursor string) []errcode.Field {
	_, err := parseCursor(cursor)
	return fieldsOf(err)
}

// unknownTypes returns the indexes of the names that no contact type has.
func (s *Service) unknownTypes(ctx context.Context, names []string) []int {
	return unknownNames(names, func() (cache.Result, error) { return s.contactTypes(ctx, nil) },
		func(t ContactType) string { return t.Name })
}

// unknownGroups returns the indexes of the names that no group has.
func (s *Service) unknownGroups(ctx context.Context, names []string) []int {
	return unknownNames(names, func() (cache.Result, error) { return s.groups(ctx, nil) },
		func(g Group) string { return g.Name })
}

// unknownNames returns the indexes of the names that are not in a dictionary; none if it cannot be read.
func unknownNames[T any](names []string, load func() (cache.Result, error), nameOf func(T) string) []int {
	if len(names) == 0 {
		return nil
	}
	r, err := load()
	var l list[T]
	if err != nil || json.Unmarshal(r.Body, &l) != nil {
		return nil
	}
	known := make(map[string]bool, len(l.Items))
	for _, item := range l.Items {
		known[nameKey(nameOf(item))] = true
	}
	var unknown []int
	for i, name := range names {
		if !known[nameKey(name)] {
			unknown = append(unknown, i)
		}
	}
	return unknown
}

func unknownName(field string) errcode.Field {
	return errcode.Field{Field: field, Code: "unknown", Message: "there is no such name"}
}

// fieldList returns the field as a list, empty if it is nil.
func fieldList(field *errcode.Field) []errcode.Field {
	if field == nil {
		return nil
	}
	return []errcode.Field{*field}
}

// fieldsOf returns the faulty fields of a coded error.
func fieldsOf(err error) []errcode.Field {
	if e, ok := errors.AsType[*errcode.Error](err); ok {
		return e.Fields
	}
	return nil
}

// withFields returns a Validation error with these faulty fields too; any other error as it is.
func withFields(err error, check func() []errcode.Field) error {
	e, ok := errors.AsType[*errcode.Error](err)
	if !ok || e.Code != errcode.Validation {
		return err
	}
	all := *e
	all.Fields = slices.Clone(e.Fields)
	for _, f := range check() {
		if !slices.ContainsFunc(all.Fields, func(other errcode.Field) bool { return other.Field == f.Field }) {
			all.Fields = append(all.Fields, f)
		}
	}
	return &all
}
