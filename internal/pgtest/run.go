package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/payment-services/accounts/db"
	"github.com/payment-services/accounts/internal/localservers"
)

const (
	runPrefix = "accounts-pgtest-"
	// runGrace protects a run directory whose owner has not locked it yet.
	runGrace = time.Minute
	// keepLife is how long the files of a failed test are kept: they may lie in memory.
	keepLife = time.Hour
	// maxKept bounds the memory that they take: each run has a few hundred MiB.
	maxKept = 3
	// memoryDir is where files cost no disk: a database is cloned there in a tenth of the time. It is
	// used if it can hold memoryNeed: two processes' clusters, each with two servers' full WAL.
	memoryDir  = "/dev/shm"
	memoryNeed = 4 << 30
	// folderMode lets the account that runs PostgreSQL pass, but not look around.
	folderMode = 0o711
)

// testRun is all that one test process starts and stores.
type testRun struct {
	dir       string
	lock      *os.File // held while the process lives
	templates *templateCache

	once      sync.Once
	shared    *localservers.Cluster
	passwords db.Passwords
	sharedErr error

	mu   sync.Mutex
	keep []string // what to tell about failed tests
}

// currentRun is process-wide, because the tests of a process share it: made by the first caller.
var currentRun struct {
	sync.Mutex
	*testRun
}

func getRun(ctx context.Context) (*testRun, error) {
	currentRun.Lock()
	defer currentRun.Unlock()
	if currentRun.testRun == nil {
		run, err := newRun(ctx)
		if err != nil {
			return nil, err
		}
		currentRun.testRun = run
	}
	return currentRun.testRun, nil
}

func newRun(ctx context.Context) (*testRun, error) {
	templates, err := newTemplateCache(ctx)
	if err != nil {
		return nil, err
	}
	if err := sweep(ctx); err != nil {
		return nil, fmt.Errorf("clean up after earlier test runs: %w", err)
	}
	dir, err := os.MkdirTemp(runParent(), runPrefix)
	if err != nil {
		return nil, fmt.Errorf("make a directory for the test servers: %w", err)
	}
	lock, err := os.Create(filepath.Join(dir, "lock"))
	if err != nil {
		return nil, fmt.Errorf("make a directory for the test servers: %w", err)
	}
	if err := errors.Join(flock(lock, syscall.LOCK_EX), os.Chmod(dir, folderMode)); err != nil {
		return nil, err
	}
	return &testRun{dir: dir, lock: lock, templates: templates}, nil
}

// sharedCluster starts the cluster of [Shared] when it is first asked for.
func (r *testRun) sharedCluster(ctx context.Context) (*localservers.Cluster, db.Passwords, error) {
	r.once.Do(func() { r.shared, r.passwords, _, r.sharedErr = r.startCluster(ctx, "shared") })
	return r.shared, r.passwords, r.sharedErr
}

// startCluster starts a cluster made from the template in a new folder.
func (r *testRun) startCluster(ctx context.Context, name string) (*localservers.Cluster, db.Passwords, string, error) {
	dir, err := r.folder(name)
	if err != nil {
		return nil, db.Passwords{}, "", err
	}
	scratch, err := r.folder("template")
	if err != nil {
		return nil, db.Passwords{}, "", err
	}
	defer os.RemoveAll(scratch)
	passwords, err := r.templates.copyTo(ctx, filepath.Join(dir, "primary"), scratch)
	if err != nil {
		return nil, db.Passwords{}, "", err
	}
	cluster, err := localservers.NewCluster(ctx, localservers.ClusterConfig{Dir: dir, Password: passwords.Super})
	if err != nil {
		return nil, db.Passwords{}, "", err
	}
	if err := cluster.Start(ctx); err != nil {
		return nil, db.Passwords{}, "", errors.Join(err, cluster.Close())
	}
	return cluster, passwords.Services, dir, nil
}

func (r *testRun) folder(name string) (string, error) {
	dir, err := os.MkdirTemp(r.dir, name+"-")
	if err == nil {
		err = os.Chmod(dir, folderMode)
	}
	if err != nil {
		return "", fmt.Errorf("make a directory for %s: %w", name, err)
	}
	return dir, nil
}

// keepFiles makes the run's directory outlive the process, and close tell why.
func (r *testRun) keepFiles(why string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.keep = append(r.keep, why)
}

// close stops the shared cluster and removes every file, unless some are to be kept.
func (r *testRun) close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.keep) == 0 {
		var err error
		if r.shared != nil {
			err = r.shared.Close()
		}
		return errors.Join(err, os.RemoveAll(r.dir), r.lock.Close())
	}
	var err error
	if r.shared != nil {
		err = r.shared.Stop()
	}
	text := strings.Join(r.keep, "\n") + "\n"
	fmt.Fprintf(os.Stderr, "pgtest: kept for an hour:\n%s", text)
	return errors.Join(err, os.WriteFile(filepath.Join(r.dir, "keep"), []byte(text), 0o600), r.lock.Close())
}

// runParent returns the directory that holds the runs' directories.
func runParent() string {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(memoryDir, &fs); err == nil && fs.Bavail*uint64(fs.Bsize) >= memoryNeed {
		return memoryDir
	}
	return os.TempDir()
}

// sweep ends what killed test processes of this user left running, and removes their files. Of the
// runs that were kept because a test failed, the newest stay.
func sweep(ctx context.Context) error {
	var kept []string
	for _, parent := range []string{memoryDir, os.TempDir()} {
		dirs, err := filepath.Glob(filepath.Join(parent, runPrefix+"*"))
		if err != nil {
			return err
		}
		for _, dir := range dirs {
			if err := sweepRun(ctx, dir, keepLife); err != nil {
				return err
			}
			if _, err := os.Stat(filepath.Join(dir, "keep")); err == nil {
				kept = append(kept, dir)
			}
		}
	}
	slices.SortFunc(kept, func(a, b string) int { return keptSince(b).Compare(keptSince(a)) })
	for _, dir := range kept[min(maxKept, len(kept)):] {
		if err := sweepRun(ctx, dir, 0); err != nil {
			return err
		}
	}
	return nil
}

func keptSince(dir string) time.Time {
	info, err := os.Stat(filepath.Join(dir, "keep"))
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

func sweepRun(ctx context.Context, dir string, life time.Duration) error {
	info, err := os.Stat(dir)
	if err != nil || time.Since(info.ModTime()) < runGrace || info.Sys().(*syscall.Stat_t).Uid != uint32(os.Geteuid()) {
		return nil //nolint:nilerr // removed meanwhile, too young, or another user's
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil //nolint:nilerr // another process is removing it
	}
	defer lock.Close()
	if flock(lock, syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		return nil // its owner lives
	}
	if kept, err := os.Stat(filepath.Join(dir, "keep")); err == nil && time.Since(kept.ModTime()) < life {
		return nil
	}
	pidFiles, err := filepath.Glob(filepath.Join(dir, "*", "*", "postmaster.pid"))
	if err != nil {
		return err
	}
	for _, file := range pidFiles {
		if err := localservers.EndOrphan(ctx, filepath.Dir(file)); err != nil {
			return err
		}
	}
	return os.RemoveAll(dir)
}
