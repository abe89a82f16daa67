"""Which of our classes stands in for a host's class: derived from the specs, never kept by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from lossreg.errors import ConfigError
from lossreg.registry import build_loss, load_losses
from lossreg.spec import HostClass, spec_of


@dataclass(frozen=True)
class StandIn:
    """Our class for a host's class, and how to use it so."""

    loss: type[nn.Module]
    host_class: HostClass

    @property
    def name(self) -> str:
        """The name to write in a config."""
        return f'lossreg.{self.loss.__name__}'

    def options(self, given: dict[str, Any]) -> dict[str, Any]:
        """Constructor arguments of ours for those given to the host's class."""
        return {**self.host_class.defaults, **given}


def build_nested(config: Mapping[str, Any], package: str) -> nn.Module:
    """A loss from its config inside that of a wrapper, which stands in for one of a host's.

    Raises:
        ConfigError: the config cannot be built, or its plain name means another loss to the host.
    """
    name = config.get('type')
    meant = stand_ins().get(f'{package}.{name}')
    if meant is not None and meant.loss.__name__ != name:
        raise ConfigError(f'{name} means {package}.{name} here; write {meant.name}, or lossreg.{name} for that one')
    return build_loss(config)


def stand_ins() -> dict[str, StandIn]:
    """All stand-ins by the host's full class name, such as ``mmdet.FocalLoss``."""
    return {
        host_class.name: StandIn(loss, host_class)
        for loss in load_losses().values()
        for host_class in spec_of(loss).stands_in_for
    }
