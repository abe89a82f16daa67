#!/usr/bin/env bash
# Runs all losses on fake CUDA tensors, in a virtual environment with a CUDA build of torch. Needs no GPU.
# Usage: tests/fake_cuda.sh
set -euo pipefail
venv=.venv-fake-cuda
pins=$(mktemp)
trap 'rm -f "$pins"' EXIT

[ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv"
# the newest torch whose wheel is a CUDA build, with its dependencies: 5 GB
grep -vE '^(torch|setuptools)==' constraints.txt >"$pins"
"$venv/bin/pip" install --quiet --constraint "$pins" 'torch==2.12.1' --editable '.[mmengine]'
"$venv/bin/python" -c 'import torch; assert torch.version.cuda, f"{torch.__version__} is no CUDA build"'
"$venv/bin/python" tests/fake_cuda.py
