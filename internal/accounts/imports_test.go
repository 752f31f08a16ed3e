package accounts_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/accounts"
	"github.com/payment-services/accounts/internal/errcode"
	"github.com/payment-services/accounts/internal/pgtest"
	"github.com/payment-services/accounts/internal/postgres"
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

// One process stops between two chunks, another in the middle of a chunk; a third finishes the job.
func TestRunImports_GoesOnAfterAProcessStopped(t *testing.T) {
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
	_, err = tx.Exec(t.Context(), "SELECT accounts.run_import_chunk_v1($1, 1000)", job.ID)
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

// Otherwise a job would wait until RunImports looks for the jobs of other processes.
func TestUpload_WakesRunImports(t *testing.T) {
	t.Parallel()
	p := newProcess(t, pgtest.Shared(t))
	for range 2 { // the first signal is still there when the second is sent
		p.upload(csvFile(0, 1), async)
	}
	select {
	case <-p.Woken():
	default:
		require.Fail(t, "RunImports is not woken")
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
	require.Contains(t, job.ErrorMessage, "nothing was written")
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

// blockGroups makes the database slow for rows that name a group: another session holds the lock that
// their foreign key waits for.
func (p *process) blockGroups(name string) (release func()) {
	p.t.Helper()
	conn, err := pgx.ConnectConfig(p.t.Context(), p.super.Config())
	require.NoError(p.t, err)
	p.t.Cleanup(func() { _ = conn.Close(context.Background()) })
	tx, err := conn.Begin(p.t.Context())
	require.NoError(p.t, err)
	_, err = tx.Exec(p.t.Context(), "SELECT FROM accounts.user_groups WHERE name = $1 FOR UPDATE", name)
	require.NoError(p.t, err)
	return func() { require.NoError(p.t, tx.Rollback(context.Background())) }
}

// groupFile returns a file of n rows, from this phone on, that name a group.
func groupFile(from, n int, group string) []byte {
	return bytes.ReplaceAll(csvFile(from, n), []byte(";\n"), []byte(";"+group+"\n"))
}

// A job whose chunks all time out fails with its reason, and does not keep other jobs waiting.
func TestRunImports_OneImportThatCannotFinish(t *testing.T) {
	t.Parallel()
	p := newProcess(t, pgtest.Shared(t))
	p.createGroup("slow")
	release := p.blockGroups("slow")
	defer release()
	_, bad := p.upload(groupFile(0, 3, "slow"), async)
	_, good := p.upload(csvFile(100, 3000), async)
	// The first attempts have been made: 1000, 500, ... 1 rows, and three with one row.
	_, err := p.super.Exec(t.Context(), "UPDATE accounts.import_jobs SET attempts = 12, chunk_rows = 1 WHERE id = $1", bad.ID)
	require.NoError(t, err)
	begun := time.Now()
	background(t, func(ctx context.Context) { p.RunImports(ctx, slog.New(slog.DiscardHandler)) })
	require.Equal(t, "done", p.finished(good.ID).Phase)
	t.Logf("the next job was done %s after the first was begun", time.Since(begun))
	failed := p.finished(bad.ID)
	require.Equal(t, "failed", failed.Phase)
	require.Equal(t, string(errcode.Database), failed.ErrorCode)
	require.Contains(t, failed.ErrorMessage, "in time")
	require.Zero(t, failed.Done)
	require.Equal(t, 3000, p.count("users"))
}

// A chunk that times out is halved, and what is left after the cause has gone is imported.
func TestRunImportChunk_TimesOutOnce(t *testing.T) {
	t.Parallel()
	p := newProcess(t, pgtest.Shared(t))
	p.createGroup("slow")
	release := p.blockGroups("slow")
	_, job := p.upload(groupFile(0, 900, "slow"), async)
	worked, err := p.RunImportChunk(t.Context())
	require.False(t, worked)
	require.True(t, postgres.TimedOut(err), "%v", err)
	require.NotContains(t, err.Error(), "999", "no value of a row is logged")
	current, err := p.Import(t.Context(), job.ID)
	require.NoError(t, err)
	require.Equal(t, "running", current.Phase)
	require.Empty(t, current.ErrorCode)
	release()
	worked, err = p.RunImportChunk(t.Context())
	require.NoError(t, err)
	require.True(t, worked)
	current, err = p.Import(t.Context(), job.ID)
	require.NoError(t, err)
	require.Equal(t, 500, current.Done)
	p.runImports()
	require.Equal(t, accounts.Counts{Created: 900}, p.finished(job.ID).Counts)
}

// A row that PostgreSQL cannot process is reported, and the rows around it are imported.
func TestRunImports_PoisonRow(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ raise, code string }{
		"character that cannot be stored": {"untranslatable_character", "invalid"},
		"unexpected error":                {"data_corrupted", "internal_error"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newProcess(t, pgtest.Shared(t))
			p.refusePhones("+79990000007", tt.raise)
			_, job := p.upload(csvFile(0, 20), async)
			background(t, func(ctx context.Context) { p.RunImports(ctx, slog.New(slog.DiscardHandler)) })
			done := p.finished(job.ID)
			require.Equal(t, "done", done.Phase)
			require.Equal(t, accounts.Counts{Created: 19, Invalid: 1}, done.Counts)
			require.Equal(t, "9 invalid "+tt.code, outcomes(p.importRows(job.ID))[7])
		})
	}
}

// refusePhones makes the database raise an error for the contacts whose value matches the pattern.
func (p *process) refusePhones(pattern, condition string) {
	p.t.Helper()
	_, err := p.super.Exec(p.t.Context(), `CREATE FUNCTION accounts.refuse_phone() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			IF NEW.normalized LIKE '`+pattern+`' THEN
				RAISE `+condition+`;
			END IF;
			RETURN NEW;
		END $$;
		CREATE TRIGGER refuse_phone BEFORE INSERT ON accounts.user_contacts FOR EACH ROW EXECUTE FUNCTION accounts.refuse_phone()`)
	require.NoError(p.t, err)
}

// A defect that every row meets ends the job after a few rows.
func TestRunImports_EveryRowMeetsAnUnexpectedError(t *testing.T) {
	t.Parallel()
	p := newProcess(t, pgtest.Shared(t))
	p.refusePhones("%", "data_corrupted")
	_, job := p.upload(csvFile(0, 40), async)
	for {
		worked, err := p.RunImportChunk(t.Context())
		require.False(t, worked)
		if err == nil {
			break
		}
	}
	failed := p.finished(job.ID)
	require.Equal(t, "failed", failed.Phase)
	require.Equal(t, string(errcode.Internal), failed.ErrorCode)
	require.Equal(t, 10, failed.Counts.Invalid)
	require.Equal(t, 10, failed.Done)
}

func TestCancelImport(t *testing.T) {
	t.Parallel()
	p := newProcess(t, pgtest.Shared(t))
	_, job := p.upload(csvFile(0, 2500), async)
	_, err := p.RunImportChunk(t.Context())
	require.NoError(t, err)
	for range 2 {
		cancelled, err := p.CancelImport(t.Context(), job.ID)
		require.NoError(t, err)
		require.Equal(t, "cancelled", cancelled.Phase)
		require.Equal(t, accounts.Counts{Created: 1000}, cancelled.Counts)
	}
	p.runImports()
	require.Equal(t, 1000, p.count("users"))
	require.Empty(t, p.importRows(job.ID)[2499].Status)
	_, err = p.CancelImport(t.Context(), uuid.New())
	requireCode(t, err, errcode.NotFound)
}

// A cancellation waits longer than one statement may wait for a lock.
func TestCancelImport_WaitsForASlowChunk(t *testing.T) {
	t.Parallel()
	p := newProcess(t, pgtest.Shared(t))
	_, job := p.upload(csvFile(0, 1), async)
	conn, err := pgx.ConnectConfig(t.Context(), p.super.Config())
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	tx, err := conn.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "SELECT FROM accounts.import_jobs WHERE id = $1 FOR UPDATE", job.ID)
	require.NoError(t, err)
	cancelled := make(chan error, 1)
	go func() {
		_, err := p.CancelImport(t.Context(), job.ID)
		cancelled <- err
	}()
	// The lock is released when a second statement waits for it: the first one has timed out.
	waiting := map[time.Time]bool{}
	require.Eventually(t, func() bool {
		var started time.Time
		err := p.super.QueryRow(t.Context(), "SELECT query_start FROM pg_stat_activity WHERE $1 = ANY (pg_blocking_pids(pid))",
			conn.PgConn().PID()).Scan(&started)
		if err == nil {
			waiting[started] = true
		}
		return len(waiting) == 2
	}, waitLimit, pollTick)
	require.NoError(t, tx.Rollback(t.Context()))
	require.NoError(t, <-cancelled)
	require.Equal(t, "cancelled", p.finished(job.ID).Phase)
}

