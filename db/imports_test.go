package db_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/dbgen/read"
	"github.com/payment-services/accounts/internal/dbgen/write"
)

const (
	// maxAttempts is how often a job may fail in a row.
	maxAttempts = 13
	// maxAtomic is how many rows of a job with on_conflict = error are written all or not at all.
	maxAtomic = 1
)

func newJob(onConflict string, dryRun bool) write.CreateImportJobV1Params {
	return write.CreateImportJobV1Params{OnConflict: onConflict, DryRun: dryRun, Owner: ptr("owner"), MaxOfOwner: 100, MaxOfAll: 200}
}

// importRow is one row of an upload, numbered from 2 as below a header. fault is "code field" of a row
// that is not to be imported.
type importRow struct{ phone, groups, fault string }

func stageCall(job uuid.UUID, rows ...importRow) write.StageImportRowsV1Params {
	p := write.StageImportRowsV1Params{JobID: job}
	for i, r := range rows {
		code, field, _ := strings.Cut(r.fault, " ")
		normalized := r.phone
		if code != "" && code != "duplicate" {
			normalized = ""
		}
		p.RowNos = append(p.RowNos, int32(i+2))
		p.Phones = append(p.Phones, r.phone)
		p.PhonesNormalized = append(p.PhonesNormalized, normalized)
		rowNos, keys := groupsOfRow(int32(i+2), r.groups)
		p.GroupRowNos, p.GroupNames = append(p.GroupRowNos, rowNos...), append(p.GroupNames, strings.Split(strings.ToUpper(strings.Join(keys, ",")), ",")[:len(keys)]...)
		p.GroupKeys = append(p.GroupKeys, keys...)
		p.Codes = append(p.Codes, code)
		p.Fields = append(p.Fields, field)
	}
	return p
}

// freshRows are rows with phones that nobody has, from this number on.
func freshRows(from, n int) (rows []importRow) {
	for i := range n {
		rows = append(rows, importRow{phone: fmt.Sprintf("+7999%07d", from+i)})
	}
	return rows
}

func (a *api) stage(onConflict string, dryRun bool, rows ...importRow) uuid.UUID {
	a.t.Helper()
	job, err := a.write.CreateImportJobV1(a.t.Context(), newJob(onConflict, dryRun))
	require.NoError(a.t, err)
	require.Equal(a.t, "staging", job.Phase)
	require.NoError(a.t, a.write.StageImportRowsV1(a.t.Context(), stageCall(job.ID, rows...)))
	return job.ID
}

// startImport stages a job and lets it begin.
func (a *api) startImport(onConflict string, dryRun bool, rows ...importRow) write.ImportJobV1 {
	a.t.Helper()
	job, err := a.write.StartImportJobV1(a.t.Context(), a.stage(onConflict, dryRun, rows...), maxAtomic)
	require.NoError(a.t, err)
	return job
}

// chunk processes up to limit rows of the job whose turn it is.
func (a *api) chunk(limit int32) write.ImportChunkV1 {
	a.t.Helper()
	chunk, err := a.write.RunImportChunkV1(a.t.Context(), a.claim().JobID, limit)
	require.NoError(a.t, err)
	return chunk
}

func (a *api) claim() write.ImportClaimV1 {
	a.t.Helper()
	claim, err := a.write.ClaimImportJobV1(a.t.Context(), nil, maxAttempts)
	require.NoError(a.t, err)
	return claim
}

// requireNoClaim checks that no job can be processed.
func (a *api) requireNoClaim() {
	a.t.Helper()
	_, err := a.write.ClaimImportJobV1(a.t.Context(), nil, maxAttempts)
	require.ErrorIs(a.t, err, pgx.ErrNoRows)
}

// runImports works until there is nothing left to do.
func (a *api) runImports(limit int32) {
	a.t.Helper()
	for {
		claim, err := a.write.ClaimImportJobV1(a.t.Context(), nil, maxAttempts)
		if err != nil {
			require.ErrorIs(a.t, err, pgx.ErrNoRows)
			return
		}
		_, err = a.write.RunImportChunkV1(a.t.Context(), claim.JobID, limit)
		require.NoError(a.t, err)
	}
}

// job returns an import job, and checks what always holds of it.
func (a *api) job(id uuid.UUID) read.ImportJobV1 {
	a.t.Helper()
	j, err := a.read.GetImportJobV1(a.t.Context(), id)
	require.NoError(a.t, err)
	require.Equal(a.t, j.Done, j.Created+j.Existing+j.Merged+j.Conflict+j.Invalid)
	require.LessOrEqual(a.t, j.Done, j.Total)
	require.Equal(a.t, j.Phase == "done" || j.Phase == "failed" || j.Phase == "cancelled", j.FinishedAt != nil)
	var rows [6]int32 // the counts of the job are those of its rows
	require.NoError(a.t, a.super.QueryRow(a.t.Context(), `SELECT count(status), count(*) FILTER (WHERE status = 'created'),
		count(*) FILTER (WHERE status = 'exists'), count(*) FILTER (WHERE status = 'merged'),
		count(*) FILTER (WHERE status = 'conflict'), count(*) FILTER (WHERE status = 'invalid')
		FROM accounts.import_rows WHERE job_id = $1`, id).Scan(&rows[0], &rows[1], &rows[2], &rows[3], &rows[4], &rows[5]))
	require.Equal(a.t, [6]int32{j.Done, j.Created, j.Existing, j.Merged, j.Conflict, j.Invalid}, rows)
	return j
}

