#!/usr/bin/env bash
# Runs the ONNX files of every loss in another onnxruntime, without torch and without lossreg.
# Usage: tests/onnxruntime_version.sh VENV VERSION   (VENV has lossreg; e.g. .venv 1.16.3)
set -euo pipefail
venv=${1:?usage: tests/onnxruntime_version.sh VENV VERSION}
version=${2:?usage: tests/onnxruntime_version.sh VENV VERSION}
old=.venv-onnxruntime-$version
files=$(mktemp -d)
trap 'rm -rf "$files"' EXIT

[ -x "$old/bin/python" ] || "${PYTHON:-python3}" -m venv "$old"
"$old/bin/pip" install --quiet "onnxruntime==$version" 'numpy<2'
"$venv/bin/python" tests/stored_runs.py write "$files"
"$old/bin/python" tests/stored_runs.py replay "$files"
