package db_test

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/dbgen/write"
	"github.com/payment-services/accounts/internal/postgres"
)

const serialization = "40001"

// bulkRow is one row of a bulk call, numbered from 1. Its phone is canonical; groups are separated by
// commas; an empty profile is {}.
type bulkRow struct{ phone, groups, profile string }

// groupsOfRow returns the groups of a row as pairs of the row's number and the key of a group.
func groupsOfRow(row int32, groups string) (rowNos []int32, keys []string) {
	for key := range strings.SplitSeq(groups, ",") {
		if key != "" {
			rowNos, keys = append(rowNos, row), append(keys, key)
		}
	}
	return rowNos, keys
}

func bulkCall(onConflict string, rows ...bulkRow) write.BulkCreateUsersV1Params {
	p := write.BulkCreateUsersV1Params{OnConflict: onConflict}
	for i, r := range rows {
		if r.profile == "" {
			r.profile = "{}"
		}
		p.RowNos = append(p.RowNos, int32(i+1))
		p.Phones = append(p.Phones, strings.Replace(r.phone, "+7", "8 ", 1))
		p.PhonesNormalized = append(p.PhonesNormalized, r.phone)
		rowNos, keys := groupsOfRow(int32(i+1), r.groups)
		p.GroupRowNos, p.GroupKeys = append(p.GroupRowNos, rowNos...), append(p.GroupKeys, keys...)
		p.Profiles = append(p.Profiles, json.RawMessage(r.profile))
	}
	return p
}

func (a *api) bulk(p write.BulkCreateUsersV1Params) []write.BulkUserResultV1 {
	a.t.Helper()
	results, err := a.write.BulkCreateUsersV1(a.t.Context(), p)
	require.NoError(a.t, err)
	require.Len(a.t, results, len(p.RowNos))
	return results
}

// outcomes returns "status code field" of each row, and checks that rows come in their order and that
// only those that were written touch anything.
func outcomes(t *testing.T, results []write.BulkUserResultV1) []string {
	t.Helper()
	var texts []string
	for i, r := range results {
		require.EqualValues(t, i+1, r.RowNo)
		require.Equal(t, r.Code == nil, r.Field == nil)
		text := r.Status
		if r.Code != nil {
			text += " " + *r.Code + " " + *r.Field
		}
		texts = append(texts, text)
		require.NotNil(t, r.Touched)
		if r.Status != "created" && r.Status != "merged" {
			require.Empty(t, r.Touched)
		}
	}
	return texts
}

// state is everything that bulk calls and imports write.
func (a *api) state() string {
	a.t.Helper()
	return value[string](a.t, a.super, `
		SELECT concat((SELECT string_agg(u::text, '|' ORDER BY u.id) FROM accounts.users AS u), '#',
		              (SELECT string_agg(c::text, '|' ORDER BY c.id) FROM accounts.user_contacts AS c), '#',
		              (SELECT string_agg(m::text, '|' ORDER BY m.user_id, m.group_id) FROM accounts.user_group_memberships AS m), '#',
		              (SELECT string_agg(o::text, '|' ORDER BY o.id) FROM accounts.cache_outbox AS o), '#',
		              (SELECT string_agg(j::text, '|' ORDER BY j.id) FROM accounts.import_jobs AS j), '#',
		              (SELECT string_agg(r::text, '|' ORDER BY r.job_id, r.row_no) FROM accounts.import_rows AS r))`)
}

// groupsOf returns the names of the groups that a user is in.
func (a *api) groupsOf(user uuid.UUID) []string {
	a.t.Helper()
	names := []string{}
	list, err := a.read.ListUserMembershipsV1(a.t.Context(), user)
	require.NoError(a.t, err)
	for _, m := range list {
		names = append(names, m.GroupName)
	}
	return names
}

