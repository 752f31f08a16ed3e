package accounts

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/payment-services/accounts/internal/cache"
	"github.com/payment-services/accounts/internal/dbgen/read"
	"github.com/payment-services/accounts/internal/dbgen/write"
	"github.com/payment-services/accounts/internal/errcode"
	"github.com/payment-services/accounts/internal/identifier"
	"github.com/payment-services/accounts/internal/routing"
)

// User is a user as lists give it, without groups and contacts.
type User struct {
	ID        uuid.UUID
	CreatedAt time.Time
	UpdatedAt time.Time
	IsActive  bool
	Profile   json.RawMessage
	Version   int64
}

// UserFilter narrows a list; nil leaves a condition out.
type UserFilter struct {
	IsActive     *bool
	GroupID      *uuid.UUID // active members only
	UpdatedSince *time.Time
}

// UserPage is one page of a list in the order of creation. Total is exact up to 100,000.
type UserPage struct {
	Items          []User
	Page, Size     int
	Total, Pages   int64
	TotalEstimated bool
}

// NewUser describes a user to be created. A nil Profile is an empty one.
type NewUser struct {
	IsActive bool
	Profile  json.RawMessage
	Contacts []NewUserContact
	Groups   []string // names
}

// NewUserContact is a contact of a NewUser.
type NewUserContact struct{ Type, Value string }

// UserPatch changes a user; nil leaves a part as it is.
type UserPatch struct {
	Profile  json.RawMessage // a merge patch (RFC 7396)
	IsActive *bool
	// Versions are those that the user may have before the patch; nil: any, empty: none.
	Versions []int64
}

// UserByID returns the user, active or not. tags are the entity tags that the client has, without
// quotes; "*" stands for every tag.
func (s *Service) UserByID(ctx context.Context, id uuid.UUID, tags []string) (Answer, error) {
	r, err := s.userDocument(ctx, id, tags, nil)
	if errors.Is(err, pgx.ErrNoRows) {
		return Answer{}, errcode.Missing("User", id.String())
	}
	return answer(r, ""), err
}

// UserByIdentifier returns the active user whom text names: a uuid, a phone, an email or a
// second_login. The answer has matched_by, and so has its tag. tags are as in UserByID. The NotFound
// error has no ID.
func (s *Service) UserByIdentifier(ctx context.Context, text string, tags []string) (Answer, error) {
	ident, err := s.parser.Parse(text)
	if err != nil {
		return Answer{}, invalidIdentifier("identifier", err)
	}
	suffix := "-" + string(ident.Kind)
	tags = tagsWithoutSuffix(tags, suffix)
	var a Answer
	if ident.Kind == identifier.UUID {
		a, err = s.userByUUID(ctx, uuid.MustParse(ident.Canonical), tags, suffix)
	} else {
		a, err = s.userByMapping(ctx, ident, tags, suffix)
	}
	if errors.Is(err, pgx.ErrNoRows) {
		return Answer{}, errcode.Missing("User", "")
	}
	if err == nil && !a.NotModified {
		a.Body = fmt.Appendf(bytes.TrimSuffix(a.Body, []byte("}")), `,"matched_by":"%s"}`, ident.Kind)
	}
	return a, err
}

// ListUsers returns page (from 1) of the users that match f.
func (s *Service) ListUsers(ctx context.Context, f UserFilter, page, size int) (UserPage, Origin, error) {
	p := UserPage{Page: page, Size: size}
	origin, err := s.read(ctx, nil, nil, func(ctx context.Context, q read.Querier) error {
		rows, err := q.ListUsersV1(ctx, read.ListUsersV1Params{
			PageLimit: int32(size), PageOffset: int64(page-1) * int64(size),
			IsActive: f.IsActive, GroupID: f.GroupID, UpdatedSince: f.UpdatedSince,
		})
		if err != nil {
			return err
		}
		count, err := q.CountUsersV1(ctx, f.IsActive, f.GroupID, f.UpdatedSince)
		if err != nil {
			return err
		}
		p.Items = make([]User, len(rows))
		for i, row := range rows {
			p.Items[i] = User(row)
		}
		p.Total, p.TotalEstimated = count.Total, count.Estimated
		p.Pages = (p.Total + int64(size) - 1) / int64(size)
		return nil
	})
	return p, origin, err
}

