package localservers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/payment-services/accounts/db"
)

const (
	// followTimeout bounds the wait for the standby to stream; after it the standby counts as broken.
	followTimeout = 15 * time.Second
	// adminTimeout bounds one statement of this package.
	adminTimeout = 20 * time.Second
)

// ClusterConfig says where a cluster lives and how careful it is.
type ClusterConfig struct {
	Dir      string // holds the data directories and logs; open to the account that runs PostgreSQL
	Password string // of the superuser; every start of the same data needs that of the first start
	Durable  bool   // survives a crash of the machine (fsync)

	PrimaryPort, StandbyPort int // wanted; 0, or one in use, gives any free port
}

// Cluster is a primary and a physical, streaming, asynchronous standby. After Promote the standby is
// a primary too; the fields keep their names.
type Cluster struct {
	Primary *Server
	Standby *Server
}

// NewCluster prepares a cluster in the existing directory of the configuration. Nothing runs yet.
func NewCluster(ctx context.Context, cfg ClusterConfig) (*Cluster, error) {
	bin, err := findBinaries(ctx)
	if err != nil {
		return nil, err
	}
	// A symbolic link on the way is resolved once: the running server knows its directory by that name.
	dir, err := filepath.EvalSymlinks(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("prepare a cluster: %w", err)
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, fmt.Errorf("prepare a cluster: %w", err)
	}
	primaryPort, err := ReservePort(cfg.PrimaryPort)
	if err != nil {
		return nil, err
	}
	standbyPort, err := ReservePort(cfg.StandbyPort)
	if err != nil {
		return nil, errors.Join(err, primaryPort.Release())
	}
	settings := "fsync = off\nmax_wal_size = 256MB\n" // the files may lie in memory
	if cfg.Durable {
		settings = "fsync = on\n"
	}
	server := func(role string, port *Port) *Server {
		return &Server{
			name:     "the PostgreSQL " + role,
			bin:      bin,
			data:     filepath.Join(dir, role),
			log:      filepath.Join(dir, role+".log"),
			port:     port,
			password: cfg.Password,
			settings: settings,
		}
	}
	c := &Cluster{Primary: server("primary", primaryPort), Standby: server("standby", standbyPort)}
	c.Standby.settings += fmt.Sprintf("primary_conninfo = 'host=127.0.0.1 port=%d user=%s password=%s'\n",
		primaryPort.number, superuser, cfg.Password)
	return c, nil
}

// Start makes what is missing, starts both servers, and returns when the standby streams. A standby
// that cannot follow (it was promoted, or the primary has removed WAL that it needs) is rebuilt.
func (c *Cluster) Start(ctx context.Context) error {
	if err := c.Primary.initialise(ctx); err != nil {
		return err
	}
	// Missing, or promoted.
	if _, err := os.Stat(filepath.Join(c.Standby.data, "standby.signal")); err != nil {
		return c.rebuildStandby(ctx)
	}
	if err := c.Primary.Start(ctx); err != nil {
		return err
	}
	if err := c.follow(ctx); err != nil {
		return c.rebuildStandby(ctx)
	}
	return nil
}

// StartPrimary makes what is missing of the primary and starts it without a standby.
func (c *Cluster) StartPrimary(ctx context.Context) error {
	if err := c.Primary.initialise(ctx); err != nil {
		return err
	}
	return c.Primary.Start(ctx)
}

// Stop stops both servers cleanly and keeps the data.
func (c *Cluster) Stop() error {
	// The primary would wait for a standby that does not keep up.
	return errors.Join(c.Standby.Stop(), c.Primary.Stop())
}

// Close ends both servers at once, without a last checkpoint, and gives the ports back.
func (c *Cluster) Close() error {
	return errors.Join(
		c.Standby.stop(syscall.SIGQUIT, immediateTimeout), c.Primary.stop(syscall.SIGQUIT, immediateTimeout),
		c.Standby.port.Release(), c.Primary.port.Release())
}

// WaitForReplay returns when the standby has replayed everything that the primary has committed.
func (c *Cluster) WaitForReplay(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	var lsn string
	if err := c.Primary.query(ctx, "SELECT pg_current_wal_flush_lsn()::text", nil, &lsn); err != nil {
		return fmt.Errorf("wait for replay: %w", err)
	}
	err := poll(ctx, func() (replayed bool, err error) {
		err = c.Standby.query(ctx, "SELECT coalesce(pg_last_wal_replay_lsn() >= $1::text::pg_lsn, false)", []any{lsn}, &replayed)
		return replayed, err
	})
	if err != nil {
		return errors.Join(fmt.Errorf("wait for replay: %w", err), c.Standby.Failure("has not replayed "+lsn))
	}
	return nil
}

// PauseReplay holds the standby at what it has replayed; it goes on receiving.
func (c *Cluster) PauseReplay(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	if err := c.Standby.query(ctx, "SELECT pg_wal_replay_pause()", nil); err != nil {
		return fmt.Errorf("pause replay: %w", err)
	}
	err := poll(ctx, func() (paused bool, err error) {
		err = c.Standby.query(ctx, "SELECT pg_get_wal_replay_pause_state() = 'paused'", nil, &paused)
		return paused, err
	})
	if err != nil {
		return fmt.Errorf("pause replay: %w", err)
	}
	return nil
}

// ResumeReplay ends PauseReplay.
func (c *Cluster) ResumeReplay(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	if err := c.Standby.query(ctx, "SELECT pg_wal_replay_resume()", nil); err != nil {
		return fmt.Errorf("resume replay: %w", err)
	}
	return nil
}

