# The verbs of the workshop; CI calls the same. `make setup` uses uv where it finds it, pip elsewhere; constraints.txt
# lists all that is needed, so that pip need not resolve anything.
# Byte code is made once: without it each of the many processes of the tests compiles TensorFlow and pandas for 10 s.
PYTHON ?= python3
BIN := .venv/bin
AT_ONCE := -n 2 --dist loadfile --no-loadscope-reorder
.PHONY: setup format check test test-all tools notebooks docs dist demo clean

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
	$(BIN)/pytest $(AT_ONCE)

test-all: setup
	$(BIN)/pytest $(AT_ONCE) -m "" -o faulthandler_timeout=3900 # slow tests have an hour

tools:
	deploy/tools.sh

# The executed copies, with their pictures, are the gallery of `make docs`.
notebooks: docs/gallery/executed

docs/gallery/executed: .venv/ready $(wildcard notebooks/*.ipynb)
	rm -rf docs/gallery && mkdir docs/gallery && cp notebooks/*.ipynb docs/gallery
	$(BIN)/pytest --nbmake --nbmake-timeout=300 --overwrite docs/gallery
	touch $@

docs: notebooks
	rm -rf docs/_build docs/generated
	$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build/html
	$(BIN)/python docs/check.py docs/_build/html

dist: setup
	rm -rf dist && $(BIN)/python -m build --no-isolation
	deploy/try_wheel.sh $(BIN)/python dist

demo: setup
	rm -rf demo
	$(BIN)/calfin sample demo/scenes --scenes 14
	$(BIN)/calfin map --catalog demo/scenes/catalog.json --domains demo/scenes/domains.geojson --period 1984/2024 \
	  --store demo/store --reference demo/scenes/truth.parquet

clean:
	rm -rf .venv demo dist docs/_build docs/gallery docs/generated
