package accounts_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/accounts"
	"github.com/payment-services/accounts/internal/cache"
	"github.com/payment-services/accounts/internal/errcode"
	"github.com/payment-services/accounts/internal/pgtest"
)

func TestBulkCreateInChunks(t *testing.T) {
	t.Parallel()
	p := newProcess(t, pgtest.Shared(t))
	p.createGroup("client")
	known := p.createUser(phone(9000))
	rows := bulkRows(0, 2100)
	rows[1] = accounts.BulkRow{Number: 2, Phone: "12"}
	rows[2] = accounts.BulkRow{Number: 3, Phone: phone(2), Fault: &accounts.RowFault{Code: "ragged_row"}}
	rows[3].Groups = []string{"client", "nothing"}
	rows[4].Groups = []string{"client,"}
	rows[5].Profile = json.RawMessage(`[]`)
	rows[1500].Phone = "+7 999 000 00 00" // as row 1, of another chunk
	rows[2000].Phone = phone(9000)
	want := map[int]string{
		1: "2 invalid invalid_phone phone", 2: "3 invalid ragged_row", 3: "4 invalid unknown_group user_groups",
		4: "5 invalid unknown_group user_groups", 5: "6 invalid not_an_object profile",
		1500: "1501 conflict duplicate phone", 2000: "2001 exists",
	}
	check := func(r accounts.BulkResult, written string, counts accounts.Counts) {
		t.Helper()
		require.Equal(t, counts, r.Counts)
		require.Len(t, r.Rows, len(rows))
		for i, text := range outcomes(r.Rows) {
			if faulty, ok := want[i]; ok {
				require.Equal(t, faulty, text)
			} else {
				require.Equal(t, written, r.Rows[i].Status)
			}
		}
		require.Equal(t, &known, r.Rows[2000].UserID)
	}
	dry, err := p.BulkCreate(t.Context(), rows, accounts.BulkOptions{OnConflict: accounts.Skip, DryRun: true})
	require.NoError(t, err)
	check(dry, accounts.RowCreated, accounts.Counts{Created: 2093, Exists: 1, Conflict: 1, Invalid: 5})
	require.Equal(t, 1, p.count("users"))
	wet, err := p.BulkCreate(t.Context(), rows, accounts.BulkOptions{OnConflict: accounts.Skip})
	require.NoError(t, err)
	check(wet, accounts.RowCreated, accounts.Counts{Created: 2093, Exists: 1, Conflict: 1, Invalid: 5})
	require.Equal(t, 2094, p.count("users"))
	again, err := p.BulkCreate(t.Context(), rows, accounts.BulkOptions{OnConflict: accounts.Merge})
	require.NoError(t, err)
	check(again, accounts.RowExists, accounts.Counts{Exists: 2094, Conflict: 1, Invalid: 5})
	require.Equal(t, 2094, p.count("users"))

	none, err := p.BulkCreate(t.Context(), nil, accounts.BulkOptions{OnConflict: accounts.Error})
	require.NoError(t, err)
	require.Equal(t, accounts.Counts{}, none.Counts)
}

// What PostgreSQL cannot read is one bad row too, not the end of its chunk.
func TestBulkRowsThatCannotBeRead(t *testing.T) {
	t.Parallel()
	p := newProcess(t, pgtest.Shared(t))
	rows := bulkRows(0, 50)
	rows[7].Profile = json.RawMessage(`{"n":1e400000}`)
	rows[31].Profile = json.RawMessage(`{"s":"\u0000"}`)
	result, err := p.BulkCreate(t.Context(), rows, accounts.BulkOptions{OnConflict: accounts.Skip})
	require.NoError(t, err)
	require.Equal(t, accounts.Counts{Created: 48, Invalid: 2}, result.Counts)
	texts := outcomes(result.Rows)
	require.Equal(t, "8 invalid invalid profile", texts[7])
	require.Equal(t, "32 invalid invalid profile", texts[31])
	require.Equal(t, 48, p.count("users"))
}

// A row that cannot be written in time does not keep the others from being written.
func TestBulkCreate_OneRowTimesOut(t *testing.T) {
	t.Parallel()
	p := newProcess(t, pgtest.Shared(t))
	p.createGroup("slow")
	release := p.blockGroups("slow")
	rows := bulkRows(0, 2)
	rows[1].Groups = []string{"slow"}
	_, err := p.BulkCreate(t.Context(), rows, accounts.BulkOptions{OnConflict: accounts.Skip})
	requireCode(t, err, errcode.Database)
	require.Equal(t, 1, p.count("users"))
	release()
	result, err := p.BulkCreate(t.Context(), rows, accounts.BulkOptions{OnConflict: accounts.Skip})
	require.NoError(t, err)
	require.Equal(t, []string{"1 exists", "2 created"}, outcomes(result.Rows))
}

func TestBulkErrorWritesNothing(t *testing.T) {
	t.Parallel()
	p := newProcess(t, pgtest.Shared(t))
	p.createUser(phone(1400))
	for _, dryRun := range []bool{true, false} {
		rows := bulkRows(0, 1500)
		rows[1450].Phone = phone(7)
		_, err := p.BulkCreate(t.Context(), rows, accounts.BulkOptions{OnConflict: accounts.Error, DryRun: dryRun})
		requireCode(t, err, errcode.IdentifierTaken, "rows[1400].phone taken", "rows[1450].phone duplicate")
		require.Equal(t, 1, p.count("users"))
	}
	result, err := p.BulkCreate(t.Context(), bulkRows(0, 1400), accounts.BulkOptions{OnConflict: accounts.Error})
	require.NoError(t, err)
	require.Equal(t, accounts.Counts{Created: 1400}, result.Counts)
}

