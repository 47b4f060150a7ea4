# make demo    install into .venv and run the demo: real digits, teacher to verified int8 file
# make test    install what the tests need and run them; make test-slow: the slow tier too
# make test-avx2   the same tests with the kernels of a processor without AVX-512
# make check   format, lint, types
# make test-litert   the tests that write LiteRT files, with the converter in an environment of its own
.PHONY: demo test test-avx2 test-slow test-litert check format clean

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt

demo: .venv/installed
	$(BIN)/stillroom demo

# Two processes of one thread each: two of torch's thread pools on two cores spend their time waiting for each other.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

test: .venv/installed-dev
	$(PYTEST)

test-avx2: .venv/installed-dev
	ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2 $(PYTEST)

test-slow: .venv/installed-dev
	$(PYTEST) -m "slow or not slow" --timeout 1800 --hypothesis-profile wide

test-litert: .venv/installed-dev .venv-litert/installed
	STILLROOM_LITERT=$(CURDIR)/.venv-litert/bin/python $(PYTEST) -m "slow or not slow" --timeout 1800 \
		tests/unit/test_litert.py tests/conformance/test_export.py tests/unit/test_report_snippets.py

check: .venv/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: .venv/installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) --editable .
	touch $@

.venv/installed-dev: .venv/installed
	$(PIP) --editable '.[dev]'
	touch $@

# Its requirements clash with those of the rest. Programs are read by the torch that wrote them, so torch is the same.
.venv-litert/installed: constraints.txt
	test -x .venv-litert/bin/python || $(PYTHON) -m venv .venv-litert
	.venv-litert/bin/python -m pip install --disable-pip-version-check --quiet \
		torch==2.14.1 litert-torch==0.10.0 'cattrs<26'
	touch $@

clean:
	rm -rf .venv .venv-litert build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
