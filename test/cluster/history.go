package cluster

import (
	"fmt"
	"slices"
	"time"
)

// Outcome is what a client knows of its request.
type Outcome int

// The outcomes: done; certainly not done; nobody knows.
const (
	Acked Outcome = iota
	Refused
	Unknown
)

// Write is one write as its client saw it.
type Write struct {
	Began, Ended time.Duration // since the load began
	Outcome      Outcome
	Status       int    // 0: no answer
	Code         string // error_code
	RetryAfter   bool
	// ID is the user; Version and N are of a PATCH, by the only client that writes this user.
	ID         string
	Version, N int64
	Create     bool
}

// Read is one read as its client saw it.
type Read struct {
	Began, Ended time.Duration
	Status       int
	Code         string
	Source       string // X-Data-Source
	ID           string // of a user that some client patches, or empty
	N            int64
}

// History is everything the clients were told.
type History struct {
	Writes []Write
	Reads  []Read
}

// Between returns what ended in [from, to].
func (h History) Between(from, to time.Duration) History {
	var part History
	for _, w := range h.Writes {
		if w.Ended >= from && w.Ended <= to {
			part.Writes = append(part.Writes, w)
		}
	}
	for _, r := range h.Reads {
		if r.Ended >= from && r.Ended <= to {
			part.Reads = append(part.Reads, r)
		}
	}
	return part
}

// WriteGap is the longest time within [from, to] in which no write was acknowledged.
func (h History) WriteGap(from, to time.Duration) time.Duration {
	var ends []time.Duration
	for _, w := range h.Writes {
		if w.Outcome == Acked {
			ends = append(ends, w.Ended)
		}
	}
	return gap(ends, from, to)
}

// ReadGap is the longest time within [from, to] in which no read was answered.
func (h History) ReadGap(from, to time.Duration) time.Duration {
	var ends []time.Duration
	for _, r := range h.Reads {
		if r.Status == 200 {
			ends = append(ends, r.Ended)
		}
	}
	return gap(ends, from, to)
}

func gap(ends []time.Duration, from, to time.Duration) time.Duration {
	slices.Sort(ends)
	longest, last := time.Duration(0), from
	for _, end := range ends {
		if end < from || end > to {
			continue
		}
		longest, last = max(longest, end-last), end
	}
	return max(longest, to-last)
}

// Failed returns the reads that were not answered.
func (h History) Failed() (failed []Read) {
	for _, r := range h.Reads {
		if r.Status != 200 {
			failed = append(failed, r)
		}
	}
	return failed
}

// Count counts writes by outcome.
func (h History) Count(o Outcome) (n int) {
	for _, w := range h.Writes {
		if w.Outcome == o {
			n++
		}
	}
	return n
}

// BadAnswers returns what no client should have been told: a failure that is not a 503 with
// Retry-After, or that took longer than limit. broken allows answers that a killed process did not
// give.
func (h History) BadAnswers(limit time.Duration, broken bool) (bad []string) {
	for _, w := range h.Writes {
		took := w.Ended - w.Began
		switch {
		case took > limit:
			bad = append(bad, fmt.Sprintf("at %s: a write took %s", w.Began, took))
		case w.Outcome == Acked, w.Status == 503 && w.RetryAfter:
		case broken && (w.Status == 0 || w.Status == 502):
		default:
			bad = append(bad, fmt.Sprintf("at %s: a write was answered %d %s, Retry-After %t", w.Began, w.Status, w.Code, w.RetryAfter))
		}
	}
	return bad
}

// Final is what the database says when all is over: the users that exist, and N of the patched ones.
type Final map[string]int64

// Lost returns the acknowledged writes that are not in the database: users that do not exist, and
// patches that a later state does not include.
func (h History) Lost(final Final) (lost []Write) {
	for _, w := range h.Writes {
		n, exists := final[w.ID]
		if w.Outcome == Acked && (!exists || !w.Create && n < w.N) {
			lost = append(lost, w)
		}
	}
	// A patch that was lost and whose user was patched again since shows in the versions: the next
	// primary gave the same one again.
	given := map[string]map[int64]Write{}
	for _, w := range h.Writes {
		if w.Outcome != Acked || w.Create {
			continue
		}
		if given[w.ID] == nil {
			given[w.ID] = map[int64]Write{}
		}
		if before, twice := given[w.ID][w.Version]; twice && final[w.ID] >= before.N {
			lost = append(lost, before)
		}
		given[w.ID][w.Version] = w
	}
	return lost
}

// TwoPrimaries looks for proof that two servers acknowledged writes at once: a write that was lost,
// so that the old primary took it, but began after the new one had acknowledged a write. The new
// one's are those that were kept and began after the promotion.
func (h History) TwoPrimaries(lost []Write, promoted time.Duration) error {
	isLost := map[Write]bool{}
	for _, w := range lost {
		isLost[w] = true
	}
	first := time.Duration(-1)
	for _, w := range h.Writes {
		if w.Outcome == Acked && !isLost[w] && w.Began > promoted && (first < 0 || w.Ended < first) {
			first = w.Ended
		}
	}
	for _, w := range lost {
		if first >= 0 && w.Began > first {
			return fmt.Errorf("two primaries: a write that began at %s was acknowledged and lost, "+
				"although the new primary had acknowledged one at %s", w.Began, first)
		}
	}
	return nil
}

// Stale returns reads that show less than what had been acknowledged before they began.
func (h History) Stale() (stale []string) {
	acked := map[string][]Write{}
	for _, w := range h.Writes {
		if w.Outcome == Acked && !w.Create {
			acked[w.ID] = append(acked[w.ID], w)
		}
	}
	for _, r := range h.Reads {
		if r.Status != 200 || r.ID == "" {
			continue
		}
		writes := acked[r.ID] // in order: each user has one writer
		i, _ := slices.BinarySearchFunc(writes, r.Began, func(w Write, t time.Duration) int { return int(w.Ended - t) })
		if i > 0 && r.N < writes[i-1].N {
			stale = append(stale, fmt.Sprintf("at %s from the %s: %d, although %d was acknowledged %s before",
				r.Began, r.Source, r.N, writes[i-1].N, r.Began-writes[i-1].Ended))
		}
	}
	return stale
}
