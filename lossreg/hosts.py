"""Which of our classes stands in for a host's class: derived from the specs, never kept by hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from lossreg.registry import load_losses
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


def stand_ins() -> dict[str, StandIn]:
    """All stand-ins by the host's full class name, such as ``mmdet.FocalLoss``."""
    return {
        host_class.name: StandIn(loss, host_class)
        for loss in load_losses().values()
        for host_class in spec_of(loss).stands_in_for
    }
