package accounts

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/payment-services/accounts/internal/dbgen/read"
	"github.com/payment-services/accounts/internal/dbgen/write"
	"github.com/payment-services/accounts/internal/errcode"
	"github.com/payment-services/accounts/internal/postgres"
)

const (
	// stageRows is how many rows are staged by one statement.
	stageRows = 1000
	// importPoll is how soon a job that another process accepted, or did not finish, is found.
	importPoll = 2 * time.Second
	// importRetryPause is how long RunImports pauses after a failed chunk. It lets a server recover, and is
	// short enough for the jobs that wait.
	importRetryPause = 200 * time.Millisecond
	// awaitPause is how long Upload pauses while another process works on its job.
	awaitPause = 50 * time.Millisecond
	// awaitTimeout is how long Upload waits for a job; after it, the job goes on in the background.
	awaitTimeout = 20 * time.Second
	// awaitReserve is the time that Upload keeps of its context to answer: one statement and the result.
	awaitReserve = 8 * time.Second
	// maxImportAttempts is how often in a row a job may fail: ten attempts halve a chunk of 1000 rows to one
	// row, and that row has four. With a statement timeout of 4 s that is less than a minute.
	maxImportAttempts = 13
	// maxRejectedRows is how many rows with an unexpected error make a job fail.
	maxRejectedRows = 10
	// importSweep is how often old jobs are deleted.
	importSweep = time.Hour
	// An upload stages rows every second; a job that got none for an hour was abandoned.
	stagingKeptMinutes = 60
	// The result of a job can be fetched for this long.
	finishedKeptDays = 30
	// deleteRows is how many rows one statement deletes: a tenth of a second.
	deleteRows = 5000
	// importPage is how many rows of a result are read at once.
	importPage = 1000
	// maxUnfinishedOfOwner and maxUnfinished bound the unfinished jobs of one token's subject and of all.
	// Each has at most 100,000 rows.
	maxUnfinishedOfOwner = 10
	maxUnfinished        = 100
	// cancelAttempts: a chunk may run a little longer than a statement waits for its lock, but not longer
	// than two.
	cancelAttempts = 2
)

// phaseDone is the phase of a job whose rows were all processed.
const phaseDone = "done"

// ImportJob is an upload that is processed in chunks. Phase is staging, pending, running, done, failed or
// cancelled; the counts add up to Done.
type ImportJob struct {
	ID           uuid.UUID
	Phase        string
	Total, Done  int
	Counts       Counts
	ErrorCode    string // of a failed job
	ErrorMessage string // of a failed job, for its owner
	CreatedAt    time.Time
	FinishedAt   *time.Time
}

// Finished reports whether the job is done, failed or cancelled.
func (j ImportJob) Finished() bool { return j.FinishedAt != nil }

// ImportRow is a row of an upload and its result; Status is empty until the row was processed.
type ImportRow struct {
	RowResult
	Phone  string
	Groups []string
}

