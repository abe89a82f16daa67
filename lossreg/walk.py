"""Imports the modules of a package by walking it, so that nobody has to list them."""

import importlib
from collections.abc import Iterable
from pathlib import Path


def import_submodules(package: str, path: Iterable[str]) -> None:
    """Imports every module below ``package``, whose ``__path__`` is ``path``. Folders need no ``__init__.py``."""
    for folder in path:
        for file in sorted(Path(folder).rglob('[!_]*.py')):
            name = '.'.join(file.relative_to(folder).with_suffix('').parts)
            importlib.import_module(f'{package}.{name}')
