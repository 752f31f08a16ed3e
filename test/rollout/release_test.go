package rollout

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// mainNames are where the release before is looked for when there is no tag.
var mainNames = []string{"origin/main", "main"}

// release is a server binary.
type release struct {
	name string // what it was built from
	path string
}

// building is one build at a time: the second of the same thing is the cache's.
var building sync.Mutex

// current builds what is in the working tree.
func current(t *testing.T) release {
	t.Helper()
	return build(t, "the working tree", filepath.Join("..", ".."))
}

// previous builds the release before this one. Without the history it cannot, which is a failure in CI
// and is said loudly elsewhere.
func previous(t *testing.T) release {
	t.Helper()
	revision, err := previousRevision()
	if err != nil {
		const advice = "the release before this one cannot be tested: %v; fetch the history (git fetch --unshallow --tags)"
		if os.Getenv("CI") != "" {
			t.Fatalf(advice, err)
		}
		t.Skipf(advice, err)
	}
	dir := t.TempDir()
	archive := exec.Command("git", "archive", "--format=tar", revision)
	archive.Dir = filepath.Join("..", "..") // the whole tree, not this folder
	unpack := exec.Command("tar", "-x", "-C", dir)
	var archiving, unpacking bytes.Buffer // two processes write at once
	archive.Stderr, unpack.Stderr = &archiving, &unpacking
	unpack.Stdin, err = archive.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, unpack.Start())
	require.NoError(t, archive.Run(), "%s", &archiving)
	require.NoError(t, unpack.Wait(), "%s", &unpacking)
	return build(t, revision, dir)
}

func previousRevision() (string, error) {
	head, err := git("rev-parse", "HEAD")
	if err != nil {
		return "", err
	}
	// Not the tag of HEAD itself: that is this release.
	if tag, err := git("describe", "--tags", "--abbrev=0", "--match=v*", "HEAD^"); err == nil {
		return tag, nil
	}
	for _, name := range mainNames {
		base, err := git("merge-base", "HEAD", name)
		if err == nil && base != head {
			return base, nil
		}
	}
	return git("rev-parse", "--verify", "HEAD~1^{commit}") // on main
}

func git(args ...string) (string, error) {
	cmd := exec.Command("git", args...)
	var problems bytes.Buffer
	cmd.Stderr = &problems
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("git %s: %w: %s", args[0], err, strings.TrimSpace(problems.String()))
	}
	return strings.TrimSpace(string(out)), nil
}

// build compiles the server in dir. Paths are trimmed so that the build cache serves every folder.
func build(t *testing.T, name, dir string) release {
	t.Helper()
	building.Lock()
	defer building.Unlock()
	started := time.Now()
	path := filepath.Join(t.TempDir(), "server")
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", path, "./cmd/server")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "build %s: %s", name, out)
	t.Logf("built %s in %s", name, time.Since(started).Round(time.Millisecond))
	return release{name, path}
}
