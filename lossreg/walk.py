"""Imports the modules of a package by walking it, so that no list of them is kept by hand."""

import importlib
import pkgutil
from collections.abc import Iterable


def import_submodules(package: str, path: Iterable[str]) -> None:
    """Imports every module below ``package``, whose ``__path__`` is ``path``."""
    for module in pkgutil.walk_packages(path, prefix=f'{package}.'):
        importlib.import_module(module.name)
