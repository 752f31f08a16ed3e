package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"github.com/payment-services/accounts/internal/auth"
)

const (
	// hotUsers is how many users the keys of one load are drawn from.
	hotUsers = 10_000
	// senders is how many tokens there are.
	senders = 1000
	// revoked is the length of the revocation list.
	revoked = 20_000
	// chunk is how many commands go to Redis at once.
	chunk = 1000
)

var errUnavailable = errors.New("unavailable")

//go:embed load.sql
var loadSQL string

// user is one of those that are asked for.
type user struct {
	n    int
	id   uuid.UUID
	etag string
}

// identifiers are in turn phones, addresses and logins. An address is what a client sends encoded.
func (u user) identifier() string {
	switch u.n % 3 {
	case 0:
		return fmt.Sprintf("%%2B7999%07d", u.n)
	case 1:
		return fmt.Sprintf("user%d%%40example.com", u.n)
	}
	return fmt.Sprintf("login_%d", u.n)
}

// cacheKeys are the Redis keys of the user's two entries.
func (u user) cacheKeys() []string {
	mapping := "accounts:user_by_identifier:"
	switch u.n % 3 {
	case 0:
		mapping += fmt.Sprintf("phone:+7999%07d", u.n)
	case 1:
		mapping += fmt.Sprintf("email:user%d@example.com", u.n)
	default:
		mapping += fmt.Sprintf("second_login:login_%d", u.n)
	}
	return []string{"accounts:user:" + u.id.String(), mapping}
}

// data are the users in the order of their making, and headers with the tokens of many senders.
type data struct {
	hot, cold, written []user // three disjoint sets: read from the cache, missed, changed
	headers            []http.Header
}

// load makes count users and returns the first of them, three times hotUsers at most.
func (s *stack) load(ctx context.Context, count int) ([]user, error) {
	if _, err := s.super.Exec(ctx, "SELECT set_config('bench.users', $1, false)", strconv.Itoa(count)); err != nil {
		return nil, err
	}
	if _, err := s.super.PgConn().Exec(ctx, loadSQL).ReadAll(); err != nil {
		return nil, fmt.Errorf("load users: %w", err)
	}
	rows, err := s.super.Query(ctx, "SELECT n, id FROM made WHERE n <= $1 ORDER BY n", 3*hotUsers)
	if err != nil {
		return nil, err
	}
	users, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (u user, err error) {
		err = row.Scan(&u.n, &u.id)
		return u, err
	})
	if err != nil {
		return nil, err
	}
	for _, sql := range []string{"DROP TABLE made", "VACUUM (ANALYZE)", "CHECKPOINT"} {
		if _, err := s.super.Exec(ctx, sql); err != nil {
			return nil, err
		}
	}
	return users, nil
}

// fill makes count users, the tokens and the revocation list, and returns when the standby has all.
func (s *stack) fill(ctx context.Context, count int) (*data, error) {
	all, err := s.load(ctx, count)
	if err != nil {
		return nil, err
	}
	third := len(all) / 3
	d := &data{hot: all[:third], cold: all[third : 2*third], written: all[2*third:]}
	for range senders {
		token, err := auth.Sign([]byte(s.secret), uuid.NewString(), []string{auth.ScopeRead, auth.ScopeWrite}, tokenLife, "", "")
		if err != nil {
			return nil, err
		}
		d.headers = append(d.headers, http.Header{"Authorization": {"Bearer " + token}})
	}
	_, err = s.redisAuth.Pipelined(ctx, func(p redis.Pipeliner) error {
		for range revoked {
			p.Set(ctx, "black_list_access_tokens:"+uuid.NewString(), 1, tokenLife)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return d, s.cluster.WaitForReplay(ctx)
}

// warm asks the service for the hot users by id and by identifier, keeps their tags, and gives
// yardstick F the same documents.
func (s *stack) warm(ctx context.Context, d *data, service *server) error {
	for i := range d.hot {
		u := &d.hot[i]
		body, etag, err := d.fetch(ctx, service.base+"/accounts/users/"+u.id.String())
		if err != nil {
			return err
		}
		if _, _, err := d.fetch(ctx, service.base+"/accounts/users/by-identifier?identifier="+u.identifier()); err != nil {
			return err
		}
		u.etag = etag
		if err := s.redisCache.Set(ctx, "yardstick:"+u.id.String(), body, 0).Err(); err != nil {
			return err
		}
	}
	return nil
}

// fetch tries again for a while: right after its start, on a busy machine, a service may know neither
// the revocation list nor a fresh replica.
func (d *data) fetch(ctx context.Context, url string) (body []byte, etag string, err error) {
	const tries, pause = 20, 500 * time.Millisecond
	for range tries {
		if body, etag, err = d.fetchOnce(ctx, url); !errors.Is(err, errUnavailable) {
			break
		}
		select {
		case <-ctx.Done():
			return nil, "", ctx.Err()
		case <-time.After(pause):
		}
	}
	return body, etag, err
}

func (d *data) fetchOnce(ctx context.Context, url string) (body []byte, etag string, err error) {
	err = exchange(ctx, http.MethodGet, url, d.headers[0], nil, func(answer *http.Response) (err error) {
		if body, err = io.ReadAll(answer.Body); err != nil {
			return err
		}
		if answer.StatusCode == http.StatusServiceUnavailable {
			return fmt.Errorf("GET %s: %w: %s", url, errUnavailable, body)
		}
		if answer.StatusCode != http.StatusOK || !json.Valid(body) {
			return fmt.Errorf("GET %s: %s", url, answer.Status)
		}
		etag = answer.Header.Get("Etag")
		return nil
	})
	return body, etag, err
}

// forget removes the cache's entries of users, as Redis may at any time.
func (s *stack) forget(ctx context.Context, users []user) error {
	for start := 0; start < len(users); start += chunk {
		var keys []string
		for _, u := range users[start:min(start+chunk, len(users))] {
			keys = append(keys, u.cacheKeys()...)
		}
		if err := s.redisCache.Unlink(ctx, keys...).Err(); err != nil {
			return err
		}
	}
	return nil
}

// settle removes the markers of writes: for 15 s they send every miss to the primary.
func (s *stack) settle(ctx context.Context) error {
	return s.redisCache.Del(ctx, "accounts:dirty").Err()
}
