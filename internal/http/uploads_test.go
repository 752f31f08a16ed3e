package httpapi

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"io"
	"mime/multipart"
	"net"
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
	s := newStackWith(t, func(c *Config) { c.MaxUploadBytes = 1000 }) // not parallel: it sets TMPDIR
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
	a := s.upload("", "users.csv", "phone\n")
	require.Contains(t, a.problem(errcode.Overloaded).Message, "cannot store the file")
	require.NotContains(t, a.Body.String(), folder)
	require.NotEmpty(t, a.Header().Get("Retry-After"))
	require.Contains(t, s.log.String(), "/missing", "the log has the cause")
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
		text, ok := strings.CutPrefix(a.Body.String(), "\uFEFF")
		require.True(t, ok, "a byte order mark")
		records, err := csv.NewReader(strings.NewReader(text)).ReadAll()
		require.NoError(t, err)
		return records
	}
	require.Equal(t, []string{"2", "+79991234567", "", "", "", "", ""}, result()[1], "not processed yet")
	s.runImports()
	done := s.getImport(path)
	require.Equal(t, "done", done.Phase)
	require.Equal(t, Counts{Created: 1, Exists: 1, Conflict: 1, Invalid: 1}, done.Counts)
	require.Equal(t, 100, done.Percent)
	require.NotNil(t, done.FinishedAt)
	rows := result()
	require.Equal(t, []string{"row", "phone", "user_groups", "result", "code", "column", "user_id"}, rows[0])
	require.Equal(t, []string{"2", "+79991234567", "", "exists", "", ""}, rows[1][:6])
	require.Equal(t, []string{"3", "+7 999 000-00-01", "client", "created", "", ""}, rows[2][:6])
	require.Len(t, s.user(rows[2][6]).Groups, 1)
	require.Equal(t, []string{"4", "'=cmd|' /C calc'!A0", "'-2+3,client", "invalid"}, rows[3][:4])
	require.Equal(t, "phone", rows[3][5])
	require.Equal(t, []string{"5", "8 999 000 00 01", "", "conflict", "duplicate", "phone", ""}, rows[4])

	// on_conflict error: nothing is written.
	a = s.upload("?on_conflict=error", "users.csv", "phone\n+79991234567\n+79990000009\n", "Prefer", "respond-async").ok(http.StatusAccepted, &job)
	require.Equal(t, "failed", job.Phase)
	require.Equal(t, "IDENTIFIER_TAKEN", job.ErrorCode)
	require.NotEmpty(t, job.ErrorMessage)
	path = a.Header().Get("Location")
	require.Equal(t, []string{"3", "+79990000009", "", "", "", "", ""}, result()[2])

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

// The result of an import can be uploaded again as it is, whatever its separator: its other columns are
// ignored, and its texts are those of the first upload.
func TestImportResult_CanBeUploadedAgain(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.createIvan()
	group := func(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }
	file := "phone,user_groups\n" +
		"+79990000001,client\n" +
		"\"x;=1+2;\",client\n" +
		"+79990000003," + group("-2+3|=x\t@y\n=z; =w") + "\n" +
		"'=1,\uFEFF=1\n" +
		"＝1," + group(`say "=1"`) + "\n" +
		"+79990000006," + group("client,driver") + "\n"
	fetch := func(content, separator string) (result string, rows [][]string) {
		a := s.upload("", "users.csv", content, "Prefer", "respond-async").ok(http.StatusAccepted, nil)
		s.runImports()
		result = s.call(http.MethodGet, a.Header().Get("Location")+"/result?sep="+separator, "").ok(http.StatusOK, nil).Body.String()
		reader := csv.NewReader(strings.NewReader(strings.TrimPrefix(result, "\uFEFF")))
		reader.Comma = map[string]rune{",": ',', "%3B": ';', ";": ';', "tab": '\t', "%09": '\t'}[separator]
		rows, err := reader.ReadAll()
		require.NoError(t, err)
		require.Len(t, rows, 7)
		return result, rows
	}
	first, want := fetch(file, ",")
	require.Equal(t, "x;'=1+2;", want[2][1])
	require.Equal(t, "'-2+3|'=x\t'@y\n'=z;' =w", want[3][2])
	for line := range strings.Lines(first) {
		require.True(t, strings.HasPrefix(strings.TrimPrefix(line, "\uFEFF"), `"`) || strings.HasPrefix(line, "'=z"), "every text is quoted: %q", line)
	}
	again := first
	for _, separator := range []string{",", "%3B", ";", "tab", "%09"} {
		var rows [][]string
		again, rows = fetch(again, separator)
		for i := range rows {
			require.Equal(t, want[i][1:3], rows[i][1:3], "%s: row %d", separator, i)
		}
		require.Equal(t, "exists", rows[1][3])
		require.Equal(t, "exists", rows[6][3])
	}
	s.call(http.MethodGet, "/accounts/imports/"+absentID+"/result?sep=x", "").problem(errcode.Validation)

	// Only a result file may have these columns.
	s.upload("", "users.csv", "phone,user_groups,row\n+79990000001,,1\n").problem(errcode.FileUpload)
	s.upload("", "users.csv", "phone,result,extra\n+79990000001,,1\n").problem(errcode.FileUpload)
	s.upload("", "users.csv", "phone,user_groups\n'+79990000009,\n").ok(http.StatusOK, nil)
}

