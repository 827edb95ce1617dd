# The verbs of the day. On a fresh machine two of them do all the set-up: `make demo` runs the main
# job without Kubernetes and ends (`make local` stays), `make test` installs what it needs and runs all tests.

.DEFAULT_GOAL := help
.PHONY: help build demo local test unit interop crash e2e fuzz lint fmt crd compatibility image cluster cluster-down bench clean

EXAMPLE ?= deploy/examples/two-pairs-async.yaml
DATA ?= .local
SECONDS ?= 60

help: ## these lines
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 22

build: ## the programs, in target/release
	cargo build --release --locked --workspace --exclude rocketmq-tests --bins

demo: build ## a cluster on this machine: 10,000 messages, one more group meanwhile, and what was lost
	@mkdir -p $(DATA)
	@dir=$$(mktemp -d $(CURDIR)/$(DATA)/demo-XXXXXX) && target/release/rocketmq-demo --data $$dir --file $(EXAMPLE) && rm -rf $$dir

local: build ## the same cluster, to stay; Ctrl-C or `target/release/mqshutdown cluster` ends it
	target/release/rocketmq-operator local $(EXAMPLE)

test: ## everything; installs what it needs
	./scripts/test

unit: ## the tests within the crates
	./scripts/test unit

interop: ## Java and Go clients and Java servers against ours
	./scripts/test setup image interop

crash: ## kill -9 under load
	./scripts/test setup image crash

e2e: ## Kubernetes: KUBECONFIG, else kind, else a cluster of our own
	./scripts/test setup image e2e

fuzz: ## damaged files, frames, bodies, expressions: SECONDS=60 for each target; FUZZ_SEED=n begins with that input
	FUZZ_SECONDS=$(SECONDS) cargo test --locked -p rocketmq-remoting -p rocketmq-store -p rocketmq-broker --lib fuzz:: -- --nocapture

lint: ## formatting and clippy
	./scripts/test lint

fmt: ## format the sources
	cargo fmt --all

crd: ## write the generated manifests: CRD, chart's CRD, deploy/operator.yaml
	./scripts/manifests

compatibility: ## write docs/compatibility.md, from the tables of request codes
	RMQ_BLESS=1 cargo test --locked -p rocketmq-broker --test compatibility the_page

image: ## dist/namesrv.tar, dist/broker.tar, dist/operator.tar
	./scripts/image

cluster: ## start the test cluster, or go on with the one there is
	tests/cluster/cluster up

cluster-down: ## end it
	tests/cluster/cluster down

bench: build ## our broker beside the Java broker; writes docs/performance.md
	target/release/rocketmq-bench compare

clean: ## remove what was built
	cargo clean
	rm -rf dist
