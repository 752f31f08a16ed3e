package httpapi

import (
	"sync"
	"time"

	"github.com/payment-services/accounts/internal/errcode"
)

const (
	// defaultMaxUploads is how many uploads are received and read at once. With files of 10 MiB they take
	// less than 64 MiB of TMPDIR; a container often has it in memory.
	defaultMaxUploads = 6
	// uploadRetryAfter is when a refused upload may be sent again: most uploads take a few seconds.
	uploadRetryAfter = 5 * time.Second
)

// uploadSlots limits the uploads that are received and read at once: their number, the disk space of
// their files, and the number for each subject, so that one client does not take every slot. Safe for
// concurrent use.
type uploadSlots struct {
	maxUploads, maxOfSubject int
	maxBytes                 int64

	mu       sync.Mutex
	uploads  int
	bytes    int64
	subjects map[string]int
}

// newUploadSlots returns slots for so many uploads. Together their files may have maxBytes, and half of
// the slots may belong to one subject.
func newUploadSlots(maxUploads int, maxBytes int64) *uploadSlots {
	return &uploadSlots{
		maxUploads: maxUploads, maxOfSubject: (maxUploads + 1) / 2, maxBytes: maxBytes,
		subjects: map[string]int{},
	}
}

// take reserves a slot and bytes of disk space, until release is called.
func (s *uploadSlots) take(subject string, bytes int64) (release func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.subjects[subject] >= s.maxOfSubject:
		return nil, &errcode.Error{
			Code: errcode.RateLimited, RetryAfter: uploadRetryAfter,
			Message: "too many uploads of this token are running; wait until one has ended",
		}
	case s.uploads >= s.maxUploads, s.bytes+bytes > s.maxBytes:
		return nil, &errcode.Error{
			Code: errcode.Overloaded, RetryAfter: uploadRetryAfter,
			Message: "too many uploads are running at the moment; nothing was changed, try again later",
		}
	}
	s.uploads++
	s.bytes += bytes
	s.subjects[subject]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.uploads--
		s.bytes -= bytes
		if s.subjects[subject]--; s.subjects[subject] == 0 {
			delete(s.subjects, subject)
		}
	}, nil
}