// importOutcomes returns "row_no status code field" of every row, read in pages of two.
func (a *api) importOutcomes(job uuid.UUID) (texts []string) {
	a.t.Helper()
	for after := int32(0); ; {
		rows, err := a.read.ListImportRowsV1(a.t.Context(), 2, job, after)
		require.NoError(a.t, err)
		for _, r := range rows {
			words := []string{fmt.Sprint(r.RowNo)}
			for _, word := range []*string{r.Status, r.Code, r.Field} {
				if word != nil {
					words = append(words, *word)
				}
			}
			texts = append(texts, strings.Join(words, " "))
			after = r.RowNo
		}
		if len(rows) < 2 {
			return texts
		}
	}
}

func TestImport(t *testing.T) {
	t.Parallel()
	a := open(t)
	a.createGroup("client")
	known := a.createUser(nil, same("phone", "+79990000005"))
	owed := a.count("cache_outbox")
	rows := []importRow{
		{"+79990000001", "client", ""},
		{"+79990000002", "nothing", ""},
		{"12", "client", "invalid_phone phone"},
		{"+79990000001", "", "duplicate phone"},
		{"+79990000005", "client", ""},
	}
	id := a.stage("skip", false, rows[:3]...)
	require.NoError(t, a.write.StageImportRowsV1(t.Context(), stageCall(id, rows...)), "rows that are there stay")
	a.requireNoClaim() // it has not begun

	started, err := a.write.StartImportJobV1(t.Context(), id, maxAtomic)
	require.NoError(t, err)
	require.Equal(t, read.ImportJobV1{
		ID: id, Phase: "pending", OnConflict: "skip", Total: 5, Done: 2, Conflict: 1, Invalid: 1, CreatedAt: started.CreatedAt,
	}, read.ImportJobV1(started))
	require.WithinDuration(t, time.Now(), started.CreatedAt, time.Minute)
	require.Equal(t, []string{"2", "3", "4 invalid invalid_phone phone", "5 conflict duplicate phone", "6"}, a.importOutcomes(id))

	first := a.chunk(2)
	require.Equal(t, id, first.JobID)
	require.Equal(t, "running", a.job(id).Phase)
	require.EqualValues(t, 4, a.job(id).Done)
	again, err := a.write.StartImportJobV1(t.Context(), id, maxAtomic)
	require.NoError(t, err)
	require.Equal(t, a.job(id), read.ImportJobV1(again), "it has begun already")
	last := a.chunk(2)
	a.requireTouched(last.Touched, last.OutboxID)
	require.Equal(t, owed+1, a.count("cache_outbox"))

	done := a.job(id)
	require.Equal(t, read.ImportJobV1{
		ID: id, Phase: "done", OnConflict: "skip", Total: 5, Done: 5, Created: 1, Existing: 1, Conflict: 1, Invalid: 2,
		CreatedAt: done.CreatedAt, FinishedAt: done.FinishedAt,
	}, done)
	require.Equal(t, []string{
		"2 created", "3 invalid unknown_group user_groups", "4 invalid invalid_phone phone", "5 conflict duplicate phone", "6 exists",
	}, a.importOutcomes(id))
	list, err := a.read.ListImportRowsV1(t.Context(), 10, id, 0)
	require.NoError(t, err)
	for i, r := range list {
		require.Equal(t, rows[i].phone, r.Phone)
		require.Equal(t, strings.ToUpper(rows[i].groups), strings.Join(r.UserGroups, ","), "as it was given")
	}
	require.Equal(t, &known.ID, list[4].UserID)
	created := a.detail(*list[0].UserID)
	require.Equal(t, []string{"client"}, a.groupsOf(created.ID))
	contacts, err := a.read.ListUserContactsV1(t.Context(), created.ID, false)
	require.NoError(t, err)
	a.requireTouched(first.Touched, first.OutboxID, "u:"+created.ID.String(), "c:"+contacts[0].ID.String(), "i:phone:+79990000001")

	before := a.state()
	a.requireNoClaim()
	_, err = a.write.RunImportChunkV1(t.Context(), id, 2)
	require.ErrorIs(t, err, pgx.ErrNoRows)
	require.Equal(t, before, a.state())
	_, err = a.read.GetImportJobV1(t.Context(), uuid.New())
	require.ErrorIs(t, err, pgx.ErrNoRows)
}

