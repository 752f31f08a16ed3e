package history

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/auth"
	"github.com/payment-services/accounts/internal/dbgen/read"
	"github.com/payment-services/accounts/internal/localservers"
	"github.com/payment-services/accounts/internal/pgtest"
)

const (
	servers = 2
	users   = 20
	// Two users share a group and phones, which move between them.
	pairs = users / 2

	// startLimit bounds the start of a process, and waitLimit whatever else must happen at once; only
	// a defect makes one last so long.
	startLimit = 30 * time.Second
	waitLimit  = 20 * time.Second
	// startPoll paces the wait for a process to say where it listens.
	startPoll = 10 * time.Millisecond
	// serverGrace is longer than a server's own drain.
	serverGrace = 20 * time.Second
	// requestLimit bounds one request: the service answers within 5 s, and may be stopped meanwhile.
	requestLimit = 10 * time.Second
)

const secret = "history-history-history-history-"

// world is one round's servers, and the users in them.
type world struct {
	stack   *pgtest.Stack
	redis   *redis.Client // straight to the server
	wal     *pgtest.Proxy // between the two PostgreSQL servers
	servers [servers]*server
	started time.Time

	ids     [users]string
	groups  [pairs]string
	initial [users]user
	names   [pairs]string

	mu     sync.Mutex
	faults []fault
}

// server is one process of the service, and the only ways from it to what it needs.
type server struct {
	number                  int
	binary, dir             string
	env                     []string
	redis, primary, standby *pgtest.Proxy
	proc                    *localservers.Process
	url                     atomic.Pointer[string] // of the running process
}

// quiet is what the test's own Redis client logs to: that the server is down is no news here.
type quiet struct{}

func (quiet) Printf(context.Context, string, ...any) {}

// newWorld starts everything and creates the users, through the service.
func newWorld(t *testing.T, binary string, env ...string) *world {
	t.Helper()
	stack := pgtest.Private(t)
	w := &world{stack: stack, started: time.Now()}
	options, err := redis.ParseURL(stack.Redis().URL)
	require.NoError(t, err)
	w.redis = redis.NewClient(options)
	t.Cleanup(func() { require.NoError(t, w.redis.Close()) })
	w.wal = pgtest.NewProxy(t, stack.Cluster.Primary.Address())
	require.NoError(t, w.replicateThrough(t.Context(), w.wal))
	for i := range w.servers {
		w.servers[i] = newServer(t, w, i, binary, env)
	}
	var starting sync.WaitGroup
	failed := make([]error, servers)
	for i, s := range w.servers {
		starting.Go(func() { failed[i] = s.start(t.Context()) })
	}
	starting.Wait()
	require.NoError(t, errors.Join(failed...))
	w.populate(t)
	return w
}

func newServer(t *testing.T, w *world, number int, binary string, env []string) *server {
	t.Helper()
	cluster, db := w.stack.Cluster, w.stack.DB
	s := &server{
		number: number, binary: binary, dir: t.TempDir(),
		redis:   pgtest.NewProxy(t, db.Redis().Address()),
		primary: pgtest.NewProxy(t, cluster.Primary.Address()),
		standby: pgtest.NewProxy(t, cluster.Standby.Address()),
	}
	through := strings.NewReplacer(
		cluster.Primary.Address(), s.primary.Address(), cluster.Standby.Address(), s.standby.Address())
	redisURL, err := s.redis.URL(db.Redis().URL)
	require.NoError(t, err)
	s.env = append([]string{
		"DATABASE_WRITE_URL=" + through.Replace(db.FailoverWriteURL),
		"DATABASE_READ_URL=" + through.Replace(db.FailoverReadURL),
		"REDIS_URL=" + redisURL,
		"AUTH_REDIS_URL=" + db.AuthRedis().URL,
		"JWT_SECRET_KEY=" + secret,
		"HTTP_ADDR=127.0.0.1:0", "ADMIN_ADDR=127.0.0.1:0",
	}, env...)
	t.Cleanup(func() {
		if s.proc != nil {
			require.NoError(t, s.proc.Kill())
		}
	})
	return s
}

// start starts the process and returns when it is ready.
func (s *server) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	cmd := exec.Command(s.binary)
	cmd.Env, cmd.Dir = s.env, s.dir
	logStart := 0
	if text, err := os.ReadFile(s.log()); err == nil {
		logStart = len(text)
	}
	proc, err := localservers.StartProcess(fmt.Sprintf("server %d", s.number), cmd, s.log(), syscall.SIGKILL)
	if err != nil {
		return err
	}
	s.proc = proc
	for {
		if address := listening(s.log(), logStart); address != "" {
			url := "http://" + address
			resp, err := http.Get(url + "/readyz")
			if err == nil {
				err = resp.Body.Close()
			}
			if err == nil && resp.StatusCode == http.StatusOK {
				s.url.Store(&url)
				return nil
			}
		}
		select {
		case <-proc.Done():
			return proc.Failure("ended while starting")
		case <-ctx.Done():
			return proc.Failure("is not ready")
		case <-time.After(startPoll):
		}
	}
}

func (s *server) log() string { return filepath.Join(s.dir, "server.log") }

