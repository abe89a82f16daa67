"""The functional forms of all registered losses, by name: ``lossreg.functional.giou_loss``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lossreg.registry import load_losses
from lossreg.spec import spec_of


def functions() -> dict[str, Callable[..., Any]]:
    """All functional forms by name."""
    return {f.__name__: f for cls in load_losses().values() for f in spec_of(cls).functions}


def __getattr__(name: str) -> Callable[..., Any]:
    if name.startswith('_') or name not in functions():
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return functions()[name]


def __dir__() -> list[str]:
    return sorted(functions())
