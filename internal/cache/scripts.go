package cache

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// format is the version of the entries' layout. It stands in the value, never in a key: in a rolling
// deploy old and new processes must invalidate the same keys, and an entry of another format is a
// miss.
const format = "1"

const (
	leaseLife = 3 * time.Second // a lease holder that died blocks nobody longer
	dirtyLife = 15 * time.Second
)

var errUnattached = errors.New("redis has lost the cache's generation")

var (
	//go:embed lua/read.lua
	readLua string
	//go:embed lua/fill.lua
	fillLua string
	//go:embed lua/invalidate.lua
	invalidateLua string
	//go:embed lua/attach.lua
	attachLua string
)

// scripts are the four atomic steps of the protocol, each one round trip. Their texts explain them.
type scripts struct {
	read, fill, invalidate, attach *redis.Script
}

func newScripts() scripts {
	load := func(text string) *redis.Script { return redis.NewScript(guardScript(text)) }
	return scripts{read: load(readLua), fill: load(fillLua), invalidate: load(invalidateLua), attach: load(attachLua)}
}

// readCode is the first word of READ's answer.
type readCode string

const (
	readHit         readCode = "HIT"
	readNotModified readCode = "NOT-MODIFIED"
	readWait        readCode = "WAIT"
	readMiss        readCode = "MISS"
	readUnattached  readCode = "UNATTACHED"
)

// readAnswer is READ's answer; which fields are set depends on the code.
type readAnswer struct {
	code  readCode
	value string // HIT: the entry; NOT-MODIFIED: its first two lines
	token string // WAIT: the holder's; MISS: mine
	seq   int64  // WAIT, MISS
	dirty bool   // MISS: written less than M ago
}

func (c *Cache) read(ctx context.Context, key, token string, tags []string) (readAnswer, error) {
	args := make([]any, 0, 3+len(tags))
	args = append(args, token, leaseLife.Milliseconds(), format)
	for _, tag := range tags {
		args = append(args, tag)
	}
	reply, err := c.attached(ctx, func() ([]any, error) {
		reply, err := c.scripts.read.Run(ctx, c.batched, []string{key, genKey, dirtyKey}, args...).Slice()
		if err == nil && readCode(reply[0].(string)) == readUnattached {
			return nil, errUnattached
		}
		return reply, err
	})
	if err != nil {
		return readAnswer{}, fmt.Errorf("cache READ: %w", err)
	}
	a := readAnswer{code: readCode(reply[0].(string))}
	switch a.code {
	case readHit, readNotModified:
		a.value = reply[1].(string)
	case readWait:
		a.token, a.seq = reply[1].(string), reply[2].(int64)
	case readMiss:
		a.token, a.seq, a.dirty = token, reply[1].(int64), reply[2].(int64) == 1
	}
	return a, nil
}

// fill returns "OK" or the reason why nothing was stored.
func (c *Cache) fill(ctx context.Context, key string, l lease, d Document, o origin, ttl time.Duration) (string, error) {
	deps := physicalDeps(d.Deps)
	args := make([]any, 0, 7+len(deps))
	args = append(args, l.token, l.seq, string(o.source), o.cluster,
		header(l.seq, d.ETag, deps), ttl.Milliseconds(), d.Meta+"\n"+string(d.Body))
	for _, dep := range deps {
		args = append(args, dep)
	}
	answer, err := c.scripts.fill.Run(ctx, c.batched, []string{key, genKey, dirtyKey}, args...).Text()
	if err != nil {
		return "", fmt.Errorf("cache FILL: %w", err)
	}
	return answer, nil
}

// release gives a lease back that will not be filled.
func (c *Cache) release(ctx context.Context, key string, l lease) {
	_, err := c.fill(ctx, key, l, Document{ETag: "-"}, origin{}, 0)
	c.noteRedis(ctx, err)
}

// invalidate marks, unlinks and raises everything in one step.
func (c *Cache) invalidate(ctx context.Context, keys, deps []string) error {
	args := make([]any, 0, 1+len(deps))
	args = append(args, dirtyLife.Milliseconds())
	for _, dep := range deps {
		args = append(args, dep)
	}
	_, err := c.attached(ctx, func() ([]any, error) {
		answer, err := c.scripts.invalidate.Run(ctx, c.redis, append([]string{genKey, dirtyKey}, keys...), args...).Text()
		if err == nil && answer == string(readUnattached) {
			return nil, errUnattached
		}
		return nil, err
	})
	if err != nil {
		return fmt.Errorf("cache INVALIDATE: %w", err)
	}
	return nil
}

// attached runs one script and, when Redis has lost its generation (FLUSHDB keeps the run_id and the
// connections), attaches and runs it once more.
func (c *Cache) attached(ctx context.Context, run func() ([]any, error)) ([]any, error) {
	reply, err := run()
	if errors.Is(err, errUnattached) && guard("unattached") {
		if err := c.attach(ctx); err != nil {
			return nil, err
		}
		reply, err = run()
	}
	return reply, err
}

// header is the first line of a value. seq, etag and deps are what READ checks.
func header(seq int64, etag string, deps []string) string {
	list := "-"
	if len(deps) > 0 {
		list = strings.Join(deps, ",")
	}
	return "V" + format + " " + strconv.FormatInt(seq, 10) + " " + etag + " " + list + "\n"
}

// parseEntry takes a value, or its first two lines, apart.
func parseEntry(value string) (Document, error) {
	head, rest, ok := strings.Cut(value, "\n")
	meta, body, ok2 := strings.Cut(rest, "\n")
	var words [4]string // format, seq, etag, deps
	for i := range words {
		words[i], head, _ = strings.Cut(head, " ")
	}
	if !ok || !ok2 || words[3] == "" || head != "" {
		return Document{}, errors.New("cache: an entry is malformed")
	}
	return Document{Body: []byte(body), ETag: words[2], Meta: meta}, nil
}

// physicalDeps returns the counters' names of logical dependencies: "g:<id>" is counted in "g<id>".
func physicalDeps(deps []string) []string {
	out := make([]string, len(deps))
	for i, dep := range deps {
		out[i] = strings.Replace(dep, ":", "", 1)
	}
	slices.Sort(out)
	return out
}
