package httpapi

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// In a bubble of synctest a sleep waits for nothing: it moves the bubble's clock.
func TestDeadlineEndsInTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, waitedFor := range []bool{true, false} {
			d := newDeadline(t.Context(), time.Second)
			at, ok := d.Deadline()
			require.True(t, ok)
			require.Equal(t, time.Now().Add(time.Second), at)
			child, cancel := context.WithTimeout(d, time.Hour)
			if !waitedFor {
				cancel()
				child, d = nil, newDeadline(t.Context(), time.Second)
			}
			time.Sleep(time.Second - time.Nanosecond)
			require.NoError(t, d.Err())
			time.Sleep(time.Nanosecond)
			synctest.Wait()
			require.ErrorIs(t, d.Err(), context.DeadlineExceeded)
			<-d.Done()
			if child != nil {
				require.ErrorIs(t, child.Err(), context.DeadlineExceeded)
			}
			cancel()
			d.release()
		}
	})
}

func TestDeadlineEndsWithItsParent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, waitedFor := range []bool{true, false} {
			parent, leave := context.WithCancelCause(t.Context())
			d := newDeadline(parent, time.Second)
			if waitedFor {
				require.NotNil(t, d.Done())
			}
			leave(context.Canceled)
			synctest.Wait()
			require.ErrorIs(t, d.Err(), context.Canceled)
			<-d.Done()
			require.ErrorIs(t, context.Cause(d), context.Canceled)
			d.release()
		}
	})
}

func TestDeadlineIsReleased(t *testing.T) {
	t.Parallel()
	d := newDeadline(t.Context(), time.Hour)
	d.release() // nobody waited
	done := d.Done()
	d.release()
	<-done
	require.ErrorIs(t, d.Err(), context.Canceled)

	early, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	want, _ := early.Deadline()
	got, _ := newDeadline(early, time.Hour).Deadline()
	require.Equal(t, want, got)
}
