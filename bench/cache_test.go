// Package bench measures; it asserts nothing about time. `make bench-cache` prints what the cache
// protocol costs: Redis round trips and Redis CPU per request.
package bench

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/accounts"
	"github.com/payment-services/accounts/internal/cache"
	"github.com/payment-services/accounts/internal/core/coretest"
	"github.com/payment-services/accounts/internal/pgtest"
)

const users = 1000

func TestMain(m *testing.M) { pgtest.Main(m) }

// bed is one process on a private primary, standby and Redis, with some users.
type bed struct {
	service *accounts.Service
	cache   *cache.Cache
	redis   *redis.Client
	ids     []uuid.UUID
	asking  float64 // what looking at Redis costs Redis itself, in microseconds
}

func newBed(b *testing.B) *bed {
	b.Helper()
	stack := pgtest.Private(b)
	c := coretest.Start(b, coretest.Config(stack.WriteURL, stack.ReadURL, stack.Redis().URL))
	options, err := redis.ParseURL(stack.Redis().URL)
	require.NoError(b, err)
	t := &bed{
		service: c.Accounts,
		cache:   c.Cache, redis: redis.NewClient(options),
	}
	b.Cleanup(func() { require.NoError(b, t.redis.Close()) })
	rows := make([]accounts.BulkRow, users)
	for i := range rows {
		rows[i] = accounts.BulkRow{Number: i, Phone: phone(i), Profile: json.RawMessage(`{"first_name":"Иван","last_name":"Иванов","city":"Москва"}`)}
	}
	result, err := t.service.BulkCreate(b.Context(), rows, accounts.BulkOptions{OnConflict: accounts.Skip})
	require.NoError(b, err)
	for _, row := range result.Rows {
		t.ids = append(t.ids, *row.UserID)
	}
	// The markers of the creation would send every miss to the primary.
	require.NoError(b, t.redis.Del(b.Context(), "accounts:dirty").Err())
	require.NoError(b, stack.WaitForReplay(b.Context()))
	require.Eventually(b, func() bool { return c.Cache.Ping(b.Context()) == nil }, 10*time.Second, 10*time.Millisecond)
	const looks = 1000
	for range looks {
		before := t.usage(b)
		t.asking += (t.usage(b).cpu - before.cpu) / looks
	}
	return t
}

func phone(i int) string { return fmt.Sprintf("+7999%07d", i) }

// usage is what Redis has done: script calls and transactions, microseconds of CPU.
type usage struct{ roundTrips, cpu float64 }

func (t *bed) usage(b *testing.B) usage {
	b.Helper()
	var u usage
	stats, err := t.redis.Info(b.Context(), "commandstats").Result()
	require.NoError(b, err)
	for line := range strings.Lines(stats) {
		name, rest, _ := strings.Cut(strings.TrimSpace(line), ":calls=")
		switch name {
		case "cmdstat_evalsha", "cmdstat_eval", "cmdstat_exec":
			calls, _, _ := strings.Cut(rest, ",")
			n, err := strconv.ParseFloat(calls, 64)
			require.NoError(b, err)
			u.roundTrips += n
		}
	}
	cpu, err := t.redis.Info(b.Context(), "cpu").Result()
	require.NoError(b, err)
	for line := range strings.Lines(cpu) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		if name == "used_cpu_user" || name == "used_cpu_sys" {
			seconds, err := strconv.ParseFloat(value, 64)
			require.NoError(b, err)
			u.cpu += seconds * 1e6
		}
	}
	return u
}

