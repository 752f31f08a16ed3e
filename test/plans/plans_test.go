// Package plans holds every read function against a large table: how it is executed inside, how many
// buffers it touches, and that a page far behind costs what the first one does.
package plans

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/db"
	"github.com/payment-services/accounts/internal/dbgen/read"
	"github.com/payment-services/accounts/internal/pgtest"
	"github.com/payment-services/accounts/test/population"
)

var (
	users = flag.Int("users", 100_000, "how many users there are")
	doc   = flag.String("doc", "", "write the measured figures to this file")
)

const (
	// A prepared statement inside a function is planned for its arguments five times; from then on
	// PostgreSQL may take one plan for all. Both must be good.
	calls = 8
	// timedCalls give the median of the document.
	timedCalls = 51
	// page is the size of every page.
	page = 50
	// farPage is how many pages a keyset list is walked down, as far as there are users.
	farPage = 10_000
	// farBuffers are what a far page may cost more than the first: the levels of an index.
	farBuffers = 8
)

// largeTables may not be read from one end to the other.
var largeTables = []string{"users", "user_contacts", "user_group_memberships", "import_rows"}

func TestMain(m *testing.M) { pgtest.Main(m) }

// call is a read function with arguments that are no favour to it.
type call struct {
	function string
	what     string
	buffers  int64  // it may touch no more, whatever the number of users
	scans    string // why it may read a large table from the front, empty: it may not
	run      func(context.Context, *read.Queries) error
}

func ptr[T any](v T) *T { return &v }

// far is the last user of the page before the far one.
func far() int { return page * min(farPage-1, *users/page-2) }

