# `make demo` and `make test` do everything on a fresh machine with Python 3.11 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PHOTO := models/photos/astronaut.jpg

.PHONY: demo test test-all lint format clean

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[all]'
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[all,dev]'
	touch $@

demo: $(VENV)/installed
	$(BIN)/sam-edge export --out out/sam_edge_tiny
	$(BIN)/sam-edge verify out/sam_edge_tiny
	$(BIN)/sam-edge predict out/sam_edge_tiny $(PHOTO) --point 225,120 --overlay out/overlay.png
	@echo "bundle:  out/sam_edge_tiny"
	@echo "overlay: out/overlay.png"

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest -q -m "not slow"

test-all: $(VENV)/installed-dev
	$(BIN)/python -m pytest -q

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf build/types && mkdir -p build/types && cp -rs $(CURDIR)/sam_edge build/types/sam_edge
	for room in export models benchmarks; do cp -rs $(CURDIR)/$$room build/types/sam_edge/$$room; done
	$(CURDIR)/$(BIN)/mypy --config-file pyproject.toml build/types/sam_edge

format: $(VENV)/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) out build *.egg-info
