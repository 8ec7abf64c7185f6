PYTHON ?= .venv/bin/python

check:  ## what CI runs
	$(PYTHON) -m ruff format --check . && $(PYTHON) -m ruff check . && $(PYTHON) -m pyright --pythonpath $(PYTHON) && $(PYTHON) -m pytest

fix:  ## what can be mended by itself
	$(PYTHON) -m ruff format . && $(PYTHON) -m ruff check --fix .

base:  ## make the embedded base anew (about an hour on one core, to the same bytes)
	$(PYTHON) -m lite.micro.build

.PHONY: check fix base
