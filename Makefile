# The few commands of this repository. Everything built or downloaded goes to $(COFFER_CACHE),
# never into the checkout.

COFFER_CACHE ?= $(HOME)/.cache/coffer
CLUSTER ?= local
export COFFER_CACHE CLUSTER
export CARGO_TARGET_DIR ?= $(COFFER_CACHE)/target
SHELL := /bin/bash
RUN := . e2e/images/rust-env.sh &&

.PHONY: help demo demo-down test soak bench images cluster cluster-down lint
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

demo: ## build everything, start a cluster, tell the story of one pod (CLUSTER=kind with Docker)
	@e2e/demo

demo-down: ## remove what the demo started
	@e2e/demo down

test: ## set up everything, run every test, clean up
	@e2e/run-tests

soak: ## the long tests: 20,000 power cuts, a million policy decisions, a minute of fuzzing per parser, 150 crashes under load, 10,000 leases that end together, 100 rotations under load, 5,000 simulations, 20 killed clusters
	@$(RUN) COFFER_SEEDS=20000 cargo test "$${RUST_ARGS[@]}" -p coffer-storage --test power_loss -- --nocapture
	@$(RUN) COFFER_POLICY_TRIPLES=1000000 cargo test "$${RUST_ARGS[@]}" -p coffer-core --test policy_reference -- --nocapture
	@$(RUN) COFFER_FUZZ_SECS=60 COFFER_FUZZ_SEED=$$(date +%s) cargo test "$${RUST_ARGS[@]}" --workspace --exclude coffer-e2e --lib --bins fuzz -- --nocapture
	@$(RUN) COFFER_CRASHES=150 COFFER_CRASH_STRIDE=1 cargo test "$${RUST_ARGS[@]}" -p coffer --test crash
	@$(RUN) COFFER_ORPHAN_KILLS=300 COFFER_ORPHAN_STOPS=100 cargo test "$${RUST_ARGS[@]}" -p coffer --test crash no_account stood_still -- --nocapture
	@$(RUN) COFFER_ROTATIONS=100 cargo test "$${RUST_ARGS[@]}" -p coffer --test crash no_query_fails
	@$(RUN) COFFER_LEASES=10000 cargo test "$${RUST_ARGS[@]}" -p coffer --test crash -- leases_that_end_together
	@$(RUN) COFFER_SIM_SEEDS=5000 cargo test "$${RUST_ARGS[@]}" -p coffer-vault --test sim -- --nocapture seeds
	@$(RUN) COFFER_CLEANUP_ROUNDS=20 cargo test "$${RUST_ARGS[@]}" -p coffer-e2e --test cluster_cleanup -- --nocapture

bench: ## Coffer beside OpenBao on this machine (MODE=quick for a short run)
	@e2e/bench/run

images: ## build the images, without Docker
	@e2e/images/build

cluster: ## start the local Kubernetes only
	@e2e/cluster/cluster up

cluster-down: ## end it
	@e2e/cluster/cluster down

lint: ## rustfmt and clippy, warnings as errors
	@$(RUN) cargo fmt --all --check && cargo clippy "$${RUST_ARGS[@]}" --workspace --all-targets -- -D warnings
