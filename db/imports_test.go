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
		p.GroupNames = append(p.GroupNames, strings.ToUpper(r.groups))
		p.GroupKeys = append(p.GroupKeys, r.groups)
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
	job, err := a.write.CreateImportJobV1(a.t.Context(), onConflict, dryRun)
	require.NoError(a.t, err)
	require.Equal(a.t, "staging", job.Phase)
	require.NoError(a.t, a.write.StageImportRowsV1(a.t.Context(), stageCall(job.ID, rows...)))
	return job.ID
}

// startImport stages a job and lets it begin.
func (a *api) startImport(onConflict string, dryRun bool, rows ...importRow) write.ImportJobV1 {
	a.t.Helper()
	job, err := a.write.StartImportJobV1(a.t.Context(), a.stage(onConflict, dryRun, rows...))
	require.NoError(a.t, err)
	return job
}

func (a *api) chunk(limit int32) write.ImportChunkV1 {
	a.t.Helper()
	chunk, err := a.write.RunImportChunkV1(a.t.Context(), limit)
	require.NoError(a.t, err)
	return chunk
}

// runImports works until there is nothing left to do.
func (a *api) runImports(limit int32) {
	a.t.Helper()
	for {
		_, err := a.write.RunImportChunkV1(a.t.Context(), limit)
		if err != nil {
			require.ErrorIs(a.t, err, pgx.ErrNoRows)
			return
		}
	}
}

// job returns an import job, and checks what always holds of it.
func (a *api) job(id uuid.UUID) read.ImportJobV1 {
	a.t.Helper()
	j, err := a.read.GetImportJobV1(a.t.Context(), id)
	require.NoError(a.t, err)
	require.Equal(a.t, j.Done, j.Created+j.Existing+j.Merged+j.Conflict+j.Invalid)
	require.LessOrEqual(a.t, j.Done, j.Total)
	require.Equal(a.t, j.Phase == "done" || j.Phase == "failed", j.FinishedAt != nil)
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
	_, err := a.write.RunImportChunkV1(t.Context(), 2)
	require.ErrorIs(t, err, pgx.ErrNoRows, "it has not begun")

	started, err := a.write.StartImportJobV1(t.Context(), id)
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
	again, err := a.write.StartImportJobV1(t.Context(), id)
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
		require.Equal(t, strings.ToUpper(rows[i].groups), r.UserGroups, "as it came")
	}
	require.Equal(t, &known.ID, list[4].UserID)
	created := a.detail(*list[0].UserID)
	require.Equal(t, []string{"client"}, a.groupsOf(created.ID))
	contacts, err := a.read.ListUserContactsV1(t.Context(), created.ID, false)
	require.NoError(t, err)
	a.requireTouched(first.Touched, first.OutboxID, "u:"+created.ID.String(), "c:"+contacts[0].ID.String(), "i:phone:+79990000001")

	before := a.state()
	_, err = a.write.RunImportChunkV1(t.Context(), 2)
	require.ErrorIs(t, err, pgx.ErrNoRows)
	require.Equal(t, before, a.state())
	_, err = a.read.GetImportJobV1(t.Context(), uuid.New())
	require.ErrorIs(t, err, pgx.ErrNoRows)
}

func TestImportRefuses(t *testing.T) {
	t.Parallel()
	a := open(t)
	_, err := a.write.CreateImportJobV1(t.Context(), "replace", false)
	requireState(t, err, check, "import_jobs_on_conflict_known", "")
	nothing := uuid.New()
	_, err = a.write.StartImportJobV1(t.Context(), nothing)
	requireState(t, err, notFound, "", missing("Import", nothing))
	err = a.write.StageImportRowsV1(t.Context(), stageCall(nothing, freshRows(1, 1)...))
	requireState(t, err, notFound, "", missing("Import", nothing))
	begun := a.startImport("skip", false, freshRows(1, 1)...).ID
	err = a.write.StageImportRowsV1(t.Context(), stageCall(begun, freshRows(1, 2)...))
	requireState(t, err, notFound, "", missing("Import", begun))
}

