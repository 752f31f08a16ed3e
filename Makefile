# `make help` lists the targets. Nothing here needs Docker or changes the machine, except that the
# first `make run` or `make test` installs PostgreSQL and Redis where they are missing.
SHELL := /bin/bash
.DEFAULT_GOAL := help

tools := .tools
# The commit that make build stamps into the server; empty outside of a clone.
commit = $(shell git describe --always --abbrev=12 --dirty=.modified --exclude="*" 2>/dev/null)
build_tool = CGO_ENABLED=0 go build -modfile=tools/go.mod -o $@

# `make help` prints each line "##@ group" as a heading; the targets that a newcomer needs first come first.
.PHONY: help
help:
	@sed -nE -e 's/^##@ (.*)/\n\1/p' -e 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 26

##@ Start here

.PHONY: run
run: ## start the service with its own PostgreSQL and Redis, and demo users; Ctrl-C stops it
	@scripts/install-deps
	@mkdir -p .devstack
	@go build -o .devstack/devstack ./cmd/devstack
	@exec .devstack/devstack # exec: a signal to make's child is one to devstack

.PHONY: test-fast
test-fast: ## run the tests that need no servers
	@go test -short ./...

no_race := internal/dbrules|cmd/dbtool
.PHONY: test
test: ## run every test that needs no Docker, with the race detector
	@scripts/install-deps --test
	@# One package at a time: each starts servers of its own and keeps the service's deadlines, and two of
	@# them on two cores starve each other.
	@# The rules of make check and its tool run the parser of PostgreSQL as WebAssembly, which the race
	@# detector makes four times slower, and they have no concurrent code of the service.
	@go test -race -p 1 -timeout=30m $$(go list ./... | grep -vE '/($(no_race))$$')
	@go test -p 1 -timeout=30m $(addprefix ./,$(subst |, ,$(no_race)))

.PHONY: lint
lint: $(tools)/staticcheck ## check formatting, go vet, staticcheck, and the shell scripts with shellcheck
	@unformatted=$$(gofmt -l .) && [ -z "$$unformatted" ] || { echo "gofmt -w" $$unformatted; exit 1; }
	go vet ./...
	$(tools)/staticcheck ./...
	@command -v shellcheck >/dev/null || { echo "shellcheck is missing: scripts/install-deps --ci" >&2; exit 1; }
	shellcheck -x $(shell git ls-files -- scripts .ci deploy | xargs grep -lE '^\#!.*\b(ba)?sh\b')

.PHONY: check
check: $(tools)/sqlc ## check migrations, functions and queries against every rule, with the reason and the fix
	@scripts/install-deps --check
	@[ "$$(uname -m)" = x86_64 ] && command -v npm >/dev/null && $(MAKE) --no-print-directory -s $(tools)/squawk \
		|| echo 'WARNING: there is no squawk; it needs x86_64 and npm: sudo apt-get install npm' >&2
	@go run ./cmd/dbtool check -sqlc $(tools)/sqlc -squawk $(tools)/squawk

.PHONY: generate
generate: $(tools)/sqlc ## write what is generated: internal/dbgen, db/functions, db/*.txt, the client
	$(tools)/sqlc generate
	go run ./cmd/dbtool generate db
	go run ./cmd/dbtool needs db
	go run ./cmd/dbtool docs docs/sql-rules.md
	go generate ./test/openapi

.PHONY: function
function: ## write the files of a new function: NAME=get_pet_v1 KIND=read|write [RETURNS=] [PARAMS=] [COLUMNS=] [FILE=]
	@go run ./cmd/dbtool function -name '$(NAME)' -kind '$(KIND)' -params '$(PARAMS)' -returns '$(RETURNS)' -columns '$(COLUMNS)' -file '$(FILE)'

.PHONY: build
build: ## build the server into bin/ with the version of the file VERSION, if it exists
	CGO_ENABLED=0 go build -trimpath -ldflags='-X main.version=$(shell cat VERSION 2>/dev/null) -X main.commit=$(commit)' -o bin/server ./cmd/server

##@ More tests

# Without the race detector: more happens in the time.
SEED ?= $(shell date +%s)
MINUTES ?= 10
.PHONY: test-cache
test-cache: ## check the cache's histories under random faults: SEED=... MINUTES=... MUTATION=<a guard to switch off>
	@scripts/install-deps --test
	go test -v -count=1 -timeout=0 -run=Histories ./test/cacheproofs/history -seed=$(SEED) -minutes=$(MINUTES) $(if $(MUTATION),-mutation=$(MUTATION))

.PHONY: fuzz
fuzz: ## run every fuzz function, one after the other: MINUTES=10 is the time of all together
	@scripts/install-deps --test
	@scripts/fuzz $(MINUTES)

.PHONY: mutation
mutation: ## switch off each guard of the cache protocol in turn; the tests must notice (<= 5 min)
	@scripts/install-deps --test
	go run ./test/cacheproofs/mutation