func all() []call {
	both := *users / 2 // an active user with every kind of contact
	for both%population.InactiveEvery == 0 || both%6 != 0 {
		both++
	}
	after := func(id *uuid.UUID, active *bool, group *uuid.UUID, since *time.Time) func(context.Context, *read.Queries) error {
		return func(ctx context.Context, q *read.Queries) error {
			rows, err := q.ListUsersAfterV1(ctx, read.ListUsersAfterV1Params{
				PageLimit: page, AfterID: id, IsActive: active, GroupID: group, UpdatedSince: since,
			})
			return full(len(rows), page, err)
		}
	}
	members := func(id *uuid.UUID) func(context.Context, *read.Queries) error {
		return func(ctx context.Context, q *read.Queries) error {
			rows, err := q.ListGroupMembersV1(ctx, page, population.GroupID(0), id)
			return full(len(rows), page, err)
		}
	}
	pageOf := func(offset int64, group *uuid.UUID) func(context.Context, *read.Queries) error {
		return func(ctx context.Context, q *read.Queries) error {
			rows, err := q.ListUsersV1(ctx, read.ListUsersV1Params{PageLimit: page, PageOffset: offset, GroupID: group})
			return full(len(rows), page, err)
		}
	}
	find := func(identifier string) func(context.Context, *read.Queries) error {
		return func(ctx context.Context, q *read.Queries) error {
			_, err := q.GetUserByIdentifierV1(ctx, identifier)
			return err
		}
	}
	count := func(group *uuid.UUID) func(context.Context, *read.Queries) error {
		return func(ctx context.Context, q *read.Queries) error {
			_, err := q.CountUsersV1(ctx, nil, group, nil)
			return err
		}
	}
	recent := ptr(population.CreatedAt(*users - page + 1)) // no more than one page has changed since
	const unindexed = "updated_at has no index: every write would pay for it and lose its HOT update"
	const counts = "it counts up to 100,000 rows one by one, then samples"
	group, lastPage := ptr(population.GroupID(7)), ptr(population.UserID(far()))
	return []call{
		{"get_user_detail_v1", "", 60, "", func(ctx context.Context, q *read.Queries) error {
			_, err := q.GetUserDetailV1(ctx, population.UserID(both))
			return err
		}},
		{"get_user_by_identifier_v1", "a phone", 60, "", find(population.Phone(both))},
		{"get_user_by_identifier_v1", "an email", 60, "", find(population.Email(both))},
		{"get_user_by_identifier_v1", "a login", 60, "", find(population.Login(both))},
		{"get_user_by_identifier_v1", "a uuid", 60, "", find(population.UserID(both).String())},
		{"get_user_by_identifier_v1", "an unknown login", 60, "", func(ctx context.Context, q *read.Queries) error {
			_, err := q.GetUserByIdentifierV1(ctx, "nobody")
			if !errors.Is(err, pgx.ErrNoRows) {
				return fmt.Errorf("want no rows: %w", err)
			}
			return nil
		}},
		{"lookup_users_v1", "100 phones", 6000, "", func(ctx context.Context, q *read.Queries) error {
			var phones []string
			for i := range 100 {
				phones = append(phones, population.Phone(1+i*(*users/100)))
			}
			rows, err := q.LookupUsersV1(ctx, phones)
			return full(len(rows), 100, err)
		}},
		{"list_users_v1", "page 1", 120, "", pageOf(0, nil)},
		{"list_users_v1", "page 200", 20_000, "", pageOf(199*page, nil)},
		{"list_users_v1", "page 1 of a group", 20_000, "", pageOf(0, group)},
		{"list_users_after_v1", "page 1", 120, "", after(nil, nil, nil, nil)},
		{"list_users_after_v1", "far page", 120, "", after(lastPage, nil, nil, nil)},
		{"list_users_after_v1", "page 1, active", 120, "", after(nil, ptr(true), nil, nil)},
		{"list_users_after_v1", "page 1, inactive", 1500, "", after(nil, ptr(false), nil, nil)},
		{"list_users_after_v1", "page 1 of a group", 500, "", after(nil, nil, group, nil)},
		{"list_users_after_v1", "page 1 of all in a group", 500, "", after(nil, nil, ptr(population.GroupID(0)), nil)},
		{"list_users_after_v1", "far page of all in a group", 500, "", after(lastPage, nil, ptr(population.GroupID(0)), nil)},
		{"list_users_after_v1", "the last to have changed", 60_000, unindexed, after(nil, nil, nil, recent)},
		{"count_users_v1", "", 100_000, counts, count(nil)},
		{"count_users_v1", "a group", 100_000, counts, count(group)},
		{"get_contact_v1", "", 20, "", nil}, // its id is made by the database
		{"list_user_contacts_v1", "with history", 30, "", func(ctx context.Context, q *read.Queries) error {
			rows, err := q.ListUserContactsV1(ctx, population.UserID(10), true)
			return full(len(rows), 3, err)
		}},
		{"list_contact_types_v1", "", 20, "", func(ctx context.Context, q *read.Queries) error {
			_, err := q.ListContactTypesV1(ctx)
			return err
		}},
		{"list_user_groups_v1", "", 20, "", func(ctx context.Context, q *read.Queries) error {
			rows, err := q.ListUserGroupsV1(ctx)
			return full(len(rows), population.Groups, err)
		}},
		{"list_user_memberships_v1", "", 30, "", func(ctx context.Context, q *read.Queries) error {
			rows, err := q.ListUserMembershipsV1(ctx, population.UserID(both))
			return full(len(rows), 2, err)
		}},
		{"get_user_membership_v1", "", 20, "", func(ctx context.Context, q *read.Queries) error {
			_, err := q.GetUserMembershipV1(ctx, population.UserID(both), population.GroupID(0))
			return err
		}},
		{"list_group_members_v1", "page 1", 200, "", members(nil)},
		{"list_group_members_v1", "far page", 200, "", members(lastPage)},
		{"get_import_job_v1", "20,000 rows", 1500, "it counts the rows of its import", func(ctx context.Context, q *read.Queries) error {
			_, err := q.GetImportJobV1(ctx, population.ImportJobID())
			return err
		}},
		{"list_import_rows_v1", "1,000 rows from the middle", 200, "", func(ctx context.Context, q *read.Queries) error {
			rows, err := q.ListImportRowsV1(ctx, 1000, population.ImportJobID(), population.ImportRows/2)
			return full(len(rows), 1000, err)
		}},
		{"get_replication_position_v1", "", 20, "", func(ctx context.Context, q *read.Queries) error {
			_, err := q.GetReplicationPositionV1(ctx)
			return err
		}},
		{"get_cache_outbox_status_v1", "", 20, "", func(ctx context.Context, q *read.Queries) error {
			_, err := q.GetCacheOutboxStatusV1(ctx)
			return err
		}},
		{"is_cache_outbox_pending_v1", "", 20, "", func(ctx context.Context, q *read.Queries) error {
			_, err := q.IsCacheOutboxPendingV1(ctx, 1)
			return err
		}},
		{"get_schema_version_v1", "", 20, "", func(ctx context.Context, q *read.Queries) error {
			_, err := q.GetSchemaVersionV1(ctx)
			return err
		}},
		{"list_missing_functions_v1", "all that are needed", 1000, "", func(ctx context.Context, q *read.Queries) error {
			reads, writes := db.NeededFunctions()
			rows, err := q.ListMissingFunctionsV1(ctx, slices.Concat(reads, writes))
			return full(len(rows), 0, err)
		}},
	}
}