// CreateUser creates a user with contacts and groups, all or nothing.
func (s *Service) CreateUser(ctx context.Context, u NewUser) (uuid.UUID, Answer, error) {
	if u.Profile == nil {
		u.Profile = json.RawMessage(`{}`)
	}
	params := write.CreateUserV1Params{
		IsActive: u.IsActive, Profile: u.Profile, GroupKeys: groupKeys(u.Groups),
		ContactTypes: []string{}, ContactValues: []string{}, ContactNormalized: []string{},
	}
	for _, c := range u.Contacts {
		typ := nameKey(c.Type)
		normalized, err := s.normalize(typ, c.Value)
		if err != nil {
			return uuid.Nil, Answer{}, invalidValues(s.CheckNewUser(ctx, u))
		}
		params.ContactTypes = append(params.ContactTypes, typ)
		params.ContactValues = append(params.ContactValues, c.Value)
		params.ContactNormalized = append(params.ContactNormalized, normalized)
	}
	if checkProfile(u.Profile) != nil {
		return uuid.Nil, Answer{}, invalidValues(s.CheckNewUser(ctx, u))
	}

	var row write.UserWriteV1
	err := s.write(ctx, func(ctx context.Context, q write.Querier) (_ change, err error) {
		row, err = q.CreateUserV1(ctx, params)
		return change{row.Touched, row.OutboxID}, err
	})
	if err != nil {
		return uuid.Nil, Answer{}, withFields(err, func() []errcode.Field { return s.CheckNewUser(ctx, u) })
	}
	a, err := writtenUser(row)
	return row.ID, a, err
}

// UpdateUser applies a patch. If the user has none of the expected versions, the error is
// PreconditionFailed, and the answer has the current tag, version and activity.
func (s *Service) UpdateUser(ctx context.Context, id uuid.UUID, p UserPatch) (Answer, error) {
	if fault := checkProfilePatch(p.Profile); fault != nil {
		return Answer{}, errcode.Invalid(*fault)
	}
	var row write.UserWriteV1
	err := s.write(ctx, func(ctx context.Context, q write.Querier) (_ change, err error) {
		row, err = q.UpdateUserV1(ctx, write.UpdateUserV1Params{
			UserID: id, ProfilePatch: p.Profile, IsActive: p.IsActive, ExpectedVersions: p.Versions,
		})
		return change{row.Touched, row.OutboxID}, err
	})
	if errcode.Of(err) == errcode.PreconditionFailed {
		var current read.UserDetailV1
		d, loadErr := s.userOnPrimary(ctx, func(ctx context.Context, q read.Querier) (_ read.UserDetailV1, err error) {
			current, err = q.GetUserDetailV1(ctx, id)
			return current, err
		})
		if loadErr != nil {
			return Answer{}, err // the client gets the error without the current tag
		}
		return Answer{Tag: d.ETag, Version: current.Version, Active: current.IsActive}, err
	}
	if err != nil {
		return Answer{}, err
	}
	return writtenUser(row)
}

// userDocument is the one document of a user, from the cache or loaded.
func (s *Service) userDocument(ctx context.Context, id uuid.UUID, tags []string, prefetched *cache.Prefetched) (cache.Result, error) {
	opts := cache.GetOptions{TTL: s.userTTL, Tags: tags, Prefetched: prefetched}
	return s.cache.Get(ctx, cache.UserKey(id), opts, func(ctx context.Context, q read.Querier) (cache.Document, error) {
		u, err := q.GetUserDetailV1(ctx, id)
		if err != nil {
			return cache.Document{}, err
		}
		return renderUser(u)
	})
}

