// Package pipeline sends the Redis commands of concurrent requests together: one write and one read
// for all that came while the ones before were on their way. Nothing waits for company: a command
// that is alone is sent at once. Most of what a command costs this process, and much of what it costs
// Redis, are these two system calls.
package pipeline

import (
	"context"
	"runtime"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// flights is how many batches may be on their way. More of them are smaller; with one, all wait
	// for the slowest command.
	flights = 2
	// maxBatch bounds what waits behind one write: documents have a kilobyte, so a batch fits into the
	// buffers of a socket.
	maxBatch = 64
)

// Pipeline is safe for concurrent use. It is a redis.Scripter, so that redis.Script can run through it.
type Pipeline struct {
	redis.Scripter // the client: a script's text is sent rarely, and on its own
	client         *redis.Client
	timeout        time.Duration

	mu      sync.Mutex
	waiting []*batch // oldest first; only the last has room
	flying  int
}

// batch is commands that are sent together.
type batch struct {
	cmds    []redis.Cmder
	expires time.Time
	done    chan struct{}
}

// New returns a pipeline over client, which keeps its own timeouts. timeout bounds what a command
// takes: its wait for others, for a connection, and for the answer. The caller closes the client.
func New(client *redis.Client, timeout time.Duration) *Pipeline {
	return &Pipeline{Scripter: client, client: client, timeout: timeout}
}

// Do sends cmd and returns its error, as client.Process would. If ctx ends first the error is ctx's:
// then the command may still be running, and must not be looked at.
func (p *Pipeline) Do(ctx context.Context, cmd redis.Cmder) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	b := p.join(cmd)
	select {
	case <-b.done:
		return cmd.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// EvalSha implements redis.Scripter.
func (p *Pipeline) EvalSha(ctx context.Context, sha1 string, keys []string, args ...any) *redis.Cmd {
	all := make([]any, 0, 3+len(keys)+len(args))
	all = append(all, "evalsha", sha1, len(keys))
	for _, key := range keys {
		all = append(all, key)
	}
	cmd := redis.NewCmd(ctx, append(all, args...)...)
	if err := p.Do(ctx, cmd); err != nil && ctx.Err() != nil {
		cmd = redis.NewCmd(ctx) // that one may be being written to
		cmd.SetErr(err)
	}
	return cmd
}

// Exists asks whether there is a key.
func (p *Pipeline) Exists(ctx context.Context, key string) (bool, error) {
	cmd := redis.NewIntCmd(ctx, "exists", key)
	if err := p.Do(ctx, cmd); err != nil {
		return false, err
	}
	return cmd.Val() > 0, nil
}

// join puts cmd into the youngest batch and sees to it that somebody sends that.
func (p *Pipeline) join(cmd redis.Cmder) *batch {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.waiting)
	if n == 0 || len(p.waiting[n-1].cmds) == maxBatch {
		p.waiting = append(p.waiting, &batch{expires: time.Now().Add(p.timeout), done: make(chan struct{})})
		n++
	}
	b := p.waiting[n-1]
	b.cmds = append(b.cmds, cmd)
	if p.flying < flights {
		p.flying++
		go p.fly()
	}
	return b
}

// fly sends batches until none is waiting.
func (p *Pipeline) fly() {
	for {
		// Requests that are ready to run have their commands ready a moment later.
		runtime.Gosched()
		b := p.next()
		if b == nil {
			return
		}
		p.send(b)
	}
}

func (p *Pipeline) next() *batch {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.waiting) == 0 {
		p.flying--
		return nil
	}
	b := p.waiting[0]
	p.waiting = p.waiting[1:]
	return b
}

// send leaves the outcome in the commands.
func (p *Pipeline) send(b *batch) {
	defer close(b.done)
	ctx, cancel := context.WithDeadline(context.Background(), b.expires)
	defer cancel()
	if err := ctx.Err(); err != nil { // its turn came too late
		for _, cmd := range b.cmds {
			cmd.SetErr(err)
		}
		return
	}
	if len(b.cmds) == 1 {
		_ = p.client.Process(ctx, b.cmds[0])
		return
	}
	pipe := p.client.Pipeline()
	for _, cmd := range b.cmds {
		_ = pipe.Process(ctx, cmd) // only queues it
	}
	_, _ = pipe.Exec(ctx)
}
