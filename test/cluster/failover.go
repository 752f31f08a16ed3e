package cluster

import (
	"context"
	"fmt"
	"slices"
	"time"
)

const (
	// takeover is longer than any failover may last; the caller judges how long it was.
	takeover = 45 * time.Second
	// rejoin is how soon a former primary must be a replica, and reads be on it.
	rejoin = 60 * time.Second
)

// Result is what one fault cost.
type Result struct {
	Write, Read time.Duration // the longest time without an acknowledged write, an answered read
	Rejoin      time.Duration // from the undoing of the fault until there were two nodes again
	Lost        int           // acknowledged writes that are gone
	Unknown     int           // writes whose outcome the clients were not told
	Refused     int           // writes that were certainly not done
	Failed      int           // reads
}

// Outage is a failover as it happened, on the clock of the load.
type Outage struct {
	Before State
	// Fault, Taken and Undone are when it began, when another node had taken writes, and when the
	// cause was taken away.
	Fault, Taken, Undone time.Duration
	Rejoin               time.Duration
}

// Failover does harm to the primary, waits until the other node takes writes, undoes the harm, and
// waits until the former primary is a replica. The clients go on.
func (l *Load) Failover(ctx context.Context, harm, undo func(State) error) (Outage, error) {
	before, err := l.cluster.State(ctx)
	if err != nil {
		return Outage{}, err
	}
	o := Outage{Before: before, Fault: l.Now()}
	if err := harm(before); err != nil {
		return o, err
	}
	if err := l.AwaitWrites(ctx, l.Now()+50*time.Millisecond, 20, takeover); err != nil {
		return o, err
	}
	// The old primary may survive the cause for a while: it is the other node that must take over.
	if err := l.cluster.Await(ctx, takeover, "another primary", func(s State) bool {
		return s.Leader != "" && s.Timeline > before.Timeline
	}); err != nil {
		return o, err
	}
	if err := l.AwaitWrites(ctx, l.Now(), 50, takeover); err != nil {
		return o, err
	}
	o.Taken = l.Now()
	if err := undo(before); err != nil {
		return o, err
	}
	o.Undone = l.Now()
	err = l.cluster.Await(ctx, rejoin, "the former primary is a replica", func(s State) bool {
		return s.Healthy() && s.Leader != before.Leader
	})
	o.Rejoin = l.Now() - o.Undone
	return o, err
}

// AwaitReplicaReads waits until reads that end from now on are answered by the replica.
func (l *Load) AwaitReplicaReads(ctx context.Context, limit time.Duration) error {
	from := l.Now()
	return Eventually(ctx, limit, func() error {
		for _, r := range l.History().Between(from, l.Now()).Reads {
			if r.Source == "replica" {
				return nil
			}
		}
		return fmt.Errorf("no read was answered by the replica within %s", limit)
	})
}

// Finish ends the load after a fault and says what that cost. The error is a proof that something
// was done that must never be done: two primaries at once, or a user that is there by half.
func (l *Load) Finish(ctx context.Context, fault time.Duration) (History, Result, error) {
	until := l.Now()
	promoted, promotedErr := l.cluster.Promoted(ctx)
	final, finalErr := l.Final(ctx)
	h := l.Stop()
	if promotedErr != nil {
		return h, Result{}, promotedErr
	}
	if finalErr != nil {
		return h, Result{}, finalErr
	}
	// Writes that were acknowledged after the question are not in its answer.
	h.Writes = slices.DeleteFunc(h.Writes, func(w Write) bool { return w.Ended > until })
	from := fault - 500*time.Millisecond
	during := h.Between(from, until)
	lost := h.Lost(final)
	return h, Result{
		Write: during.WriteGap(from, until), Read: during.ReadGap(from, until),
		Lost: len(lost), Unknown: h.Count(Unknown), Refused: h.Count(Refused), Failed: len(h.Failed()),
	}, h.TwoPrimaries(lost, l.At(promoted))
}
