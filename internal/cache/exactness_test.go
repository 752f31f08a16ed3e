package cache_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/accounts"
	"github.com/payment-services/accounts/internal/cache"
	"github.com/payment-services/accounts/internal/dbgen/read"
	"github.com/payment-services/accounts/internal/errcode"
	"github.com/payment-services/accounts/internal/pgtest"
	"github.com/payment-services/accounts/internal/routing"
)

// catalog is a handful of everything that is cached.
type catalog struct {
	users       []uuid.UUID
	identifiers map[cache.Key]string // key to text
}

// warm puts everything into the cache.
func (c catalog) warm(t *testing.T, p *process) {
	t.Helper()
	for range 2 { // by identifier also reads the user
		c.render(t, p)
	}
}

// render returns what a request for each key is answered; of an identifier, whom it names.
func (c catalog) render(t *testing.T, p *process) map[cache.Key]string {
	t.Helper()
	ctx := t.Context()
	got := map[cache.Key]string{}
	for _, id := range c.users {
		a, err := p.service.UserByID(ctx, id, nil)
		require.NoError(t, err)
		got[cache.UserKey(id)] = string(a.Body)
	}
	for key, text := range c.identifiers {
		body, err := p.byPhone(text)
		require.NoError(t, err)
		got[key] = body[:min(len(body), len(`{"id":"`)+len(uuid.UUID{}.String()))]
	}
	groups, err := p.service.Groups(ctx, nil)
	require.NoError(t, err)
	got[cache.UserGroupsKey] = string(groups.Body)
	types, err := p.service.ContactTypes(ctx, nil)
	require.NoError(t, err)
	got[cache.ContactTypesKey] = string(types.Body)
	return got
}

// dead returns the keys whose next reader would load them from the database.
func (c catalog) dead(t *testing.T, p *process) map[cache.Key]bool {
	t.Helper()
	errLoaded := errors.New("loaded")
	keys := []cache.Key{cache.UserGroupsKey, cache.ContactTypesKey}
	for _, id := range c.users {
		keys = append(keys, cache.UserKey(id))
	}
	for key := range c.identifiers {
		keys = append(keys, key)
	}
	dead := map[cache.Key]bool{}
	for _, key := range keys {
		_, err := p.Get(t.Context(), key, cache.GetOptions{TTL: ttl}, func(context.Context, readQuerier) (cache.Document, error) {
			return cache.Document{}, errLoaded
		})
		dead[key] = errors.Is(err, errLoaded)
	}
	return dead
}

