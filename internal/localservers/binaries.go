package localservers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// The PostgreSQL versions that the SQL is tested with.
const oldestMajor, newestMajor = 15, 17

// systemBinaries is where Debian and Ubuntu install each major version, outside of PATH.
const systemBinaries = "/usr/lib/postgresql"

// binaries are the programs of one PostgreSQL installation and the account that runs them.
type binaries struct {
	dir     string
	version string // "15.14 (Debian 15.14-0+deb12u1)": part of the key of cached data directories
	account *syscall.Credential
}

// findBinaries takes the initdb and postgres of PATH, else the newest supported ones of the system.
func findBinaries(ctx context.Context) (*binaries, error) {
	var dirs []string
	if path, err := exec.LookPath("initdb"); err == nil {
		dirs = append(dirs, filepath.Dir(path))
	}
	for major := newestMajor; major >= oldestMajor; major-- {
		dirs = append(dirs, filepath.Join(systemBinaries, strconv.Itoa(major), "bin"))
	}
	account, err := serverAccount()
	if err != nil {
		return nil, err
	}
	for _, dir := range dirs {
		out, err := exec.CommandContext(ctx, filepath.Join(dir, "postgres"), "--version").Output()
		if err != nil {
			continue
		}
		version := strings.TrimPrefix(strings.TrimSpace(string(out)), "postgres (PostgreSQL) ")
		if supported(version) {
			return &binaries{dir: dir, version: version, account: account}, nil
		}
	}
	return nil, fmt.Errorf("no PostgreSQL %d to %d in PATH or under %s: run scripts/install-deps",
		oldestMajor, newestMajor, systemBinaries)
}

func supported(version string) bool {
	digits, _, _ := strings.Cut(version, ".")
	major, err := strconv.Atoi(digits)
	return err == nil && major >= oldestMajor && major <= newestMajor
}

// serverAccount returns whom PostgreSQL runs as: nil for the current user, but user postgres for
// root, as whom PostgreSQL refuses to run.
func serverAccount() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, fmt.Errorf("run PostgreSQL as root: %w: run scripts/install-deps", err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	gid, gidErr := strconv.ParseUint(u.Gid, 10, 32)
	if err = errors.Join(err, gidErr); err != nil {
		return nil, fmt.Errorf("run PostgreSQL as root: %w", err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

// command returns the program as it must be run: in dir, as the server's account, and without the
// PG* variables of the developer's own shell.
func (b *binaries) command(ctx context.Context, dir, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(b.dir, program), args...)
	cmd.Dir = dir
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "PG") })
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: b.account}
	return cmd
}

// give makes path belong to the server's account.
func (b *binaries) give(path string) error {
	if b.account == nil {
		return nil
	}
	return os.Lchown(path, int(b.account.Uid), int(b.account.Gid))
}

// Reachable reports whether PostgreSQL, started by this user, can enter dir, which exists: as root it
// runs as user postgres, for whom every folder on the way must be open.
func Reachable(dir string) (bool, error) {
	account, err := serverAccount()
	if err != nil || account == nil {
		return err == nil, err
	}
	cmd := exec.Command("test", "-x", ".")
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: account}
	return cmd.Run() == nil, nil
}
