package accounts

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/payment-services/accounts/internal/dbgen/write"
	"github.com/payment-services/accounts/internal/errcode"
	"github.com/payment-services/accounts/internal/identifier"
	"github.com/payment-services/accounts/internal/postgres"
)

// bulkChunk is how many rows one transaction takes: enough to be fast, few enough to hold its locks
// for a fraction of a second.
const bulkChunk = 1000

// chunkProfiles and chunkGroups limit the bytes of the profiles and the number of the memberships that one
// transaction writes: one or two seconds, where a statement may take four. A merge needs 10 ms for two
// profiles of 1000 members each. A chunk that is too large is written in halves after its timeout.
const (
	chunkProfiles = 2 << 20
	chunkGroups   = 20_000
)

// maxConflicts bounds how many rows an IdentifierTaken error names.
const maxConflicts = 50

// OnConflict decides what happens to a row whose phone belongs to a user already.
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

// BulkResult has the result of every row. The counts add up to the number of rows.
type BulkResult struct {
	Rows   []RowResult
	Counts Counts
}

// Counts are the outcomes of many rows.
type Counts struct{ Created, Exists, Merged, Conflict, Invalid int }

// RowResult is the result of one row: a status and, unless it is a success, a code and the invalid column.
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

// BulkCreate creates users from rows, chunk by chunk, each chunk in one transaction. Invalid rows do not
// affect other rows. With OnConflict Error all rows are one transaction; if there is a conflict, the
// error is IdentifierTaken, it names the rows, and nothing was written. Otherwise another error may come after
// some rows were written; its message then tells so. The same rows again create nothing twice.
func (s *Service) BulkCreate(ctx context.Context, rows []BulkRow, opts BulkOptions) (BulkResult, error) {
	size := bulkChunk
	if opts.OnConflict == Error {
		size = len(rows)
	}
	result := BulkResult{Rows: make([]RowResult, len(rows))}
	seen := make(map[string]bool, len(rows))
	var chunk bulkChunkRows
	flush := func() error {
		if len(chunk.rows) == 0 {
			return nil
		}
		defer func() { chunk = bulkChunkRows{} }()
		return s.bulkWrite(ctx, &chunk, opts, result.Rows)
	}
	for i, row := range rows {
		result.Rows[i] = RowResult{Number: row.Number}
		normalized, keys, fault := s.checkRow(row)
		if fault != nil {
			result.Rows[i].set(RowInvalid, fault.Code, fault.Column, nil)
			continue
		}
		// The function reports duplicates inside a chunk. With Error all rows are one chunk.
		if seen[normalized] && opts.OnConflict != Error {
			result.Rows[i].set(RowConflict, "duplicate", "phone", nil)
			continue
		}
		seen[normalized] = true
		chunk.add(i, row, normalized, keys)
		full := chunk.profileBytes >= chunkProfiles || chunk.groups >= chunkGroups
		if len(chunk.rows) == size || full && opts.OnConflict != Error {
			if err := flush(); err != nil {
				return BulkResult{}, partlyWritten(err, result.Rows, opts)
			}
		}
	}
	if err := flush(); err != nil {
		return BulkResult{}, partlyWritten(err, result.Rows, opts)
	}
	for _, row := range result.Rows {
		result.Counts.add(row.Status)
	}
	if opts.OnConflict == Error && result.Counts.Conflict > 0 {
		return BulkResult{}, conflictError(result.Rows)
	}
	return result, nil
}

// partlyWritten returns an error that does not claim that nothing was changed if rows were written before it.
func partlyWritten(err error, rows []RowResult, opts BulkOptions) error {
	e, ok := errors.AsType[*errcode.Error](err)
	written := slices.ContainsFunc(rows, func(r RowResult) bool { return r.Status == RowCreated || r.Status == RowMerged })
	if !ok || e.Code != errcode.Database || !written || opts.DryRun {
		return err
	}
	partly := *e
	partly.Message = "the database did not write all rows, but some; send the same rows again: none is created twice"
	return &partly
}

// checkRow returns the canonical phone of a row and the key of each of its groups, or what is wrong with
// the row by itself.
func (s *Service) checkRow(row BulkRow) (phone string, keys []string, fault *RowFault) {
	if row.Fault != nil {
		return "", nil, row.Fault
	}
	if len(row.Groups) > MaxGroups {
		return "", nil, &RowFault{Code: "too_many", Column: ColumnGroups}
	}
	keys = groupKeys(row.Groups)
	if slices.Contains(keys, "") {
		return "", nil, &RowFault{Code: "unknown_group", Column: ColumnGroups}
	}
	// With Merge the profile is a patch of an existing user's, so members that are null do not count.
	if fault := checkProfilePatch(row.Profile); fault != nil {
		return "", nil, &RowFault{Code: fault.Code, Column: fault.Field}
	}
	phone, err := s.parser.Canonical(identifier.Phone, row.Phone)
	if err != nil {
		return "", nil, &RowFault{Code: fieldOf("phone", err).Code, Column: ColumnPhone}
	}
	return phone, keys, nil
}

