"""Finds and runs the float64 oracle of a loss."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lossreg.errors import ConfigError, first_line
from lossreg.registry import constructor_options, loss_class
from lossreg.spec import spec_of
from lossreg.unit import Unit

Array = NDArray[np.float64]
Oracle = Callable[[str, Mapping[str, NDArray[Any]], Mapping[str, Any]], Array | Mapping[str, Array]]

HELD_PREFIX = 'held_'
"""The prefix of values that an oracle returns besides the outputs, because the loss has no gradient through them."""


class MissingOracleError(ConfigError):
    """A loss has no oracle in the expected place."""


def oracle_of(cls: type[nn.Module]) -> Oracle:
    """The oracle of a loss class.

    It is the one that its spec names, or the function that has the name of the loss's file, in the package ``oracles``
    that mirrors ``losses``.

    Raises:
        MissingOracleError: there is none; the message names the file expected.
        ConfigError: it cannot be imported.
    """
    name, named = cls.__name__, spec_of(cls).oracle or _by_place(cls.__module__)
    where, _, function = named.partition(':')
    if not where or not function:
        raise MissingOracleError(f"{name} has no float64 oracle: its spec must name one, oracle='module:function'")
    file = f'{where.replace(".", "/")}.py'
    try:
        module = importlib.import_module(where)
    except ModuleNotFoundError as error:
        if error.name is None or not f'{where}.'.startswith(f'{error.name}.'):
            raise ConfigError(f'the oracle of {name}, {file}, cannot be imported: {error}') from error
        raise MissingOracleError(f'{name} has no float64 oracle: {file} does not exist') from None
    except Exception as error:  # a third party's module may raise anything
        reason = f'{type(error).__name__}: {first_line(error)}'
        raise ConfigError(f'the oracle of {name}, {file}, cannot be imported: {reason}') from error
    oracle: Oracle | None = getattr(module, function, None)
    if oracle is None:
        raise MissingOracleError(f'{name} has no float64 oracle: {file} holds no function {function}')
    return oracle


def _by_place(module: str) -> str:
    """The oracle of a loss in this module, as a spec would name it; '' outside a package ``losses``."""
    *packages, file = module.split('.')
    if 'losses' not in packages:
        return ''
    at = len(packages) - 1 - packages[::-1].index('losses')
    packages[at] = 'oracles'
    return f'{".".join([*packages, file])}:{file}'


def run_oracle(oracle: Oracle, unit: Unit, values: Mapping[str, Tensor]) -> dict[str, Array]:
    """The oracle's outputs in float64, by name: ``loss``, and others if it computes them.

    Parameters of the loss are passed to the oracle like inputs.
    """
    return _run(oracle, unit, _options(unit), values)


def _options(unit: Unit) -> dict[str, Any]:
    return {**_with_defaults(type(unit.loss), unit.config), **unit.spec.overridden(unit.constants)}


def _run(oracle: Oracle, unit: Unit, options: Mapping[str, Any], values: Mapping[str, Tensor]) -> dict[str, Array]:
    tensors = {**{name: p.detach() for name, p in unit.loss.named_parameters()}, **values}
    arrays = {name: t.to(torch.float64).numpy() if t.is_floating_point() else t.numpy() for name, t in tensors.items()}
    with np.errstate(all='ignore'):
        value = oracle(unit.call.name, arrays, options)
    found = value if isinstance(value, Mapping) else {'loss': value}
    return {name: np.asarray(array, np.float64) for name, array in found.items()}


def _with_defaults(cls: type[nn.Module], config: Mapping[str, Any]) -> dict[str, Any]:
    """All constructor arguments of a loss; a nested loss's are completed too, with its ``oracle`` added."""
    given = {key: value for key, value in config.items() if key != 'type'}
    return {key: _filled(value) for key, value in constructor_options(cls, given).items()}


def _filled(value: Any) -> Any:
    if isinstance(value, Mapping):
        if 'type' not in value:
            return {key: _filled(item) for key, item in value.items()}
        cls = loss_class(value['type'])
        return {'oracle': oracle_of(cls), **_with_defaults(cls, value)}
    return [_filled(v) for v in value] if isinstance(value, list) else value


def finite_differences(oracle: Oracle, unit: Unit, values: Mapping[str, Tensor], name: str) -> Array:
    """The gradient of the oracle's sum with respect to one input, by central differences.

    Values that the oracle returns as ``held_<name>`` are held constant, because the loss has no gradient through them.
    """
    point = values[name].to(torch.float64)
    options = _options(unit)  # taken once, because it costs as much as a small oracle
    held = {n: torch.tensor(a) for n, a in _run(oracle, unit, options, values).items() if n.startswith(HELD_PREFIX)}
    gradient = np.zeros(point.numel())
    for at in range(point.numel()):
        # balances truncation against rounding in float64
        step = 1e-5 * max(1.0, abs(float(point.view(-1)[at])))
        ends = []
        for sign in (1.0, -1.0):
            moved = point.clone()
            moved.view(-1)[at] += sign * step
            found = _run(oracle, unit, options, {**values, **held, name: moved})
            ends.append(sum(float(found[loss].sum()) for loss in unit.call.losses))
        gradient[at] = (ends[0] - ends[1]) / (2.0 * step)
    return gradient.reshape(tuple(point.shape))
