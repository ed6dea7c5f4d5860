# From a fresh clone with Python alone: `make demo` and `make test`.
PYTHON ?= python3
BACKEND ?= jax
VENV ?= .venv
BIN := $(VENV)/bin
BACKENDS := jax tensorflow torch

.PHONY: help demo test $(BACKENDS:%=test-%) test-once lint format benchmark clean

help:
	@echo "make demo [BACKEND=jax|torch|tensorflow]   which strategy? a comparison of minutes, see out/"
	@echo "make test                                  lint, and the suite on every backend"
	@echo "make benchmark                             speed beside transformers, some minutes"

demo: $(VENV)/.installed-$(BACKEND)
	KERAS_BACKEND=$(BACKEND) $(BIN)/python recipes/compare.py $(DEMO)

# Small enough for minutes: 320 peptides, eight epochs at a rate from which random weights learn too;
# of the few peptides above 62 residues the rest is cut, since JAX compiles for each further length.
DEMO := --data amp --records 320 --max-length 62 --strategies linear_probe full --seeds 3 \
	--epochs 8 --rate 5e-4

# One process per backend, and one for the tests that do not depend on it; two at a time with one
# thread each, the longest first: small models gain nothing from more.
test: $(VENV)/.installed-test lint
	@echo "The suite on $(BACKENDS): 30 to 45 minutes on 2 cores; each process prints when it is done."
	OMP_NUM_THREADS=1 $(MAKE) --no-print-directory -j2 --output-sync=line $(BACKENDS:%=test-%) test-once

$(BACKENDS:%=test-%): test-%: $(VENV)/.installed-test
	KERAS_BACKEND=$* $(BIN)/python -m pytest -m "not once"

test-once: $(VENV)/.installed-test
	KERAS_BACKEND=torch $(BIN)/python -m pytest -m once

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

benchmark: $(VENV)/.installed-test
	$(BIN)/python tests/benchmarks/benchmark_esm2.py

clean:
	rm -rf out

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# torch comes first and by its exact version: with a CPU build at hand, that is the one taken.
$(VENV)/.installed-test: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install -c constraints.txt -e ".[jax,torch,tensorflow,test]"
	touch $@

$(VENV)/.installed-%: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install -c constraints.txt -e ".[$*]"
	touch $@
