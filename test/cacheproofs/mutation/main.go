// Command mutation shows that the tests of the cache notice the loss of each guard of its protocol. It
// builds them once with the tag mutation, in which every guard can be switched off by name, and once
// for each guard that needs a changed source; it runs them without each guard, and all must fail, by
// an assertion; and with all guards, and then they must pass. Run it in the root of the repository.
package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/payment-services/accounts/test/cacheproofs/guards"
)

const (
	// pkg has the tests that must notice.
	pkg = "./internal/cache"
	// workers run at a time: the tests wait for servers more than they compute.
	workers = 2
	// runTimeout ends tests that hang; a mutant that makes them hang was not caught by an assertion.
	runTimeout = 2 * time.Minute
)

// stages are the deterministic tests; the second is needed only if a mutant survives the first. What
// is left out is random, or about cost.
var stages = [][]string{
	{"-test.run=^TestInterleavings$"},
	{"-test.run=.", "-test.skip=^TestInterleavings$|^TestModel|History|FreshRenders|LargeGroup"},
}

// inCode are the guards that the code has.
var inCode = slices.DeleteFunc(slices.Clone(guards.All), func(g guards.Guard) bool { return !g.Code })

// A guard's name in Go code and in a script.
var guardNames = regexp.MustCompile(`mutation\.Point\("([a-z-]+)"\)|-- guard:([a-z-]+)`)

// failedTest is a line of a test that failed; its first group is the name.
var failedTest = regexp.MustCompile(`(?m)^\s*--- FAIL: (\S+)`)

// keptFiles is the folder of servers that internal/pgtest keeps for a look at them after a failure.
var keptFiles = regexp.MustCompile(`/[^\s']*/accounts-pgtest-[0-9]+`)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "mutation:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	if err := compareWithSource(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "mutation-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	started := time.Now()
	binary, err := build(ctx, dir, guards.Guard{Name: "none"})
	if err != nil {
		return err
	}

	results := make([]result, len(inCode)+1)
	queue := make(chan int, len(results))
	for i := range results {
		queue <- i
	}
	close(queue)
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			for i := range queue {
				if i == 0 {
					results[0] = test(ctx, binary, "")
				} else {
					results[i] = mutant(ctx, dir, binary, inCode[i-1])
				}
			}
		})
	}
	all.Wait()

	var problems []error
	if r := results[0]; r.failed != "" || r.err != nil {
		problems = append(problems, fmt.Errorf("with all guards: %s: %w\n%s", r.failed, cmp.Or(r.err, errFailed), r.output))
	}
	fmt.Println("| guard | hazard | failing test | seconds |\n|---|---|---|---|")
	for i, g := range inCode {
		r := results[i+1]
		if r.err != nil {
			problems = append(problems, fmt.Errorf("without %s: %w\n%s", g.Name, r.err, r.output))
		}
		fmt.Printf("| %s | %s | %s | %.1f |\n", g.Name, g.Hazard, cmp.Or(r.failed, "NONE"), r.took.Seconds())
	}
	fmt.Printf("\n%d guards; the tests with all of them: %.1f s; in all: %.0f s\n",
		len(inCode), results[0].took.Seconds(), time.Since(started).Seconds())
	return errors.Join(problems...)
}

var (
	errFailed   = errors.New("the tests fail")
	errSurvived = errors.New("no test noticed")
	errCrashed  = errors.New("the tests did not fail by an assertion")
)

type result struct {
	failed string // the test
	took   time.Duration
	err    error
	output []byte
}

// mutant runs the tests without a guard.
func mutant(ctx context.Context, dir, binary string, g guards.Guard) result {
	if g.Patch != nil {
		var err error
		if binary, err = build(ctx, dir, g); err != nil {
			return result{err: err}
		}
	}
	r := test(ctx, binary, g.Name)
	if r.err == nil && r.failed == "" {
		r.err = errSurvived
	}
	return r
}