func TestBulkCreateUsers(t *testing.T) {
	t.Parallel()
	a := open(t)
	a.createGroup("client")
	a.createGroup("driver")
	known := a.createUser([]string{"client"}, same("phone", "+79990000000"))
	before := a.detail(known.ID)
	users, owed := a.count("users"), a.count("cache_outbox")
	large := `{"a": "` + strings.Repeat("x", 16_384) + `"}`
	results := a.bulk(bulkCall("skip",
		bulkRow{"+79990000001", "driver,client,driver", `{"name": "Анна", "gone": null}`},
		bulkRow{"+79990000000", "driver", `{"name": "nobody"}`},
		bulkRow{phone: "+79990000001"},
		bulkRow{"+79990000002", "client,nothing", `[]`},
		bulkRow{phone: "+79990000002"},
		bulkRow{phone: "+79990000003", profile: `[]`},
		bulkRow{phone: "+79990000004", profile: `null`},
		bulkRow{phone: "+79990000005", profile: large},
		bulkRow{phone: "+79990000006", profile: nested(`{"a":`, "}", 33)},
		bulkRow{phone: "+79990000007", profile: nested(`{"a":`, "}", 32)},
	))
	require.Equal(t, []string{
		"created", "exists", "conflict duplicate phone", "invalid unknown_group user_groups", "conflict duplicate phone",
		"invalid not_an_object profile", "invalid not_an_object profile", "invalid too_large profile", "invalid too_deep profile",
		"created",
	}, outcomes(t, results))
	require.Equal(t, users+2, a.count("users"))
	require.Equal(t, owed+1, a.count("cache_outbox"))
	require.Equal(t, &known.ID, results[1].UserID)
	require.Equal(t, before, a.detail(known.ID), "an existing user is left as it is")

	var touched []string
	for _, i := range []int{0, 9} {
		user := a.detail(*results[i].UserID)
		contacts, err := a.read.ListUserContactsV1(t.Context(), user.ID, true)
		require.NoError(t, err)
		require.Len(t, contacts, 1)
		phone := map[int]string{0: "+79990000001", 9: "+79990000007"}[i]
		require.Equal(t, "8 "+phone[2:], contacts[0].Value)
		require.Equal(t, []string{"phone:" + phone}, user.Identifiers)
		require.ElementsMatch(t, []string{
			"u:" + user.ID.String(), "c:" + contacts[0].ID.String(), "i:phone:" + phone,
		}, results[i].Touched)
		require.EqualValues(t, 1, user.Version)
		require.True(t, user.IsActive)
		touched = append(touched, results[i].Touched...)
	}
	created := a.detail(*results[0].UserID)
	require.Equal(t, []string{"client", "driver"}, a.groupsOf(created.ID))
	require.JSONEq(t, `{"name": "Анна", "gone": null}`, string(created.Profile))
	require.Empty(t, a.groupsOf(*results[9].UserID))
	for _, r := range results {
		a.requireTouched(touched, r.OutboxID, touched...)
	}
	require.Empty(t, a.bulk(bulkCall("skip")))
}

func TestBulkCreateUsersAgain(t *testing.T) {
	t.Parallel()
	a := open(t)
	a.createGroup("client")
	rows := []bulkRow{{"+79990000001", "client", `{"a": 1}`}, {phone: "+79990000002"}}
	first := a.bulk(bulkCall("skip", rows...))
	require.Equal(t, []string{"created", "created"}, outcomes(t, first))
	for _, onConflict := range []string{"skip", "merge"} {
		before := a.state()
		again := a.bulk(bulkCall(onConflict, rows...))
		require.Equal(t, []string{"exists", "exists"}, outcomes(t, again))
		for i := range again {
			require.Equal(t, first[i].UserID, again[i].UserID)
			a.requireTouched(again[i].Touched, again[i].OutboxID)
		}
		require.Equal(t, before, a.state(), "nothing changed, so nothing is written and no cache invalidated")
	}
}