// measure runs request b.N times; before each, prepare is run and not measured.
func (t *bed) measure(b *testing.B, prepare, request func(i int)) {
	b.Helper()
	var spent usage
	b.ResetTimer()
	for i := 0; b.Loop(); i++ {
		b.StopTimer()
		prepare(i)
		before := t.usage(b)
		b.StartTimer()
		request(i)
		b.StopTimer()
		after := t.usage(b)
		spent.roundTrips += after.roundTrips - before.roundTrips
		spent.cpu += after.cpu - before.cpu
		b.StartTimer()
	}
	b.ReportMetric(spent.roundTrips/float64(b.N), "round-trips/op")
	b.ReportMetric(spent.cpu/float64(b.N)-t.asking, "redis-us/op")
}

func (t *bed) byID(b *testing.B, i int) {
	_, err := t.service.UserByID(b.Context(), t.ids[i%users], nil)
	require.NoError(b, err)
}

func (t *bed) byPhone(b *testing.B, i int) {
	_, err := t.service.UserByIdentifier(b.Context(), phone(i%users), nil)
	require.NoError(b, err)
}

func (t *bed) forget(b *testing.B, keys ...string) {
	require.NoError(b, t.redis.Unlink(b.Context(), keys...).Err())
}

func BenchmarkCache(b *testing.B) {
	t := newBed(b)
	nothing := func(int) {}
	user := func(i int) string { return "accounts:user:" + t.ids[i%users].String() }
	mapping := func(i int) string { return "accounts:user_by_identifier:phone:" + phone(i%users) }

	b.Run("hit-by-id", func(b *testing.B) {
		t.measure(b, func(i int) { t.byID(b, i) }, func(i int) { t.byID(b, i) })
	})
	b.Run("hit-by-phone", func(b *testing.B) {
		t.measure(b, func(i int) { t.byPhone(b, i) }, func(i int) { t.byPhone(b, i) })
	})
	b.Run("miss-by-id", func(b *testing.B) {
		t.measure(b, func(i int) { t.forget(b, user(i)) }, func(i int) { t.byID(b, i) })
	})
	b.Run("miss-by-phone", func(b *testing.B) {
		t.measure(b, func(i int) { t.forget(b, user(i), mapping(i)) }, func(i int) { t.byPhone(b, i) })
	})
	b.Run("groups-hit", func(b *testing.B) {
		t.measure(b, nothing, func(int) {
			_, err := t.service.Groups(b.Context(), nil)
			require.NoError(b, err)
		})
	})
	b.Run("patch", func(b *testing.B) {
		t.measure(b, nothing, func(i int) {
			profile := json.RawMessage(fmt.Sprintf(`{"n":%d}`, i))
			_, err := t.service.UpdateUser(b.Context(), t.ids[i%users], accounts.UserPatch{Profile: profile})
			require.NoError(b, err)
		})
	})
}

// BenchmarkInvalidate100k is a bulk write of 100,000 keys, in one go.
func BenchmarkInvalidate100k(b *testing.B) {
	t := newBed(b)
	const slow = 10 * time.Millisecond
	require.NoError(b, t.redis.ConfigSet(b.Context(), "slowlog-log-slower-than", strconv.FormatInt(slow.Microseconds(), 10)).Err())
	require.NoError(b, t.redis.Do(b.Context(), "SLOWLOG", "RESET").Err())
	touched := make([]string, 100_000)
	for i := range touched {
		touched[i] = "u:" + uuid.NewString()
	}
	before := t.usage(b)
	for b.Loop() {
		require.NoError(b, t.cache.Invalidate(b.Context(), touched))
	}
	after := t.usage(b)
	entries, err := t.redis.SlowLogGet(b.Context(), 1000).Result()
	require.NoError(b, err)
	b.ReportMetric((after.cpu-before.cpu)/1e6/float64(b.N), "redis-s/op")
	b.ReportMetric((after.roundTrips-before.roundTrips)/float64(b.N), "calls/op")
	b.ReportMetric(float64(len(entries)), "calls-over-10ms")
	dirty, err := t.redis.MemoryUsage(b.Context(), "accounts:dirty").Result()
	require.NoError(b, err)
	b.ReportMetric(float64(dirty)/1e6, "dirty-MB")
}
