// Package population fills a scratch database with as many users as a test or a benchmark wants, fast:
// set-based, as superuser, with every index in place and every CHECK at work. What the n-th user is
// called is always the same, so that callers can ask for any of them.
package population

import (
	"context"
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// What there is beside the users.
const (
	// Groups is the number of groups. Each user is in the first and in one of the others.
	Groups = 50
	// InactiveEvery says which users are inactive: every twentieth.
	InactiveEvery = 20
	// ImportRows is the length of the one import.
	ImportRows = 20000

	// epoch is when the first user was created, in ms; the others follow one per ms.
	epoch = 1_700_000_000_000
)

// UserID returns the id of user n, counted from 1: a UUIDv7, so ids are in the order of creation.
func UserID(n int) uuid.UUID { return id(0, n) }

// CreatedAt returns when user n was created, and last changed.
func CreatedAt(n int) time.Time { return time.UnixMilli(epoch + int64(n)) }

// GroupID returns the id of group n, counted from 0, which has every user.
func GroupID(n int) uuid.UUID { return id(1, n) }

// ImportJobID returns the id of the import.
func ImportJobID() uuid.UUID { return id(2, 0) }

// Phone returns the phone that user n has.
func Phone(n int) string { return fmt.Sprintf("+7%010d", 9_000_000_000+n) }

// Email returns the address that user n has if n is even.
func Email(n int) string { return fmt.Sprintf("user%d@example.com", n) }

// Login returns the second login that user n has if n is a multiple of 3.
func Login(n int) string { return fmt.Sprintf("user-%d", n) }

func id(kind, n int) uuid.UUID {
	var u uuid.UUID
	binary.BigEndian.PutUint64(u[:8], uint64(epoch+n)<<16|0x7000)
	binary.BigEndian.PutUint64(u[8:], 0x8000<<48|uint64(kind)<<40|uint64(n))
	return u
}

// sqlID is id in SQL.
func sqlID(kind int, n string) string {
	return fmt.Sprintf("(lpad(to_hex(%[1]d + %[2]s), 12, '0') || '70008000' || lpad(to_hex(%[3]d + %[2]s), 12, '0'))::uuid",
		epoch, n, kind<<40)
}

// Fill puts that many users into the empty, migrated database of conn, a superuser's: each with a phone,
// half with an email, a third with a login, a tenth with a phone they had before. It leaves the tables
// vacuumed and analysed.
func Fill(ctx context.Context, conn *pgx.Conn, users int) error {
	for _, sql := range []string{
		"BEGIN",
		// The rows are right by construction: foreign keys, which are triggers, need not look.
		"SET LOCAL session_replication_role = replica",
		"SET LOCAL synchronous_commit = off",
		`INSERT INTO accounts.user_groups (id, name, name_key) SELECT ` + sqlID(1, "n") + `, 'group ' || n, 'group ' || n FROM generate_series(0, ` + fmt.Sprint(Groups-1) + `) AS n`,
		`INSERT INTO accounts.users (id, created_at, updated_at, is_active, profile)
		 SELECT ` + sqlID(0, "n") + `, to_timestamp((` + fmt.Sprint(epoch) + ` + n) / 1000.0), to_timestamp((` + fmt.Sprint(epoch) + ` + n) / 1000.0),
		        n % ` + fmt.Sprint(InactiveEvery) + ` <> 0, jsonb_build_object('name', 'User ' || n, 'city', 'Moscow', 'n', n)
		   FROM generate_series(1, $1::int) AS n`,
		contacts("phone", "'+7' || 9000000000 + n", "true", "true"),
		contacts("email", "'user' || n || '@example.com'", "n % 2 = 0", "true"),
		contacts("second_login", "'user-' || n", "n % 3 = 0", "true"),
		contacts("phone", "'+7' || 8000000000 + n", "n % 10 = 0", "false"),
		`INSERT INTO accounts.user_group_memberships (user_id, group_id)
		 SELECT ` + sqlID(0, "n") + `, ` + sqlID(1, "g") + `
		   FROM generate_series(1, $1::int) AS n CROSS JOIN LATERAL unnest(ARRAY[0, 1 + n % ` + fmt.Sprint(Groups-1) + `]) AS g`,
		`INSERT INTO accounts.import_jobs (id, phase, on_conflict, dry_run, total, done, existing, finished_at)
		 SELECT ` + sqlID(2, "0") + `, 'done', 'skip', false, ` + fmt.Sprint(ImportRows) + `, ` + fmt.Sprint(ImportRows) + `, ` + fmt.Sprint(ImportRows) + `, now()`,
		`INSERT INTO accounts.import_rows (job_id, row_no, phone, user_groups, group_keys, normalized, status, user_id)
		 SELECT ` + sqlID(2, "0") + `, n, 'x', '{}', '{}', '+7' || 9000000000 + n, 'exists', ` + sqlID(0, "n") + `
		   FROM generate_series(1, ` + fmt.Sprint(ImportRows) + `) AS n`,
		"COMMIT",
		"VACUUM (ANALYZE) accounts.users, accounts.user_contacts, accounts.user_groups, accounts.user_group_memberships, " +
			"accounts.import_jobs, accounts.import_rows",
	} {
		var args []any
		if strings.Contains(sql, "$1") {
			args = []any{users}
		}
		if _, err := conn.Exec(ctx, sql, args...); err != nil {
			return fmt.Errorf("fill: %.40s: %w", sql, err)
		}
	}
	return nil
}

// contacts inserts one contact for each user n of which which holds.
func contacts(kind, value, which, active string) string {
	return `INSERT INTO accounts.user_contacts (user_id, contact_type_id, value, normalized, single, is_active, deactivated_at)
		 SELECT ` + sqlID(0, "n") + `, t.id, v.value, v.value, t.single, ` + active + `, CASE WHEN NOT ` + active + ` THEN now() END
		   FROM generate_series(1, $1::int) AS n
		  CROSS JOIN LATERAL (SELECT ` + value + ` AS value) AS v
		   JOIN accounts.contact_types AS t ON t.name = '` + kind + `'
		  WHERE ` + which
}
