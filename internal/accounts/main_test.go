package accounts_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9/logging"
	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/accounts"
	"github.com/payment-services/accounts/internal/core/coretest"
	"github.com/payment-services/accounts/internal/errcode"
	"github.com/payment-services/accounts/internal/pgtest"
)

const (
	// waitLimit bounds each wait for something in the background; only a defect makes one last so long.
	waitLimit = 20 * time.Second
	// pollTick paces the question whether it has happened.
	pollTick = 5 * time.Millisecond
)

func TestMain(m *testing.M) {
	logging.Disable() // go-redis would tell of every connection that the end of a test breaks
	pgtest.Main(m)
}

// process is the service as one server process has it.
type process struct {
	*accounts.Service
	t     *testing.T
	super *pgx.Conn
}

// newProcess starts a process; several may share a database.
func newProcess(t *testing.T, d *pgtest.DB) *process {
	t.Helper()
	return newProcessIn(t, d, "RU")
}

// newProcessIn starts a process whose phone region is region.
func newProcessIn(t *testing.T, d *pgtest.DB, region string) *process {
	t.Helper()
	cfg := coretest.Config(d.WriteURL, d.ReadURL, d.Redis().URL)
	cfg.PhoneRegion = region
	c := coretest.Start(t, cfg)
	super, err := pgx.Connect(t.Context(), d.SuperURL)
	require.NoError(t, err)
	t.Cleanup(func() { _ = super.Close(context.Background()) })
	return &process{t: t, super: super, Service: c.Accounts}
}

// background runs run until the test ends.
func background(t *testing.T, run func(context.Context)) {
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { run(ctx) })
	t.Cleanup(func() { stop(); running.Wait() })
}

func (p *process) createGroup(name string) uuid.UUID {
	p.t.Helper()
	group, err := p.CreateGroup(p.t.Context(), name)
	require.NoError(p.t, err)
	return group.ID
}

// createUser creates a user with a phone.
func (p *process) createUser(phone string, groups ...string) uuid.UUID {
	p.t.Helper()
	id, _, err := p.CreateUser(p.t.Context(), accounts.NewUser{
		IsActive: true, Groups: groups, Contacts: []accounts.NewUserContact{{Type: "phone", Value: phone}},
	})
	require.NoError(p.t, err)
	return id
}

func (p *process) count(table string) (n int) {
	p.t.Helper()
	require.NoError(p.t, p.super.QueryRow(p.t.Context(), "SELECT count(*) FROM accounts."+pgx.Identifier{table}.Sanitize()).Scan(&n))
	return n
}

// upload uploads a file that is accepted.
func (p *process) upload(file []byte, o accounts.UploadOptions) (*accounts.BulkResult, *accounts.ImportJob) {
	p.t.Helper()
	result, job, err := p.Upload(p.t.Context(), bytes.NewReader(file), int64(len(file)), o)
	require.NoError(p.t, err)
	require.True(p.t, (result == nil) != (job == nil))
	return result, job
}

// runImports works until there is nothing left to do.
func (p *process) runImports() {
	p.t.Helper()
	for worked := true; worked; {
		var err error
		worked, err = p.RunImportChunk(p.t.Context())
		require.NoError(p.t, err)
	}
}

// importRows returns the rows of a job.
func (p *process) importRows(id uuid.UUID) (rows []accounts.RowResult) {
	p.t.Helper()
	require.NoError(p.t, p.ImportRows(p.t.Context(), id, func(r accounts.ImportRow) error {
		rows = append(rows, r.RowResult)
		return nil
	}))
	return rows
}

// phone returns the nth phone, written as people do.
func phone(n int) string { return fmt.Sprintf("8 (999) %03d-%02d-%02d", n/10_000, n/100%100, n%100) }

// bulkRows returns n rows with phones from this one on, numbered from 1.
func bulkRows(from, n int) []accounts.BulkRow {
	rows := make([]accounts.BulkRow, n)
	for i := range rows {
		rows[i] = accounts.BulkRow{Number: i + 1, Phone: phone(from + i)}
	}
	return rows
}

// csvFile returns a file of n rows with phones from this one on.
func csvFile(from, n int) []byte {
	var b bytes.Buffer
	b.WriteString("phone;user_groups\n")
	for i := range n {
		fmt.Fprintf(&b, "%s;\n", phone(from+i))
	}
	return b.Bytes()
}

// outcomes returns "number status code column" of rows.
func outcomes(rows []accounts.RowResult) []string {
	texts := []string{}
	for _, r := range rows {
		texts = append(texts, strings.TrimRight(fmt.Sprint(r.Number, " ", r.Status, " ", r.Code, " ", r.Column), " "))
	}
	return texts
}

// requireCode checks the code of an error and its faulty fields, given as "field code".
func requireCode(t *testing.T, err error, code errcode.Code, fields ...string) *errcode.Error {
	t.Helper()
	e, ok := errors.AsType[*errcode.Error](err)
	require.True(t, ok, "%v", err)
	require.Equal(t, code, e.Code, err)
	var got []string
	for _, f := range e.Fields {
		got = append(got, f.Field+" "+f.Code)
		require.NotEmpty(t, f.Message)
	}
	require.Equal(t, fields, got)
	return e
}
