package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"mime/multipart"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/xuri/excelize/v2"
)

const (
	// othersRate is how many cached reads a second others send meanwhile; quietTime how long they are
	// measured alone.
	othersRate = 200
	quietTime  = 3 * time.Second
	// importPoll paces the questions how far an import is.
	importPoll = 50 * time.Millisecond
	// bulkTimeout bounds one upload or copy.
	bulkTimeout = 5 * time.Minute
)

// copySQL is the yardstick COPY: a staging table, and one statement that fills the real ones.
const copySQL = `BEGIN;
CREATE TEMPORARY TABLE staging (phone text, user_groups text) ON COMMIT DROP;
\copy staging FROM '%s' WITH (FORMAT csv, HEADER true)
WITH made AS MATERIALIZED (
    SELECT accounts.generate_uuid_v1() AS id, s.phone, s.user_groups
      FROM staging AS s
), users AS (
    INSERT INTO accounts.users (id)
    SELECT m.id FROM made AS m
), contacts AS (
    INSERT INTO accounts.user_contacts (user_id, contact_type_id, value, normalized, single)
    SELECT m.id, t.id, m.phone, m.phone, t.single
      FROM made AS m
      JOIN accounts.contact_types AS t ON t.name = 'phone'
)
INSERT INTO accounts.user_group_memberships (user_id, group_id)
SELECT m.id, g.id
  FROM made AS m
 CROSS JOIN string_to_table(m.user_groups, ',') AS n (name)
  JOIN accounts.user_groups AS g ON g.name = n.name;
COMMIT;
`

// bulkSample is one way to create many users. Quiet and Others are the p99 of other requests, in ms.
type bulkSample struct {
	RowsPerSecond float64
	Peak          float64 // MB, of the service
	Quiet, Others float64
}

// bulkRound is every way once, each with rows of its own.
type bulkRound struct{ Copy, CSV, XLSX bulkSample }

func (b *bench) measureBulk(ctx context.Context, rows, round int) (r bulkRound, err error) {
	base := round * 3 * rows
	if r.Copy, err = b.bulk(ctx, rows, base, b.copyRows); err != nil {
		return r, fmt.Errorf("COPY: %w", err)
	}
	if r.CSV, err = b.bulk(ctx, rows, base+rows, func(ctx context.Context, rows, first int) (func(context.Context) error, error) {
		return b.upload("users.csv", csvFile(rows, first)), nil
	}); err != nil {
		return r, fmt.Errorf("upload of CSV: %w", err)
	}
	r.XLSX, err = b.bulk(ctx, rows, base+2*rows, func(ctx context.Context, rows, first int) (func(context.Context) error, error) {
		file, err := xlsxFile(rows, first)
		return b.upload("users.xlsx", file), err
	})
	if err != nil {
		return r, fmt.Errorf("upload of XLSX: %w", err)
	}
	return r, nil
}

// bulk measures what create does, while others read cached users.
func (b *bench) bulk(ctx context.Context, rows, first int, prepare func(ctx context.Context, rows, first int) (func(context.Context) error, error)) (s bulkSample, err error) {
	ctx, cancel := context.WithTimeout(ctx, bulkTimeout)
	defer cancel()
	create, err := prepare(ctx, rows, first)
	if err != nil {
		return s, err
	}
	others := reads(quietTime, func() request { return b.data.read(b.service, pick(b.data.hot)) })
	others.rate = othersRate
	quiet := others.send()
	if err := resetPeak(b.service.pid()); err != nil {
		return s, err
	}
	began := time.Now()
	ended := make(chan error, 1)
	var took time.Duration
	go func() {
		err := create(ctx)
		took = time.Since(began)
		ended <- err
	}()
	var during sent
	for done := false; !done; { // others go on for as long as it takes
		others.duration = time.Second
		part := others.send()
		during.add(part)
		select {
		case err = <-ended:
			done = true
		default:
		}
	}
	if err != nil {
		return s, err
	}
	if failures := quiet.failures + during.failures; failures > 0 {
		return s, fmt.Errorf("%d of the others' requests failed: %s%s", failures, quiet.failure, during.failure)
	}
	s.RowsPerSecond = float64(rows) / took.Seconds()
	s.Quiet, s.Others = milliseconds(quiet.quantile(.99)), milliseconds(during.quantile(.99))
	s.Peak, err = memory(b.service.pid(), "VmHWM")
	return s, err
}

