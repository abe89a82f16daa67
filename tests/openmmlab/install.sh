#!/usr/bin/env bash
# Makes a virtual environment with the real OpenMMLab packages, and this checkout, for `pytest -m openmmlab`.
# Usage: install.sh VENV        PYTHON=python3.12 chooses another interpreter.
# From PyPI alone, Linux gets a torch with CUDA; PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu saves 3 GB.
set -euo pipefail

venv=${1:?usage: install.sh VENV}
root=$(cd "$(dirname "$0")/../.." && pwd)
[ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv"

# mmengine 0.10.7 imports pkg_resources, which setuptools 82 dropped; so its pin is the one that cannot be kept.
pins=$(mktemp)
trap 'rm -f "$pins"' EXIT
grep -v '^setuptools==' "$root/constraints.txt" >"$pins"
echo 'setuptools<82' >>"$pins"
install() { "$venv/bin/python" -m pip install --quiet --constraint "$pins" "$@"; }

install torch==2.13.0 mmengine==0.10.7 setuptools wheel cython
# Without its dependencies, because it may be built for another torch: shim.py declares what is then missing.
install --no-deps torchvision==0.28.0
# mmcv without compiled operators; no loss needs one.
install mmcv-lite==2.1.0

# The hosts and what they import. Their own requirements name packages that no longer build, or older ones.
install scipy shapely six terminaltables tqdm prettytable einops mat4py modelindex json-tricks munkres ordered-set ftfy \
  regex joblib pycocotools importlib-metadata matplotlib numba rapidfuzz pyclipper lmdb scikit-image trimesh
# The wheel of this dependency of mmpose is built for numpy 1.
install --no-deps --no-build-isolation --no-binary xtcocotools xtcocotools==1.14.3
install --no-deps mmdet==3.3.0 mmpose==1.3.2 mmsegmentation==1.2.2 mmpretrain==1.2.0 mmrazor==1.0.0 mmrotate==1.0.0rc1 \
  mmyolo==0.6.0 mmaction2==1.2.0 mmdet3d==1.4.0 mmocr==1.0.1 mmagic==1.2.0

install onnx onnxscript onnxruntime-gpu pytest pytest-xdist hypothesis
install --no-deps --editable "$root"
