package accounts

import (
	"context"
	"encoding/base64"

	"github.com/google/uuid"

	"github.com/payment-services/accounts/internal/cache"
	"github.com/payment-services/accounts/internal/dbgen/read"
	"github.com/payment-services/accounts/internal/errcode"
	"github.com/payment-services/accounts/internal/identifier"
	"github.com/payment-services/accounts/internal/routing"
)

// The outcomes of one item of a lookup.
const (
	LookupFound    = "found"
	LookupNotFound = "not_found"
	LookupInvalid  = "invalid"
)

// LookupResult is the answer to one of many identifiers. User is the JSON document, nil unless found.
type LookupResult struct {
	Status    string
	MatchedBy identifier.Kind // if it is valid
	User      []byte
}

// Lookup answers many identifiers in one call of the database, one result each, in their order. An
// identifier that is given several times, in whatever spelling, is looked up once.
func (s *Service) Lookup(ctx context.Context, texts []string) ([]LookupResult, Origin, error) {
	results := make([]LookupResult, len(texts))
	canonical := make([]string, 0, len(texts))
	items := make([][]int, 0, len(texts)) // items[i] are the results that canonical[i] answers
	position := make(map[identifier.Identifier]int, len(texts))
	keys := make([]cache.Key, 0, len(texts))
	for i, text := range texts {
		ident, err := s.parser.Parse(text)
		if err != nil {
			results[i].Status = LookupInvalid
			continue
		}
		results[i] = LookupResult{Status: LookupNotFound, MatchedBy: ident.Kind}
		at, known := position[ident]
		if !known {
			at = len(canonical)
			position[ident] = at
			canonical, items = append(canonical, ident.Canonical), append(items, nil)
			keys = append(keys, identifierKey(ident))
		}
		items[at] = append(items[at], i)
	}

	var found []cache.Key
	query := func(ctx context.Context, q read.Querier) error {
		rows, err := q.LookupUsersV1(ctx, canonical)
		if err != nil {
			return err
		}
		found = found[:0]
		for _, row := range rows {
			d, err := renderUser(lookedUpUser(row))
			if err != nil {
				return err
			}
			for _, i := range items[row.ItemNo] {
				results[i].Status, results[i].User = LookupFound, d.Body
			}
			found = append(found, cache.UserKey(row.ID))
		}
		return nil
	}
	origin, err := s.read(ctx, keys, nil, query)
	if err != nil {
		return nil, Origin{}, err
	}
	// A miss on a replica proves nothing, and a user whom it has may have been written just now.
	if origin.Server == routing.FromReplica && (len(found) < len(canonical) || s.cache.Dirty(ctx, found)) {
		for _, same := range items {
			for _, i := range same {
				results[i].Status, results[i].User = LookupNotFound, nil
			}
		}
		origin.Server = routing.FromPrimary
		err = s.router.ReadPrimary(ctx, query)
	}
	return results, origin, err
}

// UserSlice is a part of the list of users. Next is the cursor of what follows, empty at the end.
type UserSlice struct {
	Items []User
	Next  string
}

// ListUsersAfter returns up to limit users after cursor (empty: from the first) in the order of
// creation: no user is missed or seen twice, whatever is created meanwhile.
func (s *Service) ListUsersAfter(ctx context.Context, f UserFilter, cursor string, limit int) (UserSlice, Origin, error) {
	after, err := parseCursor(cursor)
	if err != nil {
		return UserSlice{}, Origin{}, err
	}
	var slice UserSlice
	origin, err := s.read(ctx, nil, nil, func(ctx context.Context, q read.Querier) error {
		rows, err := q.ListUsersAfterV1(ctx, read.ListUsersAfterV1Params{
			PageLimit: int32(limit + 1), // one more tells whether there is more
			AfterID:   after, IsActive: f.IsActive, GroupID: f.GroupID, UpdatedSince: f.UpdatedSince,
		})
		if err != nil {
			return err
		}
		slice = UserSlice{Items: make([]User, 0, len(rows))}
		for _, row := range rows[:min(limit, len(rows))] {
			slice.Items = append(slice.Items, User(row))
		}
		if len(rows) > limit {
			slice.Next = formatCursor(rows[limit-1].ID)
		}
		return nil
	})
	return slice, origin, err
}

// MembershipSlice is a part of the members of a group. Next is the cursor of what follows, empty at
// the end.
type MembershipSlice struct {
	Items []Membership
	Next  string
}

// GroupMembers returns up to limit active memberships of a group after cursor, by user id.
func (s *Service) GroupMembers(ctx context.Context, groupID uuid.UUID, cursor string, limit int) (MembershipSlice, Origin, error) {
	after, err := parseCursor(cursor)
	if err != nil {
		return MembershipSlice{}, Origin{}, err
	}
	if _, _, err := s.Group(ctx, groupID); err != nil {
		return MembershipSlice{}, Origin{}, err
	}
	var slice MembershipSlice
	origin, err := s.read(ctx, nil, nil, func(ctx context.Context, q read.Querier) error {
		rows, err := q.ListGroupMembersV1(ctx, int32(limit+1), groupID, after)
		if err != nil {
			return err
		}
		slice = MembershipSlice{Items: make([]Membership, 0, len(rows))}
		for _, row := range rows[:min(limit, len(rows))] {
			slice.Items = append(slice.Items, Membership(row))
		}
		if len(rows) > limit {
			slice.Next = formatCursor(rows[limit-1].UserID)
		}
		return nil
	})
	return slice, origin, err
}

// formatCursor encodes the id after which a list goes on; clients must not depend on the form.
func formatCursor(id uuid.UUID) string { return base64.RawURLEncoding.EncodeToString(id[:]) }

func parseCursor(cursor string) (*uuid.UUID, error) {
	if cursor == "" {
		return nil, nil
	}
	b, err := base64.RawURLEncoding.DecodeString(cursor)
	if err == nil {
		// The decoder overlooks line ends and spare bits.
		if id, err := uuid.FromBytes(b); err == nil && formatCursor(id) == cursor {
			return &id, nil
		}
	}
	return nil, errcode.Invalid(errcode.Field{
		Field: "cursor", Code: "invalid_cursor", Message: "must be a next_cursor of this list, unchanged",
	})
}

// identifierKey is the key that writes touch when the answer to this identifier changes.
func identifierKey(ident identifier.Identifier) cache.Key {
	if ident.Kind == identifier.UUID {
		return cache.UserKey(uuid.MustParse(ident.Canonical))
	}
	return cache.IdentifierKey(ident)
}

func lookedUpUser(u read.UserLookupV1) read.UserDetailV1 {
	return read.UserDetailV1{
		ID: u.ID, CreatedAt: u.CreatedAt, UpdatedAt: u.UpdatedAt, IsActive: u.IsActive,
		Profile: u.Profile, Version: u.Version, Groups: u.Groups, Contacts: u.Contacts,
		Identifiers: u.Identifiers, Dependencies: u.Dependencies,
	}
}
