# certlet's commands. `make` alone lists them.

CARGO ?= cargo
# Folder of the tools that the checks need. They are installed once per machine.
TOOLS ?= $(or $(CERTLET_TOOLS),$(HOME)/.cache/certlet/tools)
export PATH := $(TOOLS)/bin:$(PATH)

CARGO_DENY_VERSION := 0.20.2
CARGO_FUZZ_VERSION := 0.13.2
MDBOOK_VERSION := 0.5.4
# How long each fuzz target runs, in seconds.
FUZZ_SECONDS ?= 20

.DEFAULT_GOAL := help
.PHONY: help demo build test check fmt clippy deny docs proto docs-check book chart chart-check consumers fuzz fuzz-build fuzz-lock bench bench-spire bench-cluster e2e e2e-two-clusters e2e-up e2e-down image release-rehearsal workflows-check size clean

help: ## List these commands
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## Show the driver at work: real driver, local signer, no cluster, no root
	@test -e "$${CARGO_TARGET_DIR:-target}/demo/certlet" || printf '%s\n' \
		"The first run compiles certlet and 200 crates: a minute on two cores, more if" \
		"they are downloaded first. Cargo shows its progress; then the demo takes 13 s." >&2
	@$(CARGO) run --profile demo --no-default-features --bin certlet -- demo

build: ## Build the release binaries: the driver, and the kubectl plugin
	$(CARGO) build --release --package certlet --bin certlet
	$(CARGO) build --release --package kubectl-certlet

test: ## Run unit and integration tests; needs no root and no cluster
	$(CARGO) test --workspace

consumers: ## Run real programs against certlet's files and sockets (CASE="go-spiffe java openssl postgresql workload-api envoy grpc nginx haproxy redis etcd go node python mariadb spring-boot kafka"); needs no root
	CARGO=$(CARGO) tests/consumers/run $(CASE)

check: fmt clippy deny fuzz-lock docs-check ## Check formatting, lints, licences and bans, documentation

fmt:
	$(CARGO) fmt --all --check

clippy:
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) clippy --no-default-features --bin certlet -- -D warnings

deny: $(TOOLS)/bin/cargo-deny
	scripts/deny

fuzz-lock:
	@$(CARGO) tree --quiet --locked --manifest-path fuzz/Cargo.toml > /dev/null || \
		{ echo "fuzz/Cargo.lock is out of date; run: cargo update --workspace --manifest-path fuzz/Cargo.toml" >&2; exit 1; }

docs: ## Generate docs/attributes.md and docs/cli.md
	$(CARGO) run --quiet --bin certlet -- reference attributes > docs/attributes.md
	$(CARGO) run --quiet --bin certlet -- reference cli > docs/cli.md
	CERTLET_WRITE_DOCS=1 $(CARGO) test --quiet --test layering

proto: ## Generate the code of the gRPC protocols in proto/
	CERTLET_WRITE_PROTO=1 $(CARGO) test --quiet --package certlet-proto

docs-check:
	RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" $(CARGO) doc --no-deps --document-private-items --quiet
	scripts/docs-check

book: $(TOOLS)/bin/mdbook ## Build the documentation as a site in target/book, and check its links
	scripts/link-check
	mdbook build
	scripts/link-check target/book

chart: ## Generate the Helm chart's schema and README, deploy/certlet.yaml and examples/sidecar/policies.yaml
	scripts/chart

chart-check: ## Lint, render and validate the chart, lint the Dockerfile, test the alerts, check the runbook
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

bench-spire: ## Measure the sockets beside SPIRE's agent, in alternation; needs root
	$(CARGO) build --release --workspace --bins
	$(CARGO) run --quiet --release --package certlet-bench -- --only sockets --rounds 3 --spire "$$(e2e/cluster/build spire)/bin"

bench-cluster: ## Measure what the driver adds to cert-manager's own time, on a real node; needs root
	e2e/measure

ifeq ($(origin KUBECONFIG),command line)
e2e: export CERTLET_E2E_KUBECONFIG := $(abspath $(KUBECONFIG))
endif
e2e: ## Run the cases on a real Kubernetes node (CASE=name: one case, KUBERNETES=1.30: another version, KUBECONFIG=file: another cluster)
	e2e/run $(CASE)

e2e-two-clusters: ## Run the cases of two connected clusters (CASE=name: one case)
	e2e/run 'two-clusters/$(or $(CASE),*)'

e2e-up: ## Start a cluster with certlet to play with: e2e/cluster/in kubectl ...
	CERTLET_E2E_KEEP=1 e2e/run cluster

e2e-down: ## Stop that cluster
	e2e/cluster/down

image: ## Make the image, as an OCI archive in dist/, without a registry and without Docker; needs root
	@scripts/image

release-rehearsal: ## Run every step of a release that can run on this machine; needs root
	scripts/release rehearse

workflows-check: ## Lint the workflows in .github/
	scripts/workflows-check

size: ## Lines of code by module, without blank lines, comments and tests
	scripts/size

clean: ## Remove build results
	$(CARGO) clean

# Built without optimisation: compiling with it would take longer than these tools ever run.
$(TOOLS)/bin/cargo-deny:
	env -u CARGO_TARGET_DIR $(CARGO) install --quiet --locked --debug --root $(TOOLS) cargo-deny@$(CARGO_DENY_VERSION)

$(TOOLS)/bin/cargo-fuzz:
	env -u CARGO_TARGET_DIR $(CARGO) install --quiet --locked --debug --root $(TOOLS) cargo-fuzz@$(CARGO_FUZZ_VERSION)

$(TOOLS)/bin/mdbook:
	env -u CARGO_TARGET_DIR $(CARGO) install --quiet --locked --debug --no-default-features --features search --root $(TOOLS) mdbook@$(MDBOOK_VERSION)