func TestBulkMerge(t *testing.T) {
	t.Parallel()
	a := open(t)
	client, driver := a.createGroup("client"), a.createGroup("driver")
	p := newUser([]string{"client", "driver"}, same("phone", "+79990000001"))
	p.Profile = json.RawMessage(`{"a": "b", "c": {"d": "e", "f": "g"}}`) // RFC 7396, section 3
	user, err := a.write.CreateUserV1(t.Context(), p)
	require.NoError(t, err)
	ended, err := a.write.SetMembershipV1(t.Context(), user.ID, driver.ID, false)
	require.NoError(t, err)
	stays, err := a.read.GetUserMembershipV1(t.Context(), user.ID, client.ID)
	require.NoError(t, err)
	groupOnly := a.createUser(nil, same("phone", "+79990000002"))
	p = newUser(nil, same("phone", "+79990000003"))
	p.Profile = json.RawMessage(`{"a": "` + strings.Repeat("x", 16_000) + `"}`)
	full, err := a.write.CreateUserV1(t.Context(), p)
	require.NoError(t, err)
	unchanged, isFull, owed := a.detail(groupOnly.ID), a.detail(full.ID), a.count("cache_outbox")

	before := a.detail(user.ID)
	results := a.bulk(bulkCall("merge",
		bulkRow{"+79990000001", "client,driver", `{"a": "z", "c": {"f": null}}`},
		bulkRow{"+79990000002", "client", ""},
		bulkRow{"+79990000003", "client", `{"b": "` + strings.Repeat("x", 400) + `"}`},
		bulkRow{"+79990000004", "client", `{"b": null}`},
	))
	require.Equal(t, []string{"merged", "merged", "invalid too_large profile", "created"}, outcomes(t, results))
	after := a.detail(user.ID)
	requireOneUp(t, before, after)
	require.JSONEq(t, `{"a": "z", "c": {"d": "e"}}`, string(after.Profile))
	require.Equal(t, []string{"client", "driver"}, a.groupsOf(user.ID), "a union")
	back, err := a.read.GetUserMembershipV1(t.Context(), user.ID, driver.ID)
	require.NoError(t, err)
	require.Equal(t, ended.CreatedAt, back.CreatedAt)
	require.True(t, back.UpdatedAt.After(ended.UpdatedAt))
	same, err := a.read.GetUserMembershipV1(t.Context(), user.ID, client.ID)
	require.NoError(t, err)
	require.Equal(t, stays, same)
	requireOneUp(t, unchanged, a.detail(groupOnly.ID))
	require.Equal(t, isFull, a.detail(full.ID), "a patch that does not fit hides no other row")

	require.Equal(t, []string{"u:" + user.ID.String()}, results[0].Touched)
	require.Equal(t, []string{"u:" + groupOnly.ID.String()}, results[1].Touched)
	all := slices.Concat(results[0].Touched, results[1].Touched, results[3].Touched)
	a.requireTouched(all, results[0].OutboxID, all...)
	require.Equal(t, owed+1, a.count("cache_outbox"))
}

// The phone type may allow several: then a user may come in two rows, of which one would be lost.
func TestBulkMergeOfTwoPhonesOfAUser(t *testing.T) {
	t.Parallel()
	a := open(t)
	_, err := a.write.UpdateContactTypeV1(t.Context(), write.UpdateContactTypeV1Params{ContactTypeID: uuid.MustParse("00000000-0000-7000-8000-000000000001"), Name: nil, OnSecond: ptr("allow")})
	require.NoError(t, err)
	user := a.createUser(nil, same("phone", "+79990000001"), same("phone", "+79990000002"))
	rows := []bulkRow{
		{phone: "+79990000002", profile: `{"a": 1}`}, {phone: "+79990000003"}, {phone: "+79990000001", profile: `{"b": 2}`}, {phone: "+79990000004"},
	}
	results := a.bulk(bulkCall("merge", rows...))
	require.Equal(t, []string{"merged", "created", "conflict duplicate phone", "created"}, outcomes(t, results))
	require.Equal(t, &user.ID, results[2].UserID)
	require.JSONEq(t, `{"a": 1}`, string(a.detail(user.ID).Profile))
	require.EqualValues(t, 2, a.detail(user.ID).Version)
	require.Equal(t, []string{"exists", "exists", "exists", "exists"}, outcomes(t, a.bulk(bulkCall("skip", rows...))))
}

