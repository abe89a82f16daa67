#!/usr/bin/env bash
# Runs the ONNX files of all losses and of training steps in other versions of onnxruntime, without torch and lossreg.
# Usage: tests/onnxruntime_version.sh VENV VERSION...   (VENV has lossreg; e.g. .venv 1.16.3 1.23.2)
set -euo pipefail
venv=${1:?usage: tests/onnxruntime_version.sh VENV VERSION...}
shift
files=$(mktemp -d)
trap 'rm -rf "$files"' EXIT

"$venv/bin/python" tests/stored_runs.py write "$files"
for version in "$@"; do
    old=.venv-onnxruntime-$version
    [ -x "$old/bin/python" ] || "${PYTHON:-python3}" -m venv "$old"
    "$old/bin/pip" install --quiet "onnxruntime==$version" 'numpy<2'
    "$old/bin/python" tests/stored_runs.py replay "$files"
done
