package outbox

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// scrapeTimeout limits the time for which a scrape waits for the primary.
const scrapeTimeout = time.Second

var (
	pendingDesc = prometheus.NewDesc("accounts_cache_outbox_pending",
		"Invalidations that are committed and not known to be done.", nil, nil)
	ageDesc = prometheus.NewDesc("accounts_cache_outbox_oldest_age_seconds",
		"Age of the oldest pending invalidation, 0 if there is none.", nil, nil)
)

// registerMetrics registers the metrics and returns the counter of deferred invalidations.
func registerMetrics(r prometheus.Registerer, o *Outbox) prometheus.Counter {
	deferred := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "accounts_cache_deferred_invalidations_total",
		Help: "Writes whose invalidation was left to the relay of the outbox.",
	})
	if r != nil {
		r.MustRegister(deferred, collector{o})
	}
	return deferred
}

// collector requests the backlog from the primary at every scrape. If the primary does not answer, the
// metrics are absent.
type collector struct{ outbox *Outbox }

func (c collector) Describe(ch chan<- *prometheus.Desc) {
	ch <- pendingDesc
	ch <- ageDesc
}

func (c collector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	status, err := c.outbox.status(ctx)
	if err != nil {
		return
	}
	ch <- prometheus.MustNewConstMetric(pendingDesc, prometheus.GaugeValue, float64(status.Pending))
	ch <- prometheus.MustNewConstMetric(ageDesc, prometheus.GaugeValue, float64(status.OldestAgeMs)/1e3)
}
