package pgtest

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/localservers"
)

const (
	// waitLimit bounds each wait of these tests; only a defect makes one last so long.
	waitLimit = 20 * time.Second
	waitTick  = 5 * time.Millisecond
)

func TestMain(m *testing.M) { Main(m) }

func TestSharedDatabasesAreSeparateAndOnTheStandby(t *testing.T) {
	t.Parallel()
	one, two := Shared(t), Shared(t)
	require.NotEqual(t, one.Name, two.Name)

	execute(t, one.SuperURL, "CREATE TABLE public.only_here (); GRANT SELECT ON public.only_here TO accounts_reader")
	require.NoError(t, one.WaitForReplay(t.Context()))
	require.Equal(t, "t", value(t, one.ReadURL, "SELECT to_regclass('public.only_here') IS NOT NULL"))
	require.Equal(t, "t", value(t, two.ReadURL, "SELECT to_regclass('public.only_here') IS NULL"))

	require.Equal(t, "t", value(t, one.ReadURL, "SELECT pg_is_in_recovery()"))
	for _, url := range []string{one.WriteURL, one.PrimaryReadURL, one.MigrateURL, one.SuperURL, one.FailoverWriteURL} {
		require.Equal(t, "f", value(t, url, "SELECT pg_is_in_recovery()"))
	}
	require.Equal(t, "t", value(t, one.FailoverReadURL, "SELECT pg_is_in_recovery()"))
	require.Equal(t, "accounts_owner", value(t, one.MigrateURL, "SELECT current_user"))
	require.Equal(t, "on", value(t, one.WriteURL, "SHOW synchronous_commit"))
	require.Equal(t, "t", value(t, one.SuperURL,
		"SELECT datcollate = 'C.UTF-8' AND pg_encoding_to_char(encoding) = 'UTF8' FROM pg_database WHERE datname = current_database()"))
}

func TestSharedDropsItsDatabase(t *testing.T) {
	t.Parallel()
	witness := Shared(t)
	var name string
	t.Run("owner", func(t *testing.T) {
		name = Shared(t).Name
		require.Equal(t, "1", value(t, witness.SuperURL, "SELECT count(*) FROM pg_database WHERE datname = '"+name+"'"))
	})
	require.Equal(t, "0", value(t, witness.SuperURL, "SELECT count(*) FROM pg_database WHERE datname = '"+name+"'"))
}

func TestPauseAndResumeReplay(t *testing.T) {
	t.Parallel()
	s := Private(t)
	ctx := t.Context()
	require.NoError(t, s.Cluster.PauseReplay(ctx))
	execute(t, s.SuperURL, "CREATE TABLE public.later ()")
	short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, s.WaitForReplay(short), context.DeadlineExceeded)
	require.Equal(t, "t", value(t, s.ReadURL, "SELECT to_regclass('public.later') IS NULL"))

	// A new database is handed out when the standby has it, not before.
	long, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	require.ErrorIs(t, s.Cluster.CloneDatabase(long, "unseen", templateDatabase), context.DeadlineExceeded)

	require.NoError(t, s.Cluster.ResumeReplay(ctx))
	require.NoError(t, s.WaitForReplay(ctx))
	require.Equal(t, "t", value(t, s.ReadURL, "SELECT to_regclass('public.later') IS NOT NULL"))
}

func TestKilledPrimaryAndPromotedStandby(t *testing.T) {
	t.Parallel()
	s := Private(t)
	execute(t, s.SuperURL, "CREATE TABLE public.acked ()")
	require.NoError(t, s.WaitForReplay(t.Context()))
	ended := s.Cluster.Primary.Done()
	require.NoError(t, s.Cluster.Primary.Kill())
	<-ended
	_, err := pgx.Connect(t.Context(), s.WriteURL)
	require.ErrorContains(t, err, "connection refused")

	require.NoError(t, s.Cluster.Promote(t.Context()))
	require.Equal(t, "f", value(t, s.ReadURL, "SELECT pg_is_in_recovery()"))
	require.Equal(t, "2", value(t, s.FailoverWriteURL, "SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 8, 1)"))

	// The old primary returns on its port and its timeline, with what it had acknowledged.
	require.NoError(t, s.Cluster.Primary.Start(t.Context()))
	require.Equal(t, "t", value(t, s.WriteURL, "SELECT to_regclass('public.acked') IS NOT NULL"))

	// A cluster that is started anew gets a new standby.
	require.NoError(t, s.Cluster.Stop())
	require.NoError(t, s.Cluster.Start(t.Context()))
	require.Equal(t, "t", value(t, s.ReadURL, "SELECT pg_is_in_recovery()"))
}

func TestStandbyCatchesUp(t *testing.T) {
	t.Parallel()
	s := Private(t)
	require.NoError(t, s.Cluster.Standby.Stop())
	execute(t, s.SuperURL, "CREATE TABLE public.missed ()")
	require.NoError(t, s.Cluster.Standby.Start(t.Context()))
	require.NoError(t, s.WaitForReplay(t.Context()))
	require.Equal(t, "t", value(t, s.ReadURL, "SELECT to_regclass('public.missed') IS NOT NULL"))
}

