# The verbs of the workshop; CI calls the same. `make setup` uses uv where it finds it, pip elsewhere; constraints.txt
# lists all that is needed, so that pip need not resolve anything.
# Byte code is made once: without it each of the many processes of the tests compiles TensorFlow and pandas for 10 s.
PYTHON ?= python3
BIN := .venv/bin
.PHONY: setup format check test test-all tools notebooks demo clean

setup: .venv/ready

.venv/ready: constraints.txt pyproject.toml
	rm -rf .venv
	if command -v uv >/dev/null; then \
	  uv venv --quiet --python $(PYTHON) .venv && uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r constraints.txt \
	  && uv pip install --quiet --python $(BIN)/python --no-deps --editable . ; \
	else \
	  $(PYTHON) -m venv .venv && $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r constraints.txt \
	  && $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable . ; \
	fi
	touch $@

format: setup
	$(BIN)/ruff format . && $(BIN)/ruff check --fix .

check: setup
	$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/codespell && $(BIN)/mypy && $(BIN)/lint-imports

test: setup
	$(BIN)/pytest -n 2 --dist loadfile

test-all: setup
	$(BIN)/pytest -n 2 --dist loadfile -m ""

tools:
	deploy/tools.sh

notebooks: setup
	$(BIN)/pytest --nbmake --nbmake-timeout=300 notebooks

demo: setup
	rm -rf demo
	$(BIN)/calfin sample demo/scenes --scenes 14
	$(BIN)/calfin map --catalog demo/scenes/catalog.json --domains demo/scenes/domains.geojson --period 1984/2024 \
	  --store demo/store --reference demo/scenes/truth.parquet

clean:
	rm -rf .venv demo dist
