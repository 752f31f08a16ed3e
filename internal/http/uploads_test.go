package httpapi

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/errcode"
)

const twoRows = "phone,user_groups\n+79990000001,\"client,driver\"\n12,client\n"

// form returns a multipart body of parts, each "name, file name, content", and its Content-Type.
func form(t testing.TB, parts ...[3]string) (body, contentType string) {
	t.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for _, p := range parts {
		var part io.Writer
		var err error
		if p[1] == "" {
			part, err = w.CreateFormField(p[0])
		} else {
			part, err = w.CreateFormFile(p[0], p[1])
		}
		require.NoError(t, err)
		_, err = io.WriteString(part, p[2])
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return b.String(), w.FormDataContentType()
}

func (s *stack) upload(query, name, content string, headers ...string) answer {
	s.t.Helper()
	body, contentType := form(s.t, [3]string{"file", name, content})
	return s.call(http.MethodPost, "/accounts/users/bulk/upload"+query, body, append(headers, "Content-Type", contentType)...)
}

func TestUpload(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.createIvan()
	var got BulkResult
	want := []string{"2 created", "3 invalid invalid_phone phone"}
	s.upload("?dry_run=true", "users.csv", twoRows).ok(http.StatusOK, &got)
	require.Equal(t, want[0], got.outcomes(t)[0])
	s.call(http.MethodGet, "/accounts/users/by-identifier?identifier=+79990000001", "").problem(errcode.NotFound)
	s.upload("", "users.csv", twoRows).ok(http.StatusOK, &got)
	require.Equal(t, want[0], got.outcomes(t)[0])
	require.Contains(t, got.outcomes(t)[1], "3 invalid")
	require.Len(t, s.user(got.Rows[0].UserID.String()).Groups, 2)
	s.upload("", "USERS.CSV", twoRows).ok(http.StatusOK, &got)
	require.Equal(t, "2 exists", got.outcomes(t)[0])
	p := s.upload("?on_conflict=error", "users.csv", twoRows).problem(errcode.IdentifierTaken)
	require.Equal(t, []string{"rows[0].phone taken"}, p.faults())
}

func TestUploadFaults(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	post := func(parts ...[3]string) answer {
		body, contentType := form(t, parts...)
		return s.call(http.MethodPost, "/accounts/users/bulk/upload", body, "Content-Type", contentType)
	}
	file := [3]string{"file", "users.csv", twoRows}
	for _, test := range []struct {
		want  []string
		parts [][3]string
	}{
		{[]string{"file required"}, nil},
		{[]string{"note unknown"}, [][3]string{file, {"note", "", "x"}}},
		{[]string{"note unknown", "file required"}, [][3]string{{"note", "users.csv", "x"}}},
		{[]string{"? unknown", "file repeated"}, [][3]string{file, {"79991234567", "", "x"}, file}},
	} {
		require.Equal(t, test.want, post(test.parts...).problem(errcode.Validation).faults())
	}
	for name, want := range map[string]string{
		"users.txt": "file unknown_extension", "users": "file unknown_extension", "": "file unknown_extension",
		"users.csv.exe": "file unknown_extension",
	} {
		require.Equal(t, []string{want}, post([3]string{"file", name, twoRows}).problem(errcode.FileUpload).faults(), name)
	}
	for content, want := range map[string]string{
		"": "file empty_file", "user_groups\nclient\n": "file missing_column", "phone,surname-79991234567\n1,2\n": "file unknown_column",
		"PK\x03\x04 not really": "file broken_file",
	} {
		a := s.upload("", "users.csv", content)
		require.Equal(t, []string{want}, a.problem(errcode.FileUpload).faults(), "%q", content)
		require.NotContains(t, a.Body.String(), "79991234567")
	}
	body, contentType := form(t, file)
	call := func(body, contentType string, headers ...string) answer {
		return s.call(http.MethodPost, "/accounts/users/bulk/upload", body, append(headers, "Content-Type", contentType)...)
	}
	for _, wrong := range []string{"", "text/csv", "application/json", "multipart/form-data", "multipart/mixed; boundary=x", "multipart/form-data; boundary="} {
		call(body, wrong).problem(errcode.UnsupportedMediaType)
	}
	call(body, contentType, "Content-Encoding", "gzip").problem(errcode.UnsupportedMediaType)
	for _, broken := range []string{"", "nothing", body[:len(body)*3/4], body[:len(body)-6]} {
		require.Equal(t, []string{"body invalid_multipart"}, call(broken, contentType).problem(errcode.Validation).faults(), "%q", broken)
	}
	require.Equal(t, []string{"x unknown", "dry_run invalid_boolean", "on_conflict unknown"},
		s.upload("?x=1&dry_run=yes&on_conflict=", "users.csv", twoRows).problem(errcode.Validation).faults())
	s.auth = bearer(t, testSubject, "accounts:read")
	post(file).problem(errcode.Forbidden)
}

// TestUploadTooLarge: the limit is the file's, to the byte, however the length is told.
func TestUploadTooLarge(t *testing.T) {
	s := newBareAPI(t, func(c *Config) { c.MaxUploadBytes = 1000 }) // not parallel: it sets TMPDIR
	folder := t.TempDir()
	t.Setenv("TMPDIR", folder)
	for _, size := range []int{1001, 2000, 1 << 20} {
		s.upload("", "users.csv", strings.Repeat("x", size)).problem(errcode.PayloadTooLarge)
	}
	content := "user_groups\n" + strings.Repeat("\n", 1000-12)
	s.upload("", "users.csv", content).problem(errcode.FileUpload) // as large as allowed

	// Over a connection, with no length told beforehand.
	server := s.listen()
	body, contentType := form(t, [3]string{"file", "users.csv", strings.Repeat("x", 1<<20)})
	r, err := http.NewRequest(http.MethodPost, server+"/accounts/users/bulk/upload", io.MultiReader(strings.NewReader(body)))
	require.NoError(t, err)
	r.Header.Set("Authorization", s.auth)
	r.Header.Set("Content-Type", contentType)
	res, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	require.Equal(t, http.StatusRequestEntityTooLarge, res.StatusCode)
	left, err := os.ReadDir(folder)
	require.NoError(t, err)
	require.Empty(t, left, "temporary files are gone")

	t.Setenv("TMPDIR", folder+"/missing")
	s.upload("", "users.csv", "phone\n").problem(errcode.Internal)
}

func TestUploadAsJob(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.createIvan()
	var job Import
	a := s.upload("", "users.csv", "phone,user_groups\n+79991234567,\n+7 999 000-00-01,client\n=cmd|' /C calc'!A0,\"-2+3,client\"\n8 999 000 00 01,\n",
		"Prefer", "wait=5, respond-async").ok(http.StatusAccepted, &job)
	require.Equal(t, "/accounts/imports/"+job.ID.String(), a.Header().Get("Location"))
	require.Equal(t, "respond-async", a.Header().Get("Preference-Applied"))
	path := a.Header().Get("Location")
	require.Equal(t, 4, job.Total)
	require.Nil(t, job.FinishedAt)
	require.Equal(t, job, s.getImport(path))

	result := func() [][]string {
		a := s.call(http.MethodGet, path+"/result", "").ok(http.StatusOK, nil)
		require.Equal(t, "text/csv; charset=utf-8", a.Header().Get("Content-Type"))
		require.Contains(t, a.Header().Get("Content-Disposition"), "attachment")
		records, err := csv.NewReader(a.Body).ReadAll()
		require.NoError(t, err)
		return records
	}
	require.Equal(t, []string{"+79991234567", "", "", "", ""}, result()[1], "not done yet")
	s.runImports()
	done := s.getImport(path)
	require.Equal(t, "done", done.Phase)
	require.Equal(t, Counts{Created: 1, Exists: 1, Conflict: 1, Invalid: 1}, done.Counts)
	require.Equal(t, 100, done.Percent)
	require.NotNil(t, done.FinishedAt)
	rows := result()
	require.Equal(t, []string{"phone", "user_groups", "result", "code", "user_id"}, rows[0])
	require.Equal(t, []string{"+79991234567", "", "exists", ""}, rows[1][:4])
	require.Equal(t, []string{"+7 999 000-00-01", "client", "created", ""}, rows[2][:4])
	require.Len(t, s.user(rows[2][4]).Groups, 1)
	require.Equal(t, "'=cmd|' /C calc'!A0", rows[3][0])
	require.Equal(t, "'-2+3,client", rows[3][1])
	require.Equal(t, "invalid", rows[3][2])
	require.Equal(t, []string{"8 999 000 00 01", "", "conflict", "duplicate"}, rows[4][:4])

	// on_conflict error: nothing is written.
	a = s.upload("?on_conflict=error", "users.csv", "phone\n+79991234567\n+79990000009\n", "Prefer", "respond-async").ok(http.StatusAccepted, &job)
	require.Equal(t, "failed", job.Phase)
	require.Equal(t, "IDENTIFIER_TAKEN", job.ErrorCode)
	path = a.Header().Get("Location")
	require.Equal(t, []string{"+79990000009", "", "", "", ""}, result()[2])

	for _, suffix := range []string{"", "/result"} {
		p := s.call(http.MethodGet, "/accounts/imports/"+absentID+suffix, "").problem(errcode.NotFound)
		require.Equal(t, ProblemDetails{Entity: "Import", ID: absentID}, p.Details)
		p = s.call(http.MethodGet, "/accounts/imports/1"+suffix+"?x=1", "").problem(errcode.Validation)
		require.Equal(t, []string{"x unknown", "id invalid_uuid"}, p.faults())
	}
}

func TestLargeUploadIsAJob(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	const rows = 5001
	var b strings.Builder
	b.WriteString("phone\n")
	for i := range rows {
		fmt.Fprintf(&b, "+7999%07d\n", i)
	}
	var job Import
	a := s.upload("", "users.csv", b.String()).ok(http.StatusAccepted, &job)
	require.Empty(t, a.Header().Get("Preference-Applied"))
	require.Equal(t, rows, job.Total)
	s.runImports()
	done := s.getImport(a.Header().Get("Location"))
	require.Equal(t, rows, done.Counts.Created)
	csvFile := s.call(http.MethodGet, a.Header().Get("Location")+"/result", "").ok(http.StatusOK, nil)
	require.Equal(t, rows+1, strings.Count(csvFile.Body.String(), "\n"))
}

// TestSlowUpload: a body may take longer than a JSON body, and its handler too.
func TestSlowUpload(t *testing.T) {
	t.Parallel()
	rt := route{slow: true}
	require.Greater(t, rt.bodyTimeout(), bodyTimeout)
	require.Greater(t, rt.timeout(), rt.bodyTimeout())
	require.Equal(t, requestTimeout, (&route{}).timeout())
}

func (s *stack) getImport(path string) Import {
	s.t.Helper()
	var job Import
	s.call(http.MethodGet, path, "").ok(http.StatusOK, &job)
	return job
}

// runImports works through what was staged.
func (s *stack) runImports() {
	s.t.Helper()
	for {
		worked, err := s.accounts.RunImportChunk(s.t.Context())
		require.NoError(s.t, err)
		if !worked {
			return
		}
	}
}

// listen serves on a port of its own and returns the base URL.
func (s *stack) listen() string {
	s.t.Helper()
	address, stop, ended := s.serve()
	s.t.Cleanup(func() {
		stop()
		select {
		case err := <-ended:
			require.NoError(s.t, err)
		case <-time.After(30 * time.Second):
			s.t.Error("the server did not stop")
		}
	})
	return "http://" + address
}
