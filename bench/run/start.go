package main

import (
	"context"
	"os"
	"slices"
	"time"
)

// idleTime is how long a service has been left alone when its memory is looked at.
const idleTime = time.Second

// startResult is about the process itself: milliseconds and MB.
type startResult struct {
	Ready  []float64 // from the start of the process to the first 200 of /readyz
	Idle   []float64
	Binary float64 // the image is this file
}

func (b *bench) measureStart(ctx context.Context, times int) (*startResult, error) {
	r := &startResult{}
	info, err := os.Stat(b.binary)
	if err != nil {
		return nil, err
	}
	r.Binary = float64(info.Size()) / (1 << 20)
	for range times {
		v, err := b.startService(ctx, "started", b.binary)
		if err != nil {
			return nil, err
		}
		r.Ready = append(r.Ready, milliseconds(v.started))
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(idleTime):
		}
		rss, err := memory(v.pid(), "VmRSS")
		if err != nil {
			return nil, err
		}
		r.Idle = append(r.Idle, rss)
		b.servers = slices.DeleteFunc(b.servers, func(other *server) bool { return other == v })
		if err := v.process.Kill(); err != nil {
			return nil, err
		}
	}
	return r, nil
}
