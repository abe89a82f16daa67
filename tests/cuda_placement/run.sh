#!/usr/bin/env bash
# Finds where ONNX Runtime's CUDA provider would run the nodes of our files, without a GPU. Needs gcc and binutils.
# Usage: tests/cuda_placement/run.sh VENV [--json FILE]   (VENV has lossreg and onnxruntime-gpu)
set -euo pipefail
venv=${1:?usage: tests/cuda_placement/run.sh VENV [--json FILE]}
shift
here=$(dirname "$0")
headers=.venv-cuda-headers
stand_ins=$(mktemp -d)
trap 'rm -rf "$stand_ins"' EXIT

package=$("$venv/bin/python" -c 'from importlib.util import find_spec; print(find_spec("onnxruntime").submodule_search_locations[0])')
provider=$package/capi/libonnxruntime_providers_cuda.so
[ -f "$provider" ] || { echo "onnxruntime in $venv has no CUDA provider; pip install onnxruntime-gpu" >&2; exit 3; }
# CUDA's headers, 9 MB, of the version that the provider was built for
cuda=$(readelf -d "$provider" | sed -n 's/.*libcudart\.so\.\([0-9]*\).*/\1/p')
[ -d "$headers/nvidia" ] || "$venv/bin/pip" install --quiet --no-deps --target "$headers" \
    "nvidia-cuda-runtime==$cuda.*" "nvidia-cuda-crt==$cuda.*"
bash "$here/build.sh" "$provider" "$headers/nvidia/cu$cuda/include" "$stand_ins"
"$venv/bin/python" "$here/placement.py" "$stand_ins" "$@"
