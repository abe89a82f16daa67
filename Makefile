# Everything runs in its own virtual environment; nothing needs to be activated.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
JOBS ?= 2

.PHONY: install demo test test-all test-torch test-openmmlab test-onnxruntime \
	test-fake-cuda test-cuda-placement mutants lint docs clean

install: $(BIN)/lossreg

$(BIN)/lossreg: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[test]'
	@touch $@

# Exports KLDiscretLoss from a config in all formats, with its gradient, and prints the parity table.
demo: install
	$(BIN)/lossreg export configs/pose/kl_discret_loss.py --format all --grad --out demo
	$(BIN)/lossreg check demo/manifest.json

# What CI runs. Pages are generated first, so that a new loss needs no edit of them.
test: install docs lint
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal

# Every variant x call x set of optional inputs.
test-all: install
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m exhaustive

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# All backends on another torch (TORCH=2.11.0, 2.15.0); below 2.11 only the train layer, eager and TorchScript.
test-torch:
	tests/torch_version.sh $(TORCH)

# Against eleven real OpenMMLab packages. FLAVOUR=onedl uses onedl-mmengine and the maintained forks that exist, and also
# runs the default tests that depend on mmengine.
FLAVOUR ?= openmmlab
ENGINE_TESTS = tests/test_registry.py tests/test_config.py tests/test_cli.py
test-openmmlab:
	bash tests/openmmlab/install.sh .venv-$(FLAVOUR) $(FLAVOUR)
	.venv-$(FLAVOUR)/bin/python -m pytest -m openmmlab -n $(JOBS) --dist worksteal tests/openmmlab
	[ $(FLAVOUR) != onedl ] || .venv-onedl/bin/python -m pytest -n $(JOBS) --dist worksteal $(ENGINE_TESTS)

# Files of this version in the oldest onnxruntime named in manifests, and in a version between that and the installed one.
test-onnxruntime: install
	bash tests/onnxruntime_version.sh $(VENV) 1.16.3 1.23.2

# Every loss on fake CUDA tensors, without a GPU, in a CUDA build of torch (5 GB).
test-fake-cuda:
	bash tests/fake_cuda.sh

# Where ONNX Runtime's CUDA provider would run the nodes of the ONNX files, without a GPU. JSON=FILE also writes JSON.
# Refreshes tests/cuda_placement/kernels.json.
test-cuda-placement: install
	bash tests/cuda_placement/run.sh $(VENV) $(if $(JSON),--json $(JSON))

# Plants a seeded sample of small faults, which the tests must notice; takes hours. Options, as in
# MUTANTS='--only lossreg/ops': see `PYTHONPATH=tests python -m mutants --help`.
mutants: install
	PYTHONPATH=tests $(BIN)/python -m mutants --jobs $(JOBS) $(MUTANTS)

# Generates the pages that derive from the specs.
docs: install
	$(BIN)/python docs/generate.py

clean:
	rm -rf .venv .venv-* demo build dist