func (s *Service) userByUUID(ctx context.Context, id uuid.UUID, tags []string, suffix string) (Answer, error) {
	r, err := s.userDocument(ctx, id, tags, nil)
	if err == nil && !found(r.Meta, "") {
		err = pgx.ErrNoRows
	}
	return answer(r, suffix), err
}

// userByMapping goes from the identifier to the user id to the document. The document must list the
// identifier: the mapping may be older than it.
func (s *Service) userByMapping(ctx context.Context, ident identifier.Identifier, tags []string, suffix string) (Answer, error) {
	var loadedUser cache.Document // a miss reads the whole user; userDocument need not read it again
	opts := cache.GetOptions{TTL: s.userTTL, Negative: true}
	mapping, err := s.cache.Get(ctx, cache.IdentifierKey(ident), opts, func(ctx context.Context, q read.Querier) (cache.Document, error) {
		u, err := q.GetUserByIdentifierV1(ctx, ident.Canonical)
		if err != nil {
			return cache.Document{}, err
		}
		if loadedUser, err = renderUser(matchedUser(u)); err != nil {
			return cache.Document{}, err
		}
		return cache.Document{Body: []byte(u.ID.String()), ETag: "id"}, nil
	})
	if err != nil {
		return Answer{}, err
	}
	id, err := uuid.ParseBytes(mapping.Body)
	if err != nil {
		return Answer{}, fmt.Errorf("cache: an identifier's entry holds no uuid: %w", err)
	}
	var prefetched *cache.Prefetched
	if loadedUser.Body != nil {
		prefetched = mapping.Prefetch(loadedUser)
	}
	r, err := s.userDocument(ctx, id, tags, prefetched)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return Answer{}, err
	}
	if err == nil && found(r.Meta, string(ident.Kind)+":"+ident.Canonical) {
		a := answer(r, suffix)
		if mapping.Status != cache.Hit && a.Cache == cache.Hit {
			a.Origin = Origin{Cache: mapping.Status, Server: mapping.Server}
		}
		return a, nil
	}
	d, err := s.userOnPrimary(ctx, func(ctx context.Context, q read.Querier) (read.UserDetailV1, error) {
		u, err := q.GetUserByIdentifierV1(ctx, ident.Canonical)
		return matchedUser(u), err
	})
	if err != nil {
		return Answer{}, err
	}
	return answer(cache.Result{Document: d, Status: cache.Miss, Server: routing.FromPrimary}, suffix).notModified(tags, d.ETag), nil
}

func (s *Service) userOnPrimary(ctx context.Context, query func(context.Context, read.Querier) (read.UserDetailV1, error)) (cache.Document, error) {
	var u read.UserDetailV1
	err := s.router.ReadPrimary(ctx, func(ctx context.Context, q read.Querier) (err error) {
		u, err = query(ctx, q)
		return err
	})
	if err != nil {
		return cache.Document{}, err
	}
	return renderUser(u)
}

func writtenUser(row write.UserWriteV1) (Answer, error) {
	d, err := renderUser(read.UserDetailV1{
		ID: row.ID, CreatedAt: row.CreatedAt, UpdatedAt: row.UpdatedAt, IsActive: row.IsActive,
		Profile: row.Profile, Version: row.Version, Groups: row.Groups, Contacts: row.Contacts,
		Identifiers: row.Identifiers, Dependencies: row.Dependencies,
	})
	a := answer(cache.Result{Document: d, Status: cache.Bypass, Server: routing.FromPrimary}, "")
	a.Version = row.Version
	return a, err
}

func matchedUser(u read.UserMatchV1) read.UserDetailV1 {
	return read.UserDetailV1{
		ID: u.ID, CreatedAt: u.CreatedAt, UpdatedAt: u.UpdatedAt, IsActive: u.IsActive,
		Profile: u.Profile, Version: u.Version, Groups: u.Groups, Contacts: u.Contacts,
		Identifiers: u.Identifiers, Dependencies: u.Dependencies,
	}
}