func TestImportRefuses(t *testing.T) {
	t.Parallel()
	a := open(t)
	_, err := a.write.CreateImportJobV1(t.Context(), newJob("replace", false))
	requireState(t, err, check, "import_jobs_on_conflict_known", "")
	nothing := uuid.New()
	_, err = a.write.StartImportJobV1(t.Context(), nothing, maxAtomic)
	requireState(t, err, notFound, "", missing("Import", nothing))
	err = a.write.StageImportRowsV1(t.Context(), stageCall(nothing, freshRows(1, 1)...))
	requireState(t, err, notFound, "", missing("Import", nothing))
	_, err = a.write.CancelImportJobV1(t.Context(), nothing)
	requireState(t, err, notFound, "", missing("Import", nothing))
	begun := a.startImport("skip", false, freshRows(1, 1)...).ID
	err = a.write.StageImportRowsV1(t.Context(), stageCall(begun, freshRows(1, 2)...))
	requireState(t, err, notFound, "", missing("Import", begun))
}

// A job ends with its last row, also if the last chunk is full, and at once if it has no row to import.
func TestImportOfWholeChunks(t *testing.T) {
	t.Parallel()
	a := open(t)
	job := a.startImport("skip", false, freshRows(1, 4)...)
	a.chunk(2)
	require.Equal(t, "running", a.job(job.ID).Phase)
	a.chunk(2)
	require.Equal(t, "done", a.job(job.ID).Phase)

	require.Equal(t, "done", a.startImport("skip", false).Phase)
	require.Equal(t, "done", a.startImport("error", false, importRow{phone: "x", fault: "invalid_phone phone"}).Phase)
	a.requireNoClaim()
}

// A process that dies in a chunk leaves nothing of it, and another goes on where it stopped.
func TestImportGoesOnAfterARestart(t *testing.T) {
	t.Parallel()
	for name, die := range map[string]func(*testing.T, *api, *pgx.Conn, pgx.Tx){
		"rolled back": func(t *testing.T, _ *api, _ *pgx.Conn, tx pgx.Tx) { require.NoError(t, rollback(tx)) },
		"killed": func(t *testing.T, a *api, conn *pgx.Conn, _ pgx.Tx) {
			execute(t, a.super, "SELECT pg_terminate_backend($1, 10000)", conn.PgConn().PID())
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := open(t)
			job := a.startImport("skip", false, freshRows(1, 5)...)
			a.chunk(2)
			before := a.state()

			conn := connect(t, a.WriteURL)
			tx, err := conn.Begin(t.Context())
			require.NoError(t, err)
			lost, err := writerIn(tx).RunImportChunkV1(t.Context(), job.ID, 2)
			require.NoError(t, err)
			require.Len(t, lost.Touched, 6)
			die(t, a, conn, tx)
			require.Equal(t, before, a.state())

			a.runImports(2)
			require.EqualValues(t, 5, a.job(job.ID).Created)
			require.EqualValues(t, 5, a.count("users"))
			require.EqualValues(t, 5, a.count("user_contacts"))
		})
	}
}

func TestImportWithErrorOnConflict(t *testing.T) {
	t.Parallel()
	a := open(t)
	user := a.createUser(nil, same("phone", "+79990000001"))
	users := a.count("users")
	for name, tt := range map[string]struct {
		rows []importRow
		want []string
	}{
		"taken":     {freshRows(1, 2), []string{"2 conflict taken phone", "3"}},
		"duplicate": {[]importRow{{phone: "+79990000002"}, {phone: "+79990000002", fault: "duplicate phone"}}, []string{"2", "3 conflict duplicate phone"}},
	} {
		t.Run(name, func(t *testing.T) {
			failed := a.startImport("error", false, tt.rows...)
			require.Equal(t, "failed", failed.Phase)
			require.Equal(t, ptr("IDENTIFIER_TAKEN"), failed.ErrorCode)
			require.Equal(t, read.ImportJobV1(failed), a.job(failed.ID))
			require.Equal(t, tt.want, a.importOutcomes(failed.ID))
			a.requireNoClaim()
			require.Equal(t, users, a.count("users"))
		})
	}
	taken := a.startImport("error", false, freshRows(1, 1)...)
	rows, err := a.read.ListImportRowsV1(t.Context(), 10, taken.ID, 0)
	require.NoError(t, err)
	require.Equal(t, &user.ID, rows[0].UserID)

	// A faulty row is no conflict, and a phone that is taken only after the start is left as it is.
	job := a.startImport("error", false, importRow{phone: "x", fault: "invalid_phone phone"}, importRow{phone: "+79990000003"}, importRow{phone: "+79990000004"})
	require.Equal(t, "pending", job.Phase)
	a.createUser(nil, same("phone", "+79990000003"))
	a.runImports(10)
	require.Equal(t, "done", a.job(job.ID).Phase)
	require.Equal(t, []string{"2 invalid invalid_phone phone", "3 exists", "4 created"}, a.importOutcomes(job.ID))
}