func TestBulkError(t *testing.T) {
	t.Parallel()
	a := open(t)
	user := a.createUser(nil, same("phone", "+79990000001"))
	before := a.state()
	for name, tt := range map[string]struct {
		rows []bulkRow
		want []string
	}{
		"taken":     {[]bulkRow{{phone: "+79990000002"}, {phone: "+79990000001"}}, []string{"created", "conflict taken phone"}},
		"duplicate": {[]bulkRow{{phone: "+79990000002"}, {phone: "+79990000002"}}, []string{"created", "conflict duplicate phone"}},
	} {
		t.Run(name, func(t *testing.T) {
			results := a.bulk(bulkCall("error", tt.rows...))
			require.Equal(t, tt.want, outcomes(t, results))
			require.Nil(t, results[0].UserID)
			a.requireTouched(results[0].Touched, results[0].OutboxID)
			require.Equal(t, before, a.state(), "nothing at all is written")
		})
	}
	results := a.bulk(bulkCall("error", bulkRow{phone: "+79990000001"}))
	require.Equal(t, &user.ID, results[0].UserID)
	require.Equal(t, []string{"created", "invalid unknown_group user_groups"},
		outcomes(t, a.bulk(bulkCall("error", bulkRow{phone: "+79990000002"}, bulkRow{"+79990000003", "nothing", ""}))),
		"a faulty row is no conflict")
	require.EqualValues(t, 2, a.count("users"))
}

func TestBulkDryRunTellsWhatWillHappen(t *testing.T) {
	t.Parallel()
	rows := []bulkRow{
		{"+79990000001", "client", `{"a": 1}`}, {"+79990000002", "driver", `{"a": {"b": null}}`}, {phone: "+79990000002"},
		{"+79990000003", "nothing", ""}, {"+79990000004", "driver", `{"b": 1}`}, {phone: "+79990000005", profile: "7"},
		{"+79990000006", "", `{"b": "` + strings.Repeat("x", 15_000) + `"}`}, {phone: "+79990000007"},
	}
	for name, tt := range map[string]struct {
		onConflict string
		rows       []bulkRow
		want       []string
	}{
		"skip": {"skip", rows, []string{
			"exists", "created", "conflict duplicate phone", "invalid unknown_group user_groups", "exists", "invalid not_an_object profile", "exists", "created",
		}},
		"merge": {"merge", rows, []string{
			"exists", "created", "conflict duplicate phone", "invalid unknown_group user_groups", "merged", "invalid not_an_object profile",
			"invalid too_large profile", "created",
		}},
		"error": {"error", rows, []string{
			"conflict taken phone", "created", "conflict duplicate phone", "invalid unknown_group user_groups", "conflict taken phone",
			"invalid not_an_object profile", "conflict taken phone", "created",
		}},
		"error without one": {"error", rows[7:], []string{"created"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := open(t)
			a.createGroup("client")
			a.createGroup("driver")
			for _, phone := range []string{"+79990000001", "+79990000004", "+79990000006"} {
				p := newUser([]string{"client"}, same("phone", phone))
				p.Profile = json.RawMessage(`{"a": 1}`)
				if phone == "+79990000006" {
					p.Profile = json.RawMessage(`{"a": "` + strings.Repeat("x", 15_000) + `"}`)
				}
				_, err := a.write.CreateUserV1(t.Context(), p)
				require.NoError(t, err)
			}
			call := bulkCall(tt.onConflict, tt.rows...)
			before := a.state()
			call.DryRun = true
			dry := a.bulk(call)
			require.Equal(t, before, a.state(), "a dry run writes nothing")
			call.DryRun = false
			wet := a.bulk(call)
			require.Equal(t, tt.want, outcomes(t, dry))
			require.Equal(t, tt.want, outcomes(t, wet))
			for i, r := range dry {
				a.requireTouched(r.Touched, r.OutboxID)
				if r.Status != "created" {
					require.Equal(t, wet[i].UserID, r.UserID)
				}
			}
		})
	}
}

func TestBulkRefuses(t *testing.T) {
	t.Parallel()
	a := open(t)
	before := a.state()
	_, err := a.write.BulkCreateUsersV1(t.Context(), bulkCall("skip", bulkRow{phone: "+79990000001"}, bulkRow{phone: "79990000002"}))
	requireState(t, err, check, "user_contacts_phone_canonical", "")
	long := bulkCall("skip", bulkRow{phone: "+79990000001"})
	long.Phones[0] = strings.Repeat(" ", 256)
	_, err = a.write.BulkCreateUsersV1(t.Context(), long)
	requireState(t, err, check, "user_contacts_value_length", "")
	require.Equal(t, before, a.state())
}

