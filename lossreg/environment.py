"""The state of this machine: versions, whether ONNX Runtime's CUDA provider can run, and how to fix it if not."""

from __future__ import annotations

import contextlib
import ctypes
import datetime
import importlib.util
import io
import platform
from pathlib import Path

import torch

from lossreg.errors import MissingBackendError
from lossreg.versions import versions

FLAVOURS = (('mmengine', 'onedl-mmengine'), ('onnxruntime', 'onnxruntime-gpu'))
"""Pairs of packages that install a module of the same name: only one of each pair may be installed."""

FIXES = {
    'mmengine': 'pip install mmengine, or onedl-mmengine, its maintained fork',
    'libcuda.so': 'no NVIDIA driver here: a machine with a GPU has one',
    'libcublas': "pip install 'lossreg[gpu]'",
    'libcudart': "pip install 'lossreg[gpu]'",
    'libcurand': 'pip install nvidia-curand (torch >= 2.15 no longer brings it)',
}
"""How to get a package, or a library that the CUDA provider needs, by the first part of its name."""


def findings() -> list[dict[str, str]]:
    """The rows of ``lossreg env``: ``name``, ``found`` and ``fix``, which is empty if nothing needs fixing."""
    installed = versions()
    # if one package of a pair is installed, the other is not missing
    unmissed = {a if installed[b] and not installed[a] else b for a, b in FLAVOURS}
    rows = [
        {'name': name, 'found': found or 'not installed', 'fix': '' if found else FIXES.get(name, '')}
        for name, found in installed.items()
        if found or name not in unmissed
    ]
    rows += [
        {
            'name': first,
            'found': 'both are installed, one over the other',
            'fix': f'pip uninstall -y {first} {second}, then install one of them',
        }
        for first, second in FLAVOURS
        if installed[first] and installed[second]
    ]
    cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else 'none'
    rows.append({'name': 'CUDA device', 'found': cuda, 'fix': ''})
    missing, fix = missing_cuda_library()
    found = 'all libraries load' if not missing else f'cannot load: {missing}'
    rows.append({'name': 'ONNX Runtime CUDA provider', 'found': found, 'fix': fix})
    return rows


def missing_cuda_library() -> tuple[str, str]:
    """What keeps ONNX Runtime's CUDA provider from loading, and the fix; two empty strings if it loads."""
    spec = importlib.util.find_spec('onnxruntime')
    if spec is None or spec.origin is None:
        return 'onnxruntime is not installed', "pip install 'lossreg[gpu]'"
    preload_cuda_libraries()
    folder = Path(spec.origin).parent / 'capi'
    library = folder / 'libonnxruntime_providers_cuda.so'
    if not library.exists():
        return 'this onnxruntime has no CUDA provider', 'pip uninstall -y onnxruntime; pip install onnxruntime-gpu'
    try:
        ctypes.CDLL(str(folder / 'libonnxruntime_providers_shared.so'))
        ctypes.CDLL(str(library))
    except OSError as error:
        missing = str(error).partition(':')[0]
        fix = next((fix for name, fix in FIXES.items() if missing.startswith(name)), "pip install 'lossreg[gpu]'")
        return missing, fix
    return '', ''


def preload_cuda_libraries() -> None:
    """Loads the CUDA libraries that pip installed for ONNX Runtime, where torch does not bring its own."""
    import onnxruntime

    if torch.version.cuda is None and hasattr(onnxruntime, 'preload_dlls'):
        # it prints what it does not find; lossreg reports that itself
        with contextlib.redirect_stdout(io.StringIO()):
            onnxruntime.preload_dlls()


def require_cuda(onnxruntime: bool, torch_too: bool) -> None:
    """Raises MissingBackendError, with the fix, unless CUDA can be used."""
    if torch_too and not torch.cuda.is_available():
        raise MissingBackendError('CUDA is required, but torch finds no CUDA device here')
    missing, fix = missing_cuda_library() if onnxruntime else ('', '')
    if missing:
        raise MissingBackendError(f'ort-cuda is required, but its provider cannot load {missing}; {fix}')


def describe(device: str) -> dict[str, str]:
    """The environment that a record must state."""
    rows = {
        'date': datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        'device': torch.cuda.get_device_name() if device == 'cuda' else f'CPU ({platform.machine()})',
    }
    if device == 'cuda':
        rows['driver'] = _driver()
        rows['CUDA of torch'] = str(torch.version.cuda)
    return {**rows, **{name: value for name, value in versions().items() if value}}


def _driver() -> str:
    """The NVIDIA driver's version, from the kernel module."""
    path = Path('/proc/driver/nvidia/version')
    return path.read_text().splitlines()[0] if path.exists() else 'unknown'
