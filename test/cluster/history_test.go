package cluster

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const s = time.Second

func acked(id string, began, ended time.Duration, version, n int64) Write {
	return Write{ID: id, Began: began, Ended: ended, Version: version, N: n, Status: 200}
}

func TestGaps(t *testing.T) {
	t.Parallel()
	h := History{Writes: []Write{acked("a", 0, s, 1, 1), {Began: 2 * s, Ended: 3 * s, Outcome: Refused}, acked("a", 4*s, 6*s, 2, 2)}}
	require.Equal(t, 5*s, h.WriteGap(s, 7*s), "a refused write closes no gap")
	require.Equal(t, 9*s, h.WriteGap(s, 15*s), "the end counts")
	h = History{Reads: []Read{{Ended: s, Status: 200}, {Ended: 2 * s, Status: 503}, {Ended: 4 * s, Status: 200}}}
	require.Equal(t, 3*s, h.ReadGap(s, 5*s))
	require.Len(t, h.Failed(), 1)
}

func TestLostWritesAreFound(t *testing.T) {
	t.Parallel()
	created := Write{ID: "c", Create: true, N: 1, Status: 201}
	h := History{Writes: []Write{acked("a", 0, s, 2, 1), acked("a", s, 2*s, 3, 2), created}}
	require.Empty(t, h.Lost(Final{"a": 2, "c": 1}))
	require.Equal(t, []Write{h.Writes[1]}, h.Lost(Final{"a": 1, "c": 1}))
	require.Equal(t, []Write{created}, h.Lost(Final{"a": 2}))

	// The next primary gave version 3 again: what had it before was lost, although a later patch hides it.
	h.Writes = append(h.Writes, acked("a", 9*s, 10*s, 3, 3))
	require.Equal(t, []Write{h.Writes[1]}, h.Lost(Final{"a": 3, "c": 1}))

	unknown := Write{ID: "u", Create: true, Outcome: Unknown}
	require.Empty(t, History{Writes: []Write{unknown}}.Lost(Final{}), "nobody was told that it is there")
}

func TestTwoPrimariesAreFound(t *testing.T) {
	t.Parallel()
	old, lostOne := acked("a", 0, s, 2, 1), acked("b", 2*s, 3*s, 2, 1)
	kept := acked("c", 6*s, 7*s, 2, 1)
	h := History{Writes: []Write{old, lostOne, kept}}
	require.NoError(t, h.TwoPrimaries([]Write{lostOne}, 5*s))
	late := acked("b", 8*s, 9*s, 3, 2)
	h.Writes = append(h.Writes, late)
	require.ErrorContains(t, h.TwoPrimaries([]Write{lostOne, late}, 5*s), "two primaries")
}

func TestStaleReadsAreFound(t *testing.T) {
	t.Parallel()
	h := History{
		Writes: []Write{acked("a", 0, s, 2, 1), acked("a", s, 2*s, 3, 2)},
		Reads:  []Read{{ID: "a", Began: 3 * s / 2, Status: 200, N: 1}, {ID: "a", Began: 3 * s, Status: 200, N: 2}},
	}
	require.Empty(t, h.Stale())
	h.Reads[1].N = 1
	require.Len(t, h.Stale(), 1)
}

func TestBadAnswersAreFound(t *testing.T) {
	t.Parallel()
	h := History{Writes: []Write{
		acked("a", 0, s, 1, 1),
		{Status: 503, RetryAfter: true, Outcome: Refused},
	}}
	require.Empty(t, h.BadAnswers(5*s, false))
	h.Writes = []Write{
		{Status: 503, Outcome: Refused}, {Status: 500, Outcome: Refused}, {Status: 0, Outcome: Unknown},
		acked("a", 0, 6*s, 1, 1),
	}
	require.Len(t, h.BadAnswers(5*s, false), 4)
	require.Len(t, h.BadAnswers(5*s, true), 3)
}
