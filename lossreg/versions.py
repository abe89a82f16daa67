"""Versions of what lossreg's results depend on."""

import platform
from importlib.metadata import PackageNotFoundError, version

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
    """The version of Python and of each package, None for what is not installed."""
    return {'python': platform.python_version(), **{package: _version(package) for package in PACKAGES}}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
