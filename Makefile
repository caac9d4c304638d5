# Everything a contributor or CI does, by name. `make` lists it.

PYTHON ?= python3
PORT ?= 8000
DATA ?= var
T ?=
NAME ?=
SECONDS ?=
SEED ?=
SIZES ?=
WRITE ?=
CLUSTER ?=
PROMETHEUS ?=
MINUTES ?=
UNTIL ?=
TO ?=
FROM ?=
TARGET ?= local
SHAPE ?= steady
RATE ?=
THINK ?=
USERS ?=
JOURNEYS ?=
PROCESSES ?=

BIN := .venv/bin
PIP := $(BIN)/pip --disable-pip-version-check --no-input --quiet
RUNTIME := .venv/runtime.stamp
DEVELOPMENT := .venv/development.stamp
MANIFESTS := .venv/manifests.stamp

# Expanded when the virtual environment is about to be made, so that a machine without Python gets this one line.
REQUIRE_PYTHON = $(if $(shell $(PYTHON) -c 'import sys; print(sys.version_info >= (3, 11) or "")' 2>/dev/null),,\
	$(error Souk needs Python 3.11 or newer as "$(PYTHON)" (another one: make PYTHON=python3.13 ...)))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run reset up down deploy undeploy backup restore test test-browser test-cluster check check-manifests format openapi dashboards dashboards-preview audit lab drill drills cluster-drills load bench bench-cluster bench-growth bench-storefront

help: ## Show this list
	@awk 'BEGIN { FS = ":.*## " } \
		/^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

##@ The shop
run: $(RUNTIME) ## Run the whole shop at 127.0.0.1 until Ctrl-C (PORT=8000 DATA=var)
	@exec $(BIN)/python -m local --port $(PORT) --data "$(DATA)"

reset: ## Delete what `make run` keeps (DATA=var)
	@test ! -e "$(DATA)" || ls -d "$(DATA)"/*/PG_VERSION >/dev/null 2>&1 \
		|| { echo "$(DATA) is not a data folder of the shop; nothing was deleted" >&2; exit 1; }
	@for pid in "$(DATA)"/*/postmaster.pid; do \
		! { test -e "$$pid" && kill -0 "$$(head -n 1 "$$pid")" 2>/dev/null; } \
			|| { echo "the shop in $(DATA) is running: stop it first" >&2; exit 1; }; done
	@# Beside it lie the secrets of a cluster, which `make undeploy` deletes.
	@test ! -e "$(DATA)" || find "$(DATA)" -mindepth 1 -maxdepth 1 ! -name k8s -exec rm -rf {} +
	@test ! -e "$(DATA)" || rmdir "$(DATA)" 2>/dev/null || true

up: ## Build the images and run the shop in containers, two replicas of each service
	docker compose up --build --wait

down: ## Stop the containers; their data stays
	docker compose down

##@ On Kubernetes
deploy: $(RUNTIME) ## Bring the shop into a kind cluster, made where there is none (CLUSTER=existing REGISTRY= OVERLAY= MONITORING=)
	@$(BIN)/python -m deploy up

undeploy: $(RUNTIME) ## Take the cluster away, and all that it held (CLUSTER=existing: the namespace)
	@$(BIN)/python -m deploy down

backup: $(RUNTIME) ## Write the cluster's databases and secrets into a folder (TO=backups/<time>)
	@$(BIN)/python -m deploy backup $(if $(TO),--to "$(TO)")

restore: $(RUNTIME) ## Put a backup into a cluster whose shop is empty (FROM=backups/...)
	@test -n "$(FROM)" || { echo "which backup? make restore FROM=backups/..." >&2; exit 2; }
	@$(BIN)/python -m deploy restore --from "$(FROM)"

##@ Changing it
test: $(DEVELOPMENT) ## Run the tests (T=path runs one file, folder or test)
	@$(BIN)/pytest $(T)

test-browser: $(DEVELOPMENT) ## Run the tests that open the shop in Chromium, which Debian has as `chromium` (T=path)
	@$(BIN)/pytest -n0 -m browser -rs $(or $(T),tests/browser)

test-cluster: $(DEVELOPMENT) ## Run the tests of the shop that `make deploy` brought into a cluster (T=path)
	@$(BIN)/pytest -n0 -p no:randomly -m cluster -rs $(or $(T),tests/cluster)

check: $(DEVELOPMENT) check-manifests ## Check format, lint, types, imports, OpenAPI documents, dashboards, manifests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m tests.openapi --check
	$(BIN)/python -m monitoring.dashboards --check

check-manifests: $(DEVELOPMENT) $(MANIFESTS) ## Check the manifests and the Dockerfile for what makes a cluster unsafe
	@$(BIN)/python -m tests.manifests .venv/manifests
	@cp Dockerfile .venv/manifests
	@mkdir .venv/manifests/loadtests && cp loadtests/Dockerfile .venv/manifests/loadtests
	@.venv/checkov/bin/checkov --config-file k8s/checkov.yaml --directory .venv/manifests

