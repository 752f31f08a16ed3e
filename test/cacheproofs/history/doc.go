// Package history tests the cache from outside: real server processes under a random but seeded load
// and random but seeded faults, every request recorded, and the record checked for linearizability.
//
//	world_test.go    two processes, PostgreSQL, Redis, and what can be cut between them
//	client_test.go   eight clients and what they ask
//	faults_test.go   what goes wrong meanwhile
//	event_test.go    the record of one request, and what is true of every answer
//	model_test.go    what the answers must add up to, for porcupine
//	check_test.go    from the record to a verdict, and what is kept of a failure
//	history_test.go  the tests
//
// Each user is a register of its own, and so is each group's name: what users must see is stated
// about one resource at a time. A seed fixes what is asked and what goes wrong; when things happen
// it cannot fix, so a failure may need several runs to come back.
//
// `make test` runs a few seeds, `make test-cache SEED=... MINUTES=...` as many as fit. With
// -mutation=NAME one guard of the cache is off, and the test passes only if that is noticed.
package history
