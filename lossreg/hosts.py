"""Which of our classes stands in for a host's class, derived from the specs."""

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
    """Our class for a host's class, and its options."""

    loss: type[nn.Module]
    host_class: HostClass

    @property
    def name(self) -> str:
        """The name to write in a config."""
        return f'lossreg.{self.loss.__name__}'

    def options(self, given: dict[str, Any]) -> dict[str, Any]:
        """Our constructor arguments for those given to the host's class."""
        return {**self.host_class.defaults, **given}


def build_nested(config: Mapping[str, Any], package: str) -> nn.Module:
    """Builds a loss nested in the config of a wrapper that stands in for a host's wrapper.

    Raises:
        ConfigError: the config cannot be built, or the host knows another loss by its plain name.
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