// rowArrays are rows as the functions of the database take them: one array for each column, and the
// groups of all rows as triples of a row number, a name and its key.
type rowArrays struct {
	rowNos                []int32
	phones, normalized    []string
	groupRowNos           []int32
	groupNames, groupKeys []string
}

// add appends a row. keys are the keys of its groups, or nil if the row is not imported.
func (a *rowArrays) add(number int, row BulkRow, normalized string, keys []string) {
	a.rowNos = append(a.rowNos, int32(number))
	a.phones = append(a.phones, strings.ToValidUTF8(row.Phone, "\uFFFD"))
	a.normalized = append(a.normalized, normalized)
	for i, name := range row.Groups {
		key := ""
		if keys != nil {
			key = keys[i]
		}
		a.groupRowNos = append(a.groupRowNos, int32(number))
		a.groupNames = append(a.groupNames, strings.ToValidUTF8(name, "\uFFFD"))
		a.groupKeys = append(a.groupKeys, key)
	}
}

// bulkChunkRows are the rows of one call. Their numbers are indexes into the results.
type bulkChunkRows struct {
	rows     []BulkRow
	indexes  []int
	phones   []string   // canonical
	keys     [][]string // of the groups
	profiles []json.RawMessage

	profileBytes, groups int // of all rows that were added
}

func (c *bulkChunkRows) add(index int, row BulkRow, normalized string, keys []string) {
	profile := row.Profile
	if profile == nil {
		profile = json.RawMessage(`{}`)
	}
	c.rows, c.indexes = append(c.rows, row), append(c.indexes, index)
	c.phones, c.keys, c.profiles = append(c.phones, normalized), append(c.keys, keys), append(c.profiles, profile)
	c.profileBytes += len(profile)
	c.groups += len(keys)
}

func (c *bulkChunkRows) slice(from, to int) bulkChunkRows {
	return bulkChunkRows{
		rows: c.rows[from:to], indexes: c.indexes[from:to], phones: c.phones[from:to], keys: c.keys[from:to],
		profiles: c.profiles[from:to],
	}
}

func (c *bulkChunkRows) params(opts BulkOptions) write.BulkCreateUsersV1Params {
	var a rowArrays
	for i, row := range c.rows {
		a.add(c.indexes[i], row, c.phones[i], c.keys[i])
	}
	return write.BulkCreateUsersV1Params{
		RowNos: a.rowNos, Phones: a.phones, PhonesNormalized: a.normalized, Profiles: c.profiles,
		GroupRowNos: a.groupRowNos, GroupKeys: a.groupKeys,
		OnConflict: string(opts.OnConflict), DryRun: opts.DryRun,
	}
}

// bulkWrite writes one chunk and stores its results. A chunk that PostgreSQL refuses or does not finish
// in time is written in halves, so that one row does not keep the others from being written. With
// OnConflict Error all rows are one transaction, and it is not divided.
func (s *Service) bulkWrite(ctx context.Context, chunk *bulkChunkRows, opts BulkOptions, results []RowResult) error {
	params := chunk.params(opts)
	var rows []write.BulkUserResultV1
	err := s.write(ctx, func(ctx context.Context, q write.Querier) (change, error) {
		var err error
		if rows, err = q.BulkCreateUsersV1(ctx, params); err != nil {
			return change{}, err
		}
		var made change
		for _, row := range rows {
			made.touched = append(made.touched, row.Touched...)
			made.outboxID = row.OutboxID
		}
		return made, nil
	})
	refused := errcode.Of(err) == errcode.Validation
	switch n := len(chunk.rows); {
	case err == nil:
		for _, row := range rows {
			results[row.RowNo].set(row.Status, deref(row.Code), deref(row.Field), row.UserID)
		}
		return nil
	case opts.OnConflict == Error || !refused && !postgres.TimedOut(err):
		return err
	case n > 1:
		first, second := chunk.slice(0, n/2), chunk.slice(n/2, n)
		if err := s.bulkWrite(ctx, &first, opts, results); err != nil {
			return err
		}
		return s.bulkWrite(ctx, &second, opts, results)
	case refused: // such as a profile with the number 1e400000
		results[chunk.indexes[0]].set(RowInvalid, "invalid", "profile", nil)
		return nil
	}
	return err
}

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
		if len(e.Fields) == maxConflicts {
			break
		}
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