// The last chunk is full, so that only the next one finds that there is nothing left.
func TestImportOfWholeChunks(t *testing.T) {
	t.Parallel()
	a := open(t)
	job := a.startImport("skip", false, freshRows(1, 4)...)
	a.chunk(2)
	a.chunk(2)
	require.Equal(t, "running", a.job(job.ID).Phase)
	require.EqualValues(t, 4, a.job(job.ID).Done)
	last := a.chunk(2)
	a.requireTouched(last.Touched, last.OutboxID)
	require.Equal(t, "done", a.job(job.ID).Phase)

	empty := a.startImport("skip", false)
	a.chunk(2)
	require.Equal(t, "done", a.job(empty.ID).Phase)
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
			lost, err := writerIn(tx).RunImportChunkV1(t.Context(), 2)
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
			_, err := a.write.RunImportChunkV1(t.Context(), 10)
			require.ErrorIs(t, err, pgx.ErrNoRows)
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

// The second worker takes the next job, and a third finds nothing: nobody waits.
func TestTwoWorkersAndTwoImports(t *testing.T) {
	t.Parallel()
	a := open(t)
	older := a.startImport("skip", false, freshRows(1, 3)...)
	newer := a.startImport("skip", false, freshRows(11, 3)...)
	if compareIDs(older.ID, newer.ID) > 0 {
		older, newer = newer, older // made in the same millisecond
	}
	var first, second write.ImportChunkV1
	var firstErr, secondErr, thirdErr error
	a.sideBySide(
		func(q *write.Queries) { first, firstErr = q.RunImportChunkV1(t.Context(), 2) },
		func(*write.Queries) {
			a.sideBySide(
				func(q *write.Queries) { second, secondErr = q.RunImportChunkV1(t.Context(), 2) },
				func(q *write.Queries) { _, thirdErr = q.RunImportChunkV1(t.Context(), 2) })
		})
	require.NoError(t, firstErr)
	require.Equal(t, older.ID, first.JobID)
	require.NoError(t, secondErr)
	require.Equal(t, newer.ID, second.JobID)
	require.ErrorIs(t, thirdErr, pgx.ErrNoRows)
	a.runImports(2)
	for _, job := range []uuid.UUID{older.ID, newer.ID} {
		require.EqualValues(t, 3, a.job(job).Created)
	}
	require.EqualValues(t, 6, a.count("users"))
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
				_, err := q.RunImportChunkV1(t.Context(), 3)
				if err == pgx.ErrNoRows {
					// Another worker has the job; whether it is over is what the job says.
					j, jobErr := q.StartImportJobV1(t.Context(), job.ID)
					if err = jobErr; err == nil && j.Phase != "done" {
						continue
					}
					done <- err
					return
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

// A phone that somebody takes while a chunk runs costs the chunk, not the job.
func TestImportChunkThatLostAPhone(t *testing.T) {
	t.Parallel()
	a := open(t)
	job := a.startImport("skip", false, freshRows(1, 2)...)
	var chunkErr error
	a.overlap(commit,
		func(q *write.Queries) {
			_, err := q.CreateUserV1(t.Context(), newUser(nil, same("phone", "+79990000001")))
			require.NoError(t, err)
		},
		func(q *write.Queries) { _, chunkErr = q.RunImportChunkV1(t.Context(), 10) })
	requireState(t, chunkErr, serialization, "", "")
	require.Equal(t, "pending", a.job(job.ID).Phase)
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
		id := a.startImport("skip", true, freshRows(1, 1)...).ID
		a.runImports(10)
		return id
	}
	mine := a.stage("skip", false, freshRows(1, 2)...)
	staging := aged("created_at", a.stage("skip", false, freshRows(1, 2)...), "23:59")
	aged("created_at", a.stage("skip", false, freshRows(1, 2)...), "24:01")
	recent := aged("finished_at", finished(), "29 days 23:59")
	aged("finished_at", finished(), "30 days 00:01")
	locked := aged("finished_at", finished(), "30 days 00:01")
	waiting := aged("created_at", a.startImport("skip", false, freshRows(1, 2)...).ID, "60 days")

	holder := connect(t, a.SuperURL)
	tx, err := holder.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "SELECT FROM accounts.import_jobs WHERE id = $1 FOR UPDATE", locked)
	require.NoError(t, err)

	remove := func(id *uuid.UUID, want int64, left ...uuid.UUID) {
		t.Helper()
		n, err := a.write.DeleteImportJobsV1(t.Context(), id, 24, 30)
		require.NoError(t, err)
		require.Equal(t, want, n)
		require.ElementsMatch(t, left, column[uuid.UUID](t, a.super, "SELECT id FROM accounts.import_jobs"))
		require.ElementsMatch(t, left, column[uuid.UUID](t, a.super, "SELECT DISTINCT job_id FROM accounts.import_rows"))
	}
	remove(nil, 2, mine, staging, recent, locked, waiting)
	remove(&mine, 1, staging, recent, locked, waiting)
	remove(&mine, 0, staging, recent, locked, waiting)
	remove(&waiting, 0, staging, recent, locked, waiting) // it is not staging any more
	require.NoError(t, tx.Rollback(context.Background()))
	remove(nil, 1, staging, recent, waiting)
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
	a.startImport("merge", false, forwards...)
	a.startImport("merge", false, backwards...)
	a.inKeyOrder("users", false, users, func(q *write.Queries, _ []uuid.UUID) error {
		_, err := q.RunImportChunkV1(t.Context(), 10) // the second call takes the second import
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
			_, err := q.CreateImportJobV1(t.Context(), "skip", false)
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
			job, err := q.StartImportJobV1(t.Context(), id)
			require.NoError(t, err)
			jobs = append(jobs, job)
		}
		a.overlap(commit, start, start)
		require.Len(t, jobs, 2)
		require.Equal(t, "pending", jobs[0].Phase)
		require.Equal(t, jobs[0], jobs[1])
	})
	t.Run("delete", func(t *testing.T) {
		t.Parallel()
		a := open(t)
		id := a.stage("skip", false, freshRows(1, 3)...)
		var deleted []int64
		remove := func(q *write.Queries) {
			n, err := q.DeleteImportJobsV1(t.Context(), &id, 24, 30)
			require.NoError(t, err)
			deleted = append(deleted, n)
		}
		a.sideBySide(remove, remove)
		require.Equal(t, []int64{1, 0}, deleted, "the second caller skips what the first deletes")
		require.Zero(t, a.count("import_rows"))
	})
}
