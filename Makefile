# make setup: a virtual environment in .venv with the locked dependencies and this package
# make demo:  everything on embedded sample data, into demo/ (about four minutes on two CPU cores)
# make test:  style, types and tests (half an hour on two CPU cores)
# make test-slow:    what takes minutes each: whole sweeps that are killed, the demo, keys that no file may hold
# make test-cluster: machines of namespaces under ray up and Slurm that die and come back; root, and the packages
#                    openssh-server rsync iproute2 slurm-wlm munge (Debian)

PYTHON ?= python3
VENV := .venv
NRH := $(VENV)/bin/nrh

.PHONY: setup demo test test-slow test-cluster lint lock clean

setup: $(VENV)/ready

$(VENV)/ready: .ci/requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --require-hashes -r .ci/requirements.lock
	$(VENV)/bin/pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

demo: setup
	$(NRH) demo --out demo

test: setup lint
	$(VENV)/bin/python -m pytest

test-slow: setup
	$(VENV)/bin/python -m pytest -m slow

test-cluster: setup
	$(VENV)/bin/python tests/cluster/machines.py
	$(VENV)/bin/python -m pytest -m cluster tests/cluster/test_nodes.py

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

# The lock holds every dependency, test extras included, with hashes. Needs uv.
lock:
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header \
		--extra test --extra wandb pyproject.toml -o .ci/requirements.lock

clean:
	rm -rf $(VENV) .cache demo