func TestImportDryRunAndMerge(t *testing.T) {
	t.Parallel()
	a := open(t)
	a.createGroup("client")
	user := a.createUser(nil, same("phone", "+79990000001"))
	before := a.detail(user.ID)
	rows := []importRow{{"+79990000001", "client", ""}, {"+79990000002", "client", ""}, {"+79990000003", "nothing", ""}}
	want := []string{"2 merged", "3 created", "4 invalid unknown_group user_groups"}

	dry := a.startImport("merge", true, rows...)
	require.True(t, dry.DryRun)
	chunk := a.chunk(10)
	a.requireTouched(chunk.Touched, chunk.OutboxID)
	require.Equal(t, want, a.importOutcomes(dry.ID))
	require.Equal(t, before, a.detail(user.ID))
	require.EqualValues(t, 1, a.count("users"))

	wet := a.startImport("merge", false, rows...)
	a.runImports(10)
	require.Equal(t, want, a.importOutcomes(wet.ID))
	require.EqualValues(t, 1, a.job(wet.ID).Merged)
	requireOneUp(t, before, a.detail(user.ID))
	require.Equal(t, []string{"client"}, a.groupsOf(user.ID))
}

// Jobs take turns, and a worker does not wait for a job that another worker has.
func TestTwoWorkersAndTwoImports(t *testing.T) {
	t.Parallel()
	a := open(t)
	older := a.startImport("skip", false, freshRows(1, 4)...)
	newer := a.startImport("skip", false, freshRows(11, 4)...)
	require.Equal(t, older.ID, a.chunk(1).JobID)
	require.Equal(t, newer.ID, a.chunk(1).JobID)

	require.Equal(t, older.ID, a.claim().JobID)
	tx, err := a.conn.Begin(t.Context())
	require.NoError(t, err)
	_, err = writerIn(tx).RunImportChunkV1(t.Context(), older.ID, 2)
	require.NoError(t, err)

	second := writer(connect(t, a.WriteURL))
	for range 2 {
		claim, err := second.ClaimImportJobV1(t.Context(), nil, maxAttempts)
		require.NoError(t, err)
		require.Equal(t, newer.ID, claim.JobID)
	}
	_, err = second.RunImportChunkV1(t.Context(), older.ID, 2)
	require.ErrorIs(t, err, pgx.ErrNoRows)
	_, err = second.ClaimImportJobV1(t.Context(), &older.ID, maxAttempts)
	require.ErrorIs(t, err, pgx.ErrNoRows)

	require.NoError(t, tx.Commit(t.Context()))
	a.runImports(2)
	for _, job := range []uuid.UUID{older.ID, newer.ID} {
		require.EqualValues(t, 4, a.job(job).Created)
	}
	require.EqualValues(t, 8, a.count("users"))
}

func TestManyWorkersAndOneImport(t *testing.T) {
	t.Parallel()
	a := open(t)
	const rows, workers = 60, 4
	job := a.startImport("skip", false, freshRows(1, rows)...)
	done := make(chan error, workers)
	for range workers {
		q := writer(connect(t, a.WriteURL))
		go func() {
			for {
				// Several workers may claim the job before one of them locks it, so attempts are not limited.
				_, err := q.ClaimImportJobV1(t.Context(), &job.ID, 1_000_000)
				if err == nil {
					_, err = q.RunImportChunkV1(t.Context(), job.ID, 3)
				}
				if err == pgx.ErrNoRows {
					// Another worker has the job, or it is finished.
					j, jobErr := q.StartImportJobV1(t.Context(), job.ID, maxAtomic)
					if err = jobErr; err == nil && j.Phase == "done" {
						done <- nil
						return
					}
				}
				if err != nil {
					done <- err
					return
				}
			}
		}()
	}
	for range workers {
		require.NoError(t, <-done)
	}
	require.EqualValues(t, rows, a.job(job.ID).Created)
	require.EqualValues(t, rows, a.count("users"))
	require.Equal(t, a.count("cache_outbox"), int64(rows/3))
}

// If a phone is taken while a chunk runs, the chunk is rolled back and the job goes on.
func TestImportChunkThatLostAPhone(t *testing.T) {
	t.Parallel()
	a := open(t)
	job := a.startImport("skip", false, freshRows(1, 2)...)
	a.claim()
	var chunkErr error
	a.overlap(commit,
		func(q *write.Queries) {
			_, err := q.CreateUserV1(t.Context(), newUser(nil, same("phone", "+79990000001")))
			require.NoError(t, err)
		},
		func(q *write.Queries) { _, chunkErr = q.RunImportChunkV1(t.Context(), job.ID, 10) })
	requireState(t, chunkErr, serialization, "", "")
	require.Equal(t, "running", a.job(job.ID).Phase)
	a.runImports(10)
	require.Equal(t, []string{"2 exists", "3 created"}, a.importOutcomes(job.ID))
}