// test runs the tests with one guard off until one fails.
func test(ctx context.Context, binary, off string) result {
	var r result
	started := time.Now()
	for _, stage := range stages {
		args := append([]string{"-test.failfast", "-test.parallel=4", "-test.timeout=" + runTimeout.String()}, stage...)
		cmd := exec.CommandContext(ctx, binary, args...)
		cmd.Dir = pkg
		cmd.Env = append(os.Environ(), "CACHE_MUTATION="+off)
		output, err := cmd.CombinedOutput()
		if err == nil {
			continue
		}
		r.output = output
		for _, dir := range keptFiles.FindAll(output, -1) { // every mutant leaves a hundred megabytes
			r.err = errors.Join(r.err, os.RemoveAll(string(dir)))
		}
		var names []string
		for _, match := range failedTest.FindAllSubmatch(output, -1) {
			names = append(names, string(match[1]))
		}
		names = slices.DeleteFunc(names, func(name string) bool { // the parents of others
			return slices.ContainsFunc(names, func(other string) bool { return strings.HasPrefix(other, name+"/") })
		})
		if len(names) == 0 || bytes.Contains(output, []byte("\npanic: ")) || !bytes.Contains(output, []byte("Error Trace:")) {
			r.err = errors.Join(r.err, errCrashed, err)
			break
		}
		slices.Sort(names)
		r.failed = strings.ReplaceAll(strings.TrimPrefix(names[0], "TestInterleavings/"), "_", " ")
		if len(names) > 1 {
			r.failed += fmt.Sprintf(" (and %d more)", len(names)-1)
		}
		break
	}
	r.took = time.Since(started)
	return r
}

// build makes the test binary, with the guard's patch if it has one.
func build(ctx context.Context, dir string, g guards.Guard) (string, error) {
	binary := filepath.Join(dir, g.Name+".test")
	args := []string{"test", "-c", "-tags=mutation", "-o", binary}
	if g.Patch != nil {
		list, err := overlay(g.Patch, dir, g.Name)
		if err != nil {
			return "", fmt.Errorf("patch for %s: %w", g.Name, err)
		}
		args = append(args, "-overlay="+list)
	}
	cmd := exec.CommandContext(ctx, "go", append(args, pkg)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the tests: %w\n%s", err, out)
	}
	return binary, nil
}

// overlay writes the patched file, and the list of replaced files that go build takes.
func overlay(p *guards.Patch, dir, name string) (string, error) {
	source, err := filepath.Abs(p.File)
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile(source)
	if err != nil {
		return "", err
	}
	if n := strings.Count(string(text), p.Old); n != 1 {
		return "", fmt.Errorf("%s has the guarded text %d times", p.File, n)
	}
	patched := filepath.Join(dir, name+".go")
	if err := os.WriteFile(patched, []byte(strings.Replace(string(text), p.Old, p.New, 1)), 0o600); err != nil {
		return "", err
	}
	list, err := json.Marshal(map[string]map[string]string{"Replace": {source: patched}})
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, name+".json")
	return path, os.WriteFile(path, list, 0o600)
}

// compareWithSource fails unless the guards of the list and those of the code are the same.
func compareWithSource() error {
	listed := map[string]bool{}
	for _, g := range inCode {
		if g.Patch == nil {
			listed[g.Name] = true
		}
	}
	for _, pattern := range []string{"cache/*.go", "cache/lua/*.lua", "routing/*.go", "outbox/*.go"} {
		files, err := filepath.Glob(filepath.Join("internal", pattern))
		if err != nil {
			return err
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			for _, match := range guardNames.FindAllSubmatch(text, -1) {
				name := string(match[1]) + string(match[2])
				if wanted, known := listed[name]; !known {
					return fmt.Errorf("%s has the guard %q, which the list lacks", file, name)
				} else if !wanted {
					return fmt.Errorf("%s has the guard %q a second time", file, name)
				}
				listed[name] = false
			}
		}
	}
	for name, missing := range listed {
		if missing {
			return fmt.Errorf("the guard %q is listed, but the code does not have it", name)
		}
	}
	return nil
}