func full(got, want int, err error) error {
	if err == nil && got != want {
		return fmt.Errorf("%d rows, not %d", got, want)
	}
	return err
}

// node is a part of a plan.
type node struct {
	Type     string `json:"Node Type"`
	Relation string `json:"Relation Name"`
	Function string `json:"Function Name"`
	Hit      int64  `json:"Shared Hit Blocks"`
	Read     int64  `json:"Shared Read Blocks"`
	Plans    []node
}

// scanned are the tables that the plan reads from one end.
func (n node) scanned() (tables []string) {
	if strings.HasSuffix(n.Type, "Seq Scan") || n.Type == "Sample Scan" {
		tables = append(tables, n.Relation)
	}
	for _, child := range n.Plans {
		tables = append(tables, child.scanned()...)
	}
	return tables
}

// explained is a session in which auto_explain tells of every statement, also of those in functions.
type explained struct {
	*pgx.Conn
	plans []node // since the last reset; a statement comes after those that it calls
	errs  []error
}

func explain(t *testing.T, url string) *explained {
	t.Helper()
	e := new(explained)
	config, err := pgx.ParseConfig(url)
	require.NoError(t, err)
	config.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
		_, text, found := strings.Cut(n.Message, "plan:\n")
		if !found {
			return
		}
		var plan struct{ Plan node }
		if err := json.Unmarshal([]byte(text), &plan); err != nil {
			e.errs = append(e.errs, err)
			return
		}
		e.plans = append(e.plans, plan.Plan)
	}
	e.Conn, err = pgx.ConnectConfig(t.Context(), config)
	require.NoError(t, err)
	t.Cleanup(func() { _ = e.Close(context.Background()) })
	for _, sql := range []string{
		"LOAD 'auto_explain'", "SET auto_explain.log_format = json", "SET auto_explain.log_nested_statements = on",
		"SET auto_explain.log_analyze = on", "SET auto_explain.log_buffers = on", "SET auto_explain.log_timing = off",
		"SET client_min_messages = log",
	} {
		_, err := e.Exec(t.Context(), sql)
		require.NoError(t, err)
	}
	return e
}

// watch turns the telling on or off.
func (e *explained) watch(t *testing.T, on bool) {
	t.Helper()
	limit := -1
	if on {
		limit = 0
	}
	_, err := e.Exec(t.Context(), fmt.Sprintf("SET auto_explain.log_min_duration = %d", limit))
	require.NoError(t, err)
}

// measured is a line of the document.
type measured struct {
	call
	cost   int64
	median time.Duration
}

func (e *explained) measure(t *testing.T, c call) measured {
	t.Helper()
	m := measured{call: c}
	q := read.New(e.Conn)
	e.watch(t, true)
	for i := range calls {
		e.plans, e.errs = nil, nil
		require.NoError(t, c.run(t.Context(), q), c.function)
		require.Empty(t, e.errs)
		require.NotEmpty(t, e.plans, "auto_explain says nothing of %s", c.function)
		top := e.plans[len(e.plans)-1]
		for _, plan := range e.plans {
			for _, table := range plan.scanned() {
				if slices.Contains(largeTables, table) && c.scans == "" {
					t.Errorf("%s (%s), call %d: reads all of %s", c.function, c.what, i+1, table)
				}
			}
		}
		m.cost = top.Hit + top.Read
		if i > 0 { // the first one also reads the catalog
			require.LessOrEqual(t, m.cost, c.buffers, "buffers of %s (%s), call %d", c.function, c.what, i+1)
		}
	}
	e.watch(t, false)
	if *doc == "" {
		return m
	}
	times := make([]time.Duration, timedCalls)
	for i := range times {
		started := time.Now()
		require.NoError(t, c.run(t.Context(), q))
		times[i] = time.Since(started)
	}
	slices.Sort(times)
	m.median = times[timedCalls/2]
	return m
}

