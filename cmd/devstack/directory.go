package main

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/payment-services/accounts/db"
	"github.com/payment-services/accounts/internal/localservers"
)

const (
	// passMode lets user postgres pass to its data when we run as root.
	passMode = 0o711
	// secretMode is that of files with passwords and tokens.
	secretMode = 0o600
	// outsideParent holds the data of PostgreSQL when it cannot reach the checkout; it survives a reboot.
	outsideParent = "/var/tmp"
)

// directory is the folder of one devstack, locked while it runs.
type directory struct {
	path string
	lock *os.File
}

// state is what the first start makes up and the later ones need again.
type state struct {
	SuperPassword string
	Passwords     db.Passwords
	CachePassword string
	AuthPassword  string
	JWTSecret     string

	PrimaryPort, StandbyPort, CachePort, AuthPort int
}

func openDirectory(path string) (*directory, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(path, passMode); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(path, "lock"), os.O_CREATE|os.O_RDWR, secretMode)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = lock.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("another `make run` is using %s: stop it first, or choose another -dir", path)
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	d := &directory{path: path, lock: lock}
	return d, d.removeEnv() // that of a run that was killed
}

func (d *directory) close() { _ = d.lock.Close() }

func (d *directory) file(name string) string { return filepath.Join(d.path, name) }

// sub makes a folder.
func (d *directory) sub(name string) (string, error) {
	path := d.file(name)
	return path, os.MkdirAll(path, passMode)
}

// postgres makes the folder for PostgreSQL's data. Root's PostgreSQL runs as user postgres, who may
// not be able to enter the checkout (in /root, say): pg is then a link to a folder outside.
func (d *directory) postgres() (string, error) {
	path, err := d.sub("pg")
	if err != nil {
		return "", err
	}
	reachable, err := localservers.Reachable(path)
	if err != nil || reachable {
		return path, err
	}
	outside := filepath.Join(outsideParent, fmt.Sprintf("accounts-devstack-%x", sha256.Sum256([]byte(d.path)))[:34])
	if err := os.Mkdir(outside, passMode); err != nil && !errors.Is(err, os.ErrExist) {
		return "", err
	}
	// Anybody could have made it: the folder is everybody's.
	info, err := os.Lstat(outside)
	if err != nil {
		return "", err
	}
	if !info.IsDir() || info.Sys().(*syscall.Stat_t).Uid != uint32(os.Geteuid()) {
		return "", fmt.Errorf("%s belongs to somebody else: remove it, or choose a -dir that user postgres can enter", outside)
	}
	say("user postgres cannot enter %s: its data are in %s", d.path, outside)
	if err := os.Remove(path); err != nil {
		return "", err
	}
	return outside, os.Symlink(outside, path)
}

func (d *directory) loadState() (*state, error) {
	text, err := os.ReadFile(d.file("state.json"))
	if errors.Is(err, os.ErrNotExist) {
		if _, err := os.Stat(d.file("pg/primary")); err == nil {
			return nil, fmt.Errorf("%s has data but no passwords (state.json): run `make clean`", d.path)
		}
		s := &state{
			SuperPassword: rand.Text(),
			Passwords:     db.Passwords{Migrator: rand.Text(), Reader: rand.Text(), Writer: rand.Text()},
			CachePassword: rand.Text(),
			AuthPassword:  rand.Text(),
			JWTSecret:     rand.Text() + rand.Text(), // 52 characters; HS256 wants 32 bytes
		}
		return s, d.saveState(s)
	}
	if err != nil {
		return nil, err
	}
	var s state
	if err := json.Unmarshal(text, &s); err != nil {
		return nil, fmt.Errorf("read %s: %w: run `make clean`", d.file("state.json"), err)
	}
	return &s, nil
}

func (d *directory) saveState(s *state) error {
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return d.writeSecret("state.json", append(text, '\n'))
}

// variable is one line of the env file.
type variable struct{ name, value string }

// writeEnv writes the shell file that says how to reach the running stack.
func (d *directory) writeEnv(variables []variable) error {
	var text strings.Builder
	for _, v := range variables {
		fmt.Fprintf(&text, "%s='%s'\n", v.name, strings.ReplaceAll(v.value, "'", `'\''`))
	}
	return d.writeSecret("env", []byte(text.String()))
}

// removeEnv removes the env file: it is there only while the stack is ready.
func (d *directory) removeEnv() error {
	if err := os.Remove(d.file("env")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// writeSecret replaces a file at once: a reader sees all of it or none.
func (d *directory) writeSecret(name string, text []byte) error {
	fresh := d.file(name + ".new")
	if err := os.WriteFile(fresh, text, secretMode); err != nil {
		return err
	}
	return os.Rename(fresh, d.file(name))
}
