package accounts

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/google/uuid"

	"github.com/payment-services/accounts/internal/dbgen/write"
	"github.com/payment-services/accounts/internal/errcode"
	"github.com/payment-services/accounts/internal/identifier"
)

// bulkChunk is how many rows one transaction takes: enough to be fast, few enough to hold its locks
// for a fraction of a second.
const bulkChunk = 1000

// OnConflict says what becomes of a row whose phone belongs to a user already.
type OnConflict string

// The values of OnConflict.
const (
	Skip  OnConflict = "skip"  // the user stays as it is
	Merge OnConflict = "merge" // union of groups, merge patch of the profile
	Error OnConflict = "error" // nothing at all is written
)

// The outcomes of a row.
const (
	RowCreated  = "created"
	RowExists   = "exists"
	RowMerged   = "merged"
	RowConflict = "conflict"
	RowInvalid  = "invalid"
)

// BulkRow is one user to be created. Number is the caller's, for the result. A nil Profile is empty.
// A row with a Fault is only reported.
type BulkRow struct {
	Number  int
	Phone   string
	Groups  []string // names
	Profile json.RawMessage
	Fault   *RowFault
}

// RowFault says what is wrong with a row, and in which column.
type RowFault struct{ Code, Column string }

// BulkResult says what became of every row. The counts add up to the number of rows.
type BulkResult struct {
	Rows   []RowResult
	Counts Counts
}

// Counts are the outcomes of many rows.
type Counts struct{ Created, Exists, Merged, Conflict, Invalid int }

// RowResult is what became of one row, and why: a code and the column at fault.
type RowResult struct {
	Number int
	Status string
	Code   string
	Column string
	UserID *uuid.UUID
}

// BulkOptions are the choices of a bulk call.
type BulkOptions struct {
	OnConflict OnConflict
	DryRun     bool // the same code runs, and nothing is written
}

// BulkCreate creates users from rows, chunk by chunk, each in a transaction of its own. A faulty row
// hides no other. With OnConflict Error all rows are one transaction; if there is a conflict, the
// error is IdentifierTaken, it names the rows, and nothing was written. The same rows again create
// nothing twice.
func (s *Service) BulkCreate(ctx context.Context, rows []BulkRow, opts BulkOptions) (BulkResult, error) {
	size := bulkChunk
	if opts.OnConflict == Error {
		size = len(rows)
	}
	result := BulkResult{Rows: make([]RowResult, len(rows))}
	seen := make(map[string]bool, len(rows))
	var chunk bulkChunkRows
	flush := func() error {
		if len(chunk.params.RowNos) == 0 {
			return nil
		}
		defer chunk.reset()
		return s.bulkWrite(ctx, &chunk, opts, result.Rows)
	}
	for i, row := range rows {
		result.Rows[i] = RowResult{Number: row.Number}
		normalized, groups, fault := s.checkRow(row)
		if fault != nil {
			result.Rows[i].set(RowInvalid, fault.Code, fault.Column, nil)
			continue
		}
		// The function finds those of its own chunk: with Error all, and then it writes nothing.
		if seen[normalized] && opts.OnConflict != Error {
			result.Rows[i].set(RowConflict, "duplicate", "phone", nil)
			continue
		}
		seen[normalized] = true
		chunk.add(i, row, normalized, groups)
		if len(chunk.params.RowNos) == size {
			if err := flush(); err != nil {
				return BulkResult{}, err
			}
		}
	}
	if err := flush(); err != nil {
		return BulkResult{}, err
	}
	for _, row := range result.Rows {
		result.Counts.add(row.Status)
	}
	if opts.OnConflict == Error && result.Counts.Conflict > 0 {
		return BulkResult{}, conflictError(result.Rows)
	}
	return result, nil
}

// checkRow returns the canonical phone of a row and the keys of its groups, separated by commas, or what
// is wrong with the row by itself.
func (s *Service) checkRow(row BulkRow) (phone, groups string, fault *RowFault) {
	if row.Fault != nil {
		return "", "", row.Fault
	}
	keys, ok := bulkGroups(row.Groups)
	if !ok {
		return "", "", &RowFault{Code: "unknown_group", Column: "user_groups"}
	}
	// With Merge the profile is a patch of an existing user's, so members that are null do not count.
	if fault := checkProfilePatch(row.Profile); fault != nil {
		return "", "", &RowFault{Code: fault.Code, Column: fault.Field}
	}
	phone, err := s.parser.Canonical(identifier.Phone, row.Phone)
	if err != nil {
		return "", "", &RowFault{Code: fieldOf("phone", err).Code, Column: "phone"}
	}
	return phone, strings.Join(keys, ","), nil
}

