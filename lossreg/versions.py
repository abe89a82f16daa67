"""Versions of the packages that lossreg's results depend on."""

import platform
from importlib.metadata import PackageNotFoundError, version

from lossreg.errors import MissingBackendError

OLDEST_TORCH = (2, 11)
"""The oldest torch that exports gradients to ONNX and pt2, and compiles all losses."""

PACKAGES = (
    'lossreg',
    'torch',
    'mmengine',
    'onedl-mmengine',
    'numpy',
    'onnx',
    'onnxscript',
    'onnxruntime',
    'onnxruntime-gpu',
    'setuptools',
)


def versions() -> dict[str, str | None]:
    """The versions of Python and of each package; None if not installed."""
    return {'python': platform.python_version(), **{package: _version(package) for package in PACKAGES}}


def require_export_layer(what: str = 'exporting to ONNX and pt2') -> None:
    """Raises MissingBackendError on a torch older than :data:`OLDEST_TORCH`."""
    torch = version('torch')
    if tuple(int(part) for part in torch.split('+')[0].split('.')[:2]) < OLDEST_TORCH:
        oldest = '.'.join(map(str, OLDEST_TORCH))
        raise MissingBackendError(
            f'{what} needs torch >= {oldest}, found {torch}; eager and TorchScript work with this one'
        )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
