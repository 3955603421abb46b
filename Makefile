# certlet's commands. `make` alone lists them.

CARGO ?= cargo
# Where tools that the checks need are installed once a machine.
TOOLS ?= $(or $(CERTLET_TOOLS),$(HOME)/.cache/certlet/tools)
export PATH := $(TOOLS)/bin:$(PATH)

CARGO_DENY_VERSION := 0.20.2
CARGO_FUZZ_VERSION := 0.13.2
# Seconds that each fuzz target runs.
FUZZ_SECONDS ?= 20

.DEFAULT_GOAL := help
.PHONY: help demo build test check fmt clippy deny docs docs-check chart chart-check fuzz fuzz-build fuzz-lock bench bench-cluster e2e e2e-up e2e-down clean

help: ## List these commands
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## See it work: real driver, local signer, no cluster, no root
	@$(CARGO) run --quiet --release --bin certlet -- demo

build: ## Build the release binary
	$(CARGO) build --release --bin certlet

test: ## Unit and integration tests; no root and no cluster needed
	$(CARGO) test --workspace

check: fmt clippy deny fuzz-lock docs-check ## Formatting, lints, licences and bans, documentation

fmt:
	$(CARGO) fmt --all --check

clippy:
	$(CARGO) clippy --workspace --all-targets -- -D warnings

deny: $(TOOLS)/bin/cargo-deny
	scripts/deny

fuzz-lock:
	@$(CARGO) tree --quiet --locked --manifest-path fuzz/Cargo.toml > /dev/null || \
		{ echo "fuzz/Cargo.lock is behind: cargo update --workspace --manifest-path fuzz/Cargo.toml" >&2; exit 1; }

docs: ## Write the generated pages of docs/
	$(CARGO) run --quiet --bin certlet -- reference attributes > docs/attributes.md
	$(CARGO) run --quiet --bin certlet -- reference cli > docs/cli.md

docs-check:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --document-private-items --quiet
	scripts/docs-check

chart: ## Write what is made of the Helm chart: schema, README, deploy/
	scripts/chart

chart-check: ## Lint, render and validate the chart and the Dockerfile, test the alerts
	scripts/chart-check
	scripts/image-check
	scripts/runbook-check

fuzz-build: $(TOOLS)/bin/cargo-fuzz ## Build every fuzz target
	scripts/fuzz

fuzz: $(TOOLS)/bin/cargo-fuzz ## Run each fuzz target for FUZZ_SECONDS (20)
	scripts/fuzz $(FUZZ_SECONDS)

bench: ## Measure the driver against its budgets
	$(CARGO) build --release --workspace --bins
	$(CARGO) run --quiet --release --package certlet-bench
	$(CARGO) run --quiet --release --example pca_simulation

bench-cluster: ## Measure what the driver adds to cert-manager's own time, on a real node
	e2e/measure

ifeq ($(origin KUBECONFIG),command line)
e2e: export CERTLET_E2E_KUBECONFIG := $(abspath $(KUBECONFIG))
endif
e2e: ## Run the cases on a real Kubernetes node (CASE=name for one, KUBECONFIG=file for another cluster)
	e2e/run $(CASE)

e2e-up: ## Bring up a cluster with certlet in it, to play with: e2e/cluster/in kubectl ...
	CERTLET_E2E_KEEP=1 e2e/run cluster

e2e-down: ## Take it down
	e2e/cluster/down

clean: ## Remove what was built here
	$(CARGO) clean

# Unoptimised: they are waited for less than their compilation would be.
$(TOOLS)/bin/cargo-deny:
	env -u CARGO_TARGET_DIR $(CARGO) install --quiet --locked --debug --root $(TOOLS) cargo-deny@$(CARGO_DENY_VERSION)

$(TOOLS)/bin/cargo-fuzz:
	env -u CARGO_TARGET_DIR $(CARGO) install --quiet --locked --debug --root $(TOOLS) cargo-fuzz@$(CARGO_FUZZ_VERSION)
