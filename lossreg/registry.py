"""The registry. mmengine imports this module automatically when a config says ``type='lossreg.X'``.

Its name is therefore fixed: ``<scope>.registry``.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Any

import torch
from torch import Tensor, nn

from lossreg.engine import MODELS, Registry
from lossreg.errors import ConfigError, LossregError


class LossRegistry(Registry):  # type: ignore[misc]
    """A registry whose classes keep the precision of their buffers; see :func:`keep_buffers`."""

    def _register_module(self, module: Any, module_name: Any = None, force: bool = False) -> None:
        super()._register_module(module, module_name, force)
        if isinstance(module, type) and issubclass(module, nn.Module):
            keep_buffers(module)


def keep_buffers(cls: type[nn.Module]) -> None:
    """Keeps casts to half precision from changing the buffers of a class: state, and constants such as bin edges.

    bfloat16 counts only to 256 and float16 to 2048, and a running mean stops changing once its steps round to 0. So
    ``half()``, ``bfloat16()`` and ``to(dtype)``, on the loss or a model that holds it, leave buffers unchanged.
    ``float()`` and ``double()`` cast floating-point buffers; moving to a device or loading a checkpoint changes no
    dtype. Parameters follow every cast. TorchScript has its own casts: see :func:`lossreg.arith.check_state`.
    """
    apply: Any = cls._apply
    load: Any = cls._load_from_state_dict

    def _apply(self: nn.Module, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        before = dict(self._buffers)
        apply(self, fn, recurse)
        for name, buffer in before.items():
            after = self._buffers[name]
            if buffer is None or after is None or after.dtype == buffer.dtype:
                continue
            if not buffer.is_floating_point() or after.dtype not in (torch.float32, torch.float64):
                self._buffers[name] = buffer.to(after.device)
        return self

    def _load_from_state_dict(self: nn.Module, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # a host's counts are floats, and load_state_dict(assign=True) would keep that dtype
        for name, buffer in self._buffers.items():
            loaded = state_dict.get(prefix + name)
            if buffer is not None and isinstance(loaded, Tensor):
                state_dict[prefix + name] = loaded.to(buffer.dtype)
        load(self, state_dict, prefix, *args)

    cls._apply = _apply  # type: ignore[method-assign]
    cls._load_from_state_dict = _load_from_state_dict  # type: ignore[method-assign, assignment]


LOSSES = LossRegistry('loss', parent=MODELS, scope='lossreg', locations=['lossreg.losses'])
"""All losses of this package, and those that other packages add with ``@LOSSES.register_module()``."""

ENTRY_POINT_GROUP = 'lossreg.losses'


def load_losses(*modules: str) -> dict[str, type[nn.Module]]:
    """Imports all registered losses and returns them by name.

    Args:
        modules: further modules to import, which register their own losses. Modules that installed packages name in the
            entry-point group ``lossreg.losses`` are always imported.

    Raises:
        ConfigError: a module cannot be imported.
    """
    LOSSES.import_from_location()
    for name in (*(point.value for point in entry_points(group=ENTRY_POINT_GROUP)), *modules):
        try:
            importlib.import_module(name)
        except Exception as error:  # a third party's module may raise anything
            raise ConfigError(f'cannot import {name!r}, which should register losses: {error}') from error
    return dict(sorted(LOSSES.module_dict.items()))


def loss_class(name: str | type[nn.Module]) -> type[nn.Module]:
    """The class registered as ``name``, with or without the scope ``lossreg.``; a class is returned as it is.

    Raises:
        ConfigError: nothing is registered under that name.
    """
    if isinstance(name, type):
        return name
    plain = name.removeprefix('lossreg.') if isinstance(name, str) else str(name)
    losses = LOSSES.module_dict if plain in LOSSES.module_dict else load_losses()
    if plain not in losses:
        near = difflib.get_close_matches(plain, losses, n=1, cutoff=0.5)
        hint = f'did you mean {near[0]!r}?' if near else 'see `lossreg list` for all names'
        raise ConfigError(f'no loss is registered as {plain!r}; {hint}')
    return losses[plain]


def build_loss(cfg: Mapping[str, Any] | str) -> nn.Module:
    """Builds a loss from a config dict, whatever mmengine's default scope is.

    Args:
        cfg: ``dict(type='GIoULoss', loss_weight=2.0)``, or just the name. ``type`` may carry the scope
            ``lossreg.`` or be the class itself. mmengine's ``Registry.build`` would follow the default scope to a
            host's class of the same name; this function never does.

    Raises:
        ConfigError: no ``type``, an unknown name, an unknown argument, or a value that the loss rejects.
    """
    options: dict[str, Any] = {'type': cfg} if isinstance(cfg, str) else dict(cfg)
    if 'type' not in options:
        raise ConfigError(f"a loss config needs a 'type', as in dict(type='GIoULoss'); got {options!r}")
    cls = loss_class(options.pop('type'))
    options.pop('_scope_', None)
    _refuse_unknown(cls, options)
    try:
        return cls(**options)
    except LossregError:
        raise
    except Exception as error:  # an odd value may make a constructor raise anything
        raise ConfigError(f'{cls.__name__} cannot be built from {options}: {error}') from error


def constructor_options(cls: type[nn.Module], given: Mapping[str, Any]) -> dict[str, Any]:
    """All constructor arguments of ``cls``: its defaults, overridden by those ``given``."""
    parameters = inspect.signature(cls).parameters
    defaults = {name: p.default for name, p in parameters.items() if p.default is not p.empty}
    return {**defaults, **given}


def _refuse_unknown(cls: type[nn.Module], options: Mapping[str, Any]) -> None:
    known = list(inspect.signature(cls).parameters)
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f'did you mean {near[0]!r}?' if near else f'it takes {", ".join(known)}'
            raise ConfigError(f'{cls.__name__} has no argument {name!r}; {_namesake(cls, name) or hint}')


def _namesake(cls: type[nn.Module], argument: str) -> str:
    """A hint at our stand-in for another package's class of this name that has the argument; empty if there is none."""
    for other in load_losses().values():
        spec: Any = getattr(other, 'spec', None)  # losses of other packages may have no spec
        for host in spec.stands_in_for if spec else ():
            package, _, name = host.name.partition('.')
            if name == cls.__name__ and other is not cls and argument in inspect.signature(other).parameters:
                return f"{package}'s class of this name has it: write {other.__name__}"
    return ''
