package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// The generated part of benchmarks.md stands between these lines; the rest is written by hand.
const (
	beginMark = "<!-- measured: written by make bench -->"
	endMark   = "<!-- /measured -->"
)

// Limits of scenarios that have no yardstick in the rounds.
const (
	mixedMost    = 3.0  // p99 against that of F at the same rate
	copyLeast    = 0.5  // rows a second against COPY
	peakMost     = 128. // MB
	othersMost   = 2.0  // p99 of others against before
	readyMost    = 150. // ms
	idleMost     = 30.  // MB
	busyMost     = 60.  // MB
	imageMost    = 30.  // MB
	growthMost   = 1.10 // of memory over the mixed load
	moreRoutines = 10.  // goroutines over the mixed load
	farOff       = 2.0  // CI fails when a ratio misses its target by this factor
)

// spread is the median of some values, and the least and the greatest.
type spread struct{ median, low, high float64 }

func spreadOf(values []float64) spread {
	v := slices.Sorted(slices.Values(values))
	if len(v) == 0 {
		return spread{}
	}
	return spread{(v[(len(v)-1)/2] + v[len(v)/2]) / 2, v[0], v[len(v)-1]}
}

func (s spread) format(verb string) string {
	return fmt.Sprintf(verb+" ("+verb+"–"+verb+")", s.median, s.low, s.high)
}

// verdict is one target and what became of it. atLeast: more is better.
type verdict struct {
	scenario, what string
	got            spread
	verb           string
	target         float64
	atLeast        bool
	noFail         bool // not a ratio, or the tail of one short run: the machine decides, so CI does not fail on it
}

func (v verdict) reached() bool {
	if v.atLeast {
		return v.got.median >= v.target
	}
	return v.got.median <= v.target
}

// farOff asks the best round, for what else a machine does can only make a round worse.
func (v verdict) farOff() bool {
	if v.atLeast {
		return v.got.high < v.target/farOff
	}
	return v.got.low > v.target*farOff
}

func (v verdict) line() []string {
	sign, outcome := "≤", "reached"
	if v.atLeast {
		sign = "≥"
	}
	if !v.reached() {
		outcome = fmt.Sprintf("**missed by %.0f %%**", 100*max(v.got.median/v.target-1, 1-v.got.median/v.target))
		if v.atLeast {
			outcome = fmt.Sprintf("**missed by %.0f %%**", 100*(1-v.got.median/v.target))
		}
	}
	return []string{v.scenario, v.what, v.got.format(v.verb), sign + " " + fmt.Sprintf(v.verb, v.target), outcome}
}

