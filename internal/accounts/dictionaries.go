package accounts

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/payment-services/accounts/internal/cache"
	"github.com/payment-services/accounts/internal/dbgen/read"
	"github.com/payment-services/accounts/internal/dbgen/write"
	"github.com/payment-services/accounts/internal/errcode"
)

// Group is a user group.
type Group struct {
	ID        uuid.UUID `json:"id"`
	Name      string    `json:"name"`
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
}

// ContactType is a contact type. OnSecond is replace, reject or allow: what a second active contact
// of the type does to a user.
type ContactType struct {
	ID        uuid.UUID `json:"id"`
	Name      string    `json:"name"`
	OnSecond  string    `json:"on_second"`
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
}

// Version rises with every change of the group.
func (g Group) Version() int64 { return g.UpdatedAt.UnixMicro() }

// Version rises with every change of the contact type.
func (t ContactType) Version() int64 { return t.UpdatedAt.UnixMicro() }

// list is the document of a dictionary.
type list[T any] struct {
	Items []T `json:"items"`
}

// Groups returns all groups by name: {"items":[...]}.
// tags are as in UserByID.
func (s *Service) Groups(ctx context.Context, tags []string) (Answer, error) {
	r, err := s.groups(ctx, tags)
	return answer(r, ""), err
}

// Group returns the group with this id.
func (s *Service) Group(ctx context.Context, id uuid.UUID) (Group, Origin, error) {
	r, err := s.groups(ctx, nil)
	if err != nil {
		return Group{}, Origin{}, err
	}
	return pick(r, errcode.Missing("Group", id.String()), func(g Group) bool { return g.ID == id })
}

// CreateGroup creates a group. Its name is brought to its canonical form.
func (s *Service) CreateGroup(ctx context.Context, name string) (Group, error) {
	canonical, err := groupName(name)
	if err != nil {
		return Group{}, err
	}
	var row write.UserGroupWriteV1
	err = s.write(ctx, func(ctx context.Context, q write.Querier) (_ change, err error) {
		row, err = q.CreateUserGroupV1(ctx, canonical.Text, canonical.Key)
		return change{row.Touched, row.OutboxID}, err
	})
	return writtenGroup(row), err
}

// UpdateGroup renames a group; nil leaves the name. All members show the new name at once. versions are
// those that the group may have before; nil: any, empty: none. If it has another one, the error is
// PreconditionFailed, and the group that is returned is the current one, or the zero value if it could
// not be read. It is read from the primary: until the other writer has invalidated it, the cache has the
// version that was just refused.
func (s *Service) UpdateGroup(ctx context.Context, id uuid.UUID, name *string, versions []int64) (Group, error) {
	var key *string
	if name != nil {
		canonical, err := groupName(*name)
		if err != nil {
			return Group{}, err
		}
		name, key = &canonical.Text, &canonical.Key
	}
	var row write.UserGroupWriteV1
	err := s.write(ctx, func(ctx context.Context, q write.Querier) (_ change, err error) {
		row, err = q.UpdateUserGroupV1(ctx, write.UpdateUserGroupV1Params{
			GroupID: id, Name: name, NameKey: key, ExpectedVersions: versions,
		})
		return change{row.Touched, row.OutboxID}, err
	})
	if errcode.Of(err) == errcode.PreconditionFailed {
		var rows []read.UserGroupV1
		readErr := s.router.ReadPrimary(ctx, func(ctx context.Context, q read.Querier) (err error) {
			rows, err = q.ListUserGroupsV1(ctx)
			return err
		})
		for _, row := range rows {
			if readErr == nil && row.ID == id {
				return Group(row), err
			}
		}
	}
	return writtenGroup(row), err
}

// ContactTypes returns all contact types by name: {"items":[...]}.
// tags are as in UserByID.
func (s *Service) ContactTypes(ctx context.Context, tags []string) (Answer, error) {
	r, err := s.contactTypes(ctx, tags)
	return answer(r, ""), err
}

// ContactType returns the contact type with this id.
func (s *Service) ContactType(ctx context.Context, id uuid.UUID) (ContactType, Origin, error) {
	r, err := s.contactTypes(ctx, nil)
	if err != nil {
		return ContactType{}, Origin{}, err
	}
	return pick(r, errcode.Missing("ContactType", id.String()), func(t ContactType) bool { return t.ID == id })
}

