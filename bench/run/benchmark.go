package main

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"
)

// results are everything that one run measured.
type results struct {
	plan   plan
	began  time.Time
	took   time.Duration
	bytes  int // of a document
	order  []string
	rounds []map[string]sample
	tools  []toolRound
	parts  []part
	mixed  *mixedResult
	bulk   []bulkRound
	start  *startResult
	other  bool
}

func runBenchmark(ctx context.Context, p plan, against, only string) (_ *results, err error) {
	r := &results{plan: p, began: time.Now(), other: against != ""}
	b, err := openBench(ctx, p.users, against)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	document, _, err := b.data.fetch(ctx, b.service.base+"/accounts/users/"+b.data.hot[0].id.String())
	if err != nil {
		return nil, err
	}
	r.bytes = len(document)

	legs := b.data.yardstickLegs(b.e, b.f, b.g, p.leg)
	builds := [][]leg{b.serviceLegs(b.data, b.service, p.leg)}
	if b.other != nil {
		builds = append(builds, b.serviceLegs(b.data, b.other, p.leg))
	}
	for i := range builds[0] { // two builds of a scenario one after the other
		for _, build := range builds {
			if strings.Contains(build[i].scenario, only) {
				legs = append(legs, build[i])
			}
		}
	}
	for _, l := range legs {
		r.order = append(r.order, l.name())
	}
	for n := range p.rounds {
		say("round %d of %d", n+1, p.rounds)
		round, err := b.round(ctx, legs)
		if err != nil {
			return nil, err
		}
		r.rounds = append(r.rounds, round)
		if only != "" {
			continue
		}
		tools, err := b.measureTools(ctx, p.leg)
		if err != nil {
			return nil, err
		}
		r.tools = append(r.tools, tools)
	}
	if only != "" {
		return r, nil
	}
	if p.parts {
		say("the parts of a PATCH")
		if r.parts, err = b.measureParts(ctx); err != nil {
			return nil, err
		}
	}
	say("reads and writes, 64 connections")
	if r.mixed, err = b.measureMixed(ctx, p.mixed, r.median(serviceName+": "+byID, rate)); err != nil {
		return nil, err
	}
	for n := range p.uploads {
		say("uploads of %d rows, round %d of %d", p.rows, n+1, p.uploads)
		round, err := b.measureBulk(ctx, p.rows, n)
		if err != nil {
			return nil, err
		}
		r.bulk = append(r.bulk, round)
	}
	say("starts")
	if r.start, err = b.measureStart(ctx, p.starts); err != nil {
		return nil, err
	}
	r.took = time.Since(r.began)
	return r, nil
}

func rate(s sample) float64 { return s.Rate }

// values are one figure of a leg in every round.
func (r *results) values(leg string, of func(sample) float64) []float64 {
	var all []float64
	for _, round := range r.rounds {
		all = append(all, of(round[leg]))
	}
	return all
}

func (r *results) median(leg string, of func(sample) float64) float64 {
	return spreadOf(r.values(leg, of)).median
}

// has reports whether a build's scenario was measured.
func (r *results) has(build string, g goal) bool {
	return slices.Contains(r.order, build+": "+g.scenario)
}

// ratios compare a build's scenario with the yardstick of the same round.
func (r *results) ratios(build string, g goal) spread {
	var all []float64
	for _, round := range r.rounds {
		all = append(all, g.cost(round[build+": "+g.scenario])/g.cost(round[g.yardstick]))
	}
	return spreadOf(all)
}
