# Both commands create and fill .venv on their own, with uv where it is on the PATH, else with pip.
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: help demo test format clean

help:
	@echo "make demo    train v2m_nano on handwritten digits (45 seconds on two cores)"
	@echo "make test    check format, lint and types, and run the tests"
	@echo "make format  format the code"
	@echo "make clean   remove .venv and caches"

$(INSTALLED): pyproject.toml
	@if command -v uv >/dev/null; then \
		test -x $(BIN)/python || uv venv $(VENV); \
		uv pip install --python $(BIN)/python --editable '.[dev]'; \
	else \
		test -x $(BIN)/python || python3 -m venv $(VENV); \
		$(BIN)/python -m pip install --editable '.[dev]'; \
	fi
	@touch $@

demo: $(INSTALLED)
	$(BIN)/v2m train --data digits

test: $(INSTALLED)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --dist loadfile

format: $(INSTALLED)
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache
