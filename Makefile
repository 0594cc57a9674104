# Two commands do everything on a fresh machine: `make demo` and `make test`.
#
#   PYTHON  the interpreter that the environment is made with
#   VENV    where the environment is
#   TORCH   what is installed for torch first; e.g. TORCH="torch torchvision --index-url URL" with the URL that the
#           selector of PyTorch's "Get Started" page shows for your CUDA or ROCm version
#   MATRIX  what `make matrix` runs: bounds (resolves only), light (without torch) or full (everything; 12 GB for each Python)

PYTHON ?= python3
VENV   ?= .venv
MATRIX ?= full
TORCH  ?= torch==2.14.1 torchvision==0.29.1
BIN    := $(VENV)/bin
RUN    := $(BIN)/python

.PHONY: demo test lint docs mutants dist matrix setup-demo setup-test setup-release clean

demo: setup-demo
	$(BIN)/yolo-stable train digits model=yolo11n.yaml epochs=14 imgsz=160 batch=16 nbs=16 close_mosaic=4 fliplr=0 plots=False \
	  warmup_epochs=1 --preset guarded project=$(CURDIR)/runs name=demo exist_ok=True

# loadscope: what the tests of a file share is made once. The linters run beside the tests, behind them in priority, and what they
# say stands at the end; a failure of either fails.
test: setup-test
	@nice -n 19 $(MAKE) --no-print-directory lint >$(VENV)/.lint.log 2>&1 & linters=$$!; \
	trap 'kill $$linters 2>/dev/null' EXIT; \
	$(RUN) -m pytest -n 2 --dist loadscope; tests=$$?; \
	wait $$linters; lint=$$?; \
	cat $(VENV)/.lint.log; \
	test $$tests = 0 && test $$lint = 0

lint: setup-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(RUN)
	$(BIN)/lint-imports
	$(BIN)/hadolint docker/Dockerfile.*

# The site, into site/; the pages of reference that follow from the code are written first. Nothing comes from the network.
docs: setup-test
	$(RUN) docs/generate.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

# Small changes of meaning, one at a time in a copy of the project: which of them do the tests not notice? About an hour.
mutants: setup-test
	$(RUN) -m benchmarks.mutants --jobs 2 --trace $(VENV)/.trace.json

# Wheel and source archive into dist/: built, checked, and each tried in an environment of its own
dist: setup-release
	rm -rf dist
	$(RUN) -m build --no-isolation
	$(RUN) -m twine check --strict dist/*
	YOLO_STABLE_DIST=$(CURDIR)/dist $(RUN) -m pytest -q tests/test_wheel.py

# Each Python with the lowest and the newest dependencies ([tool.tox] in pyproject.toml). MATRIX=light leaves torch out.
matrix: setup-release
	$(RUN) -m tox run -m $(MATRIX)

setup-demo:    $(VENV)/.demo
setup-test:    $(VENV)/.test
setup-release: $(VENV)/.release

$(VENV)/.torch:
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --upgrade "pip>=24"
	$(RUN) -m pip install --quiet $(TORCH)
	touch $@

$(VENV)/.demo: $(VENV)/.torch pyproject.toml
	$(RUN) -m pip install --quiet -e ".[demo]"
	touch $@

$(VENV)/.test: $(VENV)/.torch pyproject.toml
	$(RUN) -m pip install --quiet -e ".[test]"
	touch $@

$(VENV)/.release: $(VENV)/.test
	$(RUN) -m pip install --quiet -e ".[release]"
	touch $@

clean:
	rm -rf $(VENV) dist runs site .pytest_cache .ruff_cache .tox
