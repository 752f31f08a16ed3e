package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/dbgen/write"
	"github.com/payment-services/accounts/internal/errcode"
	"github.com/payment-services/accounts/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// importer runs the import command in an environment with servers of its own.
type importer struct {
	t     *testing.T
	super *pgx.Conn
}

func newImporter(t *testing.T) *importer {
	t.Helper()
	d := pgtest.Shared(t)
	environment(t, map[string]string{
		"DATABASE_WRITE_URL": d.WriteURL, "DATABASE_READ_URL": d.ReadURL, "REDIS_URL": d.Redis().URL,
	})
	connect := func(url string) *pgx.Conn {
		conn, err := pgx.Connect(t.Context(), url)
		require.NoError(t, err)
		t.Cleanup(func() { _ = conn.Close(context.Background()) })
		return conn
	}
	_, err := write.New(connect(d.WriteURL)).CreateUserGroupV1(t.Context(), "client", "client")
	require.NoError(t, err)
	return &importer{t, connect(d.SuperURL)}
}

// run imports a file with this content, and returns what the command prints.
func (i *importer) run(ctx context.Context, content string, flags ...string) (string, error) {
	i.t.Helper()
	path := filepath.Join(i.t.TempDir(), "users.csv")
	require.NoError(i.t, os.WriteFile(path, []byte(content), 0o600))
	var out strings.Builder
	err := run(ctx, append(append([]string{"import"}, flags...), path), &out)
	return out.String(), err
}

func (i *importer) count(table string) (n int) {
	i.t.Helper()
	require.NoError(i.t, i.super.QueryRow(i.t.Context(), "SELECT count(*) FROM accounts."+pgx.Identifier{table}.Sanitize()).Scan(&n))
	return n
}

// Not parallel: the tests of this package change the environment.
func TestImport(t *testing.T) {
	i := newImporter(t)
	const valid = "phone;user_groups\n8 (999) 000-00-01;client\n+79990000002;\n"
	const faulty = valid + "+79990000001;client\n12;\n+79990000003;nothing\n"

	out, err := i.run(t.Context(), faulty, "-dry-run")
	require.ErrorIs(t, err, errNotAllImported)
	require.Contains(t, out, ": done, 5 rows: 2 created, 0 exist, 0 merged, 1 in conflict, 2 invalid\n")
	require.Contains(t, out, "row 4: conflict, duplicate (phone)\nrow 5: invalid, invalid_phone (phone)\n"+
		"row 6: invalid, unknown_group (user_groups)\n")
	require.NotContains(t, out, "000-00", "no values of the file")
	require.Zero(t, i.count("users"))

	out, err = i.run(t.Context(), valid)
	require.NoError(t, err)
	require.Contains(t, out, ": done, 2 rows: 2 created, 0 exist, 0 merged, 0 in conflict, 0 invalid\n")
	require.Equal(t, 2, i.count("users"))
	require.Equal(t, 1, i.count("user_group_memberships"))

	out, err = i.run(t.Context(), valid)
	require.NoError(t, err, "a row that exists is no failure")
	require.Contains(t, out, "0 created, 2 exist")
	out, err = i.run(t.Context(), "phone;user_groups\n+79990000002;client\n", "-on-conflict", "merge")
	require.NoError(t, err)
	require.Contains(t, out, "0 created, 0 exist, 1 merged")
	require.Equal(t, 2, i.count("user_group_memberships"))

	out, err = i.run(t.Context(), "phone\n+79990000002\n+79990000004\n", "-on-conflict=error")
	require.ErrorIs(t, err, errNotAllImported)
	require.Contains(t, out, ": failed, 2 rows: ")
	require.Contains(t, out, "row 2: conflict, taken (phone)\n")
	require.Equal(t, 2, i.count("users"))
}

func TestImport_RefusesWhatItCannotRead(t *testing.T) {
	i := newImporter(t)
	for content, code := range map[string]string{
		"":                                     "empty_file",
		"name\nIvan\n":                         "missing_column",
		"phone\n+79990000001\n\"8999\n1\n":     "unterminated_quote",
		"<table><tr><td>phone</td></tr>":       "unknown_format",
		"\xD0\xCF\x11\xE0\xA1\xB1\x1A\xE1 OLE": "broken_file",
	} {
		_, err := i.run(t.Context(), content)
		var e *errcode.Error
		require.ErrorAs(t, err, &e, "%q", content)
		require.Equal(t, errcode.FileUpload, e.Code)
		require.Equal(t, code, e.Fields[0].Code, "%q", content)
	}
	err := run(t.Context(), []string{"import", filepath.Join(t.TempDir(), "absent.csv")}, os.Stdout)
	require.ErrorIs(t, err, os.ErrNotExist)
	require.ErrorContains(t, run(t.Context(), []string{"import", "-on-conflict", "overwrite", "users.csv"}, os.Stdout), "skip, merge or error")
	require.ErrorContains(t, run(t.Context(), []string{"import"}, os.Stdout), "want one FILE")

	interrupted, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = i.run(interrupted, "phone\n+79990000001\n")
	require.ErrorIs(t, err, context.Canceled)
	require.Zero(t, i.count("import_jobs"), "no import remains")
	require.Zero(t, i.count("users"))
}