func TestDeleteImportJobs(t *testing.T) {
	t.Parallel()
	a := open(t)
	aged := func(column string, id uuid.UUID, age string) uuid.UUID {
		execute(t, a.super, "UPDATE accounts.import_jobs SET "+column+" = "+column+" - $2::interval WHERE id = $1", id, age)
		return id
	}
	finished := func() uuid.UUID {
		id := a.startImport("skip", true, freshRows(1, 3)...).ID
		a.runImports(10)
		return id
	}
	mine := a.stage("skip", false, freshRows(1, 2)...)
	staging := aged("active_at", a.stage("skip", false, freshRows(1, 2)...), "59 minutes")
	aged("active_at", a.stage("skip", false, freshRows(1, 2)...), "61 minutes")
	recent := aged("finished_at", finished(), "29 days 23:59")
	aged("finished_at", finished(), "30 days 00:01")
	locked := aged("finished_at", finished(), "30 days 00:01")
	waiting := aged("active_at", a.startImport("skip", false, freshRows(1, 2)...).ID, "60 days")

	holder := connect(t, a.SuperURL)
	tx, err := holder.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "SELECT FROM accounts.import_jobs WHERE id = $1 FOR UPDATE", locked)
	require.NoError(t, err)

	// remove deletes two rows at a time, and returns how many each step deleted.
	remove := func(id *uuid.UUID, want []int64, left ...uuid.UUID) {
		t.Helper()
		var steps []int64
		for {
			n, err := a.write.DeleteImportJobsV1(t.Context(), write.DeleteImportJobsV1Params{
				JobID: id, StagingOlderThanMinutes: 60, FinishedOlderThanDays: 30, RowLimit: 2,
			})
			require.NoError(t, err)
			if n == 0 {
				break
			}
			steps = append(steps, n)
		}
		require.Equal(t, want, steps)
		require.ElementsMatch(t, left, column[uuid.UUID](t, a.super, "SELECT id FROM accounts.import_jobs"))
		require.ElementsMatch(t, left, column[uuid.UUID](t, a.super, "SELECT DISTINCT job_id FROM accounts.import_rows"))
	}
	remove(nil, []int64{2, 1, 2, 2}, mine, staging, recent, locked, waiting)
	remove(&mine, []int64{2, 1}, staging, recent, locked, waiting)
	remove(&mine, nil, staging, recent, locked, waiting)
	remove(&waiting, nil, staging, recent, locked, waiting) // it is not staging any more
	require.NoError(t, tx.Rollback(context.Background()))
	remove(nil, []int64{2, 2}, staging, recent, waiting)
	remove(&recent, []int64{2, 2}, staging, waiting) // a finished job, however recent
}

// Each attempt at a chunk that does not succeed halves the next one, and counts also if its process died.
func TestClaimImportJob_HalvesTheChunkAndGivesUp(t *testing.T) {
	t.Parallel()
	a := open(t)
	bad := a.startImport("skip", false, freshRows(1, 3)...)
	good := a.startImport("skip", false, freshRows(11, 3)...)
	require.Equal(t, bad.ID, a.claim().JobID)
	for range 3 { // a job that has failed waits longer than one that has not
		require.Equal(t, good.ID, a.chunk(1).JobID)
	}
	limits := []int32{1000}
	for i := 1; i < maxAttempts; i++ {
		claim := a.claim()
		require.Equal(t, bad.ID, claim.JobID)
		require.EqualValues(t, i+1, claim.Attempt)
		limits = append(limits, claim.RowLimit)
	}
	require.Equal(t, []int32{1000, 500, 250, 125, 62, 31, 15, 7, 3, 1, 1, 1, 1}, limits)
	require.Equal(t, "done", a.job(good.ID).Phase)
	require.Equal(t, "running", a.job(bad.ID).Phase)
	a.requireNoClaim()
	failed := a.job(bad.ID)
	require.Equal(t, "failed", failed.Phase)
	require.Equal(t, ptr("INTERNAL_ERROR"), failed.ErrorCode)
	require.Contains(t, *failed.ErrorMessage, "interrupted")
	require.Equal(t, []string{"2", "3", "4"}, a.importOutcomes(bad.ID))
}

// A success resets the attempts, and fast chunks grow again.
func TestRunImportChunk_SuccessResetsTheAttempts(t *testing.T) {
	t.Parallel()
	a := open(t)
	job := a.startImport("skip", false, freshRows(1, 20)...)
	for range 9 {
		a.claim()
	}
	var limits []int32
	for range 4 {
		claim := a.claim()
		limits = append(limits, claim.RowLimit)
		_, err := a.write.RunImportChunkV1(t.Context(), job.ID, claim.RowLimit)
		require.NoError(t, err)
	}
	require.Equal(t, []int32{1, 2, 4, 8}, limits)
	require.EqualValues(t, 1, a.claim().Attempt)
}

// fail records that the attempt of a claim has failed.
func (a *api) fail(claim write.ImportClaimV1, rowCode *string, maxRejected *int32) {
	a.t.Helper()
	require.NoError(a.t, a.write.FailImportChunkV1(a.t.Context(), write.FailImportChunkV1Params{
		JobID: claim.JobID, Attempt: claim.Attempt, ErrorCode: "DATABASE_ERROR", ErrorMessage: "too slow",
		RowCode: rowCode, MaxRejected: maxRejected,
	}))
}

