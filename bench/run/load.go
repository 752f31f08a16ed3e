package main

import (
	"fmt"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	vegeta "github.com/tsenart/vegeta/v12/lib"
)

// requestTimeout is longer than any answer takes that is not a fault.
const requestTimeout = 20 * time.Second

// request is one request of a load.
type request struct {
	method, url string
	header      http.Header
	body        []byte
}

// load is requests sent for a while.
type load struct {
	next        func(n uint64) request // safe for concurrent use; n counts from 0
	status      int                    // the one that is right
	connections int
	rate        int // requests a second; 0: as fast as they are answered
	duration    time.Duration
	most        uint64 // requests; 0: any number
}

// sent is what became of a load.
type sent struct {
	requests  int
	seconds   float64
	latencies []time.Duration // sorted
	failures  int
	failure   string // one of them
}

// send runs the load. Vegeta counts every status from 200 to 399 as a success; here one is right.
func (l load) send() sent {
	// A client of its own, whose connections end with the load: a server that is measured next shall not
	// hold those of all before it.
	transport := &http.Transport{MaxIdleConnsPerHost: l.connections, MaxConnsPerHost: l.connections}
	defer transport.CloseIdleConnections()
	options := []func(*vegeta.Attacker){
		vegeta.MaxWorkers(uint64(l.connections)), vegeta.Workers(uint64(l.connections)),
		vegeta.Client(&http.Client{Transport: transport, Timeout: requestTimeout}),
	}
	var count atomic.Uint64
	targeter := func(t *vegeta.Target) error {
		n := count.Add(1) - 1
		r := l.next(n)
		t.Method, t.URL, t.Header, t.Body = r.method, r.url, r.header, r.body
		return nil
	}
	var pacer vegeta.Pacer = vegeta.Rate{Freq: l.rate, Per: time.Second}
	if l.most > 0 {
		pacer = upTo{pacer, l.most}
	}
	var s sent
	var began, ended time.Time
	for r := range vegeta.NewAttacker(options...).Attack(targeter, pacer, l.duration, "") {
		s.requests++
		s.latencies = append(s.latencies, r.Latency)
		if began.IsZero() || r.Timestamp.Before(began) {
			began = r.Timestamp
		}
		if end := r.End(); end.After(ended) {
			ended = end
		}
		if r.Error != "" || int(r.Code) != l.status {
			s.failures++
			if s.failure == "" {
				s.failure = fmt.Sprintf("%s %s: want %d, got %d %s %.200s", r.Method, r.URL, l.status, r.Code, r.Error, r.Body)
			}
		}
	}
	s.seconds = ended.Sub(began).Seconds()
	slices.Sort(s.latencies)
	return s
}

// add joins what became of another load.
func (s *sent) add(other sent) {
	s.requests += other.requests
	s.seconds += other.seconds
	s.latencies = append(s.latencies, other.latencies...)
	slices.Sort(s.latencies)
	s.failures += other.failures
	if s.failure == "" {
		s.failure = other.failure
	}
}

func (s sent) quantile(q float64) time.Duration {
	if len(s.latencies) == 0 {
		return 0
	}
	return s.latencies[min(int(q*float64(len(s.latencies))), len(s.latencies)-1)]
}

// upTo is a pacer that stops after a number of requests.
type upTo struct {
	vegeta.Pacer
	most uint64
}

// Pace implements vegeta.Pacer.
func (p upTo) Pace(elapsed time.Duration, hits uint64) (time.Duration, bool) {
	if hits >= p.most {
		return 0, true
	}
	return p.Pacer.Pace(elapsed, hits)
}