// Promote makes the standby a primary, on a new timeline, and returns when it accepts writes. The old
// primary is left as it is.
func (c *Cluster) Promote(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	var promoted bool
	if err := c.Standby.query(ctx, "SELECT pg_promote()", nil, &promoted); err != nil {
		return fmt.Errorf("promote: %w", err)
	}
	if !promoted {
		return c.Standby.Failure("was not promoted")
	}
	return nil
}

// Prepare makes a database ready for the service on the running primary: it exists, bootstrap.sql
// was run with these passwords, and every migration is applied. It may be repeated.
func (c *Cluster) Prepare(ctx context.Context, database string, passwords db.Passwords, log *slog.Logger) error {
	if err := c.Bootstrap(ctx, database, passwords); err != nil {
		return err
	}
	return db.Migrate(ctx, c.URLs(database, passwords).MigrateURL, log)
}

// Bootstrap is Prepare without the migrations.
func (c *Cluster) Bootstrap(ctx context.Context, database string, passwords db.Passwords) error {
	var exists bool
	err := c.Primary.query(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", []any{database}, &exists)
	if err == nil && !exists {
		err = c.Primary.query(ctx, "CREATE DATABASE "+pgx.Identifier{database}.Sanitize()+
			" TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C.UTF-8'", nil)
	}
	if err != nil {
		return fmt.Errorf("create database %s: %w", database, err)
	}
	return c.bootstrap(ctx, database, passwords)
}

// CloneDatabase makes a copy of a database that Prepare has made, and returns when the standby has it too.
func (c *Cluster) CloneDatabase(ctx context.Context, name, template string) error {
	create := "CREATE DATABASE " + pgx.Identifier{name}.Sanitize() + " TEMPLATE " + pgx.Identifier{template}.Sanitize()
	if err := c.Primary.query(ctx, create, nil); err != nil {
		return fmt.Errorf("create database %s: %w", name, err)
	}
	// The template's owner, grants and settings belong to that database and are not copied.
	if err := c.bootstrap(ctx, name, db.Passwords{}); err != nil {
		return err
	}
	return c.WaitForReplay(ctx)
}

// DropDatabase ends the connections to a database and removes it.
func (c *Cluster) DropDatabase(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	err := c.Primary.query(ctx, "DROP DATABASE "+pgx.Identifier{name}.Sanitize()+" WITH (FORCE)", nil)
	if err != nil {
		return fmt.Errorf("drop database %s: %w", name, err)
	}
	return nil
}

// URLs are the connection strings of one database, one for each way in.
type URLs struct {
	WriteURL       string // accounts_writer on the primary
	ReadURL        string // accounts_reader on the standby
	PrimaryReadURL string // accounts_reader on the primary
	MigrateURL     string // accounts_migrator on the primary
	SuperURL       string // superuser on the primary

	// Both servers in one connection string, as in a deployment without HAProxy: whichever accepts
	// writes, and whichever is a standby, else the other.
	FailoverWriteURL string
	FailoverReadURL  string
}

// URLs returns the connection strings of a database whose logins have these passwords.
func (c *Cluster) URLs(database string, passwords db.Passwords) URLs {
	both := func(user, password, attributes string) string {
		one := c.Primary.URL(user, password, database)
		return strings.Replace(one, c.Primary.Address(), c.Primary.Address()+","+c.Standby.Address(), 1) +
			"&target_session_attrs=" + attributes
	}
	return URLs{
		WriteURL:       c.Primary.URL("accounts_writer", passwords.Writer, database),
		ReadURL:        c.Standby.URL("accounts_reader", passwords.Reader, database),
		PrimaryReadURL: c.Primary.URL("accounts_reader", passwords.Reader, database),
		MigrateURL:     c.Primary.URL("accounts_migrator", passwords.Migrator, database),
		SuperURL:       c.Primary.URL(superuser, c.Primary.password, database),

		FailoverWriteURL: both("accounts_writer", passwords.Writer, "read-write"),
		FailoverReadURL:  both("accounts_reader", passwords.Reader, "prefer-standby"),
	}
}

func (c *Cluster) bootstrap(ctx context.Context, database string, passwords db.Passwords) error {
	conn, err := pgx.Connect(ctx, c.Primary.URL(superuser, c.Primary.password, database))
	if err != nil {
		return fmt.Errorf("bootstrap: connect to %s: %w", database, err)
	}
	return errors.Join(db.Bootstrap(ctx, conn, passwords), conn.Close(ctx))
}

// rebuildStandby copies the primary's data directory while the primary is down, and leaves both
// running.
func (c *Cluster) rebuildStandby(ctx context.Context) error {
	if err := c.Standby.Kill(); err != nil {
		return err
	}
	// Only a clean shutdown leaves files that need no WAL to be consistent.
	if _, err := os.Stat(filepath.Join(c.Primary.data, "postmaster.pid")); err == nil && c.Primary.Done() == nil {
		if err := c.Primary.Start(ctx); err != nil {
			return err
		}
	}
	if err := c.Primary.Stop(); err != nil {
		return err
	}
	if err := EndOrphan(ctx, c.Standby.data); err != nil {
		return err
	}
	if err := c.Standby.standbyOf(ctx, c.Primary); err != nil {
		return err
	}
	if err := c.Primary.Start(ctx); err != nil {
		return err
	}
	return c.follow(ctx)
}

// follow starts the standby and waits until it streams from the primary.
func (c *Cluster) follow(ctx context.Context) error {
	if err := c.Standby.Start(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, followTimeout)
	defer cancel()
	err := poll(ctx, func() (streams bool, err error) {
		err = c.Primary.query(ctx, "SELECT EXISTS (SELECT FROM pg_stat_replication WHERE state = 'streaming')", nil, &streams)
		return streams, err
	})
	if err != nil {
		return errors.Join(fmt.Errorf("wait for the standby to stream: %w", err), c.Standby.Failure("does not follow"))
	}
	return nil
}