func TestFailImportChunk(t *testing.T) {
	t.Parallel()
	a := open(t)
	t.Run("reason of a failed job", func(t *testing.T) {
		job := a.startImport("skip", false, freshRows(1, 2)...)
		for range maxAttempts {
			a.fail(a.claim(), nil, nil)
			require.Nil(t, a.job(job.ID).ErrorCode, "the job has not failed yet")
		}
		a.requireNoClaim()
		failed := a.job(job.ID)
		require.Equal(t, "failed", failed.Phase)
		require.Equal(t, ptr("DATABASE_ERROR"), failed.ErrorCode)
		require.Equal(t, ptr("too slow"), failed.ErrorMessage)
	})
	t.Run("one row is given up", func(t *testing.T) {
		job := a.startImport("skip", false, freshRows(11, 3)...)
		var claim write.ImportClaimV1
		for claim.RowLimit != 1 {
			claim = a.claim()
			a.fail(claim, ptr("invalid"), nil)
		}
		require.Equal(t, []string{"2 invalid invalid", "3", "4"}, a.importOutcomes(job.ID))
		a.fail(claim, ptr("invalid"), nil)
		require.EqualValues(t, 1, a.job(job.ID).Done, "the same failure again changes nothing")
		next := a.claim()
		require.Equal(t, write.ImportClaimV1{JobID: job.ID, RowLimit: 1, Attempt: 1}, next)
		other := a.claim()
		a.fail(next, ptr("invalid"), nil)
		require.EqualValues(t, 1, a.job(job.ID).Done, "another process has begun the chunk since")
		a.fail(other, ptr("invalid"), nil)
		a.fail(a.claim(), ptr("invalid"), nil)
		done := a.job(job.ID)
		require.Equal(t, "done", done.Phase)
		require.EqualValues(t, 3, done.Invalid)
	})
	t.Run("too many rows are given up", func(t *testing.T) {
		job := a.startImport("skip", false, freshRows(21, 5)...)
		for range 9 {
			a.fail(a.claim(), ptr("internal_error"), ptr(int32(2)))
		}
		for a.job(job.ID).Phase != "failed" {
			a.fail(a.claim(), ptr("internal_error"), ptr(int32(2)))
		}
		require.Equal(t, []string{"2 invalid internal_error", "3 invalid internal_error", "4", "5", "6"}, a.importOutcomes(job.ID))
		require.Equal(t, ptr("too slow"), a.job(job.ID).ErrorMessage)
	})
}

func TestCancelImport(t *testing.T) {
	t.Parallel()
	a := open(t)
	cancel := func(id uuid.UUID) read.ImportJobV1 {
		t.Helper()
		job, err := a.write.CancelImportJobV1(t.Context(), id)
		require.NoError(t, err)
		require.Equal(t, a.job(id), read.ImportJobV1(job))
		return read.ImportJobV1(job)
	}
	staging := a.stage("skip", false, freshRows(1, 1)...)
	pending := a.startImport("skip", false, freshRows(11, 1)...).ID
	require.Equal(t, "cancelled", cancel(staging).Phase)
	require.Equal(t, "cancelled", cancel(pending).Phase)
	require.Equal(t, cancel(pending), cancel(pending), "a second time changes nothing")
	err := a.write.StageImportRowsV1(t.Context(), stageCall(staging, freshRows(2, 1)...))
	requireState(t, err, notFound, "", missing("Import", staging))
	started, err := a.write.StartImportJobV1(t.Context(), staging, maxAtomic)
	require.NoError(t, err)
	require.Equal(t, "cancelled", started.Phase)

	running := a.startImport("skip", false, freshRows(21, 3)...).ID
	a.chunk(2)
	claim := a.claim()
	cancelled := cancel(running)
	require.Equal(t, "cancelled", cancelled.Phase)
	require.EqualValues(t, 2, cancelled.Created, "what was written stays")
	_, err = a.write.RunImportChunkV1(t.Context(), running, 2)
	require.ErrorIs(t, err, pgx.ErrNoRows)
	a.fail(claim, ptr("invalid"), nil)
	require.Equal(t, cancelled, a.job(running))
	a.requireNoClaim()
	require.EqualValues(t, 2, a.count("users"))

	done := a.startImport("skip", false, freshRows(31, 1)...).ID
	a.runImports(10)
	require.Equal(t, "done", cancel(done).Phase)
}

// A cancellation waits for the chunk that runs, and the next chunk does not begin.
func TestCancelImport_DuringAChunk(t *testing.T) {
	t.Parallel()
	a := open(t)
	job := a.startImport("skip", false, freshRows(1, 3)...)
	a.claim()
	var cancelErr error
	a.overlap(commit,
		func(q *write.Queries) {
			_, err := q.RunImportChunkV1(t.Context(), job.ID, 2)
			require.NoError(t, err)
		},
		func(q *write.Queries) { _, cancelErr = q.CancelImportJobV1(t.Context(), job.ID) })
	require.NoError(t, cancelErr)
	require.Equal(t, "cancelled", a.job(job.ID).Phase)
	require.EqualValues(t, 2, a.job(job.ID).Created)
	a.requireNoClaim()
}

