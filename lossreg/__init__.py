"""OpenMMLab losses that leave Python.

Everything is loaded on first use, so ``import lossreg`` is fast and needs no torch. Besides the names in ``__all__``,
every registered loss class and every functional form is an attribute of this package.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lossreg.errors import CheckError, ConfigError, DeclinedError, LossregError, MissingBackendError
    from lossreg.exporters import export
    from lossreg.exporters.step_files import export_train_step
    from lossreg.registry import LOSSES, build_loss

__all__ = [
    'LOSSES',
    'CheckError',
    'ConfigError',
    'DeclinedError',
    'LossregError',
    'MissingBackendError',
    'build_loss',
    'export',
    'export_train_step',
]

_HOMES = {
    'LOSSES': 'lossreg.registry',
    'build_loss': 'lossreg.registry',
    'export': 'lossreg.exporters',
    'export_train_step': 'lossreg.exporters.step_files',
    **{name: 'lossreg.errors' for name in __all__ if name.endswith('Error')},
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name.startswith('_'):
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    if importlib.util.find_spec(f'{__name__}.{name}') is not None:
        return importlib.import_module(f'{__name__}.{name}')
    from lossreg.functional import functions
    from lossreg.registry import load_losses

    found = {**functions(), **load_losses()}
    if name not in found:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return found[name]


def __dir__() -> list[str]:
    from lossreg.registry import load_losses

    return sorted([*__all__, *load_losses()])
