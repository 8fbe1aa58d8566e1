# Every target works on a fresh clone: the ones that need the environment build it first.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.DEFAULT_GOAL := help

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | sed -E 's/^([a-z-]+):.*## (.*)/\1\t\2/' | while IFS="$$(printf '\t')" read -r t d; do printf '  %-12s %s\n' "$$t" "$$d"; done

$(STAMP): requirements-dev.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

.PHONY: install
install: $(STAMP) ## Make .venv with exactly the locked packages, and imagebot in it

.PHONY: demo
demo: install ## A registry, a Git server and the real service: watch a new tag become a signed commit
	$(BIN)/imagebot demo $(DEMO)

.PHONY: canary-demo
canary-demo: install ## A control plane and the real service: watch one release be promoted, another rolled back (needs Go)
	$(BIN)/python -m tests.support.canary_demo $(DEMO)

.PHONY: test
test: install ## All tests that this machine can run; what was skipped, and why, is listed at the end
	$(BIN)/python -m pytest $(TEST)

.PHONY: test-fast
test-fast: install ## The tests that take less than a few seconds each
	$(BIN)/python -m pytest -m 'not slow' -q $(TEST)

N    ?= 100
SEED ?= 1
.PHONY: faults
faults: install ## Random schedules of faults against the real service, judged one by one: N=1000 SEED=7
	$(BIN)/python -m tests.faults --runs $(N) --seed $(SEED) $(FAULTS)

.PHONY: controlplane
controlplane: install ## A Kubernetes control plane without containers (needs Go): prints a kubeconfig, Ctrl-C ends it
	$(BIN)/python -m tests.support.controlplane $(CONTROLPLANE)

.PHONY: check
check: install ## ruff, mypy --strict, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: format
format: install ## Format the code
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

.PHONY: bench
bench: install ## Measure: scan, policy, markers, tag to commit (tables on the terminal, JSON in bench/out)
	$(BIN)/python -m bench $(BENCH)

.PHONY: lock
lock: install ## Resolve the dependencies anew and write the lock files with hashes
	$(BIN)/uv pip compile --quiet --universal --upgrade --generate-hashes --python-version 3.11 pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile --quiet --universal --upgrade --generate-hashes --python-version 3.11 --extra dev pyproject.toml -c requirements.lock -o requirements-dev.lock

.PHONY: clean
clean: ## Remove what the targets above made
	rm -rf $(VENV) dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
