package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"
)

const (
	// think is the pause of a client between two requests.
	think = 20 * time.Millisecond
	// patience is longer than any answer may take.
	patience = 15 * time.Second
)

// Load is a number of clients that read and write until they are stopped. Each writer patches a user
// of its own and creates others; each reader asks for those, partly from the cache and partly from
// the database.
type Load struct {
	cluster *Cluster
	name    string // in every user's profile
	began   time.Time
	users   []string // that writers patch
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu sync.Mutex
	h  History
}

type profile struct {
	Load string `json:"load"`
	N    int64  `json:"n"`
}

type user struct {
	ID      string  `json:"id"`
	Version int64   `json:"version"`
	Profile profile `json:"profile"`
}

type contact struct {
	Type  string `json:"type"`
	Value string `json:"value"`
}

// StartLoad starts the clients. The cluster must be healthy.
func (c *Cluster) StartLoad(ctx context.Context, writers, readers int) (*Load, error) {
	ctx, cancel := context.WithCancel(ctx)
	l := &Load{cluster: c, name: fmt.Sprintf("l%x", rand.Uint64()), began: time.Now(), cancel: cancel}
	client := &http.Client{Timeout: patience, Transport: &http.Transport{MaxIdleConnsPerHost: writers + readers}}
	for i := range writers {
		id, err := l.create(ctx, client, i, -1)
		if err != nil {
			cancel()
			return nil, err
		}
		l.users = append(l.users, id)
	}
	for i := range writers {
		l.running.Go(func() { l.write(ctx, client, i) })
	}
	for range readers {
		l.running.Go(func() { l.read(ctx, client) })
	}
	return l, nil
}

// Now is the time on the history's clock.
func (l *Load) Now() time.Duration { return time.Since(l.began) }

// At is a time on the history's clock.
func (l *Load) At(t time.Time) time.Duration { return t.Sub(l.began) }

// Stop ends the clients and returns their history.
func (l *Load) Stop() History {
	l.cancel()
	l.running.Wait()
	return l.h
}

// History is a copy of what is known so far.
func (l *Load) History() History {
	l.mu.Lock()
	defer l.mu.Unlock()
	return History{Writes: append([]Write(nil), l.h.Writes...), Reads: append([]Read(nil), l.h.Reads...)}
}

// AwaitWrites waits until this many writes that began after a time were acknowledged.
func (l *Load) AwaitWrites(ctx context.Context, after time.Duration, count int, limit time.Duration) error {
	return Eventually(ctx, limit, func() error {
		l.mu.Lock()
		defer l.mu.Unlock()
		n := 0
		for i := len(l.h.Writes) - 1; i >= 0 && l.h.Writes[i].Ended >= after; i-- {
			if w := l.h.Writes[i]; w.Outcome == Acked && w.Began >= after {
				n++
			}
		}
		if n < count {
			return fmt.Errorf("%d writes were acknowledged since %s, not %d", n, after, count)
		}
		return nil
	})
}

// Final asks the primary, as superuser, what there is of this load, and fails if a user is there by
// half: each was created with a contact, in one request.
func (l *Load) Final(ctx context.Context) (Final, error) {
	state, err := l.cluster.State(ctx)
	if err != nil {
		return nil, err
	}
	out, err := l.cluster.SQL(ctx, state.Leader, `
		SELECT u.id || ' ' || (u.profile ->> 'n') || ' ' || count(c.id)
		  FROM accounts.users AS u LEFT JOIN accounts.user_contacts AS c ON c.user_id = u.id
		 WHERE u.profile ->> 'load' = '`+l.name+`' GROUP BY u.id`)
	if err != nil {
		return nil, err
	}
	final := Final{}
	for line := range strings.Lines(out) {
		var id string
		var n int64
		var contacts int
		if _, err := fmt.Sscan(line, &id, &n, &contacts); err != nil {
			return nil, fmt.Errorf("parse %q: %w", line, err)
		}
		if contacts != 1 {
			return nil, fmt.Errorf("user %s has %d contacts: it was created by half", id, contacts)
		}
		final[id] = n
	}
	return final, nil
}

