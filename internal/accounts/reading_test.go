package accounts

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/errcode"
)

// An upload waits until another file has been read, but not without limit, and not longer than its client.
func TestUpload_WaitsToReadItsFile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &Service{reading: make(chan struct{}, 1)}
		s.reading <- struct{}{}
		begun := time.Now()
		_, _, err := s.Upload(t.Context(), nil, 0, UploadOptions{})
		require.Equal(t, errcode.Overloaded, errcode.Of(err))
		require.Equal(t, readingWait, time.Since(begun))

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, _, err = s.Upload(ctx, nil, 0, UploadOptions{})
		require.ErrorIs(t, err, context.DeadlineExceeded)
	})
}
