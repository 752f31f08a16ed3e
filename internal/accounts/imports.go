package accounts

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/payment-services/accounts/internal/dbgen/read"
	"github.com/payment-services/accounts/internal/dbgen/write"
	"github.com/payment-services/accounts/internal/errcode"
)

const (
	// importChunk is how many rows of a job one transaction takes.
	importChunk = 1000
	// importPoll is how soon a job that another process accepted, or left behind, is seen.
	importPoll = 2 * time.Second
	// importSweep is how often old jobs are deleted.
	importSweep = time.Hour
	// Staging takes seconds; a job that is still at it after a day was abandoned.
	stagingKeptHours = 24
	// The result of a job can be fetched for this long.
	finishedKeptDays = 30
	// importPage is how many rows of a result are read at once.
	importPage = 1000
)

// ImportJob is a large upload that is worked through in the background. Phase is staging, pending,
// running, done or failed; the counts add up to Done.
type ImportJob struct {
	ID          uuid.UUID
	Phase       string
	Total, Done int
	Counts      Counts
	ErrorCode   string // of a failed job
	CreatedAt   time.Time
	FinishedAt  *time.Time
}

// Finished reports whether nothing more will happen to the job.
func (j ImportJob) Finished() bool { return j.FinishedAt != nil }

// ImportRow is a row of an upload and what became of it; Status is empty until it was its turn.
type ImportRow struct {
	RowResult
	Phone, Groups string
}

// Import returns the job with this id.
func (s *Service) Import(ctx context.Context, id uuid.UUID) (ImportJob, error) {
	var row read.ImportJobV1
	// Progress is asked for right after it was made: a replica would be behind.
	err := s.router.ReadPrimary(ctx, func(ctx context.Context, q read.Querier) (err error) {
		row, err = q.GetImportJobV1(ctx, id)
		return err
	})
	if errors.Is(err, pgx.ErrNoRows) {
		err = errcode.Missing("Import", id.String())
	}
	return importJob(row), err
}

// ImportRows calls each with every row of a job, in order, until it returns an error.
func (s *Service) ImportRows(ctx context.Context, id uuid.UUID, each func(ImportRow) error) error {
	for after := int32(0); ; {
		var rows []read.ImportRowV1
		err := s.router.ReadPrimary(ctx, func(ctx context.Context, q read.Querier) (err error) {
			rows, err = q.ListImportRowsV1(ctx, importPage, id, after)
			return err
		})
		if err != nil {
			return err
		}
		for _, row := range rows {
			r := ImportRow{Phone: row.Phone, Groups: row.UserGroups}
			r.Number = int(row.RowNo)
			r.set(deref(row.Status), deref(row.Code), deref(row.Field), row.UserID)
			if err := each(r); err != nil {
				return err
			}
			after = row.RowNo
		}
		if len(rows) < importPage {
			return nil
		}
	}
}

// RunImports works through jobs until ctx ends, chunk by chunk, also those that another process left
// behind. Several processes share the jobs.
func (s *Service) RunImports(ctx context.Context, log *slog.Logger) {
	sweep := time.NewTicker(importSweep)
	defer sweep.Stop()
	for ctx.Err() == nil {
		worked, err := s.RunImportChunk(ctx)
		if err != nil && ctx.Err() == nil {
			log.WarnContext(ctx, "an import's chunk was not written; it is repeated", "error", err)
		}
		if worked {
			continue
		}
		select {
		case <-ctx.Done():
		case <-s.staged:
		case <-time.After(importPoll):
		case <-sweep.C:
			if err := s.deleteImports(ctx, nil); err != nil {
				log.WarnContext(ctx, "old imports were not deleted", "error", err)
			}
		}
	}
}