// Import returns the job with this id.
func (s *Service) Import(ctx context.Context, id uuid.UUID) (ImportJob, error) {
	var row read.ImportJobV1
	// Clients ask for a job right after it has changed, when a replica is still behind.
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

// CancelImport cancels an unfinished job, and leaves a finished one as it is. What was written stays.
func (s *Service) CancelImport(ctx context.Context, id uuid.UUID) (ImportJob, error) {
	var job write.ImportJobV1
	for attempt := 1; ; attempt++ {
		err := s.write(ctx, func(ctx context.Context, q write.Querier) (_ change, err error) {
			job, err = q.CancelImportJobV1(ctx, id)
			return change{}, err
		})
		if err == nil || !postgres.TimedOut(err) || attempt == cancelAttempts {
			return importJob(read.ImportJobV1(job)), err
		}
	}
}

// RunImports processes jobs until ctx ends, one chunk of each in turn, also those that another process
// did not finish. Several processes share the jobs.
func (s *Service) RunImports(ctx context.Context, log *slog.Logger) {
	var swept time.Time
	sweeping := false
	for ctx.Err() == nil {
		if time.Since(swept) >= importSweep {
			swept, sweeping = time.Now(), true
		}
		if sweeping { // one step of it between two chunks
			deleted, err := s.deleteImports(ctx, nil)
			if sweeping = err == nil && deleted > 0; err != nil && ctx.Err() == nil {
				log.WarnContext(ctx, "old imports were not deleted; the next attempt is in an hour", "error", err)
			}
		}
		worked, err := s.RunImportChunk(ctx)
		if err != nil && ctx.Err() == nil {
			log.WarnContext(ctx, "a chunk of an import failed; it is tried again in a smaller size", "error", err)
		}
		pause := importPoll
		switch {
		case err != nil:
			pause = importRetryPause
		case worked || sweeping:
			continue
		}
		select {
		case <-ctx.Done():
		case <-s.staged:
		case <-time.After(pause):
		}
	}
}

// RunImportChunk processes the next chunk of the job that has waited longest, and reports whether there
// was one. After an error the job's next chunk is smaller; a job that fails too often in a row ends.
func (s *Service) RunImportChunk(ctx context.Context) (worked bool, err error) {
	return s.runImportChunk(ctx, nil)
}

// RunChunkOf is RunImportChunk for one job. It reports false also when another process works on the job.
func (s *Service) RunChunkOf(ctx context.Context, id uuid.UUID) (worked bool, err error) {
	return s.runImportChunk(ctx, &id)
}

func (s *Service) runImportChunk(ctx context.Context, id *uuid.UUID) (bool, error) {
	var claim write.ImportClaimV1
	err := s.write(ctx, func(ctx context.Context, q write.Querier) (_ change, err error) {
		claim, err = q.ClaimImportJobV1(ctx, id, maxImportAttempts)
		return change{}, err
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	err = s.write(ctx, func(ctx context.Context, q write.Querier) (change, error) {
		row, err := q.RunImportChunkV1(ctx, claim.JobID, claim.RowLimit)
		return change{row.Touched, row.OutboxID}, err
	})
	switch {
	case errors.Is(err, pgx.ErrNoRows): // another process has begun the chunk, or has cancelled the job
		return false, nil
	case err == nil || ctx.Err() != nil:
		return err == nil, err
	}
	failure := chunkFailure(err)
	failure.JobID, failure.Attempt = claim.JobID, claim.Attempt
	recorded := s.write(ctx, func(ctx context.Context, q write.Querier) (change, error) {
		return change{}, q.FailImportChunkV1(ctx, failure)
	})
	return false, fmt.Errorf("import %s, attempt %d with up to %d rows: %w",
		claim.JobID, claim.Attempt, claim.RowLimit, errors.Join(err, recorded))
}

// chunkFailure returns what is recorded of a chunk that failed with err: the reason for the job's owner,
// and the code of the row if the chunk was one row that can be given up. The database refuses the same
// row each time; a database that was slow or away may succeed later.
func chunkFailure(err error) write.FailImportChunkV1Params {
	switch code := errcode.Of(err); {
	case postgres.TimedOut(err):
		return write.FailImportChunkV1Params{
			ErrorCode:    string(errcode.Database),
			ErrorMessage: "the database did not process the next rows in time, however few they were; rows without a result were not imported",
		}
	case code == errcode.Database, code == errcode.OutcomeUnknown:
		return write.FailImportChunkV1Params{
			ErrorCode:    string(errcode.Database),
			ErrorMessage: "the database was not available each time that the import was tried; rows without a result were not imported",
		}
	case code == errcode.Internal:
		return write.FailImportChunkV1Params{
			ErrorCode:    string(errcode.Internal),
			ErrorMessage: "too many rows met an unexpected error, and the service's log has its cause; rows without a result were not imported",
			RowCode:      new("internal_error"), MaxRejected: new(int32(maxRejectedRows)),
		}
	default:
		return write.FailImportChunkV1Params{
			ErrorCode:    string(code),
			ErrorMessage: "the database refused the next rows; rows without a result were not imported",
			RowCode:      new("invalid"),
		}
	}
}

// awaitImport processes a job until it is finished, or for awaitTimeout. An error of a chunk ends the
// waiting: the job goes on in the background.
func (s *Service) awaitImport(ctx context.Context, job ImportJob) (ImportJob, error) {
	end := time.Now().Add(awaitTimeout)
	if deadline, ok := ctx.Deadline(); ok && deadline.Add(-awaitReserve).Before(end) {
		end = deadline.Add(-awaitReserve)
	}
	for !job.Finished() && time.Now().Before(end) {
		worked, failure := s.RunChunkOf(ctx, job.ID)
		if failure != nil && !postgres.TimedOut(failure) {
			s.wakeImports()
			return job, ctx.Err()
		}
		if !worked && failure == nil {
			select {
			case <-ctx.Done():
			case <-time.After(awaitPause):
			}
		}
		current, err := s.Import(ctx, job.ID)
		if err != nil {
			s.wakeImports()
			return job, ctx.Err()
		}
		job = current
	}
	return job, nil
}

// importResult returns the result of a job.
func (s *Service) importResult(ctx context.Context, job ImportJob) (BulkResult, error) {
	result := BulkResult{Rows: make([]RowResult, 0, job.Total), Counts: job.Counts}
	err := s.ImportRows(ctx, job.ID, func(row ImportRow) error {
		result.Rows = append(result.Rows, row.RowResult)
		return nil
	})
	return result, err
}

// wakeImports makes RunImports look for jobs at once.
func (s *Service) wakeImports() {
	select {
	case s.staged <- struct{}{}:
	default:
	}
}

// stage stores the rows of a file as a job that can begin. If the file cannot be read to its end, no
// job remains.
func (s *Service) stage(ctx context.Context, file *upload, opts UploadOptions) (ImportJob, error) {
	params := write.CreateImportJobV1Params{
		OnConflict: string(opts.OnConflict), DryRun: opts.DryRun,
		MaxOfOwner: maxUnfinishedOfOwner, MaxOfAll: maxUnfinished,
	}
	if opts.Owner != "" {
		params.Owner = &opts.Owner
	}
	var job write.ImportJobV1
	err := s.write(ctx, func(ctx context.Context, q write.Querier) (_ change, err error) {
		job, err = q.CreateImportJobV1(ctx, params)
		return change{}, err
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return ImportJob{}, &errcode.Error{
			Code: errcode.RateLimited, RetryAfter: importPoll,
			Message: "there are too many unfinished imports; wait until one has finished, or cancel one",
		}
	}
	if err != nil {
		return ImportJob{}, err
	}
	if err := s.stageRows(ctx, job.ID, file); err != nil {
		// If the job cannot be deleted now, the periodic deletion finds it.
		return ImportJob{}, errors.Join(err, s.deleteImport(context.WithoutCancel(ctx), job.ID))
	}
	err = s.write(ctx, func(ctx context.Context, q write.Querier) (_ change, err error) {
		started, err := q.StartImportJobV1(ctx, job.ID, MaxSyncRows)
		if err == nil {
			job = started
		}
		return change{}, err
	})
	if err != nil { // a job that has started in spite of the error is not deleted
		return ImportJob{}, errors.Join(err, s.deleteImport(context.WithoutCancel(ctx), job.ID))
	}
	return importJob(read.ImportJobV1(job)), nil
}

func (s *Service) stageRows(ctx context.Context, jobID uuid.UUID, file *upload) error {
	seen := map[string]bool{} // 100,000 phones are 10 MB
	var rows rowArrays
	var codes, fields []string
	flush := func() error {
		if len(codes) == 0 {
			return nil
		}
		params := write.StageImportRowsV1Params{
			JobID: jobID, RowNos: rows.rowNos, Phones: rows.phones, PhonesNormalized: rows.normalized,
			Codes: codes, Fields: fields, GroupRowNos: rows.groupRowNos, GroupNames: rows.groupNames, GroupKeys: rows.groupKeys,
		}
		rows, codes, fields = rowArrays{}, nil, nil
		return s.write(ctx, func(ctx context.Context, q write.Querier) (change, error) {
			return change{}, q.StageImportRowsV1(ctx, params)
		})
	}
	for {
		row, err := file.next(ctx)
		if errors.Is(err, io.EOF) {
			return flush()
		}
		if err != nil {
			return err
		}
		normalized, keys, fault := s.checkRow(row)
		switch {
		case fault != nil:
		case seen[normalized]:
			fault = &RowFault{Code: "duplicate", Column: ColumnPhone}
		default:
			fault = &RowFault{}
			seen[normalized] = true
		}
		rows.add(row.Number, row, normalized, keys)
		codes, fields = append(codes, fault.Code), append(fields, fault.Column)
		if len(codes) == stageRows {
			if err := flush(); err != nil {
				return err
			}
		}
	}
}

// deleteImport deletes a job that is staging or finished.
func (s *Service) deleteImport(ctx context.Context, id uuid.UUID) error {
	for {
		if deleted, err := s.deleteImports(ctx, &id); err != nil || deleted == 0 {
			return err
		}
	}
}

// deleteImports deletes some rows of the job, or of an old one if id is nil, and returns how many.
func (s *Service) deleteImports(ctx context.Context, id *uuid.UUID) (deleted int64, err error) {
	err = s.write(ctx, func(ctx context.Context, q write.Querier) (_ change, err error) {
		deleted, err = q.DeleteImportJobsV1(ctx, write.DeleteImportJobsV1Params{
			JobID: id, StagingOlderThanMinutes: stagingKeptMinutes, FinishedOlderThanDays: finishedKeptDays,
			RowLimit: deleteRows,
		})
		return change{}, err
	})
	return deleted, err
}

func importJob(row read.ImportJobV1) ImportJob {
	return ImportJob{
		ID: row.ID, Phase: row.Phase, Total: int(row.Total), Done: int(row.Done),
		Counts: Counts{
			Created: int(row.Created), Exists: int(row.Existing), Merged: int(row.Merged),
			Conflict: int(row.Conflict), Invalid: int(row.Invalid),
		},
		ErrorCode: deref(row.ErrorCode), ErrorMessage: deref(row.ErrorMessage), CreatedAt: row.CreatedAt, FinishedAt: row.FinishedAt,
	}
}