// Somebody takes the phone of the last row after we have looked and before we write it.
func TestBulkErrorWritesNothingWhenAPhoneIsTakenMeanwhile(t *testing.T) {
	t.Parallel()
	d := pgtest.Shared(t)
	p := newProcess(t, d)
	user := p.createUser(phone(5000))
	other, err := pgx.Connect(t.Context(), d.UncheckedURL("takes a phone by hand, to hold the unique key"))
	require.NoError(t, err)
	tx, err := other.Begin(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() { _ = other.Close(t.Context()) })
	_, err = tx.Exec(t.Context(), "UPDATE accounts.user_contacts SET normalized = '+79990001099' WHERE user_id = $1", user)
	require.NoError(t, err)

	done := make(chan error, 1)
	go func() {
		_, err := p.BulkCreate(t.Context(), bulkRows(0, 1100), accounts.BulkOptions{OnConflict: accounts.Error})
		done <- err
	}()
	require.Eventually(t, func() bool {
		var waits bool
		err := p.super.QueryRow(t.Context(), "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE $1 = ANY (pg_blocking_pids(pid)))",
			other.PgConn().PID()).Scan(&waits)
		return err == nil && waits
	}, waitLimit, pollTick)
	require.NoError(t, tx.Commit(t.Context()))
	requireCode(t, <-done, errcode.IdentifierTaken, "rows[1099].phone taken")
	require.Equal(t, 1, p.count("users"))
}

// What was cached before a bulk call, misses too, is not the answer after it.
func TestBulkInvalidatesTheCache(t *testing.T) {
	t.Parallel()
	p := newProcess(t, pgtest.Shared(t))
	p.createGroup("client")
	id := p.createUser(phone(1))
	cached := func() {
		t.Helper()
		require.Eventually(t, func() bool {
			byID, err := p.UserByID(t.Context(), id, nil)
			require.NoError(t, err)
			byPhone, err := p.UserByIdentifier(t.Context(), phone(1), nil)
			require.NoError(t, err)
			return byID.Cache == cache.Hit && byPhone.Cache == cache.Hit
		}, waitLimit, pollTick)
	}
	shown := func(want string) {
		t.Helper()
		byID, err := p.UserByID(t.Context(), id, nil)
		require.NoError(t, err)
		require.Contains(t, string(byID.Body), want)
		byPhone, err := p.UserByIdentifier(t.Context(), phone(1), nil)
		require.NoError(t, err)
		require.Contains(t, string(byPhone.Body), want)
	}
	_, err := p.UserByIdentifier(t.Context(), phone(2), nil)
	requireCode(t, err, errcode.NotFound)
	cached()
	result, err := p.BulkCreate(t.Context(), []accounts.BulkRow{
		{Number: 1, Phone: phone(1), Profile: json.RawMessage(`{"name":"Анна"}`)}, {Number: 2, Phone: phone(2)},
	}, accounts.BulkOptions{OnConflict: accounts.Merge})
	require.NoError(t, err)
	require.Equal(t, []string{"1 merged", "2 created"}, outcomes(result.Rows))
	shown(`"profile":{"name":"Анна"}`)
	_, err = p.UserByIdentifier(t.Context(), phone(2), nil)
	require.NoError(t, err)

	cached()
	_, job := p.upload([]byte("phone,user_groups\n"+phone(1)+",client\n"), accounts.UploadOptions{
		BulkOptions: accounts.BulkOptions{OnConflict: accounts.Merge}, Async: true,
	})
	p.runImports()
	require.Equal(t, []string{"2 merged"}, outcomes(p.importRows(job.ID)))
	shown(`"name":"client"`)
}

// An error after some rows were written does not claim that nothing was changed.
func TestBulkCreate_WritesOnlySomeRows(t *testing.T) {
	t.Parallel()
	p := newProcess(t, pgtest.Shared(t))
	p.createGroup("slow")
	release := p.blockGroups("slow")
	rows := bulkRows(0, 2)
	rows[1].Groups = []string{"slow"}
	opts := accounts.BulkOptions{OnConflict: accounts.Skip}
	_, err := p.BulkCreate(t.Context(), rows, opts)
	e := requireCode(t, err, errcode.Database)
	require.Contains(t, e.Message, "send the same rows again")
	require.Equal(t, 1, p.count("users"))
	_, err = p.BulkCreate(t.Context(), rows[1:], opts)
	require.Contains(t, requireCode(t, err, errcode.Database).Message, "did not finish in time; nothing was changed")

	release()
	result, err := p.BulkCreate(t.Context(), rows, opts)
	require.NoError(t, err)
	require.Equal(t, []string{"1 exists", "2 created"}, outcomes(result.Rows))
}

// Rows that together take too long for one statement are written in several.
func TestBulkCreate_ManyGroups(t *testing.T) {
	t.Parallel()
	p := newProcess(t, pgtest.Shared(t))
	names := make([]string, accounts.MaxGroups)
	for i := range names {
		names[i] = fmt.Sprint("g", i)
		p.createGroup(names[i])
	}
	rows := bulkRows(0, 450)
	for i := range rows {
		rows[i].Groups = names
	}
	rows[440].Phone = rows[0].Phone // in another transaction
	result, err := p.BulkCreate(t.Context(), rows, accounts.BulkOptions{OnConflict: accounts.Skip})
	require.NoError(t, err)
	require.Equal(t, accounts.Counts{Created: 449, Conflict: 1}, result.Counts)
	require.Equal(t, 449*accounts.MaxGroups, p.count("user_group_memberships"))
	var transactions int
	require.NoError(t, p.super.QueryRow(t.Context(), "SELECT count(DISTINCT xmin::text) FROM accounts.users").Scan(&transactions))
	require.Equal(t, 3, transactions)
}
