package localservers

import (
	"os"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

// startCluster starts a new cluster, which ends with the test.
func startCluster(t *testing.T) *Cluster {
	t.Helper()
	if testing.Short() {
		t.Skip("needs servers, which -short does not start")
	}
	dir, err := os.MkdirTemp("", "localservers-test-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	require.NoError(t, os.Chmod(dir, 0o711)) // the account that runs PostgreSQL enters it
	cluster, err := NewCluster(t.Context(), ClusterConfig{Dir: dir, Password: "secret"})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, cluster.Close()) })
	require.NoError(t, cluster.Start(t.Context()))
	return cluster
}

func TestServer_FailedStartShowsTheLog(t *testing.T) {
	t.Parallel()
	primary := startCluster(t).Primary
	require.NoError(t, primary.Stop())
	primary.settings += "no_such_setting = 1\n"
	require.ErrorContains(t, primary.Start(t.Context()), "no_such_setting")
}

func TestServer_StartEndsAnOrphanOnItsData(t *testing.T) {
	t.Parallel()
	primary := startCluster(t).Primary
	orphan, err := primary.detach() // as if another process had started it
	require.NoError(t, err)
	require.NoError(t, primary.Start(t.Context()))
	<-orphan.Done()
	var one int
	require.NoError(t, primary.query(t.Context(), "SELECT 1", nil, &one))
	require.NoError(t, primary.Stop())

	// The pid of a dead server may belong to another process by now.
	stale := strconv.Itoa(os.Getpid()) + "\n" + primary.data + "\n"
	require.NoError(t, primary.write("postmaster.pid", stale))
	require.NoError(t, primary.Start(t.Context()))
}
