package httpapi

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// deadline is context.WithDeadline for requests that are mostly over before anybody waits for the end of
// their time: the timer is made when somebody does. Safe for concurrent use.
type deadline struct {
	context.Context
	at time.Time

	arm    sync.Once
	armed  atomic.Pointer[context.Context]
	cancel context.CancelFunc
}

func newDeadline(parent context.Context, after time.Duration) *deadline {
	return &deadline{Context: parent, at: time.Now().Add(after)}
}

// Deadline implements context.Context.
func (d *deadline) Deadline() (time.Time, bool) {
	if at, ok := d.Context.Deadline(); ok && at.Before(d.at) {
		return at, true
	}
	return d.at, true
}

// Done implements context.Context.
func (d *deadline) Done() <-chan struct{} {
	d.arm.Do(func() {
		ctx, cancel := context.WithDeadline(d.Context, d.at)
		d.cancel = cancel
		d.armed.Store(&ctx)
	})
	return (*d.armed.Load()).Done()
}

// Err implements context.Context.
func (d *deadline) Err() error {
	if ctx := d.armed.Load(); ctx != nil {
		return (*ctx).Err()
	}
	if err := d.Context.Err(); err != nil {
		return err
	}
	if !time.Now().Before(d.at) {
		<-d.Done()
		return (*d.armed.Load()).Err()
	}
	return nil
}

// Value implements context.Context. By it, package context finds the one that can be cancelled.
func (d *deadline) Value(key any) any {
	if ctx := d.armed.Load(); ctx != nil {
		return (*ctx).Value(key)
	}
	return d.Context.Value(key)
}

// release gives the timer back, when the handler has returned.
func (d *deadline) release() {
	if d.armed.Load() != nil {
		d.cancel()
	}
}
