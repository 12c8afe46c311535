# Needs Python 3.11 or newer with its venv module, make and git. Everything else comes with the lock.
# Only relative paths below: make has no way to quote a space in the name of a target.
SHELL := /bin/sh
PYTHON ?=
venv := .venv/bin/python

.DEFAULT_GOAL := help
.PHONY: help demo up env test check bench latency chaos dictionary lock clean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile

demo: .venv/installed ## run every pipeline through a real Airflow against the sandbox, compare, stop
	@exec $(venv) -m include.local demo

up: .venv/installed ## keep the same system running and print where it is; Ctrl-C stops it
	@exec $(venv) -m include.local up

env: .venv/installed ## print the lines with which a shell works on that system: eval "$(make env)"
	@exec $(venv) -m include.local env

test: .venv/installed ## everything a change must pass, but for `make check`
	@exec $(venv) -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

check: .venv/installed ## format, lint, types
	$(venv) -m ruff format --check .
	$(venv) -m ruff check .
	$(venv) -m mypy

bench: .venv/installed .venv-bench/installed ## measure beside other ways, ENTRIES=1000000; NESTED=200000; SCALE=10000000; PAYOUTS=1000000; BETS=100000; MARKETS=1000
	@exec $(venv) -m tests.bench $(if $(ENTRIES),--entries $(ENTRIES)) $(if $(ROUNDS),--rounds $(ROUNDS)) \
		$(if $(NESTED),--nested $(NESTED)) $(if $(SCALE),--scale $(SCALE)) $(if $(PAYOUTS),--payouts $(PAYOUTS)) \
		$(if $(BETS),--bets $(BETS)) $(if $(MARKETS),--markets $(MARKETS))

latency: .venv/installed ## measure from the provider to core, and an empty run beside empty tasks; TICKS=2
	@exec $(venv) -m tests.latency $(if $(TICKS),--ticks $(TICKS))

chaos: .venv/installed ## kill pipelines at random moments, check everything, fuzz, sign; KILLS=200 SEED=1; ONLY=resend
	@exec $(venv) -m tests.chaos $(if $(ONLY),--only $(ONLY)) $(if $(KILLS),--kills $(KILLS)) \
		$(if $(SEED),--seed $(SEED)) $(if $(WORKERS),--workers $(WORKERS))

dictionary: .venv/installed ## write include/finance/DICTIONARY.md anew from the system that was started last
	@variables=$$($(venv) -m include.local env) && eval "$$variables" \
		&& exec $(venv) -m include.finance dictionary

lock: .venv/installed ## resolve requirements.in, requirements-dev.in and requirements-bench.in again
	$(venv) -m uv pip compile $(resolve) requirements.in -o requirements.txt
	$(venv) -m uv pip compile $(resolve) -c requirements.txt requirements-dev.in -o requirements-dev.txt
	$(venv) -m uv pip compile $(resolve) requirements-bench.in -o requirements-bench.txt

clean: ## remove what was installed and what the systems of this project have stored
	@if [ -d .local ]; then $(venv) -m include.local clean; fi
	rm -rf .venv .venv-bench .local .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find dags include plugins tests -name __pycache__ -type d -prune -exec rm -rf {} +

resolve := --universal --python-version 3.11 --generate-hashes --no-header --quiet

# The first Python that is new enough and really runs: a name on PATH may be a stub that only fails.
define find_python
for candidate in $${PYTHON:-python3.13 python3.12 python3.11 python3 python}; do \
	if "$$candidate" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' \
		2>/dev/null; then python=$$candidate; break; fi; \
done
endef

no_python := Missing: Python 3.11 or newer with its venv module (Debian: apt-get install python3 \
python3-venv), or the path of one: make PYTHON=/path/to/python3.

.venv/installed: export PYTHON := $(PYTHON)
.venv/installed: requirements-dev.txt requirements-installer.txt
	@$(find_python); \
	if [ -z "$$python" ]; then echo '$(no_python)' >&2; exit 1; fi; \
	echo "Installing the locked packages with $$($$python --version) into .venv" >&2; \
	"$$python" -m venv --clear .venv
	@$(venv) -m pip install -qq --disable-pip-version-check --require-hashes \
		-r requirements-installer.txt
	@$(venv) -m uv pip install --quiet --python $(venv) --compile-bytecode --require-hashes \
		-r requirements-dev.txt 2>.venv/uv.log \
	|| { echo 'uv did not succeed (see .venv/uv.log); installing with pip, which takes longer' >&2; \
		$(venv) -m pip install -qq --disable-pip-version-check --require-hashes \
			-r requirements-dev.txt; }
	@touch .venv/installed

# What `make bench` measures itself against; nothing else needs it.
.venv-bench/installed: .venv/installed requirements-bench.txt
	@echo 'Installing the packages to measure against into .venv-bench' >&2
	@$(venv) -m venv --clear --without-pip .venv-bench
	@$(venv) -m uv pip install --quiet --python .venv-bench/bin/python --compile-bytecode \
		--require-hashes -r requirements-bench.txt
	@touch .venv-bench/installed