// The oracle is what is answered without a cache, before and after the write: a key has to die if and
// only if its answer changed.
func TestWritesKillExactlyWhatTheyChange(t *testing.T) {
	t.Parallel()
	db := pgtest.Shared(t)
	p := newProcess(t, db.WriteURL, db.PrimaryReadURL, db.Redis().URL)
	oracle := newProcess(t, db.WriteURL, db.PrimaryReadURL, "redis://127.0.0.1:1/1")
	require.NoError(t, p.Attach(t.Context()))
	s, ctx := p.service, t.Context()

	messenger, err := s.CreateContactType(ctx, "messenger", "allow")
	require.NoError(t, err)
	staff, err := s.CreateGroup(ctx, "staff")
	require.NoError(t, err)
	others, err := s.CreateGroup(ctx, "others")
	require.NoError(t, err)
	create := func(groups []string, contacts ...accounts.NewUserContact) uuid.UUID {
		id, _, err := s.CreateUser(ctx, accounts.NewUser{IsActive: true, Groups: groups, Contacts: contacts})
		require.NoError(t, err)
		return id
	}
	c := catalog{
		users: []uuid.UUID{
			create([]string{"staff"}, accounts.NewUserContact{Type: "phone", Value: "+79160000001"},
				accounts.NewUserContact{Type: "email", Value: "one@example.org"}, accounts.NewUserContact{Type: "messenger", Value: "@one"}),
			create([]string{"staff", "others"}, accounts.NewUserContact{Type: "phone", Value: "+79160000002"},
				accounts.NewUserContact{Type: "second_login", Value: "login.two"}),
			create(nil),
		},
		identifiers: map[cache.Key]string{
			"i:phone:+79160000001": "+79160000001", "i:email:one@example.org": "one@example.org",
			"i:phone:+79160000002": "+79160000002", "i:second_login:login.two": "login.two",
			"i:second_login:login.new": "login.new", "i:phone:+79160000009": "+79160000009", "i:phone:+79160000008": "+79160000008", // nobody's
		},
	}
	one, two, three := c.users[0], c.users[1], c.users[2]
	contactOf := func(user uuid.UUID, typ string) uuid.UUID {
		list, _, err := s.UserContacts(ctx, user, false)
		require.NoError(t, err)
		for _, contact := range list {
			if contact.Type == typ {
				return contact.ID
			}
		}
		require.FailNow(t, "no contact", typ)
		panic("unreachable")
	}
	yes, no := true, false
	bulk := []accounts.BulkRow{ // a user of whom the identifier is cached, and one who is not there
		{Phone: "+79160000001", Profile: profile("of a bulk")}, {Phone: "+79160000008", Groups: []string{"others"}},
	}
	for _, write := range []struct {
		name string
		do   func() error
		dead int
	}{
		{"a profile", func() error {
			_, err := s.UpdateUser(ctx, one, accounts.UserPatch{Profile: profile("new")})
			return err
		}, 1},
		{"the same profile", func() error {
			_, err := s.UpdateUser(ctx, one, accounts.UserPatch{Profile: profile("new")})
			return err
		}, 0},
		{"deactivate a user", func() error { _, err := s.UpdateUser(ctx, one, accounts.UserPatch{IsActive: &no}); return err }, 3},
		{"a profile of an inactive user", func() error {
			_, err := s.UpdateUser(ctx, one, accounts.UserPatch{Profile: profile("newer")})
			return err
		}, 1},
		{"activate a user", func() error { _, err := s.UpdateUser(ctx, one, accounts.UserPatch{IsActive: &yes}); return err }, 3},
		{"a contact that is no identifier", func() error { _, err := s.AddContact(ctx, one, "messenger", "@uno"); return err }, 1},
		{"an identifier that replaces another", func() error { _, err := s.AddContact(ctx, two, "second_login", "login.new"); return err }, 3},
		{"deactivate a contact", func() error { _, err := s.DeactivateContact(ctx, contactOf(one, "phone"), nil); return err }, 2},
		{"deactivate it again", func() error {
			list, _, err := s.UserContacts(ctx, one, true)
			require.NoError(t, err)
			for _, contact := range list {
				if !contact.IsActive {
					_, err = s.DeactivateContact(ctx, contact.ID, nil)
					require.NoError(t, err)
				}
			}
			return err
		}, 0},
		{"an identifier moves", func() error { _, err := s.AddContact(ctx, three, "phone", "+79160000001"); return err }, 2},
		{"a new user", func() error {
			_, _, err := s.CreateUser(ctx, accounts.NewUser{IsActive: true, Contacts: []accounts.NewUserContact{{Type: "phone", Value: "+79160000009"}}})
			return err
		}, 1},
		{"a new group", func() error { _, err := s.CreateGroup(ctx, "new"); return err }, 1},
		{"rename a group", func() error { name := "employees"; _, err := s.UpdateGroup(ctx, staff.ID, &name, nil); return err }, 3},
		{"rename it to its name", func() error { name := "employees"; _, err := s.UpdateGroup(ctx, staff.ID, &name, nil); return err }, 0},
		{"a new contact type", func() error { _, err := s.CreateContactType(ctx, "fax", "reject"); return err }, 1},
		{"rename a contact type", func() error {
			name := "chat"
			_, err := s.UpdateContactType(ctx, messenger.ID, &name, nil, nil)
			return err
		}, 2},
		{"what a second contact does", func() error {
			fax := "replace"
			list, err := s.ContactTypes(ctx, nil)
			require.NoError(t, err)
			id := regexp.MustCompile(`"id":"([^"]+)","name":"fax"`).FindSubmatch(list.Body)
			_, err = s.UpdateContactType(ctx, uuid.MustParse(string(id[1])), nil, &fax, nil)
			return err
		}, 1},
		{"join a group", func() error { _, err := s.SetMembership(ctx, three, others.ID, true); return err }, 1},
		{"join it again", func() error { _, err := s.SetMembership(ctx, three, others.ID, true); return err }, 0},
		{"leave a group", func() error { _, err := s.SetMembership(ctx, two, others.ID, false); return err }, 1},
		{"another value of an identifier", func() error {
			value := "uno@example.org"
			_, err := s.UpdateContact(ctx, contactOf(one, "email"), accounts.ContactPatch{Value: &value})
			return err
		}, 2},
		{"another spelling of it", func() error {
			value := "UNO@example.org"
			_, err := s.UpdateContact(ctx, contactOf(one, "email"), accounts.ContactPatch{Value: &value})
			return err
		}, 1},
		{"many join a group", func() error {
			_, err := s.SetMemberships(ctx, others.ID, []uuid.UUID{one, two, three}, true)
			return err
		}, 2},
		{"a trial of a bulk", func() error {
			_, err := s.BulkCreate(ctx, bulk, accounts.BulkOptions{OnConflict: accounts.Merge, DryRun: true})
			return err
		}, 0},
		{"a bulk that merges", func() error {
			_, err := s.BulkCreate(ctx, bulk, accounts.BulkOptions{OnConflict: accounts.Merge})
			return err
		}, 2},
		{"the same bulk", func() error {
			_, err := s.BulkCreate(ctx, bulk, accounts.BulkOptions{OnConflict: accounts.Merge})
			return err
		}, 0},
		{"refused", func() error {
			_, err := s.AddContact(ctx, three, "second_login", "login.new")
			require.Equal(t, errcode.IdentifierTaken, errcode.Of(err))
			return nil
		}, 0},
	} {
		c.warm(t, p)
		before := c.render(t, oracle)
		require.Equal(t, before, c.render(t, p), "before: %s", write.name)
		require.NoError(t, write.do(), write.name)
		after := c.render(t, oracle)
		dead := 0
		for key, isDead := range c.dead(t, p) {
			require.Equal(t, before[key] != after[key], isDead, "%s: %s is dead", write.name, key)
			if isDead {
				dead++
			}
		}
		require.Equal(t, write.dead, dead, "%s: the oracle itself", write.name)
	}
}

