package history

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
)

// Faults last this long: shorter than every deadline, and longer than several.
const (
	minFault = 100 * time.Millisecond
	maxFault = 1500 * time.Millisecond
	// maxPause is between two faults of a lane.
	maxPause = 400 * time.Millisecond
	// A long lag outlives the dirty markers (15 s), so that only the replica's proof is left.
	longLag = 18 * time.Second
)

// What hurry must know of the cache: its markers' key and life (M), and the age from which a marker may
// go, which is more than a seed's life.
const (
	dirtyKey   = "accounts:dirty"
	dirtyLife  = 15 * time.Second
	hurryAge   = 2500 * time.Millisecond
	hurryPause = 50 * time.Millisecond
)

// dumpFile is where a Redis server saves its data, and finds them at its next start.
const dumpFile = "dump.rdb"

// fault is what went wrong, and when.
type fault struct {
	Kind     faultKind
	Server   int // of those that concern one process
	From, To time.Duration
}

type faultKind string

const (
	pauseReplay faultKind = "pause replay"
	stallWAL    faultKind = "stall replication"
	killStandby faultKind = "kill the standby"
	emptyRedis  faultKind = "restart Redis empty"
	oldRedis    faultKind = "restart Redis with old data"
	cutRedis    faultKind = "cut a process from Redis"
	stallRedis  faultKind = "stall a process's connections to Redis"
	stopProcess faultKind = "stop a process"
	evict       faultKind = "evict entries"
	flush       faultKind = "FLUSHDB"
	killServer  faultKind = "kill a process"
	renewServer faultKind = "restart a process"
	killPrimary faultKind = "kill the primary and promote"
	slowMachine faultKind = "the machine is slow" // not ours
)

// Two lanes at once: a lagging replica is what makes the faults of the other lane dangerous.
var (
	replicaFaults = []faultKind{pauseReplay, pauseReplay, stallWAL}
	processFaults = []faultKind{
		emptyRedis, oldRedis, cutRedis, cutRedis, stallRedis, stopProcess, stopProcess, evict, evict, flush,
		killServer, renewServer,
	}
)

// concerns reports whether the fault, with some time after it, met a request to a server.
func (f fault) concerns(e *event, after time.Duration) bool {
	switch f.Kind {
	case cutRedis, stallRedis, stopProcess, slowMachine, killServer, renewServer:
		if f.Server != e.Server {
			return false
		}
	}
	return e.Call <= f.To+after && e.Return >= f.From
}

// lane lets one fault follow another until ctx ends, and then heals the last.
func (w *world) lane(ctx context.Context, random *rand.Rand, kinds []faultKind, long bool) error {
	for {
		kind := kinds[random.IntN(len(kinds))]
		length := minFault + randomDuration(random, maxFault-minFault)
		if long && (kind == pauseReplay || kind == stallWAL) {
			length = longLag
		}
		server := random.IntN(servers)
		pause := randomDuration(random, maxPause)
		if !wait(ctx, pause) {
			return nil
		}
		from := w.now()
		err := w.inflict(ctx, kind, w.servers[server], length)
		w.note(fault{Kind: kind, Server: server, From: from, To: w.now()})
		if err != nil {
			return fmt.Errorf("%s: %w", kind, err)
		}
	}
}

// inflict makes one fault, lets it last, and heals it.
func (w *world) inflict(ctx context.Context, kind faultKind, s *server, length time.Duration) error {
	whole := context.WithoutCancel(ctx) // healing is not cut short
	cluster, cache := w.stack.Cluster, w.stack.Redis()
	switch kind {
	case pauseReplay:
		err := cluster.PauseReplay(whole)
		wait(ctx, length)
		return errors.Join(err, cluster.ResumeReplay(whole))
	case stallWAL:
		w.wal.Stall()
		wait(ctx, length)
		w.wal.Resume()
		return nil
	case killStandby:
		err := cluster.Standby.Kill()
		wait(ctx, length)
		return errors.Join(err, cluster.Standby.Start(whole))
	case emptyRedis, oldRedis:
		if err := w.prepareDump(whole, kind == oldRedis); err != nil {
			return err
		}
		wait(ctx, length/2) // the data get old
		err := cache.Kill()
		wait(ctx, length/2)
		return errors.Join(err, cache.Start(whole))
	case cutRedis:
		s.redis.Cut()
		wait(ctx, length)
		return s.redis.Heal()
	case stallRedis:
		s.redis.Stall()
		wait(ctx, length)
		s.redis.Resume()
		return nil
	case stopProcess:
		err := s.proc.Signal(syscall.SIGSTOP)
		wait(ctx, length)
		return errors.Join(err, s.proc.Signal(syscall.SIGCONT))
	case evict:
		return w.evict(whole)
	case flush:
		return w.redis.FlushDB(whole).Err()
	case killServer:
		return errors.Join(s.proc.Kill(), s.start(whole))
	case renewServer:
		return errors.Join(s.proc.Stop(syscall.SIGTERM, serverGrace), s.start(whole))
	}
	return fmt.Errorf("nobody knows how to %q", kind)
}

// prepareDump makes Redis come back with the data that it has now, or with none.
func (w *world) prepareDump(ctx context.Context, keep bool) error {
	if keep {
		return w.redis.Save(ctx).Err()
	}
	dir, err := w.redis.ConfigGet(ctx, "dir").Result()
	if err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(dir["dir"], dumpFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// evict takes about half of the entries away, leases among them, as a full Redis would.
func (w *world) evict(ctx context.Context) error {
	var keys []string
	entries := w.redis.Scan(ctx, 0, "accounts:user*", 1000).Iterator()
	for entries.Next(ctx) {
		if len(entries.Val())%2 == rand.IntN(2) {
			keys = append(keys, entries.Val())
		}
	}
	if err := entries.Err(); err != nil || len(keys) == 0 {
		return err
	}
	return w.redis.Unlink(ctx, keys...).Err()
}

// promote kills the primary, after it has committed some writes that the standby never gets, and
// makes the standby the primary. It returns what the new primary starts with.
func (w *world) promote(ctx context.Context, random *rand.Rand) (state [users]user, names [pairs]string, err error) {
	cluster := w.stack.Cluster
	if random.IntN(3) > 0 {
		w.wal.Stall()
		wait(ctx, randomDuration(random, maxFault/2))
		defer w.wal.Resume()
	}
	from := w.now()
	if err := cluster.Primary.Kill(); err != nil {
		return state, names, err
	}
	wait(ctx, randomDuration(random, maxFault))
	// Sessions survive, but nothing reaches the new primary before its state has been read.
	for _, s := range w.servers {
		s.standby.Stall()
	}
	err = cluster.Promote(ctx)
	if err == nil {
		state, names, err = w.truth(ctx, w.standbyURL())
	}
	w.note(fault{Kind: killPrimary, From: from, To: w.now()})
	for _, s := range w.servers {
		s.standby.Resume()
	}
	return state, names, err
}

// hurry makes dirty markers end when the standby has what they stand for. In a round of seconds they
// would never end, and nothing would be filled from the replica. It is as good as the 15 s that the
// protocol waits, if the standby does not restart, which may put it back a little, and if a marker
// outlives the seeds (2 s) that a lookup by identifier may have loaded before the write.
func (w *world) hurry(ctx context.Context) {
	for wait(ctx, hurryPause) {
		markers, err := w.redis.ZRangeWithScores(ctx, dirtyKey, 0, -1).Result()
		if err != nil || len(markers) == 0 {
			continue // Redis is being restarted
		}
		catchUp, cancel := context.WithTimeout(ctx, maxFault)
		err = w.stack.WaitForReplay(catchUp)
		cancel()
		if err != nil {
			continue // replay is paused for longer
		}
		args := []any{hurryAge.Milliseconds(), dirtyLife.Milliseconds()}
		for _, m := range markers {
			args = append(args, m.Member, strconv.FormatFloat(m.Score, 'f', 0, 64))
		}
		// Those that a later write has renewed stay.
		_ = removeUnchanged.Run(ctx, w.redis, []string{dirtyKey}, args...).Err()
	}
}

var removeUnchanged = redis.NewScript(`
local time = redis.call('TIME')
local newest = time[1] * 1000 + time[2] / 1000 - ARGV[1] + ARGV[2]
for i = 3, #ARGV, 2 do
	local score = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[i]) or 'inf')
	if score == tonumber(ARGV[i + 1]) and score < newest then redis.call('ZREM', KEYS[1], ARGV[i]) end
end`)

func (w *world) note(f fault) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.faults = append(w.faults, f)
}

// promotion returns the promotion, if there was one.
func (w *world) promotion() (fault, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, f := range w.faults {
		if f.Kind == killPrimary {
			return f, true
		}
	}
	return fault{}, false
}

func (w *world) promoted() bool {
	_, ok := w.promotion()
	return ok
}

// wait returns false when ctx ended before the time was over.
func wait(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

func randomDuration(random *rand.Rand, limit time.Duration) time.Duration {
	return time.Duration(random.Int64N(int64(limit)))
}