func TestCancelImport(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	var job Import
	path := s.upload("", "users.csv", "phone\n+79990000001\n", "Prefer", "respond-async").ok(http.StatusAccepted, &job).Header().Get("Location")
	for range 2 {
		a := s.call(http.MethodDelete, path, "").ok(http.StatusNoContent, nil)
		require.Empty(t, a.Body.String())
	}
	s.runImports()
	cancelled := s.getImport(path)
	require.Equal(t, "cancelled", cancelled.Phase)
	require.Zero(t, cancelled.Done)
	require.NotNil(t, cancelled.FinishedAt)
	s.call(http.MethodGet, "/accounts/users/by-identifier?identifier=+79990000001", "").problem(errcode.NotFound)

	path = s.upload("", "users.csv", "phone\n+79990000001\n", "Prefer", "respond-async").ok(http.StatusAccepted, &job).Header().Get("Location")
	s.runImports()
	s.call(http.MethodDelete, path, "").ok(http.StatusNoContent, nil)
	require.Equal(t, "done", s.getImport(path).Phase, "a finished import is left as it is")

	p := s.call(http.MethodDelete, "/accounts/imports/"+absentID, "").problem(errcode.NotFound)
	require.Equal(t, ProblemDetails{Entity: "Import", ID: absentID}, p.Details)
	s.call(http.MethodDelete, "/accounts/imports/1", "").problem(errcode.Validation)
	s.auth = bearer(t, testSubject, "accounts:read")
	s.call(http.MethodDelete, path, "").problem(errcode.Forbidden)
}

// stalledUpload sends a request up to its last byte but one, and returns when its slot is taken.
func (s *stack) stalledUpload(server, authorization string, size int) net.Conn {
	s.t.Helper()
	body, contentType := form(s.t, [3]string{"file", "users.csv", strings.Repeat("x", size)})
	conn, err := net.Dial("tcp", strings.TrimPrefix(server, "http://"))
	require.NoError(s.t, err)
	s.t.Cleanup(func() { _ = conn.Close() })
	before := s.uploads.running()
	_, err = fmt.Fprintf(conn, "POST /accounts/users/bulk/upload HTTP/1.1\r\nHost: x\r\nAuthorization: %s\r\nContent-Type: %s\r\n"+
		"Content-Length: %d\r\n\r\n%s", authorization, contentType, len(body), body[:len(body)-1])
	require.NoError(s.t, err)
	require.Eventually(s.t, func() bool { return s.uploads.running() > before }, 10*time.Second, time.Millisecond)
	return conn
}

func (s *uploadSlots) running() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.uploads
}

// Clients that stall take their slots, and no more disk: others are refused at once, and can upload when
// a slot is free.
func TestUpload_StalledClientsTakeOnlyTheirSlots(t *testing.T) {
	t.Parallel()
	s := newStackWith(t, func(c *Config) { c.MaxUploads = 3 })
	server := s.listen()
	other := bearer(t, absentID, "accounts:write")
	first := s.stalledUpload(server, s.auth, 1000)
	s.stalledUpload(server, s.auth, 1000)

	a := s.upload("", "users.csv", "phone\n+79990000001\n")
	require.Contains(t, a.problem(errcode.RateLimited).Message, "this token")
	s.upload("", "users.csv", "phone\n+79990000001\n", "Authorization", other).ok(http.StatusOK, nil)
	s.stalledUpload(server, other, 1000)
	third := bearer(t, "0199a1b2-0000-7000-8000-0000000000aa", "accounts:write")
	a = s.upload("", "users.csv", "phone\n+79990000001\n", "Authorization", third)
	a.problem(errcode.Overloaded)
	require.Equal(t, "5", a.Header().Get("Retry-After"))

	require.NoError(t, first.Close())
	require.Eventually(t, func() bool { return s.uploads.running() == 2 }, 10*time.Second, time.Millisecond)
	s.upload("", "users.csv", "phone\n+79990000001\n", "Authorization", third).ok(http.StatusOK, nil)
	require.Equal(t, 2, s.uploads.running())
}

func TestUploadSlots_LimitTheBytes(t *testing.T) {
	t.Parallel()
	s := newUploadSlots(10, 100)
	release, err := s.take("a", 60)
	require.NoError(t, err)
	_, err = s.take("b", 50)
	require.Equal(t, errcode.Overloaded, errcode.Of(err))
	last, err := s.take("b", 40)
	require.NoError(t, err)
	release()
	last()
	require.Zero(t, s.uploads)
	require.Zero(t, s.bytes)
	require.Empty(t, s.subjects)
}

func TestSlowRoute_HandlerHasTimeAfterItsBody(t *testing.T) {
	t.Parallel()
	require.Greater(t, (&route{slow: true}).timeout(), slowBodyTimeout)
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
