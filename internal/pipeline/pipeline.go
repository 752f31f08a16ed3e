// Package pipeline sends the Redis commands of concurrent requests together: one write and one read
// for all that came while the ones before were on their way. Nothing waits for company: a command
// that is alone is sent at once. Most of what a command costs this process, and much of what it costs
// Redis, are these two system calls.
//
// There is no goroutine of its own: of the callers whose commands make a batch one sends it, as
// LevelDB's writers do. So a command that is alone costs what it costs without a pipeline.
package pipeline

import (
	"context"
	"errors"
	"runtime"
	"slices"
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

var errAbandoned = errors.New("the batch was abandoned")

// Pipeline is safe for concurrent use. It is a redis.Scripter, so that redis.Script can run through it.
type Pipeline struct {
	redis.Scripter // the client: a script's text is sent rarely, and on its own
	client         *redis.Client
	timeout        time.Duration

	mu      sync.Mutex
	waiting []*batch // oldest first; only the last has room
	flying  int      // batches that have a leader
}

// batch is commands that are sent together.
type batch struct {
	cmds    []redis.Cmder
	expires time.Time
	led     bool          // a caller has it in hand; guarded by Pipeline.mu
	lead    chan struct{} // one of the callers takes this token, and with it the lead
	done    chan struct{}
}

// New returns a pipeline over client, which keeps its own timeouts. timeout bounds what a command
// takes: its wait for others, for a connection, and for the answer. The caller closes the client.
func New(client *redis.Client, timeout time.Duration) *Pipeline {
	return &Pipeline{Scripter: client, client: client, timeout: timeout}
}

// Do sends cmd and returns its error, as client.Process would. A ctx that has ended keeps cmd from being
// sent; one that ends later is not noticed, for the timeout is short.
func (p *Pipeline) Do(ctx context.Context, cmd redis.Cmder) error {
	if err := ctx.Err(); err != nil {
		cmd.SetErr(err)
		return err
	}
	b, leads := p.join(cmd)
	if !leads {
		select {
		case <-b.done:
			return cmd.Err()
		case <-b.lead:
		}
	}
	p.fly(b)
	return cmd.Err()
}

// EvalSha implements redis.Scripter.
func (p *Pipeline) EvalSha(ctx context.Context, sha1 string, keys []string, args ...any) *redis.Cmd {
	all := make([]any, 0, 3+len(keys)+len(args))
	all = append(all, "evalsha", sha1, len(keys))
	for _, key := range keys {
		all = append(all, key)
	}
	cmd := redis.NewCmd(ctx, append(all, args...)...)
	_ = p.Do(ctx, cmd) // it is in cmd
	return cmd
}

// Exists asks whether there is a key.
func (p *Pipeline) Exists(ctx context.Context, key string) (bool, error) {
	cmd := redis.NewIntCmd(ctx, "exists", key)
	err := p.Do(ctx, cmd)
	return cmd.Val() > 0, err
}

// join puts cmd into the youngest batch, and reports whether its caller has to send that.
func (p *Pipeline) join(cmd redis.Cmder) (b *batch, leads bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.waiting); n > 0 && len(p.waiting[n-1].cmds) < maxBatch {
		b = p.waiting[n-1]
		b.cmds = append(b.cmds, cmd)
		return b, false
	}
	b = &batch{
		cmds: append(make([]redis.Cmder, 0, 8), cmd), expires: time.Now().Add(p.timeout),
		lead: make(chan struct{}, 1), done: make(chan struct{}),
	}
	p.waiting = append(p.waiting, b)
	if p.flying < flights {
		p.flying++
		b.led, leads = true, true
	}
	return b, leads
}

// fly sends b, and then gives the lead of another batch to one of its callers.
func (p *Pipeline) fly(b *batch) {
	sent := false
	defer func() {
		if !sent { // a panic: nobody may take the command's zero value for an answer
			for _, cmd := range b.cmds {
				cmd.SetErr(errAbandoned)
			}
		}
		close(b.done)
		p.land()
	}()
	// Requests that are ready to run have their commands ready a moment later.
	runtime.Gosched()
	p.mu.Lock()
	p.waiting = slices.DeleteFunc(p.waiting, func(other *batch) bool { return other == b })
	p.mu.Unlock()
	p.send(b)
	sent = true
}

func (p *Pipeline) land() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, b := range p.waiting {
		if !b.led {
			b.led = true
			b.lead <- struct{}{}
			return
		}
	}
	p.flying--
}

// send leaves the outcome in the commands.
func (p *Pipeline) send(b *batch) {
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
