#!/usr/bin/env bash
# Creates a virtual environment with the real OpenMMLab packages and this checkout, for `pytest -m openmmlab`.
# Usage: install.sh VENV [openmmlab|onedl]        PYTHON=python3.12 chooses another interpreter.
# onedl: the maintained forks, which exist for mmengine, mmcv and four hosts. Tests of missing hosts are skipped.
# PyPI has torch with CUDA for Linux; PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu saves 3 GB.
set -euo pipefail

venv=${1:?usage: install.sh VENV [openmmlab|onedl]}
flavour=${2:-openmmlab}
root=$(cd "$(dirname "$0")/../.." && pwd)
[ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv"

# mmengine 0.10.7 imports pkg_resources, which setuptools 82 dropped, so setuptools cannot have its pinned version.
pins=$(mktemp)
trap 'rm -f "$pins"' EXIT
grep -v '^setuptools==' "$root/constraints.txt" >"$pins"
echo 'setuptools<82' >>"$pins"
install() { "$venv/bin/python" -m pip install --quiet --constraint "$pins" "$@"; }

case $flavour in
openmmlab) engine=mmengine==0.10.7 ;;
onedl) engine=onedl-mmengine==0.10.12 ;;
*) echo "install.sh: there is no flavour '$flavour', only openmmlab and onedl" >&2 && exit 2 ;;
esac
install torch==2.13.0 "$engine" setuptools wheel cython
# Without dependencies, because it may be built for another torch; shim.py declares what is missing then.
install --no-deps torchvision==0.28.0
# mmcv without compiled operators, which no loss needs. The fork compiles none if its build finds no torch.
if [ "$flavour" = onedl ]; then
    install opencv-python-headless
    install --no-deps onedl-mmcv==2.3.6
else
    install mmcv-lite==2.1.0
fi

# The hosts and their imports. Their own requirements name outdated packages, or ones that no longer build.
install scipy shapely six terminaltables tqdm prettytable einops mat4py modelindex json-tricks munkres ordered-set ftfy \
  regex joblib pycocotools importlib-metadata matplotlib numba rapidfuzz pyclipper lmdb scikit-image trimesh
if [ "$flavour" = onedl ]; then
    install --no-deps imaug imageio lazy_loader networkx tifffile faster_coco_eval
    install --no-deps onedl-mmdetection==3.5.1 onedl-mmsegmentation==1.4.2 onedl-mmpretrain==1.3.6 onedl-mmrotate==1.2.1
else
    # The wheel of this dependency of mmpose is built for numpy 1.
    install --no-deps --no-build-isolation --no-binary xtcocotools xtcocotools==1.14.3
    install --no-deps mmdet==3.3.0 mmpose==1.3.2 mmsegmentation==1.2.2 mmpretrain==1.2.0 mmrazor==1.0.0 mmrotate==1.0.0rc1 \
      mmyolo==0.6.0 mmaction2==1.2.0 mmdet3d==1.4.0 mmocr==1.0.1 mmagic==1.2.0
fi

install onnx onnxscript onnxruntime-gpu pytest pytest-xdist hypothesis
install --no-deps --editable "$root"
