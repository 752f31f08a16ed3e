package cache_test

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/accounts"
	"github.com/payment-services/accounts/internal/cache"
	"github.com/payment-services/accounts/internal/errcode"
	"github.com/payment-services/accounts/internal/identifier"
)

func phoneKey(phone string) cache.Key {
	return cache.IdentifierKey(identifier.Identifier{Kind: identifier.Phone, Canonical: phone})
}

// byPhone is a request by identifier. The answer is the body, or "not found".
func (p *process) byPhone(phone string) (string, error) {
	a, err := p.service.UserByIdentifier(context.Background(), phone, nil)
	if errcode.Of(err) == errcode.NotFound {
		return "not found", nil
	}
	return string(a.Body), err
}

func (p *process) whoHas(t *testing.T, phone string) string {
	t.Helper()
	body, err := p.byPhone(phone)
	require.NoError(t, err)
	return body
}

// stopBefore stops the first run of a script for a key.
func (p *process) stopBefore(script string, key cache.Key) *barrier {
	b := newBarrier()
	p.OnScript(func(name, at string, next func() error) error {
		if name == script && at == key.Physical() {
			b.arrive()
		}
		return next()
	})
	return b
}

func createdAfterNotFound(t *testing.T, w *world) {
	a, b := w.pair(t)
	phone := "+7919" + w.user(t).phone[5:]
	require.Equal(t, "not found", a.whoHas(t, phone))
	loads := a.Count("loads", "primary")
	require.Equal(t, 1, loads, "the primary said so")
	require.Equal(t, "not found", a.whoHas(t, phone))
	require.Equal(t, loads, a.Count("loads", "primary"), "it is kept")
	ttl, err := a.Redis().PTTL(t.Context(), phoneKey(phone).Physical()).Result()
	require.NoError(t, err)
	require.LessOrEqual(t, ttl, cache.NegativeTTL)
	require.Positive(t, ttl)

	id, _, err := b.service.CreateUser(t.Context(), accounts.NewUser{
		IsActive: true, Contacts: []accounts.NewUserContact{{Type: "phone", Value: phone}},
	})
	require.NoError(t, err)
	require.Contains(t, a.whoHas(t, phone), id.String())
	require.Contains(t, b.whoHas(t, phone), id.String())
}

func createdDuringNotFound(t *testing.T, w *world) {
	r := newRedis(t)
	a, b := newProcess(t, w.WriteURL, w.ReadURL, r.URL), w.process(t, r.URL)
	phone := "+7920" + w.user(t).phone[5:]
	fill := a.stopBefore("FILL", phoneKey(phone))
	w.attach(t, a)
	reader := async(t, func() (string, error) { return a.byPhone(phone) })
	fill.await(t)
	id, created := b.createUser(t, phone, "new")
	b.invalidate(created)
	fill.release()
	require.Equal(t, "not found", reader(), "it was asked before")
	require.Contains(t, a.whoHas(t, phone), id.String())
}

// The mapping says the old owner, and then the document does not list the phone any more.
func phoneMoves(t *testing.T, w *world) {
	r := newRedis(t)
	a, b := newProcess(t, w.WriteURL, w.ReadURL, r.URL), w.process(t, r.URL)
	from, to := w.user(t), w.user(t)
	require.Contains(t, b.whoHas(t, from.phone), from.id.String()) // the mapping is cached
	read := a.stopBefore("READ", cache.UserKey(from.id))
	w.attach(t, a)

	reader := async(t, func() (string, error) { return a.byPhone(from.phone) })
	read.await(t)
	contacts, _, err := b.service.UserContacts(t.Context(), from.id, false)
	require.NoError(t, err)
	_, err = b.service.DeactivateContact(t.Context(), contacts[0].ID, nil)
	require.NoError(t, err)
	own, _, err := b.service.UserContacts(t.Context(), to.id, false)
	require.NoError(t, err)
	_, err = b.service.DeactivateContact(t.Context(), own[0].ID, nil)
	require.NoError(t, err)
	_, err = b.service.AddContact(t.Context(), to.id, "phone", from.phone)
	require.NoError(t, err)
	read.release()

	require.True(t, strings.HasPrefix(reader(), `{"id":"`+to.id.String()), "the document decides, not the mapping")
	for _, p := range []*process{a, b} {
		require.Contains(t, p.whoHas(t, from.phone), to.id.String())
		require.Equal(t, "not found", p.whoHas(t, to.phone))
	}
}

// seeded stops a request by phone after the identifier's load, which read the whole user from the
// primary, and before the user's own READ, and lets a write happen there.
func seeded(t *testing.T, w *world, write func(b *process, u user)) (body string, a *process, u user) {
	t.Helper()
	r := newRedis(t)
	a, b := newProcess(t, w.WriteURL, w.ReadURL, r.URL), w.process(t, r.URL)
	u = w.user(t)
	read := a.stopBefore("READ", cache.UserKey(u.id))
	w.attach(t, a)
	a.believe(unreachable(w))
	reader := async(t, func() (string, error) { return a.byPhone(u.phone) })
	read.await(t)
	write(b, u)
	read.release()
	return reader(), a, u
}

func writeAfterSeed(t *testing.T, w *world) {
	body, a, u := seeded(t, w, func(b *process, u user) { b.invalidate(b.setProfile(t, u.id, "new")) })
	require.Contains(t, body, `"v":"new"`, "the marker of the write forbids the seed")
	require.Contains(t, a.whoHas(t, u.phone), `"v":"new"`)
}

func renameAfterSeed(t *testing.T, w *world) {
	body, a, u := seeded(t, w, func(b *process, u user) { b.invalidate(b.renameGroup(t, u.group, "new "+u.groupName)) })
	require.Contains(t, body, `"new old`, "the seed is refused")
	require.Contains(t, a.whoHas(t, u.phone), `"new old`)
}

func seedIsKept(t *testing.T, w *world) {
	body, a, u := seeded(t, w, func(*process, user) {})
	require.Contains(t, body, u.id.String())
	require.Equal(t, 1, a.Count("loads", "primary"), "one load for both keys")
	require.Equal(t, cache.Hit, a.answer(t, u.id).Status)
	require.True(t, strings.HasPrefix(a.whoHas(t, u.phone), `{"id":"`+u.id.String()))
	require.Equal(t, 1, a.Count("loads", "primary"))
}
