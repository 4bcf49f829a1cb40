# Everything happens inside .venv; nothing is installed anywhere else.
# A fresh machine needs make and a Python of at least 3.11. `make help` lists the targets.

VENV := .venv
PY := $(VENV)/bin/python
ARGS ?=
TORCH ?=

.DEFAULT_GOAL := help
# Two pips must not write into one environment at once.
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help demo test bench docs lint format clean distclean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  ARGS=...   is passed to the tool: make test ARGS='-k softmax'"
	@echo "  TORCH=...  runs on that version of PyTorch: make test TORCH=2.10.0"
	@echo "  PYTHON=... names the Python that .venv is made from"

demo: $(VENV)/.demo ## train on handwritten digits, with the right and the wrong loss
	$(VENV)/bin/withlogits demo $(ARGS)

test: $(VENV)/.test ## run all tests, doctests too
	$(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

bench: $(VENV)/.bench ## measure beside the other libraries and write docs/results (installs some gigabytes)
	$(PY) -m benchmarks $(ARGS)

docs: $(VENV)/.docs $(VENV)/.test ## run the code in the pages and build docs/_build/html
	$(PY) -m pytest tests/test_docs.py
	$(PY) -m sphinx -W --keep-going -b html docs docs/_build/html $(ARGS)

lint: $(VENV)/.lint ## run ruff, its formatter and mypy
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

format: $(VENV)/.lint ## rewrite what ruff can
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

clean: ## remove what the targets made, except .venv
	rm -rf docs/_build build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests benchmarks docs -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## remove .venv too
	rm -rf $(VENV)

# Which PyTorch .venv holds: another version than pyproject.toml's stays until a target runs without TORCH.
TORCH_STAMP := $(VENV)/.torch-$(or $(TORCH),pinned)

$(TORCH_STAMP): $(VENV)/.made
	@rm -f $(VENV)/.torch-*
	@touch $@

# One stamp for each set of packages, so that a repeat starts at once and a changed pyproject.toml installs again.
$(VENV)/.demo: INSTALL := -e '.[cli]'
$(VENV)/.test: INSTALL := -e . --group test
$(VENV)/.lint: INSTALL := -e . --group lint
$(VENV)/.docs: INSTALL := -e . --group docs
$(VENV)/.bench: INSTALL := -e . --group bench
$(VENV)/.demo $(VENV)/.test $(VENV)/.lint $(VENV)/.docs $(VENV)/.bench: $(VENV)/.made $(TORCH_STAMP) pyproject.toml
	@echo "installing into $(VENV): pip install $(INSTALL)$(if $(TORCH), and then torch==$(TORCH))"
	@$(PY) -m pip install --quiet $(INSTALL)
	@$(if $(TORCH),$(PY) -m pip install --quiet 'torch==$(TORCH)')
	@touch $@

# Dependency groups need pip 25.1. python3 may be too old where a newer one stands beside it, and a name on the PATH
# may be a shim that fails, so each candidate is run.
$(VENV)/.made:
	@python=; \
	for candidate in $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11); do \
	    if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	        python=$$candidate; break; \
	    fi; \
	done; \
	if [ -z "$$python" ]; then \
	    echo "withlogits needs Python 3.11 or newer, which $(or $(PYTHON),python3) is not." >&2; \
	    echo "Install one, or name it: make PYTHON=/path/to/python3 $(MAKECMDGOALS)" >&2; \
	    exit 1; \
	fi; \
	if ! "$$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then \
	    echo "$$python cannot make a virtual environment. On Debian and Ubuntu: apt-get install python3-venv" >&2; \
	    exit 1; \
	fi; \
	echo "$$python -m venv $(VENV)"; \
	"$$python" -m venv --clear $(VENV)
	@$(PY) -m pip install --quiet --upgrade 'pip>=25.1'
	@touch $@
