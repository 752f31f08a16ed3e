package main

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	mixedConnections = 64
	writesOfHundred  = 5
	// mixedLoad is the rate of the mixed scenario as a share of what the service answered when 16
	// connections asked as fast as they could: so that the latency is that of the service, not of a queue.
	mixedLoad = 0.3
	// looks is how often the service's own figures are read.
	looks = 6
)

// mixedResult is the service with reads and writes at a steady rate, between two runs of F at that rate.
type mixedResult struct {
	Rate          int
	Before, After sample // yardstick F
	Mixed         sample
	Goroutines    []float64 // evenly over the time
	RSS           []float64
}

func (m *mixedResult) ratio() float64 { return m.Mixed.P99 / ((m.Before.P99 + m.After.P99) / 2) }

func (b *bench) measureMixed(ctx context.Context, duration time.Duration, capacity float64) (*mixedResult, error) {
	const step = 100
	m := &mixedResult{Rate: max(1, int(capacity*mixedLoad/step)) * step}
	paced := func(next func() request, d time.Duration) load {
		l := reads(d, next)
		l.connections, l.rate = mixedConnections, m.Rate
		return l
	}
	yardstick := leg{scenario: redisName, server: b.f, load: paced(func() request {
		return request{method: http.MethodGet, url: b.f.base + "/" + pick(b.data.hot).id.String()}
	}, duration/3)}
	var err error
	if m.Before, err = b.measure(ctx, yardstick); err != nil {
		return nil, err
	}
	watch, stop := context.WithCancel(ctx)
	var watching sync.WaitGroup
	var watchErr error
	watching.Go(func() {
		for range looks {
			select {
			case <-watch.Done():
				return
			case <-time.After(duration / (looks + 1)):
			}
			goroutines, err := b.metric(ctx, "go_goroutines")
			if err != nil {
				watchErr = err
				return
			}
			rss, err := memory(b.service.pid(), "VmRSS")
			if err != nil {
				watchErr = err
				return
			}
			m.Goroutines, m.RSS = append(m.Goroutines, goroutines), append(m.RSS, rss)
		}
	})
	m.Mixed, err = b.measure(ctx, leg{scenario: "mixed", server: b.service, load: paced(func() request {
		if rand.IntN(100) < writesOfHundred {
			return b.data.patch(b.service, pick(b.data.hot))
		}
		return b.data.read(b.service, pick(b.data.hot))
	}, duration)})
	stop()
	watching.Wait()
	if err == nil {
		err = watchErr
	}
	if err != nil {
		return nil, err
	}
	m.After, err = b.measure(ctx, yardstick)
	return m, err
}

// metric reads one metric without labels from the service.
func (b *bench) metric(ctx context.Context, name string) (value float64, err error) {
	err = exchange(ctx, http.MethodGet, b.service.admin+"/metrics", nil, nil, func(answer *http.Response) (err error) {
		lines := bufio.NewScanner(answer.Body)
		for lines.Scan() {
			if text, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
				value, err = strconv.ParseFloat(text, 64)
				return err
			}
		}
		return fmt.Errorf("the service has no metric %s", name)
	})
	return value, err
}