func TestRenameOfALargeGroupCostsNoMoreThanOfASmallOne(t *testing.T) {
	t.Parallel()
	const members = 100_000
	db := pgtest.Shared(t)
	p := newProcess(t, db.WriteURL, db.PrimaryReadURL, db.Redis().URL)
	require.NoError(t, p.Attach(t.Context()))
	small, err := p.service.CreateGroup(t.Context(), "small")
	require.NoError(t, err)
	large, err := p.service.CreateGroup(t.Context(), "large")
	require.NoError(t, err)
	execute(t, db.UncheckedURL("a large group is needed fast"), `WITH u AS (INSERT INTO accounts.users SELECT FROM generate_series(1, $1::int) RETURNING id)
		INSERT INTO accounts.user_group_memberships (user_id, group_id) SELECT id, $2 FROM u`, members, large.ID)
	var member uuid.UUID
	conn, err := pgx.Connect(t.Context(), db.SuperURL)
	require.NoError(t, err)
	defer conn.Close(context.Background())
	require.NoError(t, conn.QueryRow(t.Context(), "SELECT max(user_id::text)::uuid FROM accounts.user_group_memberships").Scan(&member))
	p.answer(t, member)

	calls := regexp.MustCompile(`calls=(\d+)`)
	rename := func(id uuid.UUID, name string) (commands int) {
		// Markers that are over would be removed on the way: one command more, after a slow start.
		require.NoError(t, p.Redis().Del(t.Context(), "accounts:dirty").Err())
		require.NoError(t, p.Redis().ConfigResetStat(t.Context()).Err())
		_, err := p.service.UpdateGroup(t.Context(), id, &name, nil)
		require.NoError(t, err)
		stats, err := p.Redis().Info(t.Context(), "commandstats").Result()
		require.NoError(t, err)
		for _, match := range calls.FindAllStringSubmatch(stats, -1) {
			n, err := strconv.Atoi(match[1])
			require.NoError(t, err)
			commands += n
		}
		return commands
	}
	ofSmall := rename(small.ID, "still small")
	require.Equal(t, ofSmall, rename(large.ID, "still large"))
	require.Less(t, ofSmall, 15, "commands within the script included")
	require.Contains(t, string(p.answer(t, member).Body), "still large")
}