// listening returns the address that the log names after an offset, or nothing yet.
func listening(path string, from int) string {
	text, err := os.ReadFile(path)
	if err != nil || len(text) < from {
		return ""
	}
	for line := range bytes.Lines(text[from:]) {
		var entry struct{ Msg, HTTP string }
		if json.Unmarshal(line, &entry) == nil && entry.Msg == "listening" {
			return entry.HTTP
		}
	}
	return ""
}

// raced returns the first report of the race detector in a server's log, if it was built with it.
func (s *server) raced() (string, error) {
	file, err := os.Open(s.log())
	if err != nil {
		return "", err
	}
	defer file.Close()
	var report []string
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if strings.Contains(lines.Text(), "WARNING: DATA RACE") || len(report) > 0 {
			report = append(report, lines.Text())
		}
		if len(report) == 40 {
			break
		}
	}
	return strings.Join(report, "\n"), nil
}

func (w *world) now() time.Duration { return time.Since(w.started) }

func (w *world) userOf(id string) int { return slices.Index(w.ids[:], id) }

// standbyURL returns the superuser's connection string of the standby.
func (w *world) standbyURL() string {
	c := w.stack.Cluster
	return strings.Replace(w.stack.SuperURL, c.Primary.Address(), c.Standby.Address(), 1)
}

// replicateThrough makes the standby receive through a proxy.
func (w *world) replicateThrough(ctx context.Context, proxy *pgtest.Proxy) error {
	ctx, cancel := context.WithTimeout(ctx, waitLimit)
	defer cancel()
	conn, err := pgx.Connect(ctx, w.standbyURL())
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	primary := w.stack.Cluster.Primary.Address()
	config := strings.Replace(w.stack.SuperURL, primary, proxy.Address(), 1)
	for _, statement := range []string{
		"ALTER SYSTEM SET primary_conninfo = '" + config + "'", "SELECT pg_reload_conf()",
	} {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return err
		}
	}
	_, port, _ := strings.Cut(proxy.Address(), ":")
	for streams := false; !streams; {
		err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_stat_wal_receiver "+
			"WHERE status = 'streaming' AND sender_port = $1::text::int)", port).Scan(&streams)
		if err != nil {
			return fmt.Errorf("wait for the standby to stream through the proxy: %w", err)
		}
		if !wait(ctx, startPoll) {
			return errors.New("the standby does not stream through the proxy")
		}
	}
	return nil
}

// populate creates the users and groups.
func (w *world) populate(t *testing.T) {
	c := newClient(w, -1, 0)
	must := func(method, path string, body, answer any) {
		t.Helper()
		var e event
		text := c.send(&e, method, path, body)
		require.Equal(t, http.StatusCreated, e.Status, string(text))
		require.NoError(t, json.Unmarshal(text, answer))
	}
	for i := range w.groups {
		w.names[i] = fmt.Sprintf("group %d", i)
		var g named
		must(http.MethodPost, "/accounts/user-groups", map[string]any{"name": w.names[i]}, &g)
		w.groups[i] = g.ID
	}
	for i := range w.ids {
		var d document
		must(http.MethodPost, "/accounts/users", map[string]any{
			"profile": map[string]int{"n": 0}, "groups": []string{w.names[i/2]},
			"contacts": []map[string]string{
				{"type": "email", "value": email(i)},
				{"type": "phone", "value": phone(i/2, i%2)},
				{"type": "second_login", "value": login(i, 0)},
			},
		}, &d)
		w.ids[i], w.initial[i] = d.ID, d.state()
	}
}

// truth returns all users and group names as one PostgreSQL server has them.
func (w *world) truth(ctx context.Context, url string) (state [users]user, names [pairs]string, err error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return state, names, err
	}
	defer conn.Close(ctx)
	queries := read.New(conn)
	for i, id := range w.ids {
		row, err := queries.GetUserDetailV1(ctx, uuid.MustParse(id))
		if err != nil {
			return state, names, fmt.Errorf("user %d: %w", i, err)
		}
		d := document{Version: row.Version}
		if err := errors.Join(json.Unmarshal(row.Profile, &d.Profile),
			json.Unmarshal(row.Groups, &d.Groups), json.Unmarshal(row.Contacts, &d.Contacts)); err != nil {
			return state, names, fmt.Errorf("user %d: %w", i, err)
		}
		state[i] = d.state()
	}
	rows, err := queries.ListUserGroupsV1(ctx)
	for _, row := range rows {
		if i := slices.Index(w.groups[:], row.ID.String()); i >= 0 {
			names[i] = row.Name
		}
	}
	return state, names, err
}

func email(user int) string { return fmt.Sprintf("user%d@example.com", user) }

func login(user, n int) string { return fmt.Sprintf("user_%d_login_%d", user, n) }

// phone returns one of the numbers of a pair.
func phone(pair, n int) string { return fmt.Sprintf("+7903%03d%04d", pair, n) }

func token() (string, error) {
	return auth.Sign([]byte(secret), uuid.NewString(), []string{auth.ScopeRead, auth.ScopeWrite}, 24*time.Hour, "", "")
}