// bulkWrite runs one chunk and puts its results where they belong.
func (s *Service) bulkWrite(ctx context.Context, chunk *bulkChunkRows, opts BulkOptions, results []RowResult) error {
	chunk.params.OnConflict, chunk.params.DryRun = string(opts.OnConflict), opts.DryRun
	var rows []write.BulkUserResultV1
	err := s.write(ctx, func(ctx context.Context, q write.Querier) (change, error) {
		var err error
		if rows, err = q.BulkCreateUsersV1(ctx, chunk.params); err != nil {
			return change{}, err
		}
		var made change
		for _, row := range rows {
			made.touched = append(made.touched, row.Touched...)
			made.outboxID = row.OutboxID
		}
		return made, nil
	})
	if errcode.Of(err) == errcode.Validation && opts.OnConflict != Error {
		return s.bulkWriteHalves(ctx, chunk, opts, results)
	}
	if err != nil {
		return err
	}
	for _, row := range rows {
		results[row.RowNo].set(row.Status, deref(row.Code), deref(row.Field), row.UserID)
	}
	return nil
}

// bulkWriteHalves finds the row that PostgreSQL cannot even read, such as a profile with the number
// 1e400000: it is reported, and the others are written.
func (s *Service) bulkWriteHalves(ctx context.Context, chunk *bulkChunkRows, opts BulkOptions, results []RowResult) error {
	n := len(chunk.params.RowNos)
	if n == 1 {
		results[chunk.params.RowNos[0]].set(RowInvalid, "invalid", "profile", nil)
		return nil
	}
	first, second := chunk.slice(0, n/2), chunk.slice(n/2, n)
	if err := s.bulkWrite(ctx, &first, opts, results); err != nil {
		return err
	}
	return s.bulkWrite(ctx, &second, opts, results)
}

// bulkChunkRows are the rows of one call; RowNos are indexes into the results.
type bulkChunkRows struct{ params write.BulkCreateUsersV1Params }

func (c *bulkChunkRows) add(index int, row BulkRow, normalized, groups string) {
	profile := row.Profile
	if profile == nil {
		profile = json.RawMessage(`{}`)
	}
	c.params.RowNos = append(c.params.RowNos, int32(index))
	c.params.Phones = append(c.params.Phones, row.Phone)
	c.params.PhonesNormalized = append(c.params.PhonesNormalized, normalized)
	c.params.GroupNames = append(c.params.GroupNames, groups)
	c.params.Profiles = append(c.params.Profiles, profile)
}

func (c *bulkChunkRows) slice(from, to int) bulkChunkRows {
	return bulkChunkRows{write.BulkCreateUsersV1Params{
		RowNos: c.params.RowNos[from:to], Phones: c.params.Phones[from:to],
		PhonesNormalized: c.params.PhonesNormalized[from:to], GroupNames: c.params.GroupNames[from:to],
		Profiles: c.params.Profiles[from:to],
	}}
}

func (c *bulkChunkRows) reset() { c.params = write.BulkCreateUsersV1Params{} }

func (r *RowResult) set(status, code, column string, userID *uuid.UUID) {
	r.Status, r.Code, r.Column, r.UserID = status, code, column, userID
}

func (c *Counts) add(status string) {
	switch status {
	case RowCreated:
		c.Created++
	case RowExists:
		c.Exists++
	case RowMerged:
		c.Merged++
	case RowConflict:
		c.Conflict++
	case RowInvalid:
		c.Invalid++
	}
}

func conflictError(rows []RowResult) error {
	e := &errcode.Error{
		Code:    errcode.IdentifierTaken,
		Message: "phones belong to other users or come twice; nothing was written",
	}
	for i, row := range rows {
		if row.Status == RowConflict {
			e.Fields = append(e.Fields, errcode.Field{
				Field: fmt.Sprintf("rows[%d].%s", i, row.Column), Code: row.Code,
				Message: fmt.Sprintf("row %d: the phone is taken or comes twice", row.Number),
			})
		}
	}
	return e
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
