package auth

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// revocable returns a good token and its revocation key.
func revocable(t testing.TB) (token, key string) {
	t.Helper()
	claims := validClaims()
	return sign(t, claims), "black_list_access_tokens:" + claims["jti"].(string)
}

func TestRevokedToken(t *testing.T) {
	t.Parallel()
	v := newTestVerifier(t, Config{}, time.Now)
	token, key := revocable(t)
	_, err := v.Authenticate(t.Context(), token)
	require.NoError(t, err)
	sharedRedis.set(t, key)
	_, err = v.Authenticate(t.Context(), token)
	requireRefused(t, err, "token revoked")
}

func TestOutagePolicies(t *testing.T) {
	t.Parallel()
	server := newRedisServer(t)
	token, key := revocable(t)
	server.set(t, key)
	verifiers := map[Outage]*Verifier{}
	for _, outage := range []Outage{OutageSnapshot, OutageDeny, OutageAllow} {
		v := newTestVerifier(t, Config{RevocationOutage: outage, Redis: server.client(t)}, time.Now)
		_, err := v.Authenticate(t.Context(), token)
		requireRefused(t, err, "token revoked")
		verifiers[outage] = v
	}
	server.kill()

	_, err := verifiers[OutageDeny].Authenticate(t.Context(), token)
	requireUnavailable(t, err)
	_, err = verifiers[OutageAllow].Authenticate(t.Context(), token)
	require.NoError(t, err)
	_, err = verifiers[OutageSnapshot].Authenticate(t.Context(), token)
	requireUnavailable(t, err) // no pass was completed: what was learned alone is no snapshot
}

func TestSnapshotDecidesDuringOutage(t *testing.T) {
	t.Parallel()
	server, clock := newRedisServer(t), newClock()
	v := newTestVerifier(t, Config{Redis: server.client(t)}, clock.Now)
	good, goodKey := revocable(t)
	scanned, scannedKey := revocable(t)
	seenLive, seenLiveKey := revocable(t)
	server.set(t, scannedKey, "unrelated:key")
	require.NoError(t, v.revocations.snapshot.pass(t.Context()))
	require.Len(t, v.revocations.snapshot.keys, 1)
	server.set(t, seenLiveKey) // after the pass, and then asked for
	_, err := v.Authenticate(t.Context(), seenLive)
	requireRefused(t, err, "token revoked")
	server.kill()

	for range 3 {
		_, err = v.Authenticate(t.Context(), good)
		require.NoError(t, err)
		_, err = v.Authenticate(t.Context(), scanned)
		requireRefused(t, err, "token revoked")
		_, err = v.Authenticate(t.Context(), seenLive)
		requireRefused(t, err, "token revoked")
	}
	require.Error(t, v.revocations.snapshot.pass(t.Context()), "a failed pass leaves the old snapshot in force")
	clock.advance(snapshotMaxAge)
	_, err = v.Authenticate(t.Context(), good)
	require.NoError(t, err)
	clock.advance(time.Second)
	_, err = v.Authenticate(t.Context(), good)
	requireUnavailable(t, err)
	_, err = v.Authenticate(t.Context(), scanned)
	requireUnavailable(t, err)

	// Redis is back, empty, and revokes the good token.
	require.NoError(t, server.start())
	server.set(t, goodKey)
	clock.advance(probePause)
	_, err = v.Authenticate(t.Context(), good)
	requireRefused(t, err, "token revoked")
	_, err = v.Authenticate(t.Context(), scanned)
	require.NoError(t, err)
	require.Zero(t, v.revocations.retryAt.Load())
}

// Run makes the first pass by itself, also when Redis comes up after it.
func TestRunMakesSnapshot(t *testing.T) {
	t.Parallel()
	server := newRedisServer(t)
	server.kill()
	v := newTestVerifier(t, Config{Redis: server.client(t)}, time.Now)
	go v.Run(t.Context())
	require.NoError(t, server.start())
	require.Eventually(t, func() bool {
		_, ok := v.revocations.snapshot.contains("")
		return ok
	}, 10*time.Second, 10*time.Millisecond)
}

