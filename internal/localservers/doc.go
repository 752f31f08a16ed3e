// Package localservers runs PostgreSQL and Redis servers, and other programs, as child processes on free
// ports of 127.0.0.1. It needs Linux, installed PostgreSQL and Redis, and no Docker.
//
// A [Cluster] is a primary and a streaming standby, a [Redis] one server of either kind, a [Process] any
// other program. The kernel ends all of them when this process dies, in whatever way.
//
// internal/pgtest gives these servers to tests, cmd/devstack runs them for make run, cmd/dbtool applies the
// migrations on one, and bench/run measures the service with them. The package does not import testing.
package localservers