// A small import with on_conflict = error is one chunk: a phone that is taken after the staging too
// keeps everything from being written.
func TestImportWithErrorOnConflict_IsAtomic(t *testing.T) {
	t.Parallel()
	for _, dryRun := range []bool{false, true} {
		a := open(t)
		id := a.stage("error", dryRun, freshRows(1, 3)...)
		_, err := a.write.StartImportJobV1(t.Context(), id, 3)
		require.NoError(t, err)
		a.createUser(nil, same("phone", "+79990000002"))
		claim := a.claim()
		require.EqualValues(t, 3, claim.RowLimit)
		chunk, err := a.write.RunImportChunkV1(t.Context(), id, claim.RowLimit)
		require.NoError(t, err)
		a.requireTouched(chunk.Touched, chunk.OutboxID)
		require.Equal(t, "failed", a.job(id).Phase)
		require.Equal(t, ptr("IDENTIFIER_TAKEN"), a.job(id).ErrorCode)
		require.Equal(t, []string{"2", "3 conflict taken phone", "4"}, a.importOutcomes(id))
		require.EqualValues(t, 1, a.count("users"))

		id = a.stage("error", dryRun, freshRows(11, 3)...)
		_, err = a.write.StartImportJobV1(t.Context(), id, 3)
		require.NoError(t, err)
		for range 2 {
			require.EqualValues(t, 3, a.claim().RowLimit, "the chunk of an atomic job is not halved")
		}
		_, err = a.write.RunImportChunkV1(t.Context(), id, 3)
		require.NoError(t, err)
		require.Equal(t, "done", a.job(id).Phase)
	}
}

func TestCreateImportJob_LimitsUnfinishedJobs(t *testing.T) {
	t.Parallel()
	a := open(t)
	create := func(owner *string) (uuid.UUID, error) {
		job, err := a.write.CreateImportJobV1(t.Context(), write.CreateImportJobV1Params{
			OnConflict: "skip", Owner: owner, MaxOfOwner: 2, MaxOfAll: 4,
		})
		return job.ID, err
	}
	one, err := create(ptr("one"))
	require.NoError(t, err)
	_, err = create(ptr("one"))
	require.NoError(t, err)
	_, err = create(ptr("one"))
	require.ErrorIs(t, err, pgx.ErrNoRows)
	_, err = create(ptr("two"))
	require.NoError(t, err)
	_, err = create(nil)
	require.NoError(t, err)
	_, err = create(ptr("three"))
	require.ErrorIs(t, err, pgx.ErrNoRows)
	_, err = a.write.CancelImportJobV1(t.Context(), one)
	require.NoError(t, err)
	_, err = create(ptr("one"))
	require.NoError(t, err)
}

// A row with very many groups is one row among others: names are matched set by set.
func TestImportOfRowsWithManyGroups(t *testing.T) {
	t.Parallel()
	a := open(t)
	byHand := connect(t, a.UncheckedURL("a hundred groups one by one would take long"))
	execute(t, byHand, "INSERT INTO accounts.user_groups (name, name_key) SELECT 'group ' || n, 'group ' || n FROM generate_series(1, 100) AS n")
	names := column[string](t, a.super, "SELECT name FROM accounts.user_groups")
	rows := freshRows(1, 200)
	for i := range rows {
		rows[i].groups = strings.Join(names, ",")
	}
	job := a.startImport("skip", false, rows...)
	begun := time.Now()
	a.runImports(1000)
	t.Logf("200 rows with 100 groups each: %s", time.Since(begun))
	require.EqualValues(t, 200, a.job(job.ID).Created)
	require.EqualValues(t, 20_000, a.count("user_group_memberships"))
}

func TestRunImportChunk_LocksMergedUsersInKeyOrder(t *testing.T) {
	t.Parallel()
	a := open(t)
	a.createGroup("drivers")
	a.createGroup("clients")
	phones := []string{"+79990000003", "+79990000001", "+79990000002"}
	users := make([]uuid.UUID, len(phones))
	byID := map[uuid.UUID]string{}
	for i, phone := range phones {
		users[i] = a.createUser(nil, same("phone", phone)).ID
		byID[users[i]] = phone
	}
	ids := slices.SortedFunc(slices.Values(users), compareIDs)
	var forwards, backwards []importRow
	for _, id := range ids {
		forwards = append(forwards, importRow{phone: byID[id], groups: "drivers"})
		backwards = append([]importRow{{phone: byID[id], groups: "clients"}}, backwards...)
	}
	jobs := make(chan uuid.UUID, 2) // each of the two calls takes one
	jobs <- a.startImport("merge", false, forwards...).ID
	jobs <- a.startImport("merge", false, backwards...).ID
	a.claim()
	a.claim()
	a.inKeyOrder("users", false, users, func(q *write.Queries, _ []uuid.UUID) error {
		_, err := q.RunImportChunkV1(t.Context(), <-jobs, 10)
		return err
	})
	for _, id := range users {
		require.EqualValues(t, 3, a.detail(id).Version)
	}
}