func TestTwoBulksWithOnePhone(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		end   func(pgx.Tx) error
		users int64
	}{"committed": {commit, 2}, "rolled back": {rollback, 2}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := open(t)
			var firstErr, secondErr error
			a.overlap(tt.end,
				func(q *write.Queries) {
					_, firstErr = q.BulkCreateUsersV1(t.Context(), bulkCall("skip", bulkRow{phone: "+79990000002"}, bulkRow{phone: "+79990000001"}))
				},
				func(q *write.Queries) {
					_, secondErr = q.BulkCreateUsersV1(t.Context(), bulkCall("skip", bulkRow{phone: "+79990000003"}, bulkRow{phone: "+79990000002"}))
				})
			require.NoError(t, firstErr)
			if name == "committed" {
				requireState(t, secondErr, serialization, "", "")
			} else {
				require.NoError(t, secondErr)
			}
			require.Equal(t, tt.users, a.count("users"))
			require.Equal(t, tt.users, a.count("user_contacts"))
		})
	}
}

// What the service does with 40001: it calls again, and finds what the other call created.
func TestBulkThatLostAPhoneIsRepeated(t *testing.T) {
	t.Parallel()
	for onConflict, want := range map[string][]string{
		"skip": {"exists", "created"}, "merge": {"merged", "created"}, "error": {"conflict taken phone", "created"},
	} {
		t.Run(onConflict, func(t *testing.T) {
			t.Parallel()
			a := open(t)
			ctx := t.Context()
			primary, err := postgres.OpenPrimary(postgres.Config{URL: a.WriteURL, MaxConns: 2})
			require.NoError(t, err)
			t.Cleanup(primary.Close)
			tx, err := a.conn.Begin(ctx)
			require.NoError(t, err)
			first, err := writerIn(tx).BulkCreateUsersV1(ctx, bulkCall("skip", bulkRow{phone: "+79990000001"}))
			require.NoError(t, err)

			attempts := 0
			var results []write.BulkUserResultV1
			done := make(chan error, 1)
			go func() {
				done <- primary.Write(ctx, func(ctx context.Context, q write.Querier) (err error) {
					attempts++
					results, err = q.BulkCreateUsersV1(ctx, bulkCall(onConflict, bulkRow{phone: "+79990000001", profile: `{"a": 1}`}, bulkRow{phone: "+79990000002"}))
					return err
				})
			}()
			require.Eventually(t, func() bool {
				return len(column[int32](t, a.super, "SELECT pid FROM pg_stat_activity WHERE $1 = ANY (pg_blocking_pids(pid))", a.conn.PgConn().PID())) > 0
			}, waitLimit, pollTick)
			require.NoError(t, tx.Commit(ctx))
			require.NoError(t, <-done)
			require.Equal(t, 2, attempts)
			require.Equal(t, want, outcomes(t, results))
			require.Equal(t, first[0].UserID, results[0].UserID)
			if onConflict == "error" {
				require.EqualValues(t, 1, a.count("users"))
				return
			}
			require.EqualValues(t, 2, a.count("users"))
			require.EqualValues(t, 2, a.count("cache_outbox"))
		})
	}
}

// Two calls for the same users in opposite order, of which each would hold what the other needs if
// they locked the users as they come; and the second merges into what the first left.
func TestBulkMerge_LocksUsersInKeyOrder(t *testing.T) {
	t.Parallel()
	a := open(t)
	phones := []string{"+79990000003", "+79990000001", "+79990000002"}
	users := make([]uuid.UUID, len(phones))
	byID := map[uuid.UUID]string{}
	for i, phone := range phones {
		users[i] = a.createUser(nil, same("phone", phone)).ID
		byID[users[i]] = phone
	}
	a.inKeyOrder("users", false, users, func(q *write.Queries, ids []uuid.UUID) error {
		var rows []bulkRow
		for _, id := range ids {
			// The first call has the ids in order.
			profile := `{"first": 1}`
			if compareIDs(ids[0], ids[1]) > 0 {
				profile = `{"second": 2}`
			}
			rows = append(rows, bulkRow{phone: byID[id], profile: profile})
		}
		_, err := q.BulkCreateUsersV1(t.Context(), bulkCall("merge", rows...))
		return err
	})
	for _, id := range users {
		require.JSONEq(t, `{"first": 1, "second": 2}`, string(a.detail(id).Profile))
		require.EqualValues(t, 3, a.detail(id).Version)
	}
}