func TestUpload_LimitsUnfinishedImports(t *testing.T) {
	t.Parallel()
	p := newProcess(t, pgtest.Shared(t))
	upload := func(owner string) (*accounts.ImportJob, error) {
		file := csvFile(0, 1)
		_, job, err := p.Upload(t.Context(), bytes.NewReader(file), int64(len(file)), accounts.UploadOptions{
			BulkOptions: accounts.BulkOptions{OnConflict: accounts.Skip}, Async: true, Owner: owner,
		})
		return job, err
	}
	var last *accounts.ImportJob
	for range 10 {
		var err error
		last, err = upload("one")
		require.NoError(t, err)
	}
	_, err := upload("one")
	e := requireCode(t, err, errcode.RateLimited)
	require.Positive(t, e.RetryAfter)
	_, err = upload("two")
	require.NoError(t, err)
	_, err = p.CancelImport(t.Context(), last.ID)
	require.NoError(t, err)
	_, err = upload("one")
	require.NoError(t, err)
}

// Without an upload that is waited for, an old job would be kept; and it is deleted between two chunks.
func TestRunImports_DeletesOldImports(t *testing.T) {
	t.Parallel()
	p := newProcess(t, pgtest.Shared(t))
	_, old := p.upload(csvFile(0, 6000), async)
	p.runImports()
	_, err := p.super.Exec(t.Context(), "UPDATE accounts.import_jobs SET finished_at = finished_at - interval '31 days'")
	require.NoError(t, err)
	_, job := p.upload(csvFile(6000, 1500), async)
	background(t, func(ctx context.Context) { p.RunImports(ctx, slog.New(slog.DiscardHandler)) })
	require.Equal(t, 1500, p.finished(job.ID).Counts.Created)
	require.Eventually(t, func() bool { return p.count("import_rows") == 1500 && p.count("import_jobs") == 1 }, waitLimit, pollTick)
	_, err = p.Import(t.Context(), old.ID)
	requireCode(t, err, errcode.NotFound)
}
