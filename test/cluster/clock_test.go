//go:build cluster

package cluster

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// One node's clock is a minute ahead: nobody is demoted for it, and it can be the primary.
func TestClockOff(t *testing.T) {
	if *short {
		t.Log("left to the full form")
		return
	}
	another(t, "accounts-clock", "test/cluster/clock.yml")
	skew, err := c.Exec(t.Context(), "pg-node-2", "echo $(( $(faketime -f +60s date +%s) - $(date +%s) ))")
	require.NoError(t, err)
	t.Logf("pg-node-2 is %s s ahead", skew)
	var before State
	h, r, after := during(t, func(s State) { before = s }, 30*time.Second, nil)
	quiet(t, h, r, before, after)
	repeat(t, "node killed, the other's clock wrong", 1,
		func(s State) error { _, err := c.Docker(t.Context(), "kill", s.Leader); return err },
		func(s State) error { _, err := c.Docker(t.Context(), "start", s.Leader); return err })
}
