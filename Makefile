# The tasks of this project. Each needs only Python (3.11 or newer) and pip; the first one that runs installs the rest
# into $(VENV). `make help` lists them.

VENV ?= .venv
# The first Python on the path that is new enough.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
# ONNX Runtime's CPU and GPU wheels overwrite each other, so one environment gets one of them.
EXTRA ?= $(if $(shell nvidia-smi -L 2>/dev/null),gpu,cpu)
# [dev] brings the CPU wheel along: beside [gpu] it lives in an environment of its own.
DEV_VENV ?= $(if $(filter cpu,$(EXTRA)),$(VENV),$(VENV)/dev)
# One process a core with one thread each: several threads in each of several processes hold one another up.
PYTEST = OMP_NUM_THREADS=1 "$(DEV_VENV)/bin/python" -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal
PIP_INSTALL = -m pip install --disable-pip-version-check --quiet
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help install clean-data variate doctor test test-all test-cluster lint format docs bench gpu evidence image docker-test lock sbom audit clean clean-all

help: ## List the tasks.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  Variables: VENV=$(VENV)  EXTRA=$(EXTRA) (cpu, gpu or rtx)  PYTHON=$(PYTHON)  ARGS= (further arguments)"

install: $(VENV)/.installed-$(EXTRA) ## Install diffclean into a virtual environment.

clean-data: named-data $(VENV)/.installed-$(EXTRA) ## Do the whole job: make clean-data DATA=folder [ARGS="--test folder"]
	@"$(VENV)/bin/diffclean" clean "$(DATA)" $(ARGS)

variate: named-data $(VENV)/.installed-$(EXTRA) ## Regenerate a data set: make variate DATA=folder [ARGS="--steps 10"]
	@"$(VENV)/bin/diffclean" variate "$(DATA)" $(ARGS)

doctor: $(VENV)/.installed-$(EXTRA) ## Say what this machine can run, and why not.
	@"$(VENV)/bin/diffclean" doctor $(ARGS)

test: $(DEV_VENV)/.installed-dev ## Run the tests that are quick: make test [ARGS="tests/cli -k config"]
	@$(PYTEST) -m "not slow and not cluster" $(ARGS)

test-all: $(DEV_VENV)/.installed-dev ## Run all tests but those of a cluster, also those that take over ten seconds each.
	@$(PYTEST) -m "not cluster" $(ARGS)

test-cluster: $(DEV_VENV)/.installed-dev ## Run the tests that start a Ray cluster on this machine, one at a time.
	@OMP_NUM_THREADS=1 "$(DEV_VENV)/bin/python" -m pytest -m cluster $(ARGS)

lint: $(DEV_VENV)/.installed-dev ## Check style and types.
	@"$(DEV_VENV)/bin/ruff" check .
	@"$(DEV_VENV)/bin/ruff" format --check .
	@"$(DEV_VENV)/bin/mypy"

format: $(DEV_VENV)/.installed-dev ## Put the code in order.
	@"$(DEV_VENV)/bin/ruff" check --fix .
	@"$(DEV_VENV)/bin/ruff" format .

docs: $(DEV_VENV)/.installed-dev ## Write the pages in docs/verbs anew.
	@"$(DEV_VENV)/bin/python" docs/generate.py

bench: named-bench $(DEV_VENV)/.installed-dev ## Run a benchmark: make bench BENCH=name; without a name, list them.
	@"$(DEV_VENV)/bin/python" "benchmarks/$(BENCH).py" $(ARGS)

# The lists of `make gpu`: WORK= is kept between its pieces; TRAIN=, TEST=, TRUSTED= are data (see docs/gpu.md).
WORK ?= gpu-work
gpu: $(VENV)/.installed-$(EXTRA) ## Run what wants a GPU, ten minutes at a time: make gpu TRAIN=folder TEST=folder TRUSTED=folder
	@"$(VENV)/bin/python" benchmarks/gpu/gpu_run.py --work "$(WORK)" $(if $(TRAIN),--train "$(TRAIN)") \
		$(if $(TEST),--test "$(TEST)") $(if $(TRUSTED),--trusted "$(TRUSTED)") $(ARGS)

# `clean` against every attack; cells that are in the result file already are left out. ARGS="--seeds 2 --count 10000".
evidence: WORK = evidence-work
evidence: named-sets $(DEV_VENV)/.installed-dev ## Measure what is missing of the evidence: make evidence TRAIN=folder TEST=folder
	@"$(DEV_VENV)/bin/python" benchmarks/clean_grid.py --work "$(WORK)" --data "cifar10=$(TRAIN):$(TEST)" $(ARGS)