func (b *bench) copyRows(ctx context.Context, rows, first int) (func(context.Context) error, error) {
	file := filepath.Join(b.dir, "rows.csv")
	if err := os.WriteFile(file, csvFile(rows, first), 0o600); err != nil {
		return nil, err
	}
	at, password, err := withoutPassword(b.urls.SuperURL)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) error {
		cmd := exec.CommandContext(ctx, "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", at)
		cmd.Env = append(os.Environ(), "PGPASSWORD="+password)
		cmd.Stdin = strings.NewReader(fmt.Sprintf(copySQL, file))
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("psql: %w\n%s", err, out)
		}
		return nil
	}, nil
}

// upload sends a file and waits until its import is done.
func (b *bench) upload(name string, file []byte) func(context.Context) error {
	return func(ctx context.Context) error {
		var body bytes.Buffer
		form := multipart.NewWriter(&body)
		part, err := form.CreateFormFile("file", name)
		if err != nil {
			return err
		}
		if _, err := part.Write(file); err != nil {
			return err
		}
		if err := form.Close(); err != nil {
			return err
		}
		var location string
		url, header := b.service.base+"/accounts/users/bulk/upload", b.data.with("Content-Type", form.FormDataContentType())
		err = exchange(ctx, http.MethodPost, url, header, &body, func(answer *http.Response) error {
			location = answer.Header.Get("Location")
			if answer.StatusCode != http.StatusAccepted {
				return fmt.Errorf("the upload is answered with %s", answer.Status)
			}
			return nil
		})
		for err == nil {
			var job struct {
				Phase  string
				Total  int
				Counts struct{ Created int }
			}
			err = exchange(ctx, http.MethodGet, b.service.base+location, b.data.header(), nil, func(answer *http.Response) error {
				return json.NewDecoder(answer.Body).Decode(&job)
			})
			switch {
			case err != nil:
				return err
			case job.Phase == "failed", job.Phase == "done" && job.Counts.Created != job.Total:
				return fmt.Errorf("the import is %s with %d of %d rows created", job.Phase, job.Counts.Created, job.Total)
			case job.Phase == "done":
				return nil
			}
			select {
			case <-ctx.Done():
				return errors.New("the import does not end")
			case <-time.After(importPoll):
			}
		}
		return err
	}
}

func rowOf(n int) (phone, groups string) {
	groups = "client"
	if n%2 == 0 {
		groups = "client,driver"
	}
	return fmt.Sprintf("+7905%07d", n), groups
}

func csvFile(rows, first int) []byte {
	var b bytes.Buffer
	b.WriteString("phone,user_groups\n")
	for n := first; n < first+rows; n++ {
		phone, groups := rowOf(n)
		fmt.Fprintf(&b, "%s,\"%s\"\n", phone, groups)
	}
	return b.Bytes()
}

func xlsxFile(rows, first int) ([]byte, error) {
	f := excelize.NewFile()
	defer f.Close()
	sheet, err := f.NewStreamWriter("Sheet1")
	if err != nil {
		return nil, err
	}
	if err := sheet.SetRow("A1", []any{"phone", "user_groups"}); err != nil {
		return nil, err
	}
	for i := range rows {
		phone, groups := rowOf(first + i)
		if err := sheet.SetRow(fmt.Sprintf("A%d", i+2), []any{phone, groups}); err != nil {
			return nil, err
		}
	}
	if err := sheet.Flush(); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = f.Write(&b)
	return b.Bytes(), err
}