// Two processes read and write while Redis is cut off, flushed, killed and evicts. Afterwards every
// entry is byte for byte what a fresh load renders.
func TestEntriesAreFreshRendersWhenFaultsHeal(t *testing.T) {
	t.Parallel()
	db := pgtest.Shared(t)
	r := db.Redis()
	proxy := pgtest.NewProxy(t, r.Address())
	url, err := proxy.URL(r.URL)
	require.NoError(t, err)
	a, b := newProcess(t, db.WriteURL, db.ReadURL, url), newProcess(t, db.WriteURL, db.ReadURL, r.URL)
	a.run(t)
	b.run(t)
	oracle := newProcess(t, db.WriteURL, db.PrimaryReadURL, "redis://127.0.0.1:1/1")
	c := catalog{identifiers: map[cache.Key]string{}}
	var groups []uuid.UUID
	for i := range 4 {
		group, err := b.service.CreateGroup(t.Context(), fmt.Sprintf("group %d", i))
		require.NoError(t, err)
		groups = append(groups, group.ID)
		phone := fmt.Sprintf("+7916000000%d", i)
		id, _, err := b.service.CreateUser(t.Context(), accounts.NewUser{
			IsActive: true, Groups: []string{group.Name}, Contacts: []accounts.NewUserContact{{Type: "phone", Value: phone}},
		})
		require.NoError(t, err)
		c.users = append(c.users, id)
		c.identifiers[phoneKey(phone)] = phone
	}

	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	var clients sync.WaitGroup
	for i := range 4 {
		p, random := []*process{a, b}[i%2], rand.New(rand.NewPCG(1, uint64(i)))
		clients.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				k := random.IntN(len(c.users))
				switch random.IntN(8) {
				case 0: // what fails is repeated by nobody: this is about what is left behind
					_, _ = p.service.UpdateUser(ctx, c.users[k], accounts.UserPatch{Profile: profile(fmt.Sprint(i, n))})
				case 1:
					name := fmt.Sprintf("group %d %d %d", k, i, n)
					_, _ = p.service.UpdateGroup(ctx, groups[k], &name, nil)
				case 2, 3:
					_, _ = p.service.UserByIdentifier(ctx, fmt.Sprintf("+7916000000%d", k), nil)
				default:
					_, _ = p.service.UserByID(ctx, c.users[k], nil)
				}
			}
		})
	}
	pause := func() { time.Sleep(150 * time.Millisecond) } // between faults, not for an order of events
	pause()
	proxy.Cut()
	pause()
	require.NoError(t, proxy.Heal())
	require.NoError(t, b.Redis().FlushDB(t.Context()).Err())
	pause()
	require.NoError(t, b.Redis().Del(t.Context(), cache.UserKey(c.users[0]).Physical()).Err())
	proxy.Stall()
	pause()
	proxy.Resume()
	pause()
	require.NoError(t, r.Kill())
	pause()
	require.NoError(t, r.Start(t.Context()))
	pause()
	stop()
	clients.Wait()

	for _, p := range []*process{a, b} {
		eventually(t, "recovered", func() bool { return !p.BreakerOpen() })
	}
	eventually(t, "relayed", func() bool { return a.pending(t) == 0 })
	fresh := c.render(t, oracle)
	compare := func() (entries int) {
		for key, want := range fresh {
			entry := b.entry(t, key)
			if !strings.HasPrefix(entry, "V") {
				continue
			}
			reply, err := b.RunRead(t.Context(), key, "test", cache.Format)
			require.NoError(t, err)
			if reply[0] != "HIT" {
				continue // dead by a rename or an attach; the probe's lease does not live long
			}
			entries++
			body := []byte(strings.SplitN(entry, "\n", 3)[2])
			if key[0] == 'i' {
				body = append([]byte(`{"id":"`), body...)
			}
			require.True(t, bytes.Equal([]byte(want), body), "%s\nentry: %s\nfresh: %s", key, body, want)
		}
		return entries
	}
	compare()
	for _, p := range []*process{a, b} {
		require.Equal(t, fresh, c.render(t, p))
	}
	eventually(t, "every key is cached again", func() bool {
		require.Equal(t, fresh, c.render(t, a))
		return compare() == len(fresh)
	})
}

// A query that a live server cancelled because it took too long is not run on the other server.
func TestRead_SlowQueryRunsOnce(t *testing.T) {
	t.Parallel()
	db := pgtest.Shared(t)
	execute(t, db.SuperURL, `CREATE OR REPLACE FUNCTION accounts.list_user_groups_v1()
		RETURNS SETOF accounts.user_group_v1 LANGUAGE plpgsql STABLE SECURITY DEFINER AS $$ BEGIN PERFORM pg_sleep(10); END $$`)
	require.NoError(t, db.WaitForReplay(t.Context()))
	p := newProcess(t, db.WriteURL, db.ReadURL, db.Redis().URL)
	p.run(t)
	for name, run := range map[string]func(routing.Query) error{
		"replica": func(q routing.Query) error { _, err := p.Read(t.Context(), nil, q); return err },
		"primary": func(q routing.Query) error { return p.router.ReadPrimary(t.Context(), q) },
		"dirty": func(q routing.Query) error {
			id, _ := p.createUser(t, "+79160000000", "old")
			p.Invalidate(t.Context(), p.setProfile(t, id, "new").touched, nil)
			_, err := p.Read(t.Context(), []cache.Key{cache.UserKey(id)}, q)
			return err
		},
	} {
		calls := 0
		started := time.Now()
		err := run(func(ctx context.Context, q read.Querier) error {
			calls++
			_, err := q.ListUserGroupsV1(ctx)
			return err
		})
		require.Equal(t, errcode.Database, errcode.Of(err), name)
		require.Equal(t, 1, calls, name)
		require.Less(t, time.Since(started), 2*time.Second, name)
	}
}
