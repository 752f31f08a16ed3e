package model

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/test/cacheproofs/guards"
)

var (
	schedules = flag.Int("schedules", 4_000/thinner, "random schedules with all guards on")
	mutated   = flag.Int("mutated", 1_000/thinner, "random schedules, at most, with each guard off")
	most      = flag.Int("small", 40_000/thinner, "schedules of a small scenario, at most")
	enough    = flag.Int("enough", 3, "violations after which a guard counts as needed")
	firstSeed = flag.Uint64("seed", 1, "seed of the first schedule")
)

// With all guards on, no schedule violates anything. A seed that does is printed step by step.
func TestRandomSchedules(t *testing.T) {
	t.Parallel()
	var next, newThenOld atomic.Int64
	var workers sync.WaitGroup
	for range 2 {
		workers.Go(func() {
			for n := next.Add(1); n <= int64(*schedules) && !t.Failed(); n = next.Add(1) {
				seed := *firstSeed + uint64(n) - 1
				m := random(seed, "", false)
				if m.violation != nil {
					explain(t, seed, random(seed, "", true))
				}
				if m.newThenOld {
					newThenOld.Add(1)
				}
			}
		})
	}
	workers.Wait()
	t.Logf("%d schedules, 0 violations; in %d an unacknowledged write was seen and then not", *schedules, newThenOld.Load())
}

func explain(t *testing.T, seed uint64, m *model) {
	t.Errorf("seed %d: %s: %s\n%s", seed, m.violation.kind, m.violation.text, strings.Join(m.trace, "\n"))
}

// Small scenarios are explored to the end.
func TestSmallScenarios(t *testing.T) {
	t.Parallel()
	for _, s := range small {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			m, n := exhaustive("", s.preemptions, *most, false, s.build)
			if m.violation != nil {
				m, _ = exhaustive("", s.preemptions, *most, true, s.build) // the same again, to be read
				t.Fatalf("%s: %s\n%s", m.violation.kind, m.violation.text, strings.Join(m.trace, "\n"))
			}
			t.Logf("%d schedules with at most %d preemptions: 0 violations", n, s.preemptions)
			for _, g := range s.guards {
				m, n := exhaustive(g, s.preemptions, *most, false, s.build)
				if m.violation == nil {
					t.Errorf("guard %s off: no violation in %d schedules", g, n)
				} else {
					t.Logf("guard %s off: %s in schedule %d", g, m.violation.kind, n)
				}
			}
		})
	}
}

// inModel are the guards that the model has.
var inModel = slices.DeleteFunc(slices.Clone(guards.All), func(g guards.Guard) bool { return !g.Model })

// With any one guard off, some schedule violates an invariant, so each guard is needed.
func TestEveryGuardIsNeeded(t *testing.T) {
	t.Parallel()
	lines := make([]string, len(inModel))
	var next atomic.Int64
	var workers sync.WaitGroup
	for range 2 {
		workers.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(inModel)); i = next.Add(1) - 1 {
				g := inModel[i]
				kinds := map[string]int{}
				ran, found, most := 0, 0, *mutated
				if inSmall(g.Name) {
					most /= 4
				}
				for ran < most && found < *enough {
					m := random(*firstSeed+uint64(ran), g.Name, false)
					if ran++; m.violation != nil {
						kinds[m.violation.kind]++
						found++
					}
				}
				if found == 0 {
					if !inSmall(g.Name) && thinner == 1 {
						t.Errorf("guard %s off: no violation in %d schedules", g.Name, ran)
					}
					kinds["see TestSmallScenarios"]++
				}
				lines[i] = fmt.Sprintf("%-24s %4d / %-6d %-28s %s", g.Name, found, ran, summary(kinds), g.Hazard)
			}
		})
	}
	workers.Wait()
	t.Logf("guard off | violations / schedules\n%s", strings.Join(lines, "\n"))
}

// inSmall reports whether TestSmallScenarios requires violations without this guard.
func inSmall(guard string) bool {
	for _, s := range small {
		if slices.Contains(s.guards, guard) {
			return true
		}
	}
	return false
}

func summary(kinds map[string]int) string {
	var words []string
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		words = append(words, fmt.Sprintf("%s %d", kind, kinds[kind]))
	}
	return strings.Join(words, ", ")
}

// The durations of the model are those of the code.
func TestModelHasTheDurationsOfTheCode(t *testing.T) {
	t.Parallel()
	var code strings.Builder
	for _, folder := range []string{"cache", "cache/lua", "routing", "outbox"} {
		folder = "../../../internal/" + folder + "/"
		files, err := os.ReadDir(folder)
		require.NoError(t, err)
		for _, f := range files {
			if !f.IsDir() && !strings.HasSuffix(f.Name(), "_test.go") {
				text, err := os.ReadFile(folder + f.Name())
				require.NoError(t, err)
				code.Write(text)
			}
		}
	}
	for name, ms := range map[string]int{
		"leaseTTL": leaseLife, "DirtyTTL": dirtyLife, "ProofAge": proofAge, "prefetchedTTL": seedLife,
		"negativeTTL": negativeLife, "AwaitRelay": awaitRelay, "RelayMinAge": relayMinAge,
	} {
		match := regexp.MustCompile(`\b` + name + `\s+= ([\d* ]*time\.\w+)`).FindStringSubmatch(code.String())
		require.NotNil(t, match, name)
		want := fmt.Sprintf("%d * time.Second", ms/1000)
		switch {
		case ms == 1000:
			want = "time.Second"
		case ms%1000 != 0:
			want = fmt.Sprintf("%d * time.Millisecond", ms)
		}
		require.Equal(t, want, match[1], name)
	}
}
