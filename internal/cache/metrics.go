package cache

import "github.com/prometheus/client_golang/prometheus"

// metrics are the metrics of the cache. Each label has a fixed set of values.
type metrics struct {
	requests *prometheus.CounterVec
	loads    *prometheus.CounterVec
	refusals *prometheus.CounterVec
	attaches prometheus.Counter
}

func newMetrics(r prometheus.Registerer, c *Cache) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "accounts_cache_requests_total",
			Help: "Cached reads by outcome: hit, miss, joined (another request's load), wait (another process's lease, then the primary), bypass.",
		}, []string{"result"}),
		loads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "accounts_cache_loads_total",
			Help: "Database reads by server.",
		}, []string{"source"}),
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "accounts_cache_fill_refusals_total",
			Help: "Loaded documents that were not stored, by reason.",
		}, []string{"reason"}),
		attaches: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "accounts_cache_attaches_total",
			Help: "Attachments that invalidated every older entry.",
		}),
	}
	if r != nil {
		r.MustRegister(m.requests, m.loads, m.refusals, m.attaches,
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{
				Name: "accounts_cache_breaker_open",
				Help: "1 while reads bypass Redis.",
			}, func() float64 {
				if c.breaker.open() {
					return 1
				}
				return 0
			}))
	}
	return m
}
