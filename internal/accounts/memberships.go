package accounts

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/payment-services/accounts/internal/cache"
	"github.com/payment-services/accounts/internal/dbgen/read"
	"github.com/payment-services/accounts/internal/dbgen/write"
	"github.com/payment-services/accounts/internal/errcode"
)

// Membership is the membership of a user in a group.
type Membership struct {
	UserID, GroupID uuid.UUID
	GroupName       string
	IsActive        bool
	CreatedAt       time.Time
	UpdatedAt       time.Time
}

// Version rises with every change of the membership.
func (m Membership) Version() int64 { return m.UpdatedAt.UnixMicro() }

// UserMemberships returns the active memberships of a user by group name.
func (s *Service) UserMemberships(ctx context.Context, userID uuid.UUID) ([]Membership, Origin, error) {
	var memberships []Membership
	missing := errcode.Missing("User", userID.String())
	origin, err := s.read(ctx, []cache.Key{cache.UserKey(userID)}, missing, func(ctx context.Context, q read.Querier) error {
		rows, err := q.ListUserMembershipsV1(ctx, userID)
		if err == nil && len(rows) == 0 {
			_, err = q.GetUserDetailV1(ctx, userID) // none, or nobody to have any
		}
		if err != nil {
			return err
		}
		memberships = make([]Membership, len(rows))
		for i, row := range rows {
			memberships[i] = Membership(row)
		}
		return nil
	})
	return memberships, origin, err
}

// Membership returns the membership of a user in a group, active or not.
func (s *Service) Membership(ctx context.Context, userID, groupID uuid.UUID) (Membership, Origin, error) {
	var row read.MembershipV1
	missing := errcode.Missing("Membership", membershipID(userID, groupID))
	origin, err := s.read(ctx, []cache.Key{cache.UserKey(userID)}, missing, func(ctx context.Context, q read.Querier) (err error) {
		row, err = q.GetUserMembershipV1(ctx, userID, groupID)
		return err
	})
	return Membership(row), origin, err
}

// MembershipResult is what SetMemberships did for one user: changed, unchanged or user_not_found.
type MembershipResult struct {
	UserID uuid.UUID
	Result string
}

// SetMemberships makes users members of a group, or ends their memberships: one result for each
// distinct user, in the order given.
func (s *Service) SetMemberships(ctx context.Context, groupID uuid.UUID, userIDs []uuid.UUID, active bool) ([]MembershipResult, error) {
	var rows []write.MembershipResultV1
	err := s.write(ctx, func(ctx context.Context, q write.Querier) (change, error) {
		var made change
		var err error
		rows, err = q.SetMembershipsV1(ctx, groupID, userIDs, active)
		for _, row := range rows {
			made.touched = append(made.touched, row.Touched...)
			made.outboxID = row.OutboxID
		}
		return made, err
	})
	results := make([]MembershipResult, len(rows))
	for i, row := range rows {
		results[i] = MembershipResult{UserID: row.UserID, Result: row.Result}
	}
	return results, err
}

// SetMembership makes a user a member of a group, or ends the membership. Ending one that never was
// is NotFound.
func (s *Service) SetMembership(ctx context.Context, userID, groupID uuid.UUID, active bool) (Membership, error) {
	var row write.MembershipWriteV1
	err := s.write(ctx, func(ctx context.Context, q write.Querier) (_ change, err error) {
		row, err = q.SetMembershipV1(ctx, userID, groupID, active)
		return change{row.Touched, row.OutboxID}, err
	})
	if errors.Is(err, pgx.ErrNoRows) {
		err = errcode.Missing("Membership", membershipID(userID, groupID))
	}
	return writtenMembership(row), err
}

// UpdateMembership ends a membership or begins it again; nil leaves it as it is. One that never was is
// NotFound. versions are those that the membership may have before; nil: any, empty: none. If it has
// another one, the error is PreconditionFailed, and the membership that is returned is the current one,
// or the zero value if it could not be read.
func (s *Service) UpdateMembership(ctx context.Context, userID, groupID uuid.UUID, active *bool, versions []int64) (Membership, error) {
	var row write.MembershipWriteV1
	err := s.write(ctx, func(ctx context.Context, q write.Querier) (_ change, err error) {
		row, err = q.UpdateMembershipV1(ctx, write.UpdateMembershipV1Params{
			UserID: userID, GroupID: groupID, IsActive: active, ExpectedVersions: versions,
		})
		return change{row.Touched, row.OutboxID}, err
	})
	if errcode.Of(err) == errcode.PreconditionFailed {
		var current read.MembershipV1
		readErr := s.router.ReadPrimary(ctx, func(ctx context.Context, q read.Querier) (err error) {
			current, err = q.GetUserMembershipV1(ctx, userID, groupID)
			return err
		})
		if readErr == nil {
			return Membership(current), err
		}
	}
	return writtenMembership(row), err
}

func writtenMembership(row write.MembershipWriteV1) Membership {
	return Membership{
		UserID: row.UserID, GroupID: row.GroupID, GroupName: row.GroupName, IsActive: row.IsActive,
		CreatedAt: row.CreatedAt, UpdatedAt: row.UpdatedAt,
	}
}

func membershipID(userID, groupID uuid.UUID) string { return userID.String() + "/" + groupID.String() }
