package pipeline_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/localservers"
	"github.com/payment-services/accounts/internal/pgtest"
	"github.com/payment-services/accounts/internal/pipeline"
)

// flights is how many batches may be on their way.
const flights = 2

// timeout of batches: a busy machine is no broken Redis.
const timeout = 20 * time.Second

// bed is a pipeline over a Redis of its own. Batches that begin while hold is locked wait for it.
type bed struct {
	*pipeline.Pipeline
	server *localservers.Redis
	client *redis.Client

	hold  sync.Mutex
	begun chan int // the size of each batch
}

func newBed(t *testing.T, timeout time.Duration) *bed {
	t.Helper()
	pgtest.NeedServers(t)
	server, err := localservers.NewRedis(localservers.RedisConfig{Kind: localservers.CacheRedis, Dir: t.TempDir()})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, server.Close()) })
	require.NoError(t, server.Start(t.Context()))
	options, err := redis.ParseURL(server.URL)
	require.NoError(t, err)
	options.MaxRetries, options.PipelinePoolSize, options.ContextTimeoutEnabled = -1, -1, true
	client := redis.NewClient(options)
	t.Cleanup(func() { _ = client.Close() })
	b := &bed{server: server, client: client, begun: make(chan int, 1000)}
	b.Pipeline = pipeline.New(client, timeout)
	require.NoError(t, client.Ping(t.Context()).Err())
	client.AddHook(b)
	return b
}

func (b *bed) DialHook(next redis.DialHook) redis.DialHook { return next }

func (b *bed) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		b.begin(cmd)
		return next(ctx, cmd)
	}
}

func (b *bed) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		b.begin(cmds...)
		return next(ctx, cmds)
	}
}

// begin leaves the greetings of new connections alone.
func (b *bed) begin(cmds ...redis.Cmder) {
	if cmds[0].Name() == "hello" || cmds[0].Name() == "client" || cmds[0].Name() == "select" {
		return
	}
	b.begun <- len(cmds)
	b.hold.Lock()
	defer b.hold.Unlock()
}

// occupy holds Redis with as many commands as may be on their way, so that what comes next waits, until
// hold is unlocked.
func (b *bed) occupy(t *testing.T) {
	t.Helper()
	b.hold.Lock()
	for range flights {
		b.echo(t.Context(), "on its way")
		require.Equal(t, 1, <-b.begun)
	}
}

// echo asks for text in the background; the answer, or the error, is sent on the channel.
func (b *bed) echo(ctx context.Context, text string) <-chan string {
	answer := make(chan string, 1)
	go func() {
		cmd := redis.NewStringCmd(ctx, "echo", text)
		if err := b.Do(ctx, cmd); err != nil {
			answer <- err.Error()
			return
		}
		answer <- cmd.Val()
	}()
	return answer
}

func TestPipeline_ConcurrentCommandsShareOneRoundTrip(t *testing.T) {
	t.Parallel()
	b := newBed(t, timeout)
	b.hold.Lock()
	var answers []<-chan string
	const more = 100 // behind those on their way
	for i := range flights {
		answers = append(answers, b.echo(t.Context(), fmt.Sprint(i)))
		require.Equal(t, 1, <-b.begun)
	}
	for i := range more {
		answers = append(answers, b.echo(t.Context(), fmt.Sprint(flights+i)))
	}
	require.Eventually(t, func() bool { return b.Waiting() == more }, timeout, time.Millisecond)
	b.hold.Unlock()
	for i, answer := range answers {
		require.Equal(t, fmt.Sprint(i), <-answer)
	}
	require.ElementsMatch(t, []int{64, more - 64}, []int{<-b.begun, <-b.begun})
	require.Empty(t, b.begun)
}

func TestPipeline_ErrorOfOneCommandDoesNotAffectOthers(t *testing.T) {
	t.Parallel()
	b := newBed(t, timeout)
	b.occupy(t)
	good := b.echo(t.Context(), "good")
	bad := redis.NewCmd(t.Context(), "hget", "too few arguments")
	failed := make(chan error, 1)
	go func() { failed <- b.Do(t.Context(), bad) }()
	require.Eventually(t, func() bool { return b.Waiting() == 2 }, timeout, time.Millisecond)
	b.hold.Unlock()
	require.ErrorContains(t, <-failed, "wrong number of arguments")
	require.Equal(t, "good", <-good)
}