func TestImports_TwoCallersAtOnce(t *testing.T) {
	t.Parallel()
	t.Run("create", func(t *testing.T) {
		t.Parallel()
		a := open(t)
		create := func(q *write.Queries) {
			_, err := q.CreateImportJobV1(t.Context(), write.CreateImportJobV1Params{OnConflict: "skip", MaxOfOwner: 10, MaxOfAll: 10})
			require.NoError(t, err)
		}
		a.sideBySide(create, create)
		require.EqualValues(t, 2, a.count("import_jobs"))
	})
	t.Run("stage", func(t *testing.T) {
		t.Parallel()
		a := open(t)
		id := a.stage("skip", false)
		var errs []error
		stage := func(q *write.Queries) {
			errs = append(errs, q.StageImportRowsV1(t.Context(), stageCall(id, freshRows(1, 3)...)))
		}
		a.overlap(commit, stage, stage)
		require.Equal(t, []error{nil, nil}, errs)
		require.EqualValues(t, 3, a.count("import_rows"))
	})
	t.Run("start", func(t *testing.T) {
		t.Parallel()
		a := open(t)
		id := a.stage("skip", false, freshRows(1, 3)...)
		var jobs []write.ImportJobV1
		start := func(q *write.Queries) {
			job, err := q.StartImportJobV1(t.Context(), id, maxAtomic)
			require.NoError(t, err)
			jobs = append(jobs, job)
		}
		a.overlap(commit, start, start)
		require.Len(t, jobs, 2)
		require.Equal(t, "pending", jobs[0].Phase)
		require.Equal(t, jobs[0], jobs[1])
	})
	t.Run("claim", func(t *testing.T) {
		t.Parallel()
		a := open(t)
		one, two := a.startImport("skip", false, freshRows(1, 1)...).ID, a.startImport("skip", false, freshRows(11, 1)...).ID
		var claimed []uuid.UUID
		claim := func(q *write.Queries) {
			c, err := q.ClaimImportJobV1(t.Context(), nil, maxAttempts)
			require.NoError(t, err)
			claimed = append(claimed, c.JobID)
		}
		a.sideBySide(claim, claim)
		require.Equal(t, []uuid.UUID{one, two}, claimed, "the second caller skips the job that the first claims")
	})
	t.Run("fail", func(t *testing.T) {
		t.Parallel()
		a := open(t)
		job := a.startImport("skip", false, freshRows(1, 2)...)
		claim := a.claim()
		for claim.RowLimit != 1 {
			a.fail(claim, ptr("invalid"), nil)
			claim = a.claim()
		}
		var errs []error
		fail := func(q *write.Queries) {
			errs = append(errs, q.FailImportChunkV1(t.Context(), write.FailImportChunkV1Params{
				JobID: claim.JobID, Attempt: claim.Attempt, ErrorCode: "DATABASE_ERROR", ErrorMessage: "too slow", RowCode: ptr("invalid"),
			}))
		}
		a.overlap(commit, fail, fail)
		require.Equal(t, []error{nil, nil}, errs)
		require.Equal(t, []string{"2 invalid invalid", "3"}, a.importOutcomes(job.ID), "one attempt gives up one row")
		require.EqualValues(t, 1, a.job(job.ID).Done)
	})
	t.Run("cancel", func(t *testing.T) {
		t.Parallel()
		a := open(t)
		id := a.startImport("skip", false, freshRows(1, 3)...).ID
		var jobs []write.ImportJobV1
		cancel := func(q *write.Queries) {
			job, err := q.CancelImportJobV1(t.Context(), id)
			require.NoError(t, err)
			jobs = append(jobs, job)
		}
		a.overlap(commit, cancel, cancel)
		require.Len(t, jobs, 2)
		require.Equal(t, "cancelled", jobs[0].Phase)
		require.Equal(t, jobs[0], jobs[1])
	})
	t.Run("delete", func(t *testing.T) {
		t.Parallel()
		a := open(t)
		id := a.stage("skip", false, freshRows(1, 3)...)
		var deleted []int64
		remove := func(q *write.Queries) {
			n, err := q.DeleteImportJobsV1(t.Context(), write.DeleteImportJobsV1Params{
				JobID: &id, StagingOlderThanMinutes: 60, FinishedOlderThanDays: 30, RowLimit: 100,
			})
			require.NoError(t, err)
			deleted = append(deleted, n)
		}
		a.sideBySide(remove, remove)
		require.Equal(t, []int64{4, 0}, deleted, "the second caller skips the rows that the first deletes")
		require.Zero(t, a.count("import_rows"))
	})
}