format: $(DEVELOPMENT) ## Format the code and mend what the linter can
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

openapi: $(DEVELOPMENT) ## Write docs/openapi from the code
	$(BIN)/python -m tests.openapi

dashboards: $(DEVELOPMENT) ## Write k8s/monitoring/dashboards from the code
	$(BIN)/python -m monitoring.dashboards

dashboards-preview: $(DEVELOPMENT) ## Draw the dashboards into var/dashboards, from a platform under load (SECONDS=90, or PROMETHEUS=url)
	@$(BIN)/python -m monitoring.preview $(if $(SECONDS),--seconds $(SECONDS)) $(if $(PROMETHEUS),--prometheus "$(PROMETHEUS)") \
		$(if $(MINUTES),--minutes $(MINUTES)) $(if $(UNTIL),--until "$(UNTIL)") $(if $(TO),--pictures "$(TO)")

##@ Proving it
audit: $(RUNTIME) ## Check the running shop's books: every order, charge and unit of stock (DATA=var, or CLUSTER=kind)
	@$(BIN)/python -m $(if $(CLUSTER),deploy audit,drills.audit --data "$(DATA)")

lab: $(DEVELOPMENT) ## Run a page of docs/labs on the cluster and print it as it goes (NAME=ingress, WRITE=yes: its output into the page)
	@test -n "$(NAME)" || { $(BIN)/python -m tests.labs --help; exit 2; }
	@$(BIN)/python -m tests.labs $(NAME) $(if $(WRITE),--write)

drill: $(DEVELOPMENT) ## Break the platform in one way and prove that nothing was lost (NAME=kill SECONDS= SEED=)
	@test -n "$(NAME)" || { $(BIN)/python -m drills --help; exit 2; }
	@$(BIN)/python -m drills $(NAME) $(if $(SECONDS),--seconds $(SECONDS)) $(if $(SEED),--seed $(SEED))

drills: $(DEVELOPMENT) ## Break it in every way, into docs/drills.md, about half an hour (SECONDS=20 for short ones)
	@$(BIN)/python -m drills $(if $(SECONDS),--seconds $(SECONDS),--write) $(if $(SEED),--seed $(SEED))

cluster-drills: $(DEVELOPMENT) ## Break what `make deploy` brought into a cluster, into docs/drills.md
	@$(BIN)/python -m drills rollout drain pod-kill node-loss database-restart scale \
		$(if $(SECONDS),--seconds $(SECONDS),--write) $(if $(SEED),--seed $(SEED))

load: $(DEVELOPMENT) ## Load a shop and judge it by a shape's limits (TARGET=local|compose|cluster|inside|http://... SHAPE=steady)
	@$(BIN)/python -m loadtests --target "$(TARGET)" --shape "$(SHAPE)" --data "$(DATA)" $(if $(SEED),--seed $(SEED)) \
		$(if $(RATE),--rate $(RATE)) $(if $(SECONDS),--seconds $(SECONDS)) $(if $(THINK),--think $(THINK)) $(if $(USERS),--users $(USERS)) \
		$(if $(JOURNEYS),--journeys $(JOURNEYS)) $(if $(PROCESSES),--processes $(PROCESSES))

bench-cluster: $(DEVELOPMENT) ## Measure what the shop takes in a cluster, at rest and under load, into docs/resources.md
	@$(BIN)/python -m bench.cluster --write

bench-growth: $(DEVELOPMENT) ## Measure reads with 10^3 to 10^6 products and orders, into docs/growth.md (SIZES="1000 100000" for others)
	@$(BIN)/python -m bench.growth $(if $(SIZES),--sizes $(SIZES),--write) $(if $(SEED),--seed $(SEED))

bench-storefront: $(DEVELOPMENT) ## Measure what the shop's pages weigh and when they are painted, into docs/storefront.md (Chromium, npm's registry)
	@$(BIN)/python -m bench.storefront --write

bench: $(DEVELOPMENT) ## Measure the shop against bare uvicorn on this machine, into docs/benchmarks.md
	@$(BIN)/python -m bench --write

# The virtual environment: everything pinned by version and hash, nothing built from source.
$(RUNTIME): requirements.txt
	$(REQUIRE_PYTHON)
	@echo "Installing requirements.txt into .venv"
	@$(PYTHON) -m venv .venv
	@$(PIP) install --require-hashes --only-binary=:all: -r requirements.txt
	@touch $@

$(DEVELOPMENT): requirements-dev.txt
	$(REQUIRE_PYTHON)
	@echo "Installing requirements-dev.txt into .venv"
	@$(PYTHON) -m venv .venv
	@$(PIP) install --require-hashes --only-binary=:all: -r requirements-dev.txt
	@touch $@

$(MANIFESTS): $(DEVELOPMENT) requirements-manifests.txt
	@echo "Installing requirements-manifests.txt into .venv/checkov"
	@$(PYTHON) -m venv .venv/checkov
	@.venv/checkov/$(subst .venv/,,$(PIP)) install --require-hashes --only-binary=:all: -r requirements-manifests.txt
	@touch $@
