package accounts_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/accounts"
	"github.com/payment-services/accounts/internal/errcode"
	"github.com/payment-services/accounts/internal/pgtest"
)

var async = accounts.UploadOptions{BulkOptions: accounts.BulkOptions{OnConflict: accounts.Skip}, Async: true}

// finished waits until a job has ended and returns it.
func (p *process) finished(id uuid.UUID) (job accounts.ImportJob) {
	p.t.Helper()
	require.Eventually(p.t, func() bool {
		var err error
		job, err = p.Import(p.t.Context(), id)
		require.NoError(p.t, err)
		c := job.Counts
		require.Equal(p.t, job.Done, c.Created+c.Exists+c.Merged+c.Conflict+c.Invalid)
		return job.Finished()
	}, waitLimit, pollTick)
	return job
}

// A process stops between two chunks, another in the middle of one; a third finishes the job.
func TestRunImportsGoesOn(t *testing.T) {
	t.Parallel()
	db := pgtest.Shared(t)
	first := newProcess(t, db)
	_, job := first.upload(csvFile(0, 2500), async)
	require.Equal(t, "pending", job.Phase)
	require.Equal(t, 2500, job.Total)
	worked, err := first.RunImportChunk(t.Context())
	require.NoError(t, err)
	require.True(t, worked)
	left, err := first.Import(t.Context(), job.ID)
	require.NoError(t, err)
	require.Equal(t, "running", left.Phase)
	require.Equal(t, 1000, left.Done)
	require.False(t, left.Finished())
	tx, err := first.super.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "SELECT accounts.run_import_chunk_v1(1000)")
	require.NoError(t, err)
	require.NoError(t, tx.Rollback(t.Context()))

	second := newProcess(t, db)
	for _, p := range []*process{first, second} {
		background(t, func(ctx context.Context) { p.RunImports(ctx, slog.New(slog.DiscardHandler)) })
	}
	done := second.finished(job.ID)
	require.Equal(t, "done", done.Phase)
	require.Equal(t, accounts.Counts{Created: 2500}, done.Counts)
	require.Equal(t, 2500, second.count("users"))
	require.Equal(t, 2500, second.count("user_contacts"))

	seen := map[uuid.UUID]bool{}
	for i, r := range second.importRows(job.ID) {
		require.Equal(t, i+2, r.Number)
		require.Equal(t, accounts.RowCreated, r.Status)
		seen[*r.UserID] = true
	}
	require.Len(t, seen, 2500)
}

// Without it a job would wait for the next look at the jobs of other processes.
func TestUploadWakesRunImports(t *testing.T) {
	t.Parallel()
	p := newProcess(t, pgtest.Shared(t))
	for range 2 { // of which nobody takes the first
		p.upload(csvFile(0, 1), async)
	}
	select {
	case <-p.Woken():
	default:
		require.Fail(t, "nobody is woken")
	}
}

func TestImportIsUnknown(t *testing.T) {
	t.Parallel()
	p := newProcess(t, pgtest.Shared(t))
	id := uuid.New()
	_, err := p.Import(t.Context(), id)
	e := requireCode(t, err, errcode.NotFound)
	require.Equal(t, "Import", e.Entity)
	require.Equal(t, id.String(), e.ID)
	worked, err := p.RunImportChunk(t.Context())
	require.NoError(t, err)
	require.False(t, worked)
}

func TestImportWithErrorOnConflict(t *testing.T) {
	t.Parallel()
	p := newProcess(t, pgtest.Shared(t))
	known := p.createUser(phone(2))
	_, job := p.upload(csvFile(0, 3), accounts.UploadOptions{BulkOptions: accounts.BulkOptions{OnConflict: accounts.Error}, Async: true})
	require.Equal(t, "failed", job.Phase)
	require.Equal(t, string(errcode.IdentifierTaken), job.ErrorCode)
	p.runImports()
	require.Equal(t, 1, p.count("users"))
	rows := p.importRows(job.ID)
	require.Equal(t, []string{"2", "3", "4 conflict taken phone"}, outcomes(rows))
	require.Equal(t, &known, rows[2].UserID)

	stop := errors.New("enough")
	require.ErrorIs(t, p.ImportRows(t.Context(), job.ID, func(accounts.ImportRow) error { return stop }), stop)
}

func TestLargeImport(t *testing.T) {
	t.Parallel()
	p := newProcess(t, pgtest.Shared(t))
	const rows = 20_000
	begun := time.Now()
	_, job := p.upload(csvFile(0, rows), accounts.UploadOptions{BulkOptions: accounts.BulkOptions{OnConflict: accounts.Skip}})
	require.NotNil(t, job, "more than MaxSyncRows are always a job")
	staged := time.Since(begun)
	begun = time.Now()
	p.runImports()
	worked := time.Since(begun)
	t.Logf("%d rows: staged %.0f rows/s, imported %.0f rows/s", rows, rows/staged.Seconds(), rows/worked.Seconds())
	require.Equal(t, accounts.Counts{Created: rows}, p.finished(job.ID).Counts)
	require.Equal(t, rows, p.count("users"))
}
