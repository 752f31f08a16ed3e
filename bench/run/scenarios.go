package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"
)

// The contenders.
const (
	constantName = "E constant"
	redisName    = "F redis GET"
	postgresName = "G pg call"
	serviceName  = "service"
)

// The scenarios that the service shares with a yardstick. The yardsticks have one each.
const (
	byID         = "cached, by id"
	byIdentifier = "cached, by identifier"
	notModified  = "304"
	dictionary   = "dictionaries"
	missed       = "miss, by identifier"
	patched      = "PATCH"
)

// connections of the loads that are answered as fast as possible.
const connections = 16

// leg is one contender in one scenario: what a round measures at a time.
type leg struct {
	scenario string
	server   *server
	load     load
	prepare  func(context.Context) error // before each round, not measured
}

func (l leg) name() string {
	if l.scenario == l.server.name {
		return l.scenario
	}
	return l.server.name + ": " + l.scenario
}

// sample is what one leg of one round gave. CPU is in microseconds a request, memory in MB.
type sample struct {
	Requests                   int
	Rate                       float64
	P50, P99                   float64 // ms
	ServerCPU, Postgres, Redis float64
	RSS                        float64
	Failures                   int
	Failure                    string
}

func (s *stack) measure(ctx context.Context, l leg) (sample, error) {
	if l.prepare != nil {
		if err := l.prepare(ctx); err != nil {
			return sample{}, err
		}
	}
	if err := s.forgetLogs(); err != nil {
		return sample{}, err
	}
	before, err := s.cpu(l.server)
	if err != nil {
		return sample{}, err
	}
	done := l.load.send()
	after, err := s.cpu(l.server)
	if err != nil {
		return sample{}, err
	}
	if done.requests == 0 {
		return sample{}, errors.New(l.name() + ": no request was sent")
	}
	rss, err := memory(l.server.pid(), "VmRSS")
	if err != nil {
		return sample{}, err
	}
	share := func(i int) float64 {
		return float64((after[i] - before[i]).Microseconds()) / float64(done.requests)
	}
	return sample{
		Requests: done.requests, Rate: float64(done.requests) / done.seconds,
		P50: milliseconds(done.quantile(.5)), P99: milliseconds(done.quantile(.99)),
		ServerCPU: share(0), Postgres: share(1), Redis: share(2), RSS: rss,
		Failures: done.failures, Failure: done.failure,
	}, nil
}

// cpu is what server, PostgreSQL (primary and standby) and Redis (cache and revocation list) have used.
func (s *stack) cpu(v *server) (used [3]time.Duration, err error) {
	for i, pids := range [][]int{{v.pid()}, s.postgresIDs, s.redisIDs} {
		if used[i], err = treeCPU(pids...); err != nil {
			return used, err
		}
	}
	return used, nil
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1e3 }

// pick draws one of users.
func pick(users []user) user { return users[rand.IntN(len(users))] }

func (d *data) header() http.Header { return d.headers[rand.IntN(len(d.headers))] }

// with returns a sender's header with more in it.
func (d *data) with(name, value string) http.Header {
	h := d.header().Clone()
	h[name] = []string{value}
	return h
}

func reads(duration time.Duration, next func() request) load {
	return load{
		next: func(uint64) request { return next() }, status: http.StatusOK,
		connections: connections, duration: duration,
	}
}

// yardstickLegs are what the service is compared with.
func (d *data) yardstickLegs(e, f, g *server, duration time.Duration) []leg {
	return []leg{
		{scenario: constantName, server: e, load: reads(duration, func() request {
			return request{method: http.MethodGet, url: e.base + "/"}
		})},
		{scenario: redisName, server: f, load: reads(duration, func() request {
			return request{method: http.MethodGet, url: f.base + "/" + pick(d.hot).id.String()}
		})},
		{scenario: postgresName, server: g, load: reads(duration, func() request {
			return request{method: http.MethodGet, url: g.base + "/?identifier=" + pick(d.cold).identifier()}
		})},
	}
}

// serviceLegs are the scenarios, for one build of the service.
func (s *stack) serviceLegs(d *data, v *server, duration time.Duration) []leg {
	users := v.base + "/accounts/users/"
	get := func(next func() request) load { return reads(duration, next) }
	unchanged := get(func() request {
		u := pick(d.hot)
		return request{method: http.MethodGet, url: users + u.id.String(), header: d.with("If-None-Match", u.etag)}
	})
	unchanged.status = http.StatusNotModified
	misses := load{
		next: func(n uint64) request {
			u := d.cold[n%uint64(len(d.cold))]
			return request{method: http.MethodGet, url: users + "by-identifier?identifier=" + u.identifier(), header: d.header()}
		},
		status: http.StatusOK, connections: connections, duration: duration,
		most: uint64(len(d.cold)), // a second time they would be hits
	}
	changes := get(func() request { return d.patch(v, pick(d.written)) })
	return []leg{
		{scenario: byID, server: v, load: get(func() request { return d.read(v, pick(d.hot)) })},
		{scenario: byIdentifier, server: v, load: get(func() request {
			return request{method: http.MethodGet, url: users + "by-identifier?identifier=" + pick(d.hot).identifier(), header: d.header()}
		})},
		{scenario: notModified, server: v, load: unchanged},
		{scenario: dictionary, server: v, load: get(func() request {
			dictionaries := [...]string{"/accounts/user-groups", "/accounts/contact-types"}
			return request{method: http.MethodGet, url: v.base + dictionaries[rand.IntN(2)], header: d.header()}
		})},
		{scenario: missed, server: v, load: misses, prepare: func(ctx context.Context) error { return s.forget(ctx, d.cold) }},
		{scenario: patched, server: v, load: changes},
	}
}

func (d *data) read(v *server, u user) request {
	return request{method: http.MethodGet, url: v.base + "/accounts/users/" + u.id.String(), header: d.header()}
}

func (d *data) patch(v *server, u user) request {
	return request{
		method: http.MethodPatch, url: v.base + "/accounts/users/" + u.id.String(),
		header: d.with("Content-Type", "application/json"),
		body:   fmt.Appendf(nil, `{"profile":{"city":"%d"}}`, rand.Uint32()),
	}
}

// goal is a ratio that the service shall reach.
type goal struct {
	scenario  string
	yardstick string
	what      string
	most      float64
	cost      func(sample) float64
}

func serverCPU(s sample) float64 { return s.ServerCPU }

func serverAndPostgres(s sample) float64 { return s.ServerCPU + s.Postgres }

var goals = []goal{
	{byID, redisName, "server CPU", 1.2, serverCPU},
	{byIdentifier, redisName, "server CPU", 1.4, serverCPU},
	{notModified, redisName, "server CPU", 1.0, serverCPU},
	{dictionary, redisName, "server CPU", 1.1, serverCPU},
	{missed, postgresName, "server + PostgreSQL CPU", 1.2, serverAndPostgres},
}

// round measures every leg once, one after the other. Together rounds are A B C A B C.
func (s *stack) round(ctx context.Context, legs []leg) (map[string]sample, error) {
	round := make(map[string]sample, len(legs))
	for _, l := range legs {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		got, err := s.measure(ctx, l)
		if err != nil {
			return nil, err
		}
		round[l.name()] = got
	}
	return round, nil
}

// slug is a scenario as part of a file's name.
func slug(scenario string) string {
	return strings.NewReplacer(", ", "-", " ", "-").Replace(strings.ToLower(scenario))
}
