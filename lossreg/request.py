"""A loss somebody asked for, and the units that exporting or checking it comes to."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lossreg.errors import ConfigError, LossregError
from lossreg.registry import build_loss, loss_class
from lossreg.spec import Call, calls_of, spec_of
from lossreg.unit import Unit
from lossreg.untrusted import read_weight


@dataclass(frozen=True)
class Request:
    """A loss, the config it was built from, and how it is to be called.

    Attributes:
        loss: the instance.
        config: ``type`` and the arguments given.
        variant: a short name for the config.
        call: the call asked for; empty for all it allows.
        host: the host class it stands in for, where a host's config asked for it.
    """

    loss: nn.Module
    config: Mapping[str, Any]
    variant: str
    call: str = ''
    host: str = ''

    @classmethod
    def of(
        cls, loss: nn.Module | Mapping[str, Any] | str, *, variant: str = '', call: str = '', host: str = ''
    ) -> Request:
        """A request from a config dict, a name, or an instance.

        Parameters of a loss built here are always initialised alike: two exports of a config are equal.

        Raises:
            ConfigError: the config cannot be built.
        """
        if isinstance(loss, nn.Module):
            built, given = loss, _given(loss)
        else:
            loss = loss if isinstance(loss, str) else _with_numbers(loss)
            built = _build_seeded(loss)
            given = {} if isinstance(loss, str) else {k: v for k, v in loss.items() if k not in ('type', '_scope_')}
        config = {'type': f'lossreg.{type(built).__name__}', **given}
        return cls(built, config, variant or _variant_name(built, given), call, host)

    @property
    def is_callable(self) -> bool:
        """Whether this instance has a call that can be exported and checked: some wrappers have none."""
        return any(call.when(self.loss) for call in calls_of(self.loss))

    def calls(self, any_call: bool = False) -> tuple[Call, ...]:
        """The calls this instance allows; only the one asked for, unless ``any_call``.

        Raises:
            ConfigError: the call asked for does not exist, or not for this instance, or it has none at all.
        """
        allowed = tuple(c for c in calls_of(self.loss) if c.when(self.loss))
        if not allowed:
            raise ConfigError(
                f'{type(self.loss).__name__} with this config has no call that could be exported or checked'
            )
        if any_call or not self.call:
            return allowed
        chosen = tuple(c for c in allowed if c.name == self.call)
        if not chosen:
            names = ', '.join(c.name for c in allowed)
            raise ConfigError(f'{type(self.loss).__name__} has no call {self.call!r} with this config; it has {names}')
        return chosen

    def units(self, every_set: bool = False) -> Iterator[Unit]:
        """The units of this loss: per call, without and with all optional inputs, or with ``every_set`` of them."""
        for call in self.calls():
            optional = [i.name for i in call.inputs if i.optional and i.when(self.loss)]
            for present in _optional_sets(optional, every_set):
                yield self.unit(call, present)

    def unit(self, call: Call, present: Iterable[str]) -> Unit:
        """The unit of one call with the optional inputs named present."""
        kept = tuple(i for i in call.inputs if i.when(self.loss) and (not i.optional or i.name in present))
        return Unit(self.loss, self.config, self.variant, call, kept, spec_of(self.loss))


def variants_of(name: str) -> list[Request]:
    """One request for each variant a loss's spec declares."""
    cls = loss_class(name)
    return [Request.of({'type': cls, **options}, variant=variant) for variant, options in spec_of(cls).variants.items()]


def _build_seeded(cfg: Mapping[str, Any] | str) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_loss(cfg)


WEIGHT_FILES = ('.npy', '.json', '.yaml', '.yml', '.pkl', '.pickle')


def _with_numbers(options: Mapping[str, Any]) -> dict[str, Any]:
    """A config that holds the numbers of weights whose files it names: an artefact's must not depend on other files.

    Raises:
        ConfigError: a file cannot be read, or holds something else.
    """
    return {key: _numbers(key, value) for key, value in options.items()}


def _numbers(key: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return _with_numbers(value)
    if isinstance(value, list):
        return [_numbers('', item) for item in value]
    is_weight = isinstance(key, str) and (key.endswith('weight') or key == 'alpha')
    if not is_weight or not isinstance(value, str) or not value.endswith(WEIGHT_FILES):
        return value
    try:
        found = read_weight(value)
    except LossregError:
        raise
    except Exception as error:  # a pickle may raise anything
        raise ConfigError(f'{value} cannot be read as {key}: {error}') from error
    return found.tolist() if isinstance(found, (np.ndarray, Tensor)) else found


def _given(loss: nn.Module) -> dict[str, Any]:
    """The constructor arguments of an instance that are not the defaults: a loss keeps each under its name."""
    given = {}
    for name, parameter in inspect.signature(type(loss)).parameters.items():
        value = getattr(loss, name, parameter.default)
        value = value.tolist() if isinstance(value, Tensor) else value
        if value != parameter.default:
            # a config holds lists
            given[name] = list(value) if isinstance(value, tuple) else value
    return given


def _variant_name(loss: nn.Module, given: Mapping[str, Any]) -> str:
    """The variant these arguments are, or a short hash of them."""
    for name, options in spec_of(loss).variants.items():
        if dict(options) == dict(given):
            return name
    return hashlib.sha256(json.dumps(given, sort_keys=True, default=str).encode()).hexdigest()[:8]


def _optional_sets(names: list[str], every_set: bool) -> list[tuple[str, ...]]:
    if every_set:
        return [chosen for count in range(len(names) + 1) for chosen in combinations(names, count)]
    return [(), tuple(names)] if names else [()]
