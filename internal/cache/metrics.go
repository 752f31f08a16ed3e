package cache

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/payment-services/accounts/internal/dbgen/read"
)

// A scrape waits no longer than this for the primary.
const scrapeTimeout = time.Second

// metrics of the cache. Labels are bounded sets of words.
type metrics struct {
	requests *prometheus.CounterVec
	loads    *prometheus.CounterVec
	refusals *prometheus.CounterVec
	deferred prometheus.Counter
	attaches prometheus.Counter
}

func newMetrics(r prometheus.Registerer, c *Cache) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "accounts_cache_requests_total",
			Help: "Cached reads by outcome: hit, miss, joined (another's load), wait (another's lease, then the primary), bypass.",
		}, []string{"result"}),
		loads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "accounts_cache_loads_total",
			Help: "Reads of the database by server.",
		}, []string{"source"}),
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "accounts_cache_fill_refusals_total",
			Help: "Loaded documents that were not stored, by reason.",
		}, []string{"reason"}),
		deferred: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "accounts_cache_deferred_invalidations_total",
			Help: "Writes whose invalidation was left to the outbox's relay.",
		}),
		attaches: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "accounts_cache_attaches_total",
			Help: "Attachments that made every older entry dead.",
		}),
	}
	if r != nil {
		r.MustRegister(m.requests, m.loads, m.refusals, m.deferred, m.attaches,
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{
				Name: "accounts_cache_breaker_open",
				Help: "1 while reads bypass Redis.",
			}, func() float64 {
				if c.breaker.open() {
					return 1
				}
				return 0
			}), outboxCollector{c})
	}
	return m
}

var (
	outboxPending = prometheus.NewDesc("accounts_cache_outbox_pending",
		"Invalidations that are committed and not known to be done.", nil, nil)
	outboxAge = prometheus.NewDesc("accounts_cache_outbox_oldest_age_seconds",
		"Age of the oldest of them, 0 if there is none.", nil, nil)
)

// outboxCollector asks the primary for the backlog at every scrape; without it the metrics are
// missing, not wrong.
type outboxCollector struct{ c *Cache }

func (o outboxCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- outboxPending
	ch <- outboxAge
}

func (o outboxCollector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	var status read.CacheOutboxStatusV1
	_, err := o.c.source.primary.Read(ctx, func(ctx context.Context, q read.Querier) (err error) {
		status, err = q.GetCacheOutboxStatusV1(ctx)
		return err
	})
	if err != nil {
		return
	}
	ch <- prometheus.MustNewConstMetric(outboxPending, prometheus.GaugeValue, float64(status.Pending))
	ch <- prometheus.MustNewConstMetric(outboxAge, prometheus.GaugeValue, float64(status.OldestAgeMs)/1e3)
}
