package accounts

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"
	"golang.org/x/text/unicode/norm"

	"github.com/payment-services/accounts/internal/cache"
	"github.com/payment-services/accounts/internal/errcode"
)

// The Check methods look for errors in a request that is refused anyway, so that its client learns of all
// errors at once. They write nothing, and they leave out what only the write function can decide. The
// write methods decide by themselves whether a request is valid.

// The limits of a profile: the constraints users_profile_depth and users_profile_size.
const (
	maxProfileDepth = 32
	maxProfileBytes = 16 << 10
)

// CheckNewUser returns the faulty fields of a user to be created.
func (s *Service) CheckNewUser(ctx context.Context, u NewUser) []errcode.Field {
	fields := profileErrors(u.Profile)
	types := make([]string, len(u.Contacts))
	for i, c := range u.Contacts {
		types[i] = c.Type
		if _, err := s.normalize(c.Type, c.Value); err != nil {
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

// CheckUserPatch returns the faulty fields of a patch. Only the result of the patch decides whether the
// profile is too large.
func (s *Service) CheckUserPatch(p UserPatch) []errcode.Field {
	return slices.DeleteFunc(profileErrors(p.Profile), func(f errcode.Field) bool { return f.Code == "too_large" })
}

// CheckNewContact returns the faulty fields of a contact to be added.
func (s *Service) CheckNewContact(ctx context.Context, typ, value string) []errcode.Field {
	var fields []errcode.Field
	if len(s.unknownTypes(ctx, []string{typ})) > 0 {
		fields = append(fields, unknownName("type"))
	}
	if _, err := s.normalize(typ, value); err != nil {
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

// nameKey is equal for two spellings of one name. It may be equal for names that differ: a check reports
// only names that are certainly unknown.
func nameKey(name string) string { return strings.ToLower(strings.TrimSpace(norm.NFC.String(name))) }

func unknownName(field string) errcode.Field {
	return errcode.Field{Field: field, Code: "unknown", Message: "there is no such name"}
}

// profileErrors returns what the constraints of a profile would refuse. It underestimates the size that
// PostgreSQL computes if numbers have exponents.
func profileErrors(profile json.RawMessage) []errcode.Field {
	var fields []errcode.Field
	size, depth := 0, 0
	d := jsontext.NewDecoder(bytes.NewBuffer(profile))
	for {
		token, err := d.ReadToken()
		if err != nil {
			break // the end, or a syntax error, which the decoder of the request reports
		}
		depth = max(depth, d.StackDepth())
		size += len(token.String())
		if token.Kind() == '"' {
			size += len(`""`)
		}
		if token.Kind() == '0' && strings.ContainsAny(token.String(), "eE-") {
			size -= len(token.String()) - 1
		}
	}
	if depth > maxProfileDepth {
		fields = append(fields, errcode.Field{Field: "profile", Code: "too_deep", Message: "must not nest deeper than 32 levels"})
	}
	if size > maxProfileBytes {
		fields = append(fields, errcode.Field{Field: "profile", Code: "too_large", Message: "must not exceed 16 KiB"})
	}
	return fields
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