func (r *results) verdicts() []verdict {
	var all []verdict
	for _, g := range goals {
		all = append(all, r.verdictOf(g))
	}
	of := func(value func(bulkRound) float64) spread {
		var v []float64
		for _, round := range r.bulk {
			v = append(v, value(round))
		}
		return spreadOf(v)
	}
	growth := func(v []float64) spread { return spreadOf([]float64{v[len(v)-1] / v[0]}) }
	all = append(all,
		verdict{scenario: "mixed", what: "p99 / F at the same rate", got: spreadOf([]float64{r.mixed.ratio()}), verb: "%.2f", target: mixedMost, noFail: true},
		verdict{scenario: "mixed", what: "memory, end / beginning", got: growth(r.mixed.RSS), verb: "%.2f", target: growthMost},
		verdict{scenario: "mixed", what: "goroutines more at the end", verb: "%.0f", target: moreRoutines, noFail: true,
			got: spreadOf([]float64{r.mixed.Goroutines[len(r.mixed.Goroutines)-1] - r.mixed.Goroutines[0]})},
		verdict{scenario: "bulk upload, CSV", what: "rows/s / COPY", verb: "%.2f", target: copyLeast, atLeast: true,
			got: of(func(b bulkRound) float64 { return b.CSV.RowsPerSecond / b.Copy.RowsPerSecond })},
		verdict{scenario: "bulk upload, CSV", what: "peak RSS, MB", verb: "%.0f", target: peakMost,
			got: of(func(b bulkRound) float64 { return b.CSV.Peak })},
		verdict{scenario: "bulk upload, XLSX", what: "peak RSS, MB", verb: "%.0f", target: peakMost,
			got: of(func(b bulkRound) float64 { return b.XLSX.Peak })},
		verdict{scenario: "bulk upload, CSV", what: "others' p99 / before", verb: "%.2f", target: othersMost, noFail: true,
			got: of(func(b bulkRound) float64 { return b.CSV.Others / b.CSV.Quiet })},
		verdict{scenario: "bulk upload, XLSX", what: "others' p99 / before", verb: "%.2f", target: othersMost, noFail: true,
			got: of(func(b bulkRound) float64 { return b.XLSX.Others / b.XLSX.Quiet })},
		verdict{scenario: "start to ready", what: "ms", got: spreadOf(r.start.Ready), verb: "%.0f", target: readyMost, noFail: true},
		verdict{scenario: "RSS idle", what: "MB", got: spreadOf(r.start.Idle), verb: "%.0f", target: idleMost},
		verdict{scenario: "RSS, 64 connections", what: "MB", got: spreadOf(r.mixed.RSS), verb: "%.0f", target: busyMost},
		verdict{scenario: "image", what: "MB, the binary", got: spreadOf([]float64{r.start.Binary}), verb: "%.1f", target: imageMost},
	)
	return all
}

// judge returns an error for every failed request, and with check for ratios that are far off.
func (r *results) judge(check bool) error {
	var errs []error
	failed := func(name string, s sample) {
		if s.Failures > 0 {
			errs = append(errs, fmt.Errorf("%s: %d of %d requests failed: %s", name, s.Failures, s.Requests, s.Failure))
		}
	}
	for _, round := range r.rounds {
		for _, name := range r.order {
			failed(name, round[name])
		}
	}
	failed("mixed", r.mixed.Mixed)
	failed("mixed, F before", r.mixed.Before)
	failed("mixed, F after", r.mixed.After)
	for _, v := range r.verdicts() {
		if check && v.farOff() && !v.noFail {
			errs = append(errs, fmt.Errorf("%s, %s: %s is far from the target", v.scenario, v.what, v.got.format(v.verb)))
		}
	}
	return errors.Join(errs...)
}

// print writes everything as text.
func (r *results) print(w io.Writer) {
	for _, t := range r.tables() {
		fmt.Fprintf(w, "\n%s\n\n", t.title)
		t.text(w)
	}
}

// printRounds writes what a run of some scenarios gave.
func (r *results) printRounds(w io.Writer) {
	targets := table{title: "Targets", head: []string{"scenario", "figure", "median (min–max)", "target", ""}}
	for _, g := range goals {
		if r.has(serviceName, g) {
			targets.rows = append(targets.rows, r.verdictOf(g).line())
		}
	}
	tables := []table{targets, r.legTable()}
	if r.other {
		tables = append(tables, r.otherTable())
	}
	for _, t := range tables {
		fmt.Fprintf(w, "\n%s\n\n", t.title)
		t.text(w)
	}
}

func (r *results) verdictOf(g goal) verdict {
	return verdict{
		scenario: g.scenario, what: g.what + " / " + strings.Fields(g.yardstick)[0],
		got: r.ratios(serviceName, g), verb: "%.2f", target: g.most,
	}
}

// write writes the measured part of dir/benchmarks.md and the charts beside it.
func (r *results) write(dir string) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\n\n%s, %s/%s, %d CPUs; %d users, documents of %d bytes; %d rounds, %.0f s a leg; the whole run took %.0f s.\n",
		r.began.UTC().Format("2006-01-02"), runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), r.plan.users, r.bytes,
		r.plan.rounds, r.plan.leg.Seconds(), r.took.Seconds())
	for _, t := range r.tables() {
		fmt.Fprintf(&b, "\n### %s\n\n", t.title)
		t.markdown(&b)
	}
	if err := replaceMeasured(filepath.Join(dir, "benchmarks.md"), beginMark, b.Bytes()); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "benchmarks-cpu.svg"), r.cpuChart(), 0o644)
}

