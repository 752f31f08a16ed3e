package pgtest

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/payment-services/accounts/internal/localservers"
)

const (
	// setupTimeout bounds the making of a test's database, the first of which starts the servers and
	// may wait for another process that builds the template.
	setupTimeout = 3 * time.Minute
	// maxNameBytes of a test's name go into its database's name, of which PostgreSQL keeps 63.
	maxNameBytes = 40
	// adminTimeout bounds one statement of this package.
	adminTimeout = 20 * time.Second
)

// DB is the database of one test: bootstrapped, migrated, empty, on a primary and on a standby that
// has it already. Its Redis servers are the test's own, because the cache protocol uses fixed keys and
// the identity of the server itself.
type DB struct {
	localservers.URLs
	Name string

	t       testing.TB
	run     *testRun
	cluster *localservers.Cluster

	mu    sync.Mutex
	redis map[localservers.RedisKind]*localservers.Redis
}

// Stack is a DB whose servers are the test's own.
type Stack struct {
	*DB
	Cluster *localservers.Cluster
}

// Main runs the tests of a package and then stops what they share: call it from TestMain. Without it
// the servers end with the process all the same, but their files stay until the next run. An error of a
// check, which runs after tests that all passed, fails the run.
func Main(m *testing.M, checks ...func() error) {
	code := m.Run()
	if testing.Short() {
		checks = nil // they are about the tests that -short leaves out
	}
	for _, check := range checks {
		if code != 0 {
			break
		}
		if err := check(); err != nil {
			fmt.Fprintln(os.Stderr, "FAIL:", err)
			code = 1
		}
	}
	currentRun.Lock()
	defer currentRun.Unlock()
	if currentRun.testRun != nil {
		if err := currentRun.close(); err != nil {
			fmt.Fprintln(os.Stderr, "pgtest:", err)
			code = max(code, 1)
		}
	}
	os.Exit(code)
}

// NeedServers skips the test in the short mode (go test -short, make test-fast), which starts no servers.
// Shared and Private call it; so does what starts a server in another way.
func NeedServers(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("needs servers, which -short does not start")
	}
}

// Shared returns a database of the test's own on the servers that this process shares. It is dropped
// with the test, with whatever is still connected, and kept if the test failed.
func Shared(t testing.TB) *DB {
	t.Helper()
	NeedServers(t)
	ctx, cancel := context.WithTimeout(context.Background(), setupTimeout)
	defer cancel()
	run, err := getRun(ctx)
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	cluster, passwords, err := run.sharedCluster(ctx)
	if err != nil {
		t.Fatalf("pgtest: start the shared PostgreSQL servers: %v", err)
	}
	name := databaseName(t.Name())
	if err := cluster.CloneDatabase(ctx, name, templateDatabase); err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	d := &DB{URLs: cluster.URLs(name, passwords), Name: name, t: t, run: run, cluster: cluster}
	t.Cleanup(func() {
		if t.Failed() {
			d.keep()
			return
		}
		if err := cluster.DropDatabase(context.Background(), name); err != nil {
			t.Errorf("pgtest: %v", err)
		}
	})
	return d
}

// Private returns a database on a primary and a standby of the test's own, which it may stop, freeze,
// kill and promote. It takes about a second; all ends with the test.
func Private(t testing.TB) *Stack {
	t.Helper()
	NeedServers(t)
	ctx, cancel := context.WithTimeout(context.Background(), setupTimeout)
	defer cancel()
	run, err := getRun(ctx)
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	cluster, passwords, dir, err := run.startCluster(ctx, "private")
	if err != nil {
		t.Fatalf("pgtest: start private PostgreSQL servers: %v", err)
	}
	const name = "accounts"
	d := &DB{URLs: cluster.URLs(name, passwords), Name: name, t: t, run: run, cluster: cluster}
	t.Cleanup(func() {
		err := cluster.Close()
		if t.Failed() {
			d.keep()
		} else {
			err = errors.Join(err, os.RemoveAll(dir))
		}
		if err != nil {
			t.Errorf("pgtest: %v", err)
		}
	})
	if err := cluster.CloneDatabase(ctx, name, templateDatabase); err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	return &Stack{DB: d, Cluster: cluster}
}

// UncheckedURL returns the connection string of a superuser whose transactions the oracle does not
// check: for fixtures that write rows by hand. The reason is for the reader of the test.
func (d *DB) UncheckedURL(reason string) string {
	return d.SuperURL + "&oracle.off=" + url.QueryEscape(reason)
}

// RemoveOracle removes the oracle from this database, which it returns: for tests about the schema as the
// migrations make it. The reason is for the reader of the test.
func (d *DB) RemoveOracle(reason string) *DB {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), adminTimeout)
	defer cancel()
	conn, err := pgx.Connect(ctx, d.SuperURL)
	if err != nil {
		d.t.Fatalf("pgtest: remove the oracle (%s): %v", reason, err)
	}
	_, err = conn.Exec(ctx, "SET client_min_messages = warning; DROP SCHEMA oracle CASCADE", pgx.QueryExecModeSimpleProtocol)
	if err = errors.Join(err, conn.Close(ctx)); err != nil {
		d.t.Fatalf("pgtest: remove the oracle (%s): %v", reason, err)
	}
	return d
}

// WaitForReplay returns when the standby has everything that the primary has committed.
func (d *DB) WaitForReplay(ctx context.Context) error { return d.cluster.WaitForReplay(ctx) }

// Redis returns the test's cache server, which the first call starts and the end of the test kills. It
// must be called by the test's own goroutine.
func (d *DB) Redis() *localservers.Redis {
	d.t.Helper()
	return d.startRedis(localservers.CacheRedis)
}

// AuthRedis is like Redis for the server of the revocation list.
func (d *DB) AuthRedis() *localservers.Redis {
	d.t.Helper()
	return d.startRedis(localservers.AuthRedis)
}

func (d *DB) startRedis(kind localservers.RedisKind) *localservers.Redis {
	d.t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if r := d.redis[kind]; r != nil {
		return r
	}
	dir, err := d.run.folder(string(kind))
	if err != nil {
		d.t.Fatalf("pgtest: %v", err)
	}
	r, err := localservers.NewRedis(localservers.RedisConfig{Kind: kind, Dir: dir})
	if err != nil {
		d.t.Fatalf("pgtest: %v", err)
	}
	d.t.Cleanup(func() {
		if err := errors.Join(r.Close(), os.RemoveAll(dir)); err != nil {
			d.t.Errorf("pgtest: %v", err)
		}
	})
	if err := r.Start(d.t.Context()); err != nil {
		d.t.Fatalf("pgtest: %v", err)
	}
	if d.redis == nil {
		d.redis = make(map[localservers.RedisKind]*localservers.Redis)
	}
	d.redis[kind] = r
	return r
}

// keep leaves the database for a look at it after the test process has ended.
func (d *DB) keep() {
	d.run.keepFiles(fmt.Sprintf("%s\n  start: %s\n  psql '%s'", d.t.Name(), d.cluster.Primary.StartCommand(), d.SuperURL))
	d.t.Logf("pgtest: kept database %s", d.Name)
}

// databaseName makes a name that is unique in this process and tells the test.
func databaseName(test string) string {
	clean := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r - 'A' + 'a'
		}
		return '_'
	}, test)
	return fmt.Sprintf("%s_%d", clean[:min(len(clean), maxNameBytes)], databases.Add(1))
}

// databases counts the databases of this process.
var databases atomic.Int64
