// Package pgtest gives tests real PostgreSQL and Redis servers, started privately as child processes
// on free ports of 127.0.0.1. It needs Linux, installed PostgreSQL and Redis, and no Docker.
//
//	func TestMain(m *testing.M) { pgtest.Main(m) }
//
//	func TestSomething(t *testing.T) {
//		t.Parallel()
//		db := pgtest.Shared(t) // db.WriteURL, db.ReadURL, db.Redis().URL, ...
//	}
//
// [Shared] is the usual way: a migrated database of the test's own on a primary and a streaming
// standby that all tests of the package share, and Redis servers of its own. [Private] gives a test
// its own pair of PostgreSQL servers too, to be paused, frozen, killed and promoted; a [Proxy] cuts
// one client off from a server.
//
// Nothing survives the test process, however it dies: the kernel ends its servers, and the next run
// removes its files. The files of a failed test are kept for an hour.
//
// Every database of a test has the oracle (oracle.sql): it compares at commit what a transaction changed
// with what it declared in the cache outbox, and refuses what differs. A fixture that writes rows by hand
// connects with [DB.UncheckedURL]; a test of the schema itself calls [DB.RemoveOracle].
//
// Package internal/localservers runs the servers; it does not depend on tests.
package pgtest
