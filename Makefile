# `make demo` and `make test` do everything on a fresh machine with Python 3.11 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PHOTO := models/photos/astronaut.jpg
PAGE := sam_edge/serve/page
# Processes that run tests.
WORKERS ?= 2
# Bundles that several tests read, those of the page among them, are exported once, to this folder.
BUNDLES := $(CURDIR)/build/test-bundles
# Without its advertisement of another program.
MKDOCS := NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs
# 1 where there is a Node.js that builds web/.
NODE := $(shell command -v npm >/dev/null && node -p \
  'const [a, b] = process.versions.node.split("."); +(a > 22 || (a == 22 && b >= 12) || (a == 20 && b >= 19))')

.PHONY: demo test test-all test-web check-web web wheel docs docs-serve lint format clean

$(BIN)/pip:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml constraints.txt | $(BIN)/pip
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
	@$(SHOW_PAGE)

test: $(VENV)/installed-dev $(if $(filter 1,$(NODE)),web)
	rm -rf $(BUNDLES)
	SAM_EDGE_TEST_BUNDLES=$(BUNDLES) $(BIN)/python -m pytest -q -m "not slow" -n $(WORKERS) --dist loadfile
	$(MAKE) check-web SAM_EDGE_BUNDLE=$(BUNDLES)/web SAM_EDGE_REFERENCE=$(BUNDLES)/web-reference

test-all: test
	$(BIN)/python -m pytest -q -m slow

ifeq ($(NODE),1)
SHOW_PAGE := [ -d $(PAGE) ] || echo "page:    'make web' builds it"; \
  echo "         $(BIN)/sam-edge serve out/sam_edge_tiny   serves a page to click in"

web/node_modules/installed: web/package.json web/package-lock.json
	cd web && npm ci
	touch $@

web: web/node_modules/installed
	cd web && npm run build
	rm -rf $(PAGE) && cp -R web/dist $(PAGE)

test-web: $(VENV)/installed-dev web
	$(MAKE) check-web

check-web:
	cd web && npm run check && PYTHON=$(CURDIR)/$(BIN)/python npm test
	@if command -v chromium >/dev/null; then \
	  cd web && PYTHON=$(CURDIR)/$(BIN)/python npx vitest run --project e2e; \
	else \
	  echo "The page was not tested in a browser: there is no chromium here (Debian's package has that name)."; \
	fi
else
NO_NODE := The page for 'sam-edge serve' needs Node.js 20.19+ or 22.12+ with npm, which is not installed
SHOW_PAGE := echo "page:    $(NO_NODE)"

web:
	@echo "$(NO_NODE)." >&2; exit 1

test-web check-web:
	@echo "$(NO_NODE): it is neither built nor tested."
endif

# The runtime's wheel and, where its page has been built, the page's; `build/` may hold modules that have moved since.
wheel: | $(BIN)/pip
	rm -rf build web/build
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir dist .
	@if [ -d web/dist ]; then $(BIN)/pip wheel --quiet --no-deps --wheel-dir dist ./web; fi
	@ls dist/*.whl

$(VENV)/installed-docs: $(VENV)/installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[all,docs]'
	touch $@

docs: $(VENV)/installed-docs
	$(MKDOCS) build --strict --quiet
	@echo "site: site/index.html; make docs-serve shows it"

docs-serve: $(VENV)/installed-docs
	$(MKDOCS) serve

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p sam_edge -p tools
	$(BIN)/python -m tools.structure

format: $(VENV)/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) out build dist site *.egg-info $(PAGE) web/node_modules web/dist web/lib web/build