# `make test` holds the same bounds with 100,000 users.
USERS ?= 1000000
.PHONY: plans
plans: ## check the plans of the read functions with a million users and write docs/plans.md: USERS=...
	@scripts/install-deps --test
	go test -v -count=1 -timeout=30m ./test/plans -users=$(USERS) -doc=$(CURDIR)/docs/plans.md

.PHONY: test-cluster
test-cluster: $(tools)/goose ## kill, freeze and cut off the containers of a real cluster (needs Docker and root): MODE=async|sync FORM=short KILLS=10
	go test -tags cluster -count=1 -v -timeout 3h ./test/cluster -mode=$(or $(MODE),async) $(if $(FORM),-short-form) $(if $(KILLS),-kills=$(KILLS)) $(if $(TIMES),-times=$(TIMES)) $(if $(RUN),-run '$(RUN)')

##@ Database

.PHONY: check-generated
check-generated: $(tools)/sqlc ## fail if generate would change anything
	$(tools)/sqlc diff
	go run ./cmd/dbtool generate -check db
	go run ./cmd/dbtool needs -check db
	go run ./cmd/dbtool docs -check docs/sql-rules.md
	@fresh=$$(mktemp) && trap "rm -f $$fresh" EXIT && \
		go tool -modfile=tools/go.mod oapi-codegen -config test/openapi/client.yaml -o $$fresh test/openapi/openapi.json && \
		{ cmp -s $$fresh test/openapi/client/client.gen.go || { echo "the client is stale: make generate"; exit 1; }; }

.PHONY: unused
unused: ## list functions without calls: DATABASE_WRITE_URL=... DATABASE_READ_URL="every replica"
	@go run ./cmd/dbtool unused

##@ Measurements

.PHONY: bench bench-short bench-growth profile
bench: ## measure the service against fixed yardsticks; writes docs/benchmarks.md (< 15 min)
	@scripts/install-deps
	go run ./bench/run -docs docs

bench-short: ## the same in short, printed only; fails on failed requests and ratios far off (< 3 min)
	@scripts/install-deps
	go run ./bench/run -short -check

bench-growth: ## the cost of single calls with 10 thousand to 1 million users; writes docs/scaling.md
	@scripts/install-deps
	go run ./bench/run -growth -docs docs

profile: ## leave CPU and allocation profiles of each scenario in .bench/
	@scripts/install-deps
	go run ./bench/run -profiles .bench

.PHONY: bench-cache
bench-cache: ## print what the cache costs: Redis round trips and CPU per request
	@scripts/install-deps
	go test -run '^$$' -bench BenchmarkCache -benchtime 1000x ./bench
	go test -run '^$$' -bench BenchmarkInvalidate100k -benchtime 5x ./bench

.PHONY: bench-replication
bench-replication: ## compare async, sync and sync-strict on a real cluster; writes docs/replication.md (needs Docker and root)
	go run ./bench/replication

##@ The cluster in containers

.PHONY: env
env: ## write .env for docker compose, with random secrets, unless it exists
	@scripts/make-env

.PHONY: status switchover failover reinit renew roll passwords sibling
status: ## show the cluster: nodes, HAProxy, readiness
	@scripts/cluster status
switchover: ## swap primary and replica; no client notices
	@scripts/cluster switchover
failover: ## promote a node when there is no primary and Patroni does not: [NODE=pg-node-2]
	@scripts/cluster failover '$(NODE)'
reinit: ## copy the data of the primary to a node again: NODE=pg-node-2
	@scripts/cluster reinit '$(NODE)'
renew: ## recreate one container from its image and .env: NAME=accounts-1
	@scripts/cluster renew '$(NAME)'
roll: ## recreate the database nodes from their image and .env, one by one
	@scripts/cluster roll
passwords: ## give the database roles of .env new passwords, one container after the other
	@scripts/cluster passwords
sibling: ## give another service a database and print its addresses: NAME=auth
	@scripts/cluster sibling '$(NAME)'

##@ Housekeeping

.PHONY: clean
clean: ## remove the data of make run, tools and binaries
	@! [ -e .devstack/lock ] || flock -n .devstack/lock true || { echo "stop make run first"; exit 1; }
	rm -rf "$$(readlink -f .devstack/pg)" .devstack .bench $(tools) bin

$(tools)/sqlc: tools/go.mod tools/go.sum
	$(build_tool) github.com/sqlc-dev/sqlc/cmd/sqlc

$(tools)/goose: tools/go.mod tools/go.sum
	$(build_tool) -tags='no_clickhouse no_libsql no_mssql no_mysql no_sqlite3 no_vertica no_ydb' \
		github.com/pressly/goose/v3/cmd/goose

$(tools)/squawk: tools/package.json tools/package-lock.json
	@mkdir -p $(tools)/npm && cp $^ $(tools)/npm/
	npm ci --prefix $(tools)/npm --no-audit --no-fund --loglevel=error
	@cp $(tools)/npm/node_modules/@squawk-cli/linux-x64/bin/squawk $@

$(tools)/staticcheck: tools/go.mod tools/go.sum
	$(build_tool) honnef.co/go/tools/cmd/staticcheck
