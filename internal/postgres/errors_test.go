package postgres

import (
	"errors"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/errcode"
	"github.com/payment-services/accounts/internal/pgtest"
)

// internalConstraints can be violated by a fault of ours only, and become INTERNAL_ERROR.
var internalConstraints = []string{
	"users_pkey", "users_version_positive",
	"contact_types_pkey", "contact_types_id_single_key",
	"user_contacts_pkey", "user_contacts_user_id_fkey", "user_contacts_contact_type_fkey", "user_contacts_deactivated_at_agrees",
	"user_groups_pkey",
	"user_group_memberships_pkey", "user_group_memberships_user_id_fkey", "user_group_memberships_group_id_fkey",
	"cache_outbox_pkey", "named_locks_pkey",
	"import_jobs_pkey", "import_jobs_phase_known", "import_jobs_on_conflict_known", "import_jobs_done_bounded",
	"import_jobs_finished_at_agrees", "import_jobs_counts_add_up", "import_jobs_chunk_rows_positive",
	"import_rows_pkey", "import_rows_job_id_fkey", "import_rows_status_known", "import_rows_normalized_or_status",
}

func TestEveryConstraintHasAMeaning(t *testing.T) {
	t.Parallel()
	super := superuser(t, pgtest.Shared(t))
	rows, err := super.Query(t.Context(), `
		SELECT k.conname::text FROM pg_constraint AS k
		 WHERE k.connamespace = 'accounts'::regnamespace AND k.contype <> 'n' AND k.conname !~ '_is_a_contract$'
		 UNION
		SELECT c.relname::text FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
		 WHERE c.relnamespace = 'accounts'::regnamespace AND i.indisunique`)
	require.NoError(t, err)
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	known := slices.Clone(internalConstraints)
	for name := range violations {
		known = append(known, name)
	}
	require.ElementsMatch(t, names, known)
}

// document is docs/errors.md, parsed: what its first table says of each constraint, SQLSTATE and
// class, and its second of each code.
type document struct {
	causes map[string]errcode.Code
	fields map[string]string // of a constraint: "field code"
	codes  []errcode.Code
	other  []errcode.Code // what "any other" becomes
	status map[errcode.Code][]string
}

func readDocument(t *testing.T) document {
	t.Helper()
	text, err := os.ReadFile("../../docs/errors.md")
	require.NoError(t, err)
	d := document{causes: map[string]errcode.Code{}, fields: map[string]string{}, status: map[errcode.Code][]string{}}
	name := regexp.MustCompile("`([a-z0-9_]+|[0-9A-Z]{5}|[0-9A-Z]{2})`")
	field := regexp.MustCompile("^`([a-z_]+)`, `([a-z_]+)`")
	fromDatabase, all, found := strings.Cut(string(text), "## All codes")
	require.True(t, found)
	for _, row := range regexp.MustCompile(`(?m)^\| (.+) \| ([A-Z_]+) \| [0-9]{3} \| (.*) \|$`).FindAllStringSubmatch(fromDatabase, -1) {
		code := errcode.Code(row[2])
		if row[1] == "any other" {
			d.other = append(d.other, code)
		}
		for _, cause := range name.FindAllStringSubmatch(row[1], -1) {
			d.causes[cause[1]] = code
			if f := field.FindStringSubmatch(row[3]); f != nil {
				d.fields[cause[1]] = f[1] + " " + f[2]
			}
		}
	}
	for _, row := range regexp.MustCompile(`(?m)^\| ([A-Z_]+) \| [0-9]{3} \|`).FindAllStringSubmatch(all, -1) {
		d.codes = append(d.codes, errcode.Code(row[1]))
	}
	for _, row := range regexp.MustCompile(`(?m)\| ([A-Z_]+) \| ([0-9]{3}) \|`).FindAllStringSubmatch(string(text), -1) {
		code := errcode.Code(row[1])
		if !slices.Contains(d.status[code], row[2]) {
			d.status[code] = append(d.status[code], row[2])
		}
	}
	return d
}

func TestDocumentListsEveryCode(t *testing.T) {
	t.Parallel()
	d := readDocument(t)
	require.Equal(t, errcode.All(), d.codes)
	for _, code := range d.codes {
		require.Len(t, d.status[code], 1, code)
	}
}