func (l *Load) create(ctx context.Context, client *http.Client, writer int, n int64) (string, error) {
	w, err := l.send(ctx, client, http.MethodPost, "/accounts/users", map[string]any{
		"profile":  profile{Load: l.name, N: max(0, n)},
		"contacts": []contact{{"second_login", fmt.Sprintf("%s.w%d.%d", l.name, writer, n+1)}},
	})
	if err == nil && w.Outcome != Acked {
		err = fmt.Errorf("create a user: %d %s", w.Status, w.Code)
	}
	return w.ID, err
}

func (l *Load) write(ctx context.Context, client *http.Client, writer int) {
	for n := int64(1); ctx.Err() == nil; n++ {
		var w Write
		if n%4 == 0 {
			w, _ = l.send(ctx, client, http.MethodPost, "/accounts/users", map[string]any{
				"profile":  profile{Load: l.name, N: n},
				"contacts": []contact{{"second_login", fmt.Sprintf("%s.w%d.%d", l.name, writer, n+1)}},
			})
			w.Create, w.N = true, n
		} else {
			w, _ = l.send(ctx, client, http.MethodPatch, "/accounts/users/"+l.users[writer], map[string]any{"profile": map[string]int64{"n": n}})
			w.ID, w.N = l.users[writer], n
		}
		if ctx.Err() != nil && w.Outcome != Acked {
			return // we went away ourselves
		}
		l.mu.Lock()
		l.h.Writes = append(l.h.Writes, w)
		l.mu.Unlock()
		pause(ctx)
	}
}

func (l *Load) send(ctx context.Context, client *http.Client, method, path string, body any) (Write, error) {
	w := Write{Began: l.Now()}
	resp, text, err := l.cluster.Request(ctx, client, method, path, body)
	w.Ended = l.Now()
	if err != nil {
		w.Outcome = Unknown
		return w, err
	}
	w.Status, w.RetryAfter = resp.StatusCode, resp.Header.Get("Retry-After") != ""
	if resp.StatusCode < 300 {
		var u user
		err := json.Unmarshal(text, &u)
		w.ID, w.Version = u.ID, u.Version
		return w, err
	}
	w.Code = code(text)
	w.Outcome = Refused
	if w.Code == "OUTCOME_UNKNOWN" || w.Status == http.StatusBadGateway || w.Status == http.StatusGatewayTimeout {
		w.Outcome = Unknown
	}
	return w, nil
}

func (l *Load) read(ctx context.Context, client *http.Client) {
	for i := 0; ctx.Err() == nil; i++ {
		id := l.users[rand.IntN(len(l.users))]
		r := Read{ID: id}
		path := "/accounts/users/" + id
		if i%2 == 1 { // never from the cache
			r.ID = ""
			path = "/accounts/users?cursor=&limit=1"
			if i%4 == 1 {
				path = "/accounts/contacts/user/" + id
			}
		}
		r.Began = l.Now()
		resp, text, err := l.cluster.Request(ctx, client, http.MethodGet, path, nil)
		r.Ended = l.Now()
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, context.Canceled):
			return
		case err != nil:
			r.Code = err.Error()
		default:
			r.Status, r.Source = resp.StatusCode, resp.Header.Get("X-Data-Source")
			if r.Status != http.StatusOK {
				r.Code = code(text)
			} else if r.ID != "" {
				var u user
				if json.Unmarshal(text, &u) == nil {
					r.N = u.Profile.N
				}
			}
		}
		l.mu.Lock()
		l.h.Reads = append(l.h.Reads, r)
		l.mu.Unlock()
		pause(ctx)
	}
}

func code(text []byte) string {
	var problem struct {
		Code string `json:"error_code"`
	}
	_ = json.Unmarshal(text, &problem) // what is no problem body has no code, and the status says enough
	return problem.Code
}

func pause(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(think):
	}
}