func TestPipeline_EndedContextSendsNothing(t *testing.T) {
	t.Parallel()
	b := newBed(t, timeout)
	ctx, leave := context.WithCancel(t.Context())
	leave()
	require.Equal(t, context.Canceled.Error(), <-b.echo(ctx, "left"))
	cmd := b.EvalSha(ctx, "0000000000000000000000000000000000000000", []string{"key"})
	require.ErrorIs(t, cmd.Err(), context.Canceled)
	require.Empty(t, b.begun)
}

// The lead goes on from batch to batch, whatever became of the ones before.
func TestPipeline_ManyConcurrentCallers(t *testing.T) {
	t.Parallel()
	b := newBed(t, timeout)
	go func() {
		for range b.begun {
		}
	}()
	var callers sync.WaitGroup
	for i := range 100 {
		callers.Go(func() {
			for n := range 100 {
				text := fmt.Sprintf("%d-%d", i, n)
				if answer := <-b.echo(t.Context(), text); answer != text {
					t.Errorf("%s was answered with %s", text, answer)
				}
			}
		})
	}
	callers.Wait()
	require.Zero(t, b.Waiting())
}

func TestPipeline_ExpiredCommandIsNotSent(t *testing.T) {
	t.Parallel()
	const short = 100 * time.Millisecond
	b := newBed(t, short)
	b.occupy(t)
	late := b.echo(t.Context(), "late")
	require.Eventually(t, func() bool { return b.Waiting() == 1 }, timeout, time.Millisecond)
	queued := time.Now()
	require.Eventually(t, func() bool { return time.Since(queued) > short }, timeout, time.Millisecond)
	b.hold.Unlock()
	require.Equal(t, context.DeadlineExceeded.Error(), <-late)
	require.Empty(t, b.begun)
}

func TestPipeline_PanicFailsEveryCommandOfTheBatch(t *testing.T) {
	t.Parallel()
	b := newBed(t, timeout)
	b.occupy(t)
	const callers = 10
	outcomes := make(chan any, callers)
	for range callers {
		go func() {
			defer func() {
				if panicked := recover(); panicked != nil {
					outcomes <- panicked
				}
			}()
			_, err := b.Exists(t.Context(), "key")
			outcomes <- err
		}()
	}
	require.Eventually(t, func() bool { return b.Waiting() == callers }, timeout, time.Millisecond)
	b.client.AddHook(panics{})
	b.hold.Unlock()
	panicked := 0
	for range callers {
		switch outcome := <-outcomes; outcome.(type) {
		case error:
			require.ErrorContains(t, outcome.(error), "not sent")
		default:
			panicked++
		}
	}
	require.Equal(t, 1, panicked, "who sent the batch")
	require.Zero(t, b.Waiting())
}

// panics is a hook that panics in every batch with an EXISTS. The commands that go-redis sends on a new
// connection, which another goroutine may open at the same time, are left alone.
type panics struct{}

func (panics) DialHook(next redis.DialHook) redis.DialHook { return next }

func (panics) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

func (panics) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if slices.ContainsFunc(cmds, func(cmd redis.Cmder) bool { return cmd.Name() == "exists" }) {
			panic("a defect")
		}
		return next(ctx, cmds)
	}
}

func TestPipeline_FrozenRedisFailsEveryCommand(t *testing.T) {
	t.Parallel()
	b := newBed(t, 100*time.Millisecond)
	require.NoError(t, b.server.Freeze())
	for range 3 {
		require.NotEqual(t, "lost", <-b.echo(t.Context(), "lost"))
	}
	require.NoError(t, b.server.Thaw())
}

func TestPipeline_UnknownScriptIsLoaded(t *testing.T) {
	t.Parallel()
	b := newBed(t, timeout)
	script := redis.NewScript("return {KEYS[1], ARGV[1]}")
	for range 2 {
		got, err := script.Run(t.Context(), b, []string{"key"}, "value").StringSlice()
		require.NoError(t, err)
		require.Equal(t, []string{"key", "value"}, got)
	}
	there, err := b.Exists(t.Context(), "key")
	require.NoError(t, err)
	require.False(t, there)
	require.NoError(t, b.client.Set(t.Context(), "key", 1, 0).Err())
	there, err = b.Exists(t.Context(), "key")
	require.NoError(t, err)
	require.True(t, there)
}