func TestDocumentSaysWhatConstraintsMean(t *testing.T) {
	t.Parallel()
	d := readDocument(t)
	for name, v := range violations {
		require.Equal(t, v.code, d.causes[name], name)
		require.Equal(t, v.field+" "+v.reason, d.fields[name], name)
		for _, state := range []string{"23505", "23514"} {
			err := coded(&pgconn.PgError{Code: state, ConstraintName: name, Detail: "Key (normalized)=(+79991234567) already exists."})
			coded := requireCode(t, err, v.code)
			require.Equal(t, []errcode.Field{{Field: v.field, Code: v.reason, Message: v.message}}, coded.Fields)
			require.NotContains(t, err.Error(), "999", "the rejected value is personal")
		}
	}
	for cause := range d.causes {
		if cause == strings.ToLower(cause) && len(cause) > 5 {
			require.Contains(t, violations, cause)
		}
	}
	for _, name := range append(internalConstraints, "unheard_of") {
		require.Equal(t, errcode.Internal, errcode.Of(coded(&pgconn.PgError{Code: "23505", ConstraintName: name})), name)
	}
}

// Every SQLSTATE there could be becomes what the document says.
func TestDocumentSaysWhatSQLSTATEsMean(t *testing.T) {
	t.Parallel()
	d := readDocument(t)
	require.Equal(t, []errcode.Code{errcode.Internal}, d.other)
	details := map[string]string{
		stateNotFound: `{"entity": "User", "id": "1"}`, stateInvalid: `{"errors": [{"field": "a", "code": "unknown"}]}`, stateOtherVersion: `{"version": 1}`,
		stateLimit: `{"limit": "contacts", "maximum": 1000}`,
	}
	const digits, all = "08P", "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	seen := map[string]bool{}
	for _, class := range []string{"08", "0A", "22", "23", "25", "26", "28", "3F", "40", "42", "53", "54", "55", "57", "58", "F0", "P0", "XX", "UA"} {
		for _, a := range digits {
			for _, b := range all {
				for _, c := range all {
					state := class + string(a) + string(b) + string(c)
					want, ok := d.causes[state]
					if !ok {
						want, ok = d.causes[class]
					}
					if !ok {
						want = errcode.Internal
					}
					err := coded(&pgconn.PgError{Code: state, Detail: details[state]})
					require.Equal(t, want, errcode.Of(err), state)
					if want == errcode.Database {
						requireCode(t, err, want) // it says when to try again
					}
					seen[state] = true
				}
			}
		}
	}
	for cause := range d.causes {
		if len(cause) == 5 && cause == strings.ToUpper(cause) {
			require.True(t, seen[cause], cause)
		}
	}
}

// A DETAIL that is not what our functions write is a fault, not a panic and not a wrong answer.
func TestMalformedDetail(t *testing.T) {
	t.Parallel()
	for _, state := range []string{stateNotFound, stateInvalid, stateOtherVersion} {
		require.Equal(t, errcode.Internal, errcode.Of(coded(&pgconn.PgError{Code: state, Detail: "{"})), state)
	}
}

func TestErrorsWithoutASQLSTATE(t *testing.T) {
	t.Parallel()
	own := errcode.New(errcode.Forbidden, "of fn")
	for _, tt := range []struct {
		err  error
		want errcode.Code
	}{
		{own, errcode.Forbidden},
		{errDemoted, errcode.Database},
		{errPrimaryGone, errcode.Database},
		{io.ErrUnexpectedEOF, errcode.Database},
		{&acquireError{errors.New("refused")}, errcode.Database},
		{&outcomeUnknownError{io.ErrUnexpectedEOF}, errcode.OutcomeUnknown},
		{&outcomeUnknownError{&pgconn.PgError{Code: "57P01"}}, errcode.OutcomeUnknown},
		{errors.New("a fault"), errcode.Internal},
	} {
		require.Equal(t, tt.want, errcode.Of(coded(tt.err)), "%v", tt.err)
		require.ErrorIs(t, coded(tt.err), tt.err)
	}
	require.NoError(t, coded(nil))
}