# The container. DOCKER_ARGS is handed on: DOCKER_ARGS="--build-arg WITH_TENSORRT=0".
DOCKER ?= docker
IMAGE ?= diffclean
IMAGE_TARGET ?= $(if $(filter cpu,$(EXTRA)),cpu,cuda)
BASE_IMAGE ?= $(if $(filter cpu,$(IMAGE_TARGET)),ubuntu:24.04)
DOCKER_ARGS ?=
DOCKER_BUILD = DOCKER_BUILDKIT=1 "$(DOCKER)" build --file docker/Dockerfile $(if $(BASE_IMAGE),--build-arg BASE_IMAGE="$(BASE_IMAGE)") \
	--build-arg VERSION="$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)" \
	--build-arg REVISION="$$(git describe --always --abbrev=40 --exclude='*' --dirty=-changed 2>/dev/null || echo unknown)" $(DOCKER_ARGS)

image: ## Build the image: make image [IMAGE_TARGET=cpu|cuda] [BASE_IMAGE=...]
	@$(DOCKER_BUILD) --target $(IMAGE_TARGET) --tag "$(IMAGE)" .

docker-test: $(DEV_VENV)/.installed-dev ## Build the image for CPUs and run its tests under the Docker engine.
	@$(MAKE) --no-print-directory image IMAGE_TARGET=cpu IMAGE=diffclean:test
	@DIFFCLEAN_TEST_IMAGE=diffclean:test DOCKER="$(DOCKER)" "$(DEV_VENV)/bin/python" -m pytest -rs tests/docker $(ARGS)

sbom: ## List the packages in an image, as CycloneDX in build/: make sbom [IMAGE_TARGET=cpu|cuda]
	@$(DOCKER_BUILD) --target $(IMAGE_TARGET)-sbom --output build .
	@echo "build/$(IMAGE_TARGET).cdx.json"

lock: $(DEV_VENV)/.installed-dev ## Lock what the images install: make lock [ARGS=--upgrade]
	@"$(DEV_VENV)/bin/python" $(PIP_INSTALL) uv
	@"$(DEV_VENV)/bin/python" docker/lock.py $(ARGS)

# Strict: a package that the database does not know is no package without vulnerabilities.
AUDITED = base torch cpu cuda ray tools
audit: $(DEV_VENV)/.installed-dev ## Look for known vulnerabilities in what the images install.
	@"$(DEV_VENV)/bin/python" $(PIP_INSTALL) pip-audit
	@"$(DEV_VENV)/bin/pip-audit" --strict --disable-pip --no-deps $(AUDITED:%=-r docker/locks/%.txt) $(ARGS)

clean: ## Remove caches and build leftovers.
	@rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	@find diffclean tests benchmarks docs -name __pycache__ -type d -prune -exec rm -rf {} +

clean-all: clean ## Remove the virtual environment too.
	@rm -rf "$(VENV)"

# Asked before anything is installed.
.PHONY: named-data named-bench named-sets
named-data:
	@test -n "$(DATA)" || { echo "Which data set?  make $(MAKECMDGOALS) DATA=path/to/images"; exit 2; }
named-sets:
	@test -n "$(TRAIN)" -a -n "$(TEST)" || { echo "Which data?  make $(MAKECMDGOALS) TRAIN=folder TEST=folder"; exit 2; }
named-bench:
	@test -n "$(BENCH)" || { echo "Which one?  make bench BENCH=name, one of:"; \
		ls benchmarks/*.py benchmarks/gpu/*.py 2>/dev/null | sed 's/^benchmarks\///; s/\.py$$//; s/^/  /'; exit 2; }

# A stamp newer than pyproject.toml means: nothing to do.
$(VENV)/.installed-$(EXTRA) $(DEV_VENV)/.installed-dev: pyproject.toml
	@test -n "$(PYTHON)" && "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "diffclean needs Python 3.11 or newer; found: $$("$(or $(PYTHON),python3)" --version 2>&1 | head -1)."; \
		echo "Name another one:  make $(firstword $(MAKECMDGOALS)) PYTHON=/path/to/python3.12"; exit 1; }
	@echo "Installing diffclean[$(subst .installed-,,$(@F))] into $(@D); torch is large, so the first time takes minutes." >&2
	@test -x "$(@D)/bin/python" || "$(PYTHON)" -m venv "$(@D)"
	@"$(@D)/bin/python" $(PIP_INSTALL) --editable ".[$(subst .installed-,,$(@F))]"
	@touch "$@"
	@echo "Installed." >&2