func TestFrozenServerAnswersNothingUntilThawed(t *testing.T) {
	t.Parallel()
	s := Private(t)
	conn := connect(t, s.WriteURL)
	require.NoError(t, s.Cluster.Primary.Freeze())
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, conn.Ping(ctx), context.DeadlineExceeded)
	require.NoError(t, s.Cluster.Primary.Thaw())
	require.Equal(t, "1", value(t, s.WriteURL, "SELECT 1"))

	// A frozen server can be stopped too.
	require.NoError(t, s.Cluster.Primary.Freeze())
	require.NoError(t, s.Cluster.Primary.Stop())
}

func TestRedis(t *testing.T) {
	t.Parallel()
	db := Shared(t)
	require.Same(t, db.Redis(), db.Redis())
	for _, test := range []struct {
		server      *localservers.Redis
		policy      string
		afterReturn int64 // of the one key
	}{
		{db.Redis(), "volatile-lfu", 0},
		{db.AuthRedis(), "noeviction", 1},
	} {
		options, err := redis.ParseURL(test.server.URL)
		require.NoError(t, err)
		options.MaxRetries, options.DialerRetries = -1, 1
		client := redis.NewClient(options)
		defer client.Close()
		policy, err := client.ConfigGet(t.Context(), "maxmemory-policy").Result()
		require.NoError(t, err)
		require.Equal(t, test.policy, policy["maxmemory-policy"])
		require.NoError(t, client.Set(t.Context(), "key", 1, 0).Err())
		before := runID(t, client)

		require.NoError(t, test.server.Freeze())
		short, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		require.Error(t, client.Ping(short).Err())
		require.NoError(t, test.server.Thaw())
		require.Equal(t, before, runID(t, client))

		require.NoError(t, test.server.Kill())
		require.Error(t, client.Ping(t.Context()).Err())
		require.NoError(t, test.server.Start(t.Context()))
		require.NotEqual(t, before, runID(t, client))

		require.NoError(t, client.Set(t.Context(), "key", 1, 0).Err())
		require.NoError(t, test.server.Restart(t.Context()))
		require.Equal(t, test.afterReturn, client.Exists(t.Context(), "key").Val())
	}
}

func TestProxy(t *testing.T) {
	t.Parallel()
	db := Shared(t)
	p := NewProxy(t, db.cluster.Primary.Address())
	url, err := p.URL(db.WriteURL)
	require.NoError(t, err)
	conn := connect(t, url)

	p.Stall()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, conn.Ping(ctx), context.DeadlineExceeded)
	p.Resume()
	conn = connect(t, url)
	require.NoError(t, conn.Ping(t.Context()))

	p.Cut()
	require.Error(t, conn.Ping(t.Context()))
	_, err = net.Dial("tcp", p.Address())
	require.ErrorContains(t, err, "connection refused")
	require.Equal(t, "1", value(t, db.WriteURL, "SELECT 1"))
	require.NoError(t, p.Heal())
	require.Equal(t, "1", value(t, url, "SELECT 1"))
}

func TestClosedClusterLeavesNoProcess(t *testing.T) {
	t.Parallel()
	NeedServers(t)
	run, err := getRun(t.Context())
	require.NoError(t, err)
	cluster, _, dir, err := run.startCluster(t.Context(), "closed")
	require.NoError(t, err)
	require.NotEmpty(t, processesOf(t, dir))
	require.NoError(t, cluster.Close())
	require.Empty(t, processesOf(t, dir))
	require.NoError(t, os.RemoveAll(dir))
}

// child makes TestKilledProcess the process that gets killed.
var child = flag.Bool("pgtest.child", false, "start servers, freeze one, and wait to be killed")

func TestKilledProcess(t *testing.T) {
	t.Parallel()
	NeedServers(t)
	if *child {
		s := Private(t)
		s.Redis()
		require.NoError(t, s.Cluster.Standby.Freeze())
		fmt.Println("started", s.run.dir)
		<-t.Context().Done()
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestKilledProcess$", "-pgtest.child")
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	var dir string
	for lines := bufio.NewScanner(out); dir == "" && lines.Scan(); {
		dir, _ = strings.CutPrefix(lines.Text(), "started ")
	}
	require.NotEmpty(t, processesOf(t, dir))
	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait()
	require.Eventually(t, func() bool { return len(processesOf(t, dir)) == 0 }, waitLimit, waitTick)

	// Its files are the next run's to remove, when they are old enough.
	require.NoError(t, sweepRun(t.Context(), dir, keepLife))
	require.DirExists(t, dir)
	old := time.Now().Add(-2 * runGrace)
	require.NoError(t, os.Chtimes(dir, old, old))
	require.NoError(t, sweepRun(t.Context(), dir, keepLife))
	require.NoDirExists(t, dir)
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.PgConn().Conn().Close() })
	return conn
}

func execute(t *testing.T, url, sql string) {
	t.Helper()
	_, err := connect(t, url).Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol)
	require.NoError(t, err)
}

func value(t *testing.T, url, sql string) string {
	t.Helper()
	result := connect(t, url).PgConn().ExecParams(t.Context(), sql, nil, nil, nil, nil).Read()
	require.NoError(t, result.Err)
	return string(result.Rows[0][0])
}

func runID(t *testing.T, client *redis.Client) string {
	t.Helper()
	info, err := client.InfoMap(t.Context(), "server").Result()
	require.NoError(t, err)
	return info["Server"]["run_id"]
}

// processesOf lists the processes that work in a directory or below.
func processesOf(t *testing.T, dir string) []string {
	t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/cwd")
	require.NoError(t, err)
	var found []string
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && strings.HasPrefix(target, dir+"/") {
			found = append(found, link)
		}
	}
	return found
}