func TestPlans(t *testing.T) {
	s := pgtest.Private(t)
	require.NoError(t, s.Cluster.Standby.Kill()) // one copy of the data will do
	e := explain(t, s.SuperURL)
	e.watch(t, false)
	// When autovacuum vacuums or analyses a table, every session discards what it keeps of the catalog, and
	// its next call reads it again: 30 buffers and more, in whichever call comes next.
	for _, sql := range []string{"ALTER SYSTEM SET autovacuum = off", "SELECT pg_reload_conf()"} {
		_, err := e.Exec(t.Context(), sql)
		require.NoError(t, err)
	}
	require.Eventually(t, func() bool {
		var running bool
		err := e.QueryRow(t.Context(), "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type LIKE 'autovacuum%')").Scan(&running)
		return err == nil && !running
	}, time.Minute, 50*time.Millisecond, "autovacuum is still running")
	started := time.Now()
	require.NoError(t, population.Fill(t.Context(), e.Conn, *users))
	filled := time.Since(started)
	t.Logf("%d users in %s", *users, filled.Round(time.Second))

	// The measure itself notices a scan.
	e.watch(t, true)
	e.plans = nil
	_, err := e.Exec(t.Context(), "SELECT count(*) FROM accounts.user_contacts WHERE value = ''")
	require.NoError(t, err)
	require.Len(t, e.plans, 1)
	require.Contains(t, e.plans[0].scanned(), "user_contacts")

	var contact uuid.UUID
	err = e.QueryRow(t.Context(), "SELECT id FROM accounts.user_contacts WHERE user_id = $1 LIMIT 1", population.UserID(1)).Scan(&contact)
	require.NoError(t, err)
	var lines []measured
	cost := map[string]int64{}
	covered := map[string]bool{}
	for _, c := range all() {
		if c.run == nil {
			c.run = func(ctx context.Context, q *read.Queries) error {
				_, err := q.GetContactV1(ctx, contact)
				return err
			}
		}
		m := e.measure(t, c)
		t.Logf("%-28s %-28s %6d buffers", c.function, c.what, m.cost)
		lines = append(lines, m)
		cost[c.function+" "+c.what] = m.cost
		covered[c.function] = true
	}
	reads, _ := db.NeededFunctions()
	for _, signature := range reads {
		name, _, _ := strings.Cut(strings.TrimPrefix(signature, "accounts."), "(")
		require.True(t, covered[name], "%s has no plan here", name)
	}
	// The list of a group is not here. It joins two tables on the id, and "id > cursor" bounds one of them.
	// So a far page looks up each user in an index (about 230 buffers, whatever the number of users), while
	// for page 1 the planner may also merge both indexes from their start (27 buffers). The sample of ANALYZE
	// decides which. Each of the two has a bound of its own above.
	for first, distant := range map[string]string{
		"list_users_after_v1 page 1":   "list_users_after_v1 far page",
		"list_group_members_v1 page 1": "list_group_members_v1 far page",
	} {
		require.NotZero(t, cost[first], first)
		require.LessOrEqual(t, cost[distant], cost[first]+farBuffers, distant)
	}
	if *doc != "" && !t.Failed() {
		require.NoError(t, os.WriteFile(*doc, []byte(document(lines, filled)), 0o644))
	}
}

func document(lines []measured, filled time.Duration) string {
	slices.SortStableFunc(lines, func(a, b measured) int { return cmp.Compare(a.function, b.function) })
	var b strings.Builder
	fmt.Fprintf(&b, `# Plans

GENERATED by `+"`make plans`"+`: the cost of each read function with %d users and their contacts, %d groups, two
memberships per user, and an import of %d rows (created in %s).

Buffers are the pages of 8 KiB that one call touches, cached or not, by all statements inside the
function. The test fails if a call exceeds its bound (for 1,000,000 users), and if it reads a large table (%s)
from one end to the other without a reason in the last column. `+"`make test`"+` checks the same bounds with
100,000 users. Time is the median of %d calls on one connection over the loopback, with warm buffers, on
a machine that may have been busy with other work: compare the ratios.

A "far page" is page %d of a list with a cursor, %d rows a page. It may touch %d buffers more than page 1.

| function | call | buffers | bound | time | reads a large table |
|---|---|---:|---:|---:|---|
`, *users, population.Groups, population.ImportRows, filled.Round(time.Second), strings.Join(largeTables, ", "), timedCalls,
		far()/page+1, page, farBuffers)
	for _, m := range lines {
		fmt.Fprintf(&b, "| `%s` | %s | %d | %d | %.2f ms | %s |\n", m.function, m.what, m.cost, m.buffers,
			float64(m.median.Microseconds())/1000, m.scans)
	}
	return b.String()
}
