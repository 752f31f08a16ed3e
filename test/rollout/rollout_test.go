package rollout

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/db"
	"github.com/payment-services/accounts/internal/localservers"
	"github.com/payment-services/accounts/internal/pgtest"
)

const (
	// waitLimit bounds each wait for a server; only a defect makes one last so long.
	waitLimit = 30 * time.Second
	pollTick  = 20 * time.Millisecond
	// stopGrace is more than a server takes to drain.
	stopGrace = 15 * time.Second

	secret = "0123456789abcdef0123456789abcdef"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// database is one schema, with Redis servers of its own.
type database struct {
	*pgtest.DB
	urls localservers.URLs
}

// migratedBy is a new database with the schema of one release.
func migratedBy(t *testing.T, r release) database {
	t.Helper()
	d := pgtest.Shared(t)
	name := d.Name + "_old"
	to := func(text string) string {
		u, err := url.Parse(text)
		require.NoError(t, err)
		u.Path = "/" + name
		return u.String()
	}
	admin := connect(t, d.SuperURL)
	execute(t, admin, "CREATE DATABASE "+name+" TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C.UTF-8'")
	t.Cleanup(func() {
		_, err := admin.Exec(context.Background(), "DROP DATABASE "+name+" WITH (FORCE)")
		require.NoError(t, err)
	})
	urls := localservers.URLs{
		WriteURL: to(d.WriteURL), ReadURL: to(d.ReadURL), MigrateURL: to(d.MigrateURL), SuperURL: to(d.SuperURL),
	}
	require.NoError(t, db.Bootstrap(t.Context(), connect(t, urls.SuperURL), db.Passwords{}))
	old := database{d, urls}
	old.migrate(t, r)
	return old
}

// migrate applies the migrations of a release, and the standby has them.
func (d database) migrate(t *testing.T, r release) {
	t.Helper()
	cmd := exec.Command(r.path, "migrate")
	cmd.Dir = t.TempDir()
	cmd.Env = []string{"DATABASE_MIGRATE_URL=" + d.urls.MigrateURL}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.NoError(t, d.WaitForReplay(t.Context()))
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func execute(t *testing.T, conn *pgx.Conn, sql string) {
	t.Helper()
	_, err := conn.Exec(t.Context(), sql)
	require.NoError(t, err)
}

// server is one running process.
type server struct {
	t     *testing.T
	name  string
	url   string
	token string
	proc  *localservers.Process
}

// start runs a release on a database and returns when it listens.
func start(t *testing.T, r release, d database) *server {
	t.Helper()
	dir := t.TempDir()
	env := []string{
		"DATABASE_WRITE_URL=" + d.urls.WriteURL, "DATABASE_READ_URL=" + d.urls.ReadURL,
		"REDIS_URL=" + d.Redis().URL, "AUTH_REDIS_URL=" + d.AuthRedis().URL,
		"JWT_SECRET_KEY=" + secret, "HTTP_ADDR=127.0.0.1:0", "ADMIN_ADDR=127.0.0.1:0",
	}
	sign := exec.Command(r.path, "token")
	sign.Env, sign.Dir = env, dir
	token, err := sign.Output()
	require.NoError(t, err)

	cmd := exec.Command(r.path)
	cmd.Env, cmd.Dir = env, dir
	log := filepath.Join(dir, "server.log")
	proc, err := localservers.StartProcess(r.name, cmd, log, syscall.SIGKILL)
	require.NoError(t, err)
	s := &server{t: t, name: r.name, token: strings.TrimSpace(string(token)), proc: proc}
	t.Cleanup(func() { require.NoError(t, proc.Stop(syscall.SIGTERM, stopGrace)) })
	require.Eventually(t, func() bool {
		s.url = listening(t, log)
		return s.url != ""
	}, waitLimit, pollTick, "%s does not listen", r.name)
	return s
}

func listening(t *testing.T, log string) string {
	text, err := os.ReadFile(log)
	require.NoError(t, err)
	for line := range bytes.Lines(text) {
		var entry struct{ Msg, HTTP string }
		if json.Unmarshal(line, &entry) == nil && entry.Msg == "listening" {
			return "http://" + entry.HTTP
		}
	}
	return ""
}

// call sends one request and decodes the answer, which must have the status.
func (s *server) call(status int, method, path, body string, answer any) {
	s.t.Helper()
	got, text := s.send(method, path, body)
	require.Equal(s.t, status, got, "%s: %s %s: %s", s.name, method, path, text)
	if answer != nil {
		require.NoError(s.t, json.Unmarshal(text, answer))
	}
}

func (s *server) send(method, path, body string) (int, []byte) {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), method, s.url+path, strings.NewReader(body))
	require.NoError(s.t, err)
	r.Header.Set("Authorization", "Bearer "+s.token)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(r)
	require.NoError(s.t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(s.t, err)
	return resp.StatusCode, text
}

// health is the answer of /readyz.
type health struct {
	Status string
	Checks map[string]struct {
		OK, Degraded  bool
		Value, Detail string
	}
}

// settled is the answer of /readyz once the process has seen its servers.
func (s *server) settled() (status int, h health) {
	s.t.Helper()
	require.Eventually(s.t, func() bool {
		var text []byte
		status, text = s.send(http.MethodGet, "/readyz", "")
		return json.Unmarshal(text, &h) == nil && h.Checks["write"].OK && h.Checks["replica"].OK && h.Checks["redis"].OK
	}, waitLimit, pollTick, "%s", s.name)
	return status, h
}

// user is what the answers about a user have in common in every release.
type user struct {
	ID        string
	MatchedBy string `json:"matched_by"`
	Profile   map[string]any
	Version   int64
}

// serve makes writer create and change a user and a group, and reader find them: by the same or by
// another process.
func serve(t *testing.T, writer, reader *server, number int) {
	t.Helper()
	phone, login := fmt.Sprintf("+7999123%04d", number), fmt.Sprintf("rollout-%d", number)
	var group struct{ ID string }
	writer.call(http.StatusCreated, http.MethodPost, "/accounts/user-groups", `{"name": "group `+login+`"}`, &group)
	var created user
	writer.call(http.StatusCreated, http.MethodPost, "/accounts/users", `{"profile": {"name": "A"}, "groups": ["group `+login+`"],
		"contacts": [{"type": "phone", "value": "`+phone+`"}, {"type": "second_login", "value": "`+login+`"}]}`, &created)

	for _, identifier := range []string{phone, login, created.ID} {
		var found user
		reader.call(http.StatusOK, http.MethodGet, "/accounts/users/by-identifier?identifier="+url.QueryEscape(identifier), "", &found)
		require.Equal(t, created.ID, found.ID)
		require.NotEmpty(t, found.MatchedBy)
	}
	var patched, read user
	writer.call(http.StatusOK, http.MethodPatch, "/accounts/users/"+created.ID, `{"profile": {"name": "B"}}`, &patched)
	require.Equal(t, "B", patched.Profile["name"])
	reader.call(http.StatusOK, http.MethodGet, "/accounts/users/"+created.ID, "", &read)
	require.Equal(t, patched, read, "the cache must not show what was before")

	var page struct{ Items []user }
	reader.call(http.StatusOK, http.MethodGet, "/accounts/users?page=1&size=100", "", &page)
	require.NotEmpty(t, page.Items)
	reader.call(http.StatusOK, http.MethodGet, "/accounts/users?limit=1", "", &page)
	require.Len(t, page.Items, 1)
	for _, path := range []string{
		"/accounts/user-groups", "/accounts/contact-types", "/accounts/contacts/user/" + created.ID,
		"/accounts/user-group-memberships?user_id=" + created.ID, "/accounts/user-group-memberships?group_id=" + group.ID,
	} {
		reader.call(http.StatusOK, http.MethodGet, path, "", nil)
	}
	var found struct{ Results []json.RawMessage }
	reader.call(http.StatusOK, http.MethodPost, "/accounts/users/lookup", `{"identifiers": ["`+phone+`", "nobody-of-that-name"]}`, &found)
}

// The migrations of this release come first, and the processes of the one before go on, then share the
// schema and the cache with new ones.
func TestPreviousReleaseOnTheNewSchema(t *testing.T) {
	t.Parallel()
	pgtest.NeedServers(t)
	before, now := previous(t), current(t)
	d := migratedBy(t, before)
	old := start(t, before, d)
	status, h := old.settled()
	require.Equal(t, http.StatusOK, status, h)
	serve(t, old, old, 1)

	// While it runs, as in a rollout: its connections and prepared statements are those of the old schema.
	d.migrate(t, now)
	serve(t, old, old, 2)
	status, h = old.settled()
	require.Equal(t, http.StatusOK, status, h)
	require.Equal(t, "ok", h.Status, h)

	fresh := start(t, now, d)
	status, h = fresh.settled()
	require.Equal(t, http.StatusOK, status, h)
	require.Equal(t, "ok", h.Status, h)
	serve(t, fresh, old, 3)
	serve(t, old, fresh, 4)
	restarted := start(t, before, d)
	status, h = restarted.settled()
	require.Equal(t, http.StatusOK, status, h)
	serve(t, restarted, restarted, 5)
}

// A process of this release that comes before its migrations serves if it needs nothing new. If it
// does, it says so and is not ready; no request ends in an internal error.
func TestThisReleaseOnThePreviousSchema(t *testing.T) {
	t.Parallel()
	pgtest.NeedServers(t)
	before, now := previous(t), current(t)
	d := migratedBy(t, before)
	reads, writes := db.NeededFunctions()
	super := connect(t, d.urls.SuperURL)
	rows, err := super.Query(t.Context(), `SELECT s FROM unnest($1::text[]) AS s WHERE to_regprocedure(s) IS NULL`, append(reads, writes...))
	require.NoError(t, err)
	absent, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)

	s := start(t, now, d)
	status, h := s.settled()
	if len(absent) == 0 {
		t.Logf("this release needs nothing that %s does not have", before.name)
		require.Equal(t, http.StatusOK, status, h)
		serve(t, s, s, 1)
		return
	}
	t.Logf("this release needs %s, which %s does not have", absent, before.name)
	require.Equal(t, http.StatusServiceUnavailable, status, h)
	require.Equal(t, "unavailable", h.Status)
	require.False(t, h.Checks["schema"].OK)
	require.False(t, h.Checks["schema"].Degraded)
	named := false
	for _, signature := range absent {
		named = named || strings.Contains(h.Checks["schema"].Detail, signature)
	}
	require.True(t, named, h.Checks["schema"].Detail)
	for _, path := range []string{
		"/accounts/users?limit=1", "/accounts/users/by-identifier?identifier=nobody-of-that-name", "/accounts/user-groups",
		"/accounts/contact-types",
	} {
		status, text := s.send(http.MethodGet, path, "")
		require.NotEqual(t, http.StatusInternalServerError, status, "%s: %s", path, text)
	}

	// The migrations make it ready; it needs no restart.
	d.migrate(t, now)
	status, h = s.settled()
	require.Equal(t, http.StatusOK, status, h)
	serve(t, s, s, 1)
}
