#!/usr/bin/env bash
# Checks all losses with another version of torch, in a separate virtual environment.
# Usage: tests/torch_version.sh VERSION   (2.11 and later: all backends; older: eager and TorchScript)
set -euo pipefail
version=${1:?usage: tests/torch_version.sh VERSION}
venv=.venv-torch-$version
python=${PYTHON:-python3}
pins=$(mktemp)
trap 'rm -f "$pins"' EXIT

[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
# each torch needs its own range of setuptools
if [ "$(printf '%s\n2.11\n' "$version" | sort -V | head -n 1)" = 2.11 ]; then
    grep -vE '^(torch|setuptools)==' constraints.txt >"$pins"
    layer='.[export,mmengine]'
    backends=()
else
    # the train layer; these builds of torch do not support numpy 2
    grep -vE '^(torch|numpy|setuptools)==' constraints.txt >"$pins"
    echo 'numpy<2' >>"$pins"
    layer='.[mmengine]'
    backends=(--backend eager --backend torchscript)
fi
echo "torch==$version" >>"$pins"
"$venv/bin/pip" install --quiet --constraint "$pins" "torch==$version" --editable "$layer"
"$venv/bin/lossreg" env
"$venv/bin/lossreg" check --all --jobs "${JOBS:-2}" "${backends[@]}"
