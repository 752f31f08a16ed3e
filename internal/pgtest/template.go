package pgtest

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/payment-services/accounts/db"
	"github.com/payment-services/accounts/internal/localservers"
)

const (
	// templateDatabase is what every test's database is a copy of.
	templateDatabase = "accounts_template"
	// templateLife is how long an unused template is kept: a branch is often returned to within days.
	templateLife = 3 * 24 * time.Hour
	// templateFormat is part of every key: raise it when newTemplate makes something else.
	templateFormat = "1"
)

// oracleSQL checks every transaction of a test database; its head describes how.
//
//go:embed oracle.sql
var oracleSQL string

// templatePasswords are those of the logins in a template. They are random, although the servers
// listen on 127.0.0.1 only: other users of the machine reach that too.
type templatePasswords struct {
	Super    string
	Services db.Passwords
}

// templateCache is a folder of data directories, one for each PostgreSQL version and text of the
// bootstrap and migrations. All test processes of the user share it, under a file lock.
type templateCache struct {
	dir     string
	dataKey string // localservers.DataKey
}

func newTemplateCache(ctx context.Context) (*templateCache, error) {
	dataKey, err := localservers.DataKey(ctx)
	if err != nil {
		return nil, err
	}
	base, err := os.UserCacheDir()
	if err != nil { // no home, as in some containers
		base = filepath.Join(os.TempDir(), fmt.Sprintf("cache-%d", os.Geteuid()))
	}
	dir := filepath.Join(base, "accounts-pgtest")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("template cache: %w", err)
	}
	return &templateCache{dir: dir, dataKey: dataKey}, nil
}

// copyTo copies the template's data directory, which is built first if it is missing. scratch is an
// existing folder for the build.
func (c *templateCache) copyTo(ctx context.Context, data, scratch string) (templatePasswords, error) {
	key, err := c.key()
	if err != nil {
		return templatePasswords{}, err
	}
	lock, err := os.OpenFile(filepath.Join(c.dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return templatePasswords{}, fmt.Errorf("template cache: %w", err)
	}
	defer lock.Close() // and unlock

	template := filepath.Join(c.dir, key)
	if err := flock(lock, syscall.LOCK_SH); err != nil {
		return templatePasswords{}, err
	}
	if _, err := os.Stat(template); err != nil {
		// Another process may build it before this one gets the exclusive lock.
		if err := flock(lock, syscall.LOCK_EX); err != nil {
			return templatePasswords{}, err
		}
		if _, err := os.Stat(template); err != nil {
			if err := c.build(ctx, template, scratch); err != nil {
				return templatePasswords{}, fmt.Errorf("build the template database: %w", err)
			}
		}
	}
	now := time.Now()
	if err := os.Chtimes(template, now, now); err != nil {
		return templatePasswords{}, fmt.Errorf("template cache: %w", err)
	}
	var passwords templatePasswords
	text, err := os.ReadFile(filepath.Join(template, "passwords.json"))
	if err == nil {
		err = json.Unmarshal(text, &passwords)
	}
	if err != nil {
		return templatePasswords{}, fmt.Errorf("template cache: %w", err)
	}
	return passwords, localservers.CopyTree(ctx, filepath.Join(template, "primary"), data)
}

// key names everything that a template is made of.
func (c *templateCache) key() (string, error) {
	hash := sha256.New()
	fmt.Fprintln(hash, templateFormat, c.dataKey, db.BootstrapSQL(), oracleSQL)
	migrations := db.Migrations()
	err := fs.WalkDir(migrations, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := fs.ReadFile(migrations, path)
		fmt.Fprintf(hash, "%s\n%s\n", path, text)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("template cache: %w", err)
	}
	const keyBytes = 12
	return hex.EncodeToString(hash.Sum(nil)[:keyBytes]), nil
}

func (c *templateCache) build(ctx context.Context, template, scratch string) error {
	if err := c.prune(); err != nil {
		return err
	}
	passwords := templatePasswords{
		Super:    rand.Text(),
		Services: db.Passwords{Migrator: rand.Text(), Reader: rand.Text(), Writer: rand.Text()},
	}
	cluster, err := localservers.NewCluster(ctx, localservers.ClusterConfig{Dir: scratch, Password: passwords.Super})
	if err != nil {
		return err
	}
	err = makeTemplate(ctx, cluster, passwords.Services)
	if err = errors.Join(err, cluster.Close()); err != nil {
		return err
	}
	text, err := json.Marshal(passwords)
	if err != nil {
		return err
	}
	fresh := template + ".new"
	if err := errors.Join(os.RemoveAll(fresh), os.Mkdir(fresh, 0o700)); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(fresh, "passwords.json"), text, 0o600); err != nil {
		return err
	}
	if err := localservers.CopyTree(ctx, cluster.Primary.DataDir(), filepath.Join(fresh, "primary")); err != nil {
		return err
	}
	return os.Rename(fresh, template)
}

// makeTemplate starts the primary alone, makes the template database and stops it cleanly.
func makeTemplate(ctx context.Context, c *localservers.Cluster, passwords db.Passwords) error {
	if err := c.StartPrimary(ctx); err != nil {
		return err
	}
	if err := c.Prepare(ctx, templateDatabase, passwords, slog.New(slog.DiscardHandler)); err != nil {
		return err
	}
	if err := installOracle(ctx, c); err != nil {
		return err
	}
	return c.Primary.Stop()
}

// installOracle runs oracle.sql in the template database.
func installOracle(ctx context.Context, c *localservers.Cluster) error {
	conn, err := pgx.Connect(ctx, c.URLs(templateDatabase, db.Passwords{}).SuperURL)
	if err != nil {
		return fmt.Errorf("install the oracle: %w", err)
	}
	_, err = conn.PgConn().Exec(ctx, oracleSQL).ReadAll()
	if err = errors.Join(err, conn.Close(ctx)); err != nil {
		return fmt.Errorf("install the oracle: %w", err)
	}
	return nil
}

// prune removes templates that nobody used for a while, and half-built ones. It needs the exclusive
// lock.
func (c *templateCache) prune() error {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil {
			return err
		}
		if entry.IsDir() && time.Since(info.ModTime()) > templateLife {
			if err := os.RemoveAll(filepath.Join(c.dir, entry.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// flock locks the whole file for as long as it is open; without LOCK_NB it waits.
func flock(f *os.File, how int) error {
	for {
		err := syscall.Flock(int(f.Fd()), how)
		if err == nil {
			return nil
		}
		if !errors.Is(err, syscall.EINTR) {
			return fmt.Errorf("lock %s: %w", f.Name(), err)
		}
	}
}