// CreateContactType creates a contact type. Its name is brought to its canonical form.
func (s *Service) CreateContactType(ctx context.Context, name, onSecond string) (ContactType, error) {
	name, err := contactTypeName(name)
	if err != nil {
		return ContactType{}, err
	}
	var row write.ContactTypeWriteV1
	err = s.write(ctx, func(ctx context.Context, q write.Querier) (_ change, err error) {
		row, err = q.CreateContactTypeV1(ctx, name, onSecond)
		return change{row.Touched, row.OutboxID}, err
	})
	return writtenContactType(row), err
}

// UpdateContactType renames a contact type or changes what a second contact does; nil leaves a part.
// versions and the contact type that is returned are as in UpdateGroup.
func (s *Service) UpdateContactType(ctx context.Context, id uuid.UUID, name, onSecond *string, versions []int64) (ContactType, error) {
	if name != nil {
		canonical, err := contactTypeName(*name)
		if err != nil {
			return ContactType{}, err
		}
		name = &canonical
	}
	var row write.ContactTypeWriteV1
	err := s.write(ctx, func(ctx context.Context, q write.Querier) (_ change, err error) {
		row, err = q.UpdateContactTypeV1(ctx, write.UpdateContactTypeV1Params{
			ContactTypeID: id, Name: name, OnSecond: onSecond, ExpectedVersions: versions,
		})
		return change{row.Touched, row.OutboxID}, err
	})
	if errcode.Of(err) == errcode.PreconditionFailed {
		var rows []read.ContactTypeV1
		readErr := s.router.ReadPrimary(ctx, func(ctx context.Context, q read.Querier) (err error) {
			rows, err = q.ListContactTypesV1(ctx)
			return err
		})
		for _, row := range rows {
			if readErr == nil && row.ID == id {
				return ContactType(row), err
			}
		}
	}
	if e, ok := errors.AsType[*errcode.Error](err); ok && e.Code == errcode.ContactTypeConflict {
		// The constraint knows contacts only; here it is the new on_second that does not fit them.
		e.Fields = []errcode.Field{{
			Field: "on_second", Code: "second_of_type",
			Message: "there are users with several active contacts of this type",
		}}
	}
	return writtenContactType(row), err
}

func (s *Service) groups(ctx context.Context, tags []string) (cache.Result, error) {
	opts := cache.GetOptions{TTL: s.dictionaryTTL, Tags: tags}
	return s.cache.Get(ctx, cache.UserGroupsKey, opts, func(ctx context.Context, q read.Querier) (cache.Document, error) {
		rows, err := q.ListUserGroupsV1(ctx)
		if err != nil {
			return cache.Document{}, err
		}
		return renderList(rows, func(row read.UserGroupV1) Group {
			return Group{row.ID, row.Name, row.CreatedAt.UTC(), row.UpdatedAt.UTC()}
		})
	})
}

func (s *Service) contactTypes(ctx context.Context, tags []string) (cache.Result, error) {
	opts := cache.GetOptions{TTL: s.dictionaryTTL, Tags: tags}
	return s.cache.Get(ctx, cache.ContactTypesKey, opts, func(ctx context.Context, q read.Querier) (cache.Document, error) {
		rows, err := q.ListContactTypesV1(ctx)
		if err != nil {
			return cache.Document{}, err
		}
		return renderList(rows, func(row read.ContactTypeV1) ContactType {
			return ContactType{row.ID, row.Name, row.OnSecond, row.CreatedAt.UTC(), row.UpdatedAt.UTC()}
		})
	})
}

func renderList[R, T any](rows []R, convert func(R) T) (cache.Document, error) {
	items := make([]T, len(rows))
	for i, row := range rows {
		items[i] = convert(row)
	}
	body, err := json.Marshal(list[T]{items})
	if err != nil {
		return cache.Document{}, fmt.Errorf("render a dictionary: %w", err)
	}
	// A dictionary has no version of its own; its content is its version.
	return cache.Document{Body: body, ETag: contentHash(body)}, nil
}

// pick returns the item of a dictionary that matches.
func pick[T any](r cache.Result, missing error, match func(T) bool) (T, Origin, error) {
	var l list[T]
	var none T
	if err := json.Unmarshal(r.Body, &l); err != nil {
		return none, Origin{}, fmt.Errorf("cache: a dictionary is malformed: %w", err)
	}
	for _, item := range l.Items {
		if match(item) {
			return item, Origin{Cache: r.Status, Server: r.Server}, nil
		}
	}
	return none, Origin{}, missing
}

func writtenGroup(row write.UserGroupWriteV1) Group {
	return Group{row.ID, row.Name, row.CreatedAt, row.UpdatedAt}
}

func writtenContactType(row write.ContactTypeWriteV1) ContactType {
	return ContactType{row.ID, row.Name, row.OnSecond, row.CreatedAt, row.UpdatedAt}
}
