"""A request to export or check a loss, and the units that it consists of."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lossreg.errors import ConfigError, LossregError
from lossreg.head_calls import UNKNOWN, HeadCall
from lossreg.registry import build_loss, loss_class
from lossreg.spec import Call, spec_of
from lossreg.unit import Unit, allowed_calls, as_called
from lossreg.untrusted import read_weight


@dataclass(frozen=True)
class Request:
    """A loss, the config it was built from, and how it is to be called.

    Attributes:
        loss: the instance.
        config: ``type`` and the arguments given.
        variant: a short name for the config.
        call_name: the requested call; '' for all that the instance allows.
        host_class: the host class it stands in for, if a host's config names that.
        heads: the places in a config that call it, such as ``mmseg.FCNHead.loss_decode``. A place whose call is unknown
            begins with ``unknown: ``.
        optional: the optional inputs that the heads give; None if there is no head, or its call is unknown.
        constants: the other arguments that the heads give.
    """

    loss: nn.Module
    config: Mapping[str, Any]
    variant: str
    call_name: str = ''
    host_class: str = ''
    heads: tuple[str, ...] = ()
    optional: tuple[str, ...] | None = None
    constants: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls, loss: nn.Module | Mapping[str, Any] | str, *, variant: str = '', call_name: str = '', host_class: str = ''
    ) -> Request:
        """A request from a config dict, a name, or an instance.

        A loss built here is initialised from a fixed seed, so that two exports of a config are equal.

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
        return cls(built, config, variant or _variant_name(built, given), call_name, host_class)

    def called_by(self, head: HeadCall) -> Request:
        """This request, with the call of a head. Its constants make another variant, so that files get another name."""
        variant = self.variant
        if head.constants:
            variant = _hashed({'variant': variant, **head.constants})
        return replace(
            self,
            call_name=head.call_name or self.call_name,
            heads=(head.place,),
            optional=head.optional,
            constants=head.constants,
            variant=variant,
        )

    def is_same_call(self, other: Request) -> bool:
        """Whether the other gives the same artefacts."""
        mine, others = ((r.config, r.call_name, r.optional, r.constants) for r in (self, other))
        return mine == others

    @property
    def unknown_heads(self) -> tuple[str, ...]:
        """The places whose call is unknown."""
        return tuple(head.removeprefix(UNKNOWN) for head in self.heads if head.startswith(UNKNOWN))

    @property
    def as_called(self) -> nn.Module:
        """The loss as its spec must see it: see :func:`lossreg.unit.as_called`."""
        return as_called(self.loss, self.constants)

    @property
    def is_callable(self) -> bool:
        """Whether this instance has a call that can be exported and checked; some wrappers have none."""
        return bool(allowed_calls(self.loss, self.constants))

    def calls(self) -> tuple[Call, ...]:
        """The calls that this instance allows, or only the requested one.

        Raises:
            ConfigError: the instance does not allow the requested call, or has no call at all.
        """
        allowed = allowed_calls(self.loss, self.constants)
        if not allowed:
            raise ConfigError(
                f'{type(self.loss).__name__} with this config has no call that could be exported or checked'
            )
        if not self.call_name:
            return allowed
        chosen = tuple(c for c in allowed if c.name == self.call_name)
        if not chosen:
            names = ', '.join(c.name for c in allowed)
            raise ConfigError(
                f'{type(self.loss).__name__} has no call {self.call_name!r} with this config; it has {names}'
            )
        return chosen

    def units(self, every_set: bool = False) -> Iterator[Unit]:
        """The units of this loss: each call without and with all optional inputs, or with ``every_set`` of them.

        If a head calls the loss, only the set that it gives.
        """
        for call in self.calls():
            sets = [self.optional] if self.optional is not None else _optional_sets(self.takes(call), every_set)
            for present in sets:
                yield self.unit(call, present)

    def takes(self, call: Call) -> list[str]:
        """The names of a call's optional inputs."""
        return [i.name for i in call.inputs if i.optional and i.when(self.as_called)]

    def unit(self, call: Call, present: Iterable[str]) -> Unit:
        """The unit of one call with the optional inputs in ``present``."""
        kept = tuple(i for i in call.inputs if i.when(self.as_called) and (not i.optional or i.name in present))
        return Unit(
            self.loss,
            self.config,
            self.variant,
            call,
            kept,
            spec_of(self.loss),
            host_class=self.host_class,
            constants=self.constants,
            heads=self.heads,
        )


def variants_of(name: str, variant: str = '') -> list[Request]:
    """A request for each variant that a loss's spec declares, or for one of them.

    Raises:
        ConfigError: there is no such loss or variant.
    """
    cls = loss_class(name)
    declared = spec_of(cls).variants
    if variant and variant not in declared:
        raise ConfigError(f'{name} has no variant {variant!r}; see `lossreg show {name}`')
    chosen = {variant: declared[variant]} if variant else declared
    return [Request.of({'type': cls, **options}, variant=known) for known, options in chosen.items()]


def _build_seeded(cfg: Mapping[str, Any] | str) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_loss(cfg)


WEIGHT_FILES = ('.npy', '.json', '.yaml', '.yml', '.pkl', '.pickle')


def _with_numbers(options: Mapping[str, Any]) -> dict[str, Any]:
    """A config with the content of weight files in place of their names, so that artefacts need no other file.

    Raises:
        ConfigError: a file cannot be read, or does not hold numbers.
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
    """The constructor arguments of an instance that differ from the defaults; a loss keeps each under its name."""
    given = {}
    for name, parameter in inspect.signature(type(loss)).parameters.items():
        value = getattr(loss, name, parameter.default)
        value = value.tolist() if isinstance(value, Tensor) else value
        if value != parameter.default:
            # a config holds lists
            given[name] = list(value) if isinstance(value, tuple) else value
    return given


def _variant_name(loss: nn.Module, given: Mapping[str, Any]) -> str:
    """The name of the variant with these arguments, or a short hash of them."""
    for name, options in spec_of(loss).variants.items():
        if dict(options) == dict(given):
            return name
    return _hashed(given)


def _hashed(given: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(given, sort_keys=True, default=str).encode()).hexdigest()[:8]


def _optional_sets(names: Sequence[str], every_set: bool) -> list[tuple[str, ...]]:
    if every_set:
        return [chosen for count in range(len(names) + 1) for chosen in combinations(names, count)]
    return [(), tuple(names)] if names else [()]
