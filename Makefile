# What people and CI run, by the same names. `make help` lists it.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:

GO ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
COMMIT ?= $(shell git rev-parse HEAD 2>/dev/null || echo unknown)

# The PostgreSQL versions that `make integration` runs against, the first one first.
POSTGRES ?= 15 14 16 17 18
# Which integration tests: a regular expression, as for `go test -run`.
RUN ?= .
# Which of them are about RabbitMQ, the configuration or all versions anyhow: they run with the
# first version only. `make integration ONCE=-` runs everything with every version.
ONCE ?= TestR[0-9]|EndsByItself|Password|Broker|Hosts|Property|Header|BodyOf|BodyThat|BadMessage|Exchange|QueueThat|Metrics|Prometheus|Mistakes|Readme|TLS|Network|ServerSendsAgain|EveryVersion|NotReady|Compare|RedeliverAll|CannotReach|NotThereYet|Cluster|FullQueue|PatchesOf|Checker|FailoverTo|NeverSynced|IdleForTooLong|OneDaemonWorks|FrozenDaemon|OutlivesAPause|OtherSystem|RoomForAnother|InABrowser|Guide|Compose|Chart|TerminalGets
# Which integration tests are about PostgreSQL alone: `make test-rabbitmq4` leaves them out.
POSTGRES_ONLY ?= ^TestP[0-9]|Postgres|Slot|Publication|Role|Privileges|IsRefused|Mistakes|Compare|ServerSendsAgain|ServerWithout|StreamWorks|SynchronousStandby|TwentyClean|TwentyKills
# Integration tests that have a target of their own.
APART := ^Test(Measure|Chaos$$|BrokenBuilds$$|Gate$$|(RPM)?Package$$|Image$$)
# The tests of the package and the image need root on Debian; `make test` leaves them out elsewhere.
IF_INSTALLABLE := $(shell [[ $$(id -u) == 0 ]] && command -v dpkg >/dev/null && echo test-package test-image)
# `make chaos`: the seed of all choices, a random one if empty, and for how long.
SEED ?=
TIME ?= 2m
FUZZ_SECONDS ?= 60
DEMO_ARGS ?=
BENCH_ARGS ?=

.PHONY: help
help: ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

.PHONY: build
build: ## build bin/pgamqp
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT)' -o bin/ ./cmd/pgamqp

# The tools of a release have a module of their own, too.
release_tools := bin/nfpm bin/cyclonedx-gomod
$(release_tools) &: tools/release/go.mod tools/release/go.sum
	$(GO) -C tools/release build -o ../../bin/ tool

.PHONY: package
package: $(release_tools) ## make programs, Debian and RPM packages, checksums and bill of materials in dist/
	scripts/package.sh '$(VERSION)' '$(COMMIT)'

.PHONY: test-package
test-package: setup package ## install the Debian package here, run and remove it, and the RPM in a folder (Debian and root only)
	PGAMQP_TEST_PACKAGE=$$(ls $(CURDIR)/dist/pgamqp_*_$$($(GO) env GOARCH).deb) PGAMQP_TEST_RPM=$$(ls $(CURDIR)/dist/pgamqp-*.$$(uname -m).rpm) \
		$(GO) test -v -count=1 -timeout 10m -run '^Test(RPM)?Package$$' ./integration

.PHONY: image
image: ## make container images for amd64 and arm64 in dist/, by buildah
	scripts/image.sh build '$(VERSION)' '$(COMMIT)'

.PHONY: image-files
image-files: ## make dist/image, the folder that docker, podman and compose build the image from
	scripts/image.sh files '$(VERSION)' '$(COMMIT)'

.PHONY: test-image
test-image: setup image ## look into the container images, and run the daemon out of one (Debian and root only)
	PGAMQP_TEST_IMAGE=$(CURDIR)/dist $(GO) test -v -count=1 -timeout 10m -run '^TestImage$$' ./integration

# Helm as a library has a module of its own: building its command takes minutes. Results are not cached, because the tests
# read files of another module.
.PHONY: test-chart
test-chart: ## lint and render the Helm chart, compare the manifests with the golden ones
	$(GO) -C tools/chart vet ./...
	$(GO) -C tools/chart test -count=1 ./...

.PHONY: chart
chart: ## package the Helm chart in dist/
	mkdir -p dist && rm -f dist/pgamqp-*.tgz
	$(GO) -C tools/chart run . "$$(scripts/version.sh '$(VERSION)')" $(CURDIR)/packaging/chart $(CURDIR)/dist
	scripts/checksums.sh

.PHONY: demo
demo: setup-demo build ## install what is missing, start private servers, send messages through pgamqp
	bin/pgamqp demo $(DEMO_ARGS)

.PHONY: demo-rows
demo-rows: setup-demo build ## the same with changes of rows: a consumer rebuilds the balances of pgbench's tables
	bin/pgamqp demo --rows $(DEMO_ARGS)

.PHONY: setup
setup: ## install what `make lint` and `make test` need
	@scripts/setup.sh test

.PHONY: setup-demo
setup-demo:
	@scripts/setup.sh demo

