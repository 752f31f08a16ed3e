// Command run measures the service against fixed yardsticks, on databases of its own: `make bench`,
// `make bench-short`, `make profile`, `make bench-growth`. docs/benchmarks.md says what and how.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

const tokenLife = 24 * time.Hour

// fewUsers are enough to look at the service's own cost.
const fewUsers = 60_000

// plan is how long everything is measured.
type plan struct {
	users   int
	rounds  int
	leg     time.Duration // of each leg of a round
	mixed   time.Duration
	rows    int // of an upload
	uploads int // rounds of uploads
	starts  int
	parts   bool // those of a PATCH, for which PostgreSQL's sessions must be idle for 11 s twice
}

var (
	fullPlan = plan{
		users: 200_000, rounds: 7, leg: 3 * time.Second, mixed: time.Minute,
		rows: 100_000, uploads: 3, starts: 10, parts: true,
	}
	shortPlan = plan{
		users: fewUsers, rounds: 5, leg: 700 * time.Millisecond, mixed: 6 * time.Second,
		rows: 10_000, uploads: 3, starts: 3,
	}
)

type options struct {
	short    bool
	check    bool
	docs     string
	profiles string
	growth   bool
	against  string
	only     string
}

func main() {
	var o options
	flag.BoolVar(&o.short, "short", false, "less time for everything")
	flag.BoolVar(&o.check, "check", false, "fail if a ratio is more than twice its target")
	flag.StringVar(&o.docs, "docs", "", "folder whose benchmarks.md and charts are written")
	flag.StringVar(&o.profiles, "profiles", "", "instead: a folder for CPU and allocation profiles of each scenario")
	flag.BoolVar(&o.growth, "growth", false, "instead: the cost of single calls with 10 thousand to 1 million users")
	flag.StringVar(&o.against, "against", "", "binary of another build of cmd/server, measured in the same rounds")
	flag.StringVar(&o.only, "only", "", "measure just the rounds, of scenarios that contain this, with fewer users")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	switch {
	case o.growth:
		return runGrowth(ctx, o.docs)
	case o.profiles != "":
		return runProfiles(ctx, o.profiles)
	}
	p := fullPlan
	if o.short {
		p = shortPlan
	}
	if o.only != "" {
		p.users = fewUsers
	}
	r, err := runBenchmark(ctx, p, o.against, o.only)
	if err != nil {
		return err
	}
	if o.only != "" {
		r.printRounds(os.Stdout)
		return nil
	}
	r.print(os.Stdout)
	if o.docs != "" {
		if err := r.write(o.docs); err != nil {
			return err
		}
	}
	return r.judge(o.check)
}

// bench is a stack with users and servers, ready to be measured.
type bench struct {
	*stack
	data    *data
	e, f, g *server
	service *server
	binary  string
	other   *server // another build, or nil
}

func openBench(ctx context.Context, users int, against string) (_ *bench, err error) {
	say("starting PostgreSQL and Redis")
	s, err := openStack(ctx)
	if err != nil {
		return nil, err
	}
	b := &bench{stack: s}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.close())
		}
	}()
	say("building")
	binaries := map[string]string{}
	for name, pkg := range map[string]string{
		"constant": "bench/yardstick/constant", "redisget": "bench/yardstick/redisget",
		"pgcall": "bench/yardstick/pgcall", "service": "cmd/server",
	} {
		if binaries[name], err = s.build(ctx, name, pkg); err != nil {
			return nil, err
		}
	}
	b.binary = binaries["service"]
	say("making %d users", users)
	if b.data, err = s.fill(ctx, users); err != nil {
		return nil, err
	}
	if b.e, err = s.start(ctx, constantName, binaries["constant"], "/"); err != nil {
		return nil, err
	}
	if b.service, err = s.startService(ctx, serviceName, b.binary); err != nil {
		return nil, err
	}
	if err := s.warm(ctx, b.data, b.service); err != nil {
		return nil, err
	}
	any := b.data.hot[0]
	b.f, err = s.start(ctx, redisName, binaries["redisget"], "/"+any.id.String(), "REDIS_URL="+s.cache.URL)
	if err != nil {
		return nil, err
	}
	b.g, err = s.start(ctx, postgresName, binaries["pgcall"], "/?identifier="+any.identifier(), "DATABASE_URL="+s.urls.ReadURL)
	if err != nil {
		return nil, err
	}
	if against != "" {
		if b.other, err = s.startService(ctx, "other", against); err != nil {
			return nil, err
		}
	}
	return b, s.settle(ctx)
}

func say(format string, args ...any) { fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...) }
