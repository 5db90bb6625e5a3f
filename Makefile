# Each command creates and fills its environment on its own, with uv where it is on the PATH, else with pip.
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
ECOSYSTEM := $(VENV)/.ecosystem
OLDEST := .venv-oldest
PYTEST = OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --dist loadfile

.PHONY: help demo bench test test-all test-oldest fuzz docs format clean

help:
	@echo "make demo         train v2m_nano on handwritten digits (a minute on two cores)"
	@echo "make bench        measure the table of README.md again, beside its figures (OUTPUT=FILE.json keeps it)"
	@echo "make test         check format, lint and types, and run the tests"
	@echo "make test-all     run all tests, the slow ones and those with neighbouring packages too"
	@echo "make test-oldest  run the tests with the oldest allowed dependencies (PYTHON=python3.10)"
	@echo "make fuzz         change files at random for an hour, and read them (MINUTES=60)"
	@echo "make docs         write the scores and speeds of README.md and docs/ from benchmarks/results"
	@echo "make format       format the code"
	@echo "make clean        remove the environments and caches"

# $(call install,FOLDER,EXTRAS,OPTIONS): commas in EXTRAS must come out of a variable.
define install
	@if command -v uv >/dev/null; then \
		uv pip install --python $1/bin/python --editable '.[$2]' $3; \
	else \
		$1/bin/python -m pip install --editable '.[$2]' $3; \
	fi
endef

%/bin/python:
	@if command -v uv >/dev/null; then uv venv $(PYTHON:%=--python %) $*; else $(or $(PYTHON),python3) -m venv $*; fi

$(INSTALLED): pyproject.toml | $(BIN)/python
	$(call install,$(VENV),dev)
	@touch $@

EVERYTHING := dev,hf,ecosystem
$(ECOSYSTEM): pyproject.toml | $(BIN)/python
	$(call install,$(VENV),$(EVERYTHING))
	@touch $(INSTALLED) $@

# The constraints are the lower bounds of pyproject.toml: "rich>=13" becomes rich==13.
$(OLDEST)/.installed: pyproject.toml | $(OLDEST)/bin/python
	@grep -oE '"[A-Za-z0-9_-]+(\[[a-z]+\])?>=[0-9.]+"' $< | sed -E 's/\[[a-z]+\]//; s/>=/==/; s/"//g' \
		| sort -u > $(OLDEST)/constraints.txt
	$(call install,$(OLDEST),dev,--constraint $(OLDEST)/constraints.txt)
	@touch $@

demo: $(INSTALLED)
	$(BIN)/v2m train --data digits

# A row takes some ten seconds a round on a core of 2022: seven rounds are done in less than five minutes.
bench: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/v2m bench repeat "$$($(BIN)/python -m tests.documents.results readme)" --rounds 7 \
		$(OUTPUT:%=--output %)

test: $(INSTALLED)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(PYTEST)

test-all: $(ECOSYSTEM)
	$(PYTEST) -m "not network"

test-oldest: BIN := $(OLDEST)/bin
test-oldest: $(OLDEST)/.installed
	$(PYTEST)

MINUTES := 60
fuzz: $(INSTALLED)
	$(BIN)/python -m tests.fuzz --minutes $(MINUTES) --jobs 2 --output fuzz.json

docs: $(INSTALLED)
	$(BIN)/python -m tests.documents.write

format: $(INSTALLED)
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

clean:
	rm -rf $(VENV) $(OLDEST) .mypy_cache .pytest_cache .ruff_cache