# The linter's module is apart, so that its dependencies stay out of ours.
linter := bin/golangci-lint
$(linter) bin/govulncheck &: tools/go.mod tools/go.sum
	$(GO) -C tools build -o ../bin/ tool

.PHONY: lint
lint: setup $(linter) test-chart ## check format, modules, code, scripts and the Helm chart
	shellcheck scripts/*.sh packaging/scripts/*.sh .ci/run
	$(linter) fmt --diff
	$(GO) mod tidy -diff
	$(GO) -C tools/chart mod tidy -diff
	$(GO) vet ./...
	$(linter) run

.PHONY: format
format: $(linter) ## bring the code into the form that `make lint` wants
	$(linter) fmt

.PHONY: test
test: unit integration gate chaos $(IF_INSTALLABLE) ## all tests

.PHONY: unit
unit: setup ## the tests of every package but integration
	$(GO) test -race -shuffle=on -timeout 20m $$($(GO) list ./... | grep -v '/integration$$')

.PHONY: integration
integration: setup ## the real program between real servers, on every PostgreSQL version
	skip='$(APART)'; for version in $(POSTGRES); do \
		echo "integration on PostgreSQL $$version"; \
		PGAMQP_TEST_POSTGRES=$$version $(GO) test -race -shuffle=on -count=1 -timeout 30m -run '$(RUN)' -skip "$$skip" ./integration; \
		skip='$(APART)|$(ONCE)'; \
	done

.PHONY: gate
gate: setup build ## delivery is not much slower than publishing alone; the rest of the machine should be idle
	PGAMQP_TEST_PROGRAM=$(CURDIR)/bin/pgamqp $(GO) test -v -count=1 -timeout 20m -run '^TestGate$$' ./integration

.PHONY: bench
bench: setup build ## how fast it is here, against what limits it; BENCH_ARGS are for pgamqp bench
	bin/pgamqp bench $(BENCH_ARGS)

.PHONY: measure
measure: setup ## what one broker notices while another one is down, in figures; needs an idle machine
	$(GO) test -count=1 -v -timeout 15m -run '^TestMeasure' ./integration

.PHONY: nightly
nightly: setup ## the model of detached brokers, through 100,000 histories; a snapshot of a million rows that change
	$(GO) test -count=1 -timeout 60m -run '^TestNoHistory' ./internal/isolation -rapid.checks=100000
	PGAMQP_TEST_POSTGRES=$(firstword $(POSTGRES)) PGAMQP_TEST_SNAPSHOT_ROWS=1000000 \
		$(GO) test -count=1 -timeout 120m -run '^TestSnapshotAndChangesMakeACopy$$' ./integration

.PHONY: test-rabbitmq4
test-rabbitmq4: setup ## the tests that use RabbitMQ, on version 4 (Debian and root only)
	@scripts/setup.sh rabbitmq4
	PGAMQP_TEST_RABBITMQ=4 $(GO) test -race -shuffle=on -count=1 -timeout 5m -run 'RabbitMQ|ServersDie' ./internal/testserver
	PGAMQP_TEST_RABBITMQ=4 PGAMQP_TEST_POSTGRES=15 $(GO) test -race -shuffle=on -count=1 -timeout 30m -run '$(RUN)' -skip '$(APART)|$(POSTGRES_ONLY)' ./integration

.PHONY: chaos
chaos: setup ## break everything, by the choices of SEED, for TIME, and look for what was lost
	PGAMQP_TEST_POSTGRES=$(firstword $(POSTGRES)) PGAMQP_CHAOS_SEED=$(SEED) PGAMQP_CHAOS_TIME=$(TIME) \
		$(GO) test -v -race -count=1 -timeout 0 -run '^TestChaos$$' ./integration

.PHONY: chaos-broken
chaos-broken: setup ## show that `make chaos` finds programs that lose messages
	PGAMQP_TEST_POSTGRES=$(firstword $(POSTGRES)) PGAMQP_CHAOS_TIME=2m \
		$(GO) test -v -count=1 -timeout 60m -run '^TestBrokenBuilds$$' ./integration

.PHONY: status-page
status-page: setup ## take the picture of the status page for README.md
	PGAMQP_TEST_POSTGRES=$(firstword $(POSTGRES)) PGAMQP_TEST_SCREENSHOT=$(CURDIR)/docs/status-page.png \
		$(GO) test -count=1 -timeout 10m -run '^TestStatusPageInABrowser$$' ./integration

.PHONY: licenses
licenses: ## write docs/licenses.md: what is linked in, and its licenses
	$(GO) run ./internal/licenses page >docs/licenses.md.new
	mv docs/licenses.md.new docs/licenses.md

# It needs the database of vulnerabilities, so it is not part of `make test`.
.PHONY: vulncheck
vulncheck: bin/govulncheck ## look for known vulnerabilities in what is called; fails, too, if their database cannot be reached
	scripts/vulncheck.sh bin/govulncheck

.PHONY: fuzz
fuzz: ## fuzz each target for a minute, or FUZZ_SECONDS
	scripts/fuzz.sh $(FUZZ_SECONDS)

.PHONY: clean
clean: ## remove what was built
	rm -rf bin dist