func TestSnapshotOfSeveralPages(t *testing.T) {
	t.Parallel()
	server := newRedisServer(t)
	v := newTestVerifier(t, Config{Redis: server.client(t)}, time.Now)
	var keys []string
	for i := range 5 * scanCount {
		keys = append(keys, fmt.Sprintf("black_list_access_tokens:%d", i))
	}
	server.set(t, keys...)
	s := v.revocations.snapshot
	require.NoError(t, s.pass(t.Context()))
	require.Len(t, s.keys, len(keys))

	s.maxKeys = len(keys) - 1
	require.ErrorIs(t, s.pass(t.Context()), errListTooLong)
	_, ok := s.contains(keys[0])
	require.False(t, ok, "a list that is too long is no snapshot, and ends the one before")
	require.Empty(t, s.keys)

	s.maxKeys = len(keys)
	require.NoError(t, s.pass(t.Context()))
	s.learn("one more than fits")
	_, ok = s.contains(keys[0])
	require.False(t, ok)
}

// A key that Redis showed while a pass was running is kept, although the pass may have missed it; one
// that was shown before the pass and not found by it has expired.
func TestSnapshotKeepsWhatWasLearnedDuringPass(t *testing.T) {
	t.Parallel()
	v := newTestVerifier(t, Config{}, time.Now)
	s := v.revocations.snapshot
	s.learn("before")
	s.begin()
	s.learn("during")
	require.NoError(t, s.commit(map[uint64]struct{}{}))
	revoked, ok := s.contains("during")
	require.True(t, ok)
	require.True(t, revoked)
	revoked, ok = s.contains("before")
	require.True(t, ok)
	require.False(t, revoked)

	s.begin()
	s.maxKeys = 1
	s.learn("a")
	s.learn("b")
	require.ErrorIs(t, s.commit(map[uint64]struct{}{}), errListTooLong, "what was learned did not fit")
}

// A restarted Redis has another hash seed, so that the cursor of a pass means nothing to it.
func TestPassDoesNotSurviveRestart(t *testing.T) {
	t.Parallel()
	server := newRedisServer(t)
	v := newTestVerifier(t, Config{Redis: server.client(t)}, time.Now)
	s := v.revocations.snapshot
	conn := s.redis.Conn()
	defer conn.Close()
	_, _, err := s.page(t.Context(), conn, 0)
	require.NoError(t, err)
	server.kill()
	require.NoError(t, server.start())
	_, _, err = s.page(t.Context(), conn, 0)
	require.Error(t, err)
}

// A Redis that hangs costs one request its timeout, not every request.
func TestHungRedisIsAskedOnce(t *testing.T) {
	t.Parallel()
	server, clock := newRedisServer(t), newClock()
	v := newTestVerifier(t, Config{Redis: server.client(t)}, clock.Now)
	token, key := revocable(t)
	require.NoError(t, v.revocations.snapshot.pass(t.Context()))
	server.signal(t, syscall.SIGSTOP)
	start := time.Now()
	for range 200 {
		_, err := v.Authenticate(t.Context(), token)
		require.NoError(t, err)
	}
	require.Less(t, time.Since(start), 100*redisIOTimeout)

	server.signal(t, syscall.SIGCONT)
	server.set(t, key)
	clock.advance(probePause)
	_, err := v.Authenticate(t.Context(), token)
	requireRefused(t, err, "token revoked")
}

func TestOneProbeAtATime(t *testing.T) {
	t.Parallel()
	clock := newClock()
	v := newTestVerifier(t, Config{}, clock.Now)
	r := v.revocations
	require.True(t, r.admit())
	r.failed(t.Context(), errUnreachable)
	require.False(t, r.admit())
	clock.advance(probePause)
	require.True(t, r.admit())
	require.False(t, r.admit(), "the others do not wait for the probe")
	clock.advance(probePause)
	require.True(t, r.admit(), "a probe that never ended is replaced")
}
