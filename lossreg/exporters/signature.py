"""The inputs and outputs of a graph, which computes a loss or a training step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lossreg.artefact import metadata
from lossreg.unit import Unit


@dataclass(frozen=True)
class Port:
    """One input of a graph.

    Attributes:
        name: its name in the file.
        dims: a number for a fixed dimension, a symbol for a dynamic one. Equal symbols mean equal sizes.
    """

    name: str
    dims: tuple[str, ...]

    @property
    def dynamic(self) -> dict[int, str]:
        """The symbols of the dynamic dimensions, by axis."""
        return {axis: dim for axis, dim in enumerate(self.dims) if not dim.isdigit()}


@dataclass(frozen=True)
class Signature:
    """The inputs and outputs of a graph.

    Attributes:
        name: the name of the graph.
        inputs: its inputs, in order.
        outputs: the names of its outputs, in order.
        metadata: the metadata of the file.
        guard: the input that becomes NaN if sizes do not match; '' for all outputs.
        batch: the symbol of the dimension that may be 0; '' for none.
    """

    name: str
    inputs: tuple[Port, ...]
    outputs: tuple[str, ...]
    metadata: Mapping[str, Any]
    guard: str = ''
    batch: str = ''

    @classmethod
    def of(cls, unit: Unit) -> Signature:
        """The signature of a unit's artefact."""
        sizes = unit.sizes()
        ports = tuple(
            Port(i.name, tuple(d if d.isdigit() or unit.is_dynamic(d) else str(sizes[d]) for d in i.dims))
            for i in unit.taken
        )
        batch = '' if unit.batch in unit.fixed else unit.batch
        return cls(unit.name, ports, unit.outputs, metadata(unit), batch=batch)

    def shared_dimensions(self) -> Iterator[list[tuple[str, int]]]:
        """The dimensions, grouped by symbol, that must have the same size, each as input and axis."""
        places: dict[str, list[tuple[str, int]]] = {}
        for port in self.inputs:
            for axis, symbol in port.dynamic.items():
                places.setdefault(symbol, []).append((port.name, axis))
        return (found for found in places.values() if len(found) > 1)