// RunImportChunk does the next chunk of the oldest job, and reports whether there was one.
func (s *Service) RunImportChunk(ctx context.Context) (worked bool, err error) {
	err = s.write(ctx, func(ctx context.Context, q write.Querier) (change, error) {
		row, err := q.RunImportChunkV1(ctx, importChunk)
		return change{row.Touched, row.OutboxID}, err
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	return err == nil, err
}

// stage stores the rows that were read and those that follow, and lets the job begin. If the file
// turns out to be broken, nothing is left of it.
func (s *Service) stage(ctx context.Context, rows []BulkRow, rest *upload, opts BulkOptions) (ImportJob, error) {
	var job write.ImportJobV1
	err := s.write(ctx, func(ctx context.Context, q write.Querier) (_ change, err error) {
		job, err = q.CreateImportJobV1(ctx, string(opts.OnConflict), opts.DryRun)
		return change{}, err
	})
	if err != nil {
		return ImportJob{}, err
	}
	if err := s.stageRows(ctx, job.ID, rows, rest); err != nil {
		return ImportJob{}, errors.Join(err, s.deleteImports(context.WithoutCancel(ctx), &job.ID))
	}
	err = s.write(ctx, func(ctx context.Context, q write.Querier) (_ change, err error) {
		job, err = q.StartImportJobV1(ctx, job.ID)
		return change{}, err
	})
	if err != nil {
		return ImportJob{}, err
	}
	select {
	case s.staged <- struct{}{}:
	default:
	}
	return importJob(read.ImportJobV1(job)), nil
}

func (s *Service) stageRows(ctx context.Context, jobID uuid.UUID, rows []BulkRow, rest *upload) error {
	params := write.StageImportRowsV1Params{JobID: jobID}
	seen := map[string]bool{} // 100,000 phones are 10 MB
	flush := func() error {
		if len(params.RowNos) == 0 {
			return nil
		}
		err := s.write(ctx, func(ctx context.Context, q write.Querier) (change, error) {
			return change{}, q.StageImportRowsV1(ctx, params)
		})
		params = write.StageImportRowsV1Params{JobID: jobID}
		return err
	}
	add := func(row BulkRow) error {
		normalized, groups, fault := s.checkRow(row)
		switch {
		case fault != nil:
		case seen[normalized]:
			fault = &RowFault{Code: "duplicate", Column: columnPhone}
		default:
			fault = &RowFault{}
			seen[normalized] = true
		}
		params.RowNos = append(params.RowNos, int32(row.Number))
		params.Phones = append(params.Phones, row.Phone)
		params.PhonesNormalized = append(params.PhonesNormalized, normalized)
		params.GroupNames = append(params.GroupNames, strings.Join(row.Groups, ","))
		params.GroupKeys = append(params.GroupKeys, groups)
		params.Codes = append(params.Codes, fault.Code)
		params.Fields = append(params.Fields, fault.Column)
		if len(params.RowNos) < importChunk {
			return nil
		}
		return flush()
	}
	for _, row := range rows {
		if err := add(row); err != nil {
			return err
		}
	}
	for {
		row, err := rest.next(ctx)
		if errors.Is(err, io.EOF) {
			return flush()
		}
		if err == nil {
			err = add(row)
		}
		if err != nil {
			return err
		}
	}
}

// deleteImports deletes old jobs, and this one if it is still being staged.
func (s *Service) deleteImports(ctx context.Context, id *uuid.UUID) error {
	return s.write(ctx, func(ctx context.Context, q write.Querier) (change, error) {
		_, err := q.DeleteImportJobsV1(ctx, id, stagingKeptHours, finishedKeptDays)
		return change{}, err
	})
}

func importJob(row read.ImportJobV1) ImportJob {
	return ImportJob{
		ID: row.ID, Phase: row.Phase, Total: int(row.Total), Done: int(row.Done),
		Counts: Counts{
			Created: int(row.Created), Exists: int(row.Existing), Merged: int(row.Merged),
			Conflict: int(row.Conflict), Invalid: int(row.Invalid),
		},
		ErrorCode: deref(row.ErrorCode), CreatedAt: row.CreatedAt, FinishedAt: row.FinishedAt,
	}
}
