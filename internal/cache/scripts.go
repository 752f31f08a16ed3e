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

	"github.com/payment-services/accounts/internal/mutation"
	"github.com/payment-services/accounts/internal/routing"
)

// format is the version of the layout of entries. It is part of the value, not of the key: during a rolling
// deploy, old and new processes must invalidate the same keys. An entry of another format is a miss.
const format = "1"

const (
	// leaseTTL is the time after which another request may take the lease of a holder that died.
	leaseTTL = 3 * time.Second
	// DirtyTTL is M of the cache protocol: the time for which reads of a written key go to the primary.
	DirtyTTL = 15 * time.Second
	// notFoundTag is the ETag of an entry that stores "not found".
	notFoundTag = "-"
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

// scripts are the four atomic steps of the protocol. Each is one round trip. Comments in the Lua files
// explain them.
type scripts struct {
	read, fill, invalidate, attach *redis.Script
}

func newScripts() scripts {
	load := func(text string) *redis.Script { return redis.NewScript(mutation.Script(text)) }
	return scripts{read: load(readLua), fill: load(fillLua), invalidate: load(invalidateLua), attach: load(attachLua)}
}

// readCode is the first word of READ's reply.
type readCode string

const (
	readHit         readCode = "HIT"
	readNotModified readCode = "NOT-MODIFIED"
	readWait        readCode = "WAIT"
	readMiss        readCode = "MISS"
	readUnattached  readCode = "UNATTACHED"
)

// readReply is READ's reply. Which fields are set depends on the code.
type readReply struct {
	code  readCode
	value string // HIT: the entry; NOT-MODIFIED: its first two lines
	token string // WAIT: of the lease holder; MISS: of this request
	seq   int64  // WAIT, MISS
	dirty bool   // MISS: written less than DirtyTTL ago
}

func (c *Cache) read(ctx context.Context, key, token string, tags []string) (readReply, error) {
	args := make([]any, 0, 3+len(tags))
	args = append(args, token, leaseTTL.Milliseconds(), format)
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
		return readReply{}, fmt.Errorf("cache READ: %w", err)
	}
	r := readReply{code: readCode(reply[0].(string))}
	switch r.code {
	case readHit, readNotModified:
		r.value = reply[1].(string)
	case readWait:
		r.token, r.seq = reply[1].(string), reply[2].(int64)
	case readMiss:
		r.token, r.seq, r.dirty = token, reply[1].(int64), reply[2].(int64) == 1
	}
	return r, nil
}

// fill returns "OK" or the reason why nothing was stored.
func (c *Cache) fill(ctx context.Context, key string, l lease, d Document, from routing.Provenance, ttl time.Duration) (string, error) {
	deps := physicalDeps(d.Deps)
	args := make([]any, 0, 7+len(deps))
	args = append(args, l.token, l.seq, string(from.Server), from.Cluster,
		header(l.seq, d.ETag, deps), ttl.Milliseconds(), d.Meta+"\n"+string(d.Body))
	for _, dep := range deps {
		args = append(args, dep)
	}
	reply, err := c.scripts.fill.Run(ctx, c.batched, []string{key, genKey, dirtyKey}, args...).Text()
	if err != nil {
		return "", fmt.Errorf("cache FILL: %w", err)
	}
	return reply, nil
}

// release removes a lease that will not be filled.
func (c *Cache) release(ctx context.Context, key string, l lease) {
	_, err := c.fill(ctx, key, l, Document{ETag: notFoundTag}, routing.Provenance{}, 0)
	c.recordRedisError(ctx, err)
}

// invalidate marks keys and dependencies as dirty, unlinks the keys and increments the counters of the
// dependencies, in one step.
func (c *Cache) invalidate(ctx context.Context, keys, deps []string) error {
	args := make([]any, 0, 1+len(deps))
	args = append(args, DirtyTTL.Milliseconds())
	for _, dep := range deps {
		args = append(args, dep)
	}
	_, err := c.attached(ctx, func() ([]any, error) {
		reply, err := c.scripts.invalidate.Run(ctx, c.redis, append([]string{genKey, dirtyKey}, keys...), args...).Text()
		if err == nil && reply == string(readUnattached) {
			return nil, errUnattached
		}
		return nil, err
	})
	if err != nil {
		return fmt.Errorf("cache INVALIDATE: %w", err)
	}
	return nil
}

// attached runs one script. If Redis has lost the generation (FLUSHDB keeps the run_id and the
// connections), it attaches and runs the script once more.
func (c *Cache) attached(ctx context.Context, run func() ([]any, error)) ([]any, error) {
	reply, err := run()
	if errors.Is(err, errUnattached) && mutation.Point("unattached") {
		if err := c.Attach(ctx); err != nil {
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

// parseEntry parses a value, or its first two lines.
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

// physicalDeps returns the names of the counters of logical dependencies: "g:<id>" has the counter "g<id>".
func physicalDeps(deps []string) []string {
	out := make([]string, len(deps))
	for i, dep := range deps {
		out[i] = strings.Replace(dep, ":", "", 1)
	}
	slices.Sort(out)
	return out
}
