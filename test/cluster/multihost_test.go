//go:build cluster

package cluster

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// The service with a list of hosts instead of HAProxy, which is down throughout.
func TestWithoutDatabaseProxy(t *testing.T) {
	if *short {
		t.Log("left to the full form")
		return
	}
	another(t, "multihost", "docker-compose.multihost.yml")
	l, _ := steady(t, 4, 4)
	docker(t, "stop -t 1", "haproxy")
	o, err := l.Failover(t.Context(),
		func(s State) error { _, err := c.Docker(t.Context(), "kill", s.Leader); return err },
		func(s State) error { _, err := c.Docker(t.Context(), "start", s.Leader); return err })
	require.NoError(t, err)
	require.NoError(t, l.AwaitReplicaReads(t.Context(), rejoin))
	h, r := finish(t, l, o.Fault, false)
	t.Logf("%+v", r)
	require.Empty(t, h.Failed(), "no read fails through the service")
	require.Less(t, r.Write, atMost(killWorst))
}