// replaceMeasured puts text between a mark and the next end mark of a file.
func replaceMeasured(path, mark string, text []byte) error {
	old, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	head, rest, found := bytes.Cut(old, []byte(mark))
	_, tail, ended := bytes.Cut(rest, []byte(endMark))
	if !found || !ended {
		return fmt.Errorf("%s has no place for what was measured (%s)", path, mark)
	}
	fresh := slices.Concat(head, []byte(mark+"\n\n"), bytes.TrimSpace(text), []byte("\n\n"+endMark), tail)
	return os.WriteFile(path, fresh, 0o644)
}

func (r *results) tables() []table {
	targets := table{title: "Targets", head: []string{"scenario", "figure", "median (min–max)", "target", ""}}
	for _, v := range r.verdicts() {
		targets.rows = append(targets.rows, v.line())
	}
	all := []table{targets, r.legTable(), r.capacityTable(), r.toolTable()}
	if r.other {
		all = append(all, r.otherTable())
	}
	if r.parts != nil {
		parts := table{title: "The parts of a PATCH", head: []string{"part", "a request", "each (µs)"}}
		for _, p := range r.parts {
			each := fmt.Sprintf("%.1f", p.Each)
			if p.Name == "bytes of WAL" || p.Each == 0 {
				each = "–"
			}
			parts.rows = append(parts.rows, []string{p.Name, fmt.Sprintf("%.2f", p.PerRequest), each})
		}
		all = append(all, parts)
	}
	return append(all, r.mixedTable(), r.bulkTable())
}

func (r *results) legTable() table {
	legs := table{title: "Every contender", head: []string{
		"", "requests/s", "p50 ms", "p99 ms", "server CPU µs", "PostgreSQL CPU µs", "Redis CPU µs", "RSS MB",
	}}
	for _, name := range r.order {
		row := []string{name}
		for _, column := range []struct {
			verb string
			of   func(sample) float64
		}{
			{"%.0f", rate},
			{"%.2f", func(s sample) float64 { return s.P50 }},
			{"%.2f", func(s sample) float64 { return s.P99 }},
			{"%.0f", serverCPU},
			{"%.0f", func(s sample) float64 { return s.Postgres }},
			{"%.0f", func(s sample) float64 { return s.Redis }},
			{"%.0f", func(s sample) float64 { return s.RSS }},
		} {
			row = append(row, spreadOf(r.values(name, column.of)).format(column.verb))
		}
		legs.rows = append(legs.rows, row)
	}
	return legs
}

// capacityTable says how many requests a second keep one CPU busy: all of it spent on the service, on
// PostgreSQL or on Redis, and shared as they need it.
func (r *results) capacityTable() table {
	t := table{title: "Requests a second for each CPU", head: []string{"scenario", "service alone", "PostgreSQL alone", "Redis alone", "all three"}}
	for _, name := range r.order {
		if !strings.HasPrefix(name, serviceName+": ") {
			continue
		}
		row := []string{strings.TrimPrefix(name, serviceName+": ")}
		for _, of := range []func(sample) float64{
			serverCPU,
			func(s sample) float64 { return s.Postgres },
			func(s sample) float64 { return s.Redis },
			func(s sample) float64 { return s.ServerCPU + s.Postgres + s.Redis },
		} {
			const second, idle = 1e6, 5 // microseconds; less than this is the service's background work
			if cost := r.median(name, of); cost >= idle {
				row = append(row, fmt.Sprintf("%.0f", second/cost))
			} else {
				row = append(row, "–")
			}
		}
		t.rows = append(t.rows, row)
	}
	return t
}

