package postgres

import (
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
)

// Register publishes the counters of the pool.
func (p *Primary) Register(r prometheus.Registerer) { p.pool.register(r, "primary") }

// Register publishes the counters of the pool.
func (r *Replica) Register(to prometheus.Registerer) { r.pool.register(to, "replica") }

func (p *pool) register(r prometheus.Registerer, name string) {
	labels := prometheus.Labels{"pool": name}
	gauge := func(metric, help string, value func(*pgxpool.Stat) float64) {
		r.MustRegister(prometheus.NewGaugeFunc(
			prometheus.GaugeOpts{Name: "accounts_pool_" + metric, Help: help, ConstLabels: labels},
			func() float64 { return value(p.Stat()) }))
	}
	counter := func(metric, help string, value func(*pgxpool.Stat) float64) {
		r.MustRegister(prometheus.NewCounterFunc(
			prometheus.CounterOpts{Name: "accounts_pool_" + metric, Help: help, ConstLabels: labels},
			func() float64 { return value(p.Stat()) }))
	}
	gauge("acquired_connections", "Connections in use.",
		func(s *pgxpool.Stat) float64 { return float64(s.AcquiredConns()) })
	gauge("idle_connections", "Connections that wait to be used.",
		func(s *pgxpool.Stat) float64 { return float64(s.IdleConns()) })
	gauge("max_connections", "The most connections that the pool makes.",
		func(s *pgxpool.Stat) float64 { return float64(s.MaxConns()) })
	counter("empty_acquires_total", "Acquisitions that had to wait for a connection.",
		func(s *pgxpool.Stat) float64 { return float64(s.EmptyAcquireCount()) })
	counter("acquire_seconds_total", "Time spent acquiring connections.",
		func(s *pgxpool.Stat) float64 { return s.AcquireDuration().Seconds() })
	counter("new_connections_total", "Connections made.",
		func(s *pgxpool.Stat) float64 { return float64(s.NewConnsCount()) })
}
