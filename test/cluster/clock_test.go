//go:build cluster

package cluster

import (
	"strconv"
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
	another(t, "clock", "test/cluster/clock.yml")
	var clocks [2]int64
	for i, node := range Nodes {
		out, err := c.SQL(t.Context(), node, "SELECT extract(epoch FROM clock_timestamp())::bigint")
		require.NoError(t, err)
		clocks[i], err = strconv.ParseInt(out, 10, 64)
		require.NoError(t, err)
	}
	require.InDelta(t, 60, clocks[1]-clocks[0], 10)
	var before State
	h, r, after := during(t, func(s State) { before = s }, 30*time.Second, nil)
	quiet(t, h, r, before, after)
	repeat(t, "node killed, the other's clock wrong", 1,
		func(s State) error { _, err := c.Docker(t.Context(), "kill", s.Leader); return err },
		func(s State) error { _, err := c.Docker(t.Context(), "start", s.Leader); return err })
}
