package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

const (
	profileTime = 8 * time.Second
	// profileMargin keeps the load on until the profile has ended.
	profileMargin = 1500 * time.Millisecond
)

// runProfiles leaves <scenario>.cpu.pprof and <scenario>.allocs.pprof of every scenario in dir.
func runProfiles(ctx context.Context, dir string) (err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	b, err := openBench(ctx, fewUsers, "")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	for _, l := range b.serviceLegs(b.data, b.service, profileTime+profileMargin) {
		say("%s", l.scenario)
		if l.prepare != nil {
			if err := l.prepare(ctx); err != nil {
				return err
			}
		}
		if l.load.most > 0 { // the same misses again and again: a few keys are forgotten all the time
			forgetting, stop := context.WithCancel(ctx)
			defer stop()
			l.load.most = 0
			go func() {
				for i := 0; forgetting.Err() == nil; i = (i + chunk) % len(b.data.cold) {
					_ = b.forget(forgetting, b.data.cold[i:min(i+chunk, len(b.data.cold))])
				}
			}()
		}
		if err := b.forgetLogs(); err != nil {
			return err
		}
		finished := make(chan sent, 1)
		go func() { finished <- l.load.send() }()
		var errs []error
		profiles := make(chan error, 2)
		for kind, path := range map[string]string{"cpu": "profile", "allocs": "allocs"} {
			go func() {
				url := fmt.Sprintf("%s/debug/pprof/%s?seconds=%.0f", b.service.admin, path, profileTime.Seconds())
				profiles <- download(ctx, url, filepath.Join(dir, slug(l.scenario)+"."+kind+".pprof"))
			}()
		}
		errs = append(errs, <-profiles, <-profiles)
		if s := <-finished; s.failures > 0 {
			errs = append(errs, fmt.Errorf("%s: %d of %d requests failed: %s", l.scenario, s.failures, s.requests, s.failure))
		}
		if err := errors.Join(errs...); err != nil {
			return err
		}
	}
	return nil
}

func download(ctx context.Context, url, path string) error {
	return exchange(ctx, http.MethodGet, url, nil, nil, func(answer *http.Response) error {
		if answer.StatusCode != http.StatusOK {
			return fmt.Errorf("GET %s: %s", url, answer.Status)
		}
		file, err := os.Create(path)
		if err != nil {
			return err
		}
		_, err = io.Copy(file, answer.Body)
		return errors.Join(err, file.Close())
	})
}
