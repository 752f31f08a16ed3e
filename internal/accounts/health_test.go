package accounts_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/pgtest"
)

// No database answers: that is degraded while it may be a failover, and then the end of readiness.
func TestReadinessOutlivesAFailover(t *testing.T) {
	t.Parallel()
	s := pgtest.Private(t)
	p := newProcess(t, s.DB)
	h := p.Health(t.Context())
	require.True(t, h.Ready)
	require.True(t, h.Checks["schema"].OK)

	require.NoError(t, s.Cluster.Primary.Kill())
	require.NoError(t, s.Cluster.Standby.Kill())
	h = p.Health(t.Context())
	require.True(t, h.Ready)
	require.True(t, h.Checks["schema"].Degraded)
	require.True(t, h.Checks["write"].Degraded)

	p.SetSchemaSeen(time.Now().Add(-time.Minute))
	require.False(t, p.Health(t.Context()).Ready)
}