// otherTable compares this build with another one.
func (r *results) otherTable() table {
	t := table{title: "Two builds", head: []string{"scenario", "figure", "this build", "the other", "this / the other"}}
	for _, g := range goals {
		if !r.has("other", g) {
			continue
		}
		var both []float64
		for _, round := range r.rounds {
			both = append(both, g.cost(round[serviceName+": "+g.scenario])/g.cost(round["other: "+g.scenario]))
		}
		t.rows = append(t.rows, []string{g.scenario, g.what + " / " + strings.Fields(g.yardstick)[0],
			r.ratios(serviceName, g).format("%.2f"), r.ratios("other", g).format("%.2f"), spreadOf(both).format("%.2f")})
	}
	return t
}

func (r *results) toolTable() table {
	t := table{title: "H: the tools that come with the servers", head: []string{"", "a second", "CPU µs each, PostgreSQL or Redis"}}
	for _, row := range []struct {
		name      string
		rate, cpu func(toolRound) float64
	}{
		{"pgbench -M prepared, the function of G", func(t toolRound) float64 { return t.CallRate }, func(t toolRound) float64 { return t.CallCPU }},
		{"redis-benchmark, the GET of F", func(t toolRound) float64 { return t.GetRate }, func(t toolRound) float64 { return t.GetCPU }},
	} {
		var rates, cpus []float64
		for _, round := range r.tools {
			rates, cpus = append(rates, row.rate(round)), append(cpus, row.cpu(round))
		}
		t.rows = append(t.rows, []string{row.name, spreadOf(rates).format("%.0f"), spreadOf(cpus).format("%.0f")})
	}
	return t
}

func (r *results) mixedTable() table {
	m := r.mixed
	t := table{title: fmt.Sprintf("95 %% reads, 5 %% writes, 64 connections, %d requests/s, %.0f s", m.Rate, r.plan.mixed.Seconds()),
		head: []string{"", "p50 ms", "p99 ms", "requests", "failed"}}
	for _, row := range []struct {
		name string
		s    sample
	}{{"F before", m.Before}, {"service", m.Mixed}, {"F after", m.After}} {
		t.rows = append(t.rows, []string{row.name, fmt.Sprintf("%.2f", row.s.P50), fmt.Sprintf("%.2f", row.s.P99),
			fmt.Sprint(row.s.Requests), fmt.Sprint(row.s.Failures)})
	}
	t.note = fmt.Sprintf("Goroutines over the time: %.0f. RSS in MB: %.1f.", m.Goroutines, m.RSS)
	return t
}

func (r *results) bulkTable() table {
	t := table{title: fmt.Sprintf("Creating %d users at once", r.plan.rows),
		head: []string{"", "rows/s", "peak RSS of the service, MB", "others' p99 before, ms", "others' p99 during, ms"}}
	for _, row := range []struct {
		name string
		of   func(bulkRound) bulkSample
	}{
		{"COPY and one INSERT", func(b bulkRound) bulkSample { return b.Copy }},
		{"upload of CSV", func(b bulkRound) bulkSample { return b.CSV }},
		{"upload of XLSX", func(b bulkRound) bulkSample { return b.XLSX }},
	} {
		cells := []string{row.name}
		for _, column := range []struct {
			verb string
			of   func(bulkSample) float64
		}{
			{"%.0f", func(s bulkSample) float64 { return s.RowsPerSecond }},
			{"%.0f", func(s bulkSample) float64 { return s.Peak }},
			{"%.1f", func(s bulkSample) float64 { return s.Quiet }},
			{"%.1f", func(s bulkSample) float64 { return s.Others }},
		} {
			var v []float64
			for _, round := range r.bulk {
				v = append(v, column.of(row.of(round)))
			}
			cells = append(cells, spreadOf(v).format(column.verb))
		}
		t.rows = append(t.rows, cells)
	}
	return t
}
