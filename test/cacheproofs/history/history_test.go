package history

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/pgtest"
)

var (
	firstSeed = flag.Uint64("seed", 1, "the first seed; the next rounds take the next ones")
	minutes   = flag.Float64("minutes", 0, "how long to begin new rounds; 0: a few rounds only")
	mutation  = flag.String("mutation", "", "a guard of the cache to switch off: the test then passes if that is noticed")
)

const (
	// shortRounds are run without -minutes, at the same time.
	shortRounds = 3
	// roundLength is the load's; a round takes some seconds more.
	roundLength = 10 * time.Second
	// With -minutes every longEvery-th round is long enough for a lag that outlives dirty markers.
	longRoundLength = 45 * time.Second
	longEvery       = 5
	// afterPromotion is for finding what a promotion left behind.
	afterPromotion = 4 * time.Second
)

func TestMain(m *testing.M) {
	flag.Parse()
	redis.SetLogger(quiet{})
	pgtest.Main(m)
}

func TestHistoriesAreLinearizable(t *testing.T) {
	t.Parallel()
	var env []string
	if *mutation != "" {
		env = []string{"CACHE_MUTATION=" + *mutation}
	}
	binary := buildServer(t, *mutation != "")
	if *minutes == 0 && *mutation == "" {
		for seed := *firstSeed; seed < *firstSeed+shortRounds; seed++ {
			t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
				t.Parallel()
				newRound(seed).run(t, binary)
			})
		}
		return
	}
	end := time.Now().Add(time.Duration(*minutes * float64(time.Minute)))
	rounds, noticed := 0, 0
	for seed := *firstSeed; !t.Failed() && (rounds == 0 || time.Now().Before(end)); seed++ {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			r := newRound(seed)
			r.long, r.mutated = seed%longEvery == 0, *mutation != ""
			rounds++
			if r.run(t, binary, env...) > 0 {
				noticed++
			}
		})
	}
	if *mutation != "" {
		t.Logf("without the guard %q: noticed in %d of %d rounds", *mutation, noticed, rounds)
		require.Positive(t, noticed, "nobody noticed that the guard is off")
	}
}

// buildServer builds the server as this test is built.
func buildServer(t *testing.T, mutable bool) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "server")
	args := []string{"build", "-o", binary}
	if raceDetector {
		args = append(args, "-race")
	}
	if mutable {
		args = append(args, "-tags=mutation")
	}
	out, err := exec.Command("go", append(args, "github.com/payment-services/accounts/cmd/server")...).CombinedOutput()
	require.NoError(t, err, string(out))
	return binary
}

// round is one world and what happens to it.
type round struct {
	seed    uint64
	promote bool
	hurry   bool // dirty markers end early, and the standby is not restarted
	long    bool
	mutated bool // violations are wanted
}

func newRound(seed uint64) round { return round{seed: seed, promote: seed%2 == 1, hurry: seed%3 != 0} }

// run returns how many violations it found.
func (r round) run(t *testing.T, binary string, env ...string) int {
	w := newWorld(t, binary, env...)
	length := roundLength
	if r.long {
		length = longRoundLength
	}
	all := make([]*client, clients)
	var asking sync.WaitGroup
	room := new(room)
	end := w.now() + length
	for i := range all {
		all[i] = newClient(w, i, r.seed)
		asking.Go(func() { all[i].run(end, room) })
	}

	faultLength := length
	if r.promote {
		faultLength -= afterPromotion + lostVisible
	}
	var after *[users]user
	var names *[pairs]string
	err := w.disturb(t.Context(), r, faultLength)
	if err == nil && r.promote {
		after, names = new([users]user), new([pairs]string)
		*after, *names, err = w.promote(t.Context(), rand.New(rand.NewPCG(r.seed, promotionStream)))
	}
	asking.Wait()
	require.NoError(t, err)

	var events []*event
	for _, c := range all {
		events = append(events, c.events...)
	}
	began, faults := time.Now(), len(w.faults)
	found := w.judge(events, after, names)
	t.Logf("%d faults, requests: %s; checked in %s", faults, tally(events), time.Since(began).Round(time.Millisecond))
	for _, s := range w.servers {
		report, err := s.raced()
		require.NoError(t, err)
		require.Empty(t, report, "the race detector of a server")
	}
	if len(found) == 0 {
		return 0
	}
	if r.mutated {
		for _, v := range found {
			t.Log(v.What)
		}
		return len(found)
	}
	dir, err := w.keep(r.seed, events, found)
	require.NoError(t, err)
	for _, v := range found {
		t.Error(v.What)
	}
	t.Errorf("seed %d: the history and its pictures are in %s", r.seed, dir)
	return len(found)
}

// tally counts the events by what became of them.
func tally(events []*event) string {
	counts := map[string]int{}
	for _, e := range events {
		switch {
		case e.unknown():
			counts["unknown"]++
		case e.refused():
			counts["refused"]++
		case e.isRead():
			counts[strings.Join(strings.Fields("read "+e.Cache+" "+e.Source), " ")]++
		default:
			counts["written"]++
		}
	}
	var words []string
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		words = append(words, fmt.Sprintf("%s %d", name, counts[name]))
	}
	return strings.Join(words, ", ")
}

// The streams of random numbers of a seed, besides those of the clients.
const (
	replicaStream   = 1000
	processStream   = 1001
	promotionStream = 1002
)

// disturb runs both lanes of faults for some time.
func (w *world) disturb(ctx context.Context, r round, length time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, length)
	defer cancel()
	replicaFaults := replicaFaults
	var lanes sync.WaitGroup
	var replicaErr, processErr error
	if r.hurry {
		lanes.Go(func() { w.hurry(ctx) })
	} else {
		replicaFaults = append(slices.Clip(replicaFaults), killStandby)
	}
	lanes.Go(func() {
		replicaErr = w.lane(ctx, rand.New(rand.NewPCG(r.seed, replicaStream)), replicaFaults, r.long)
	})
	lanes.Go(func() {
		processErr = w.lane(ctx, rand.New(rand.NewPCG(r.seed, processStream)), processFaults, false)
	})
	lanes.Wait()
	if replicaErr != nil {
		return replicaErr
	}
	return processErr
}
