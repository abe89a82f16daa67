"""Checks a loss against its float64 oracle, and every backend against eager. The checks yield rows."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from lossreg.checks.backends import artefact_rows
from lossreg.checks.compiled import compiled_rows
from lossreg.checks.eager import eager_rows
from lossreg.checks.rows import Row, Status
from lossreg.formats import BACKENDS, COMPILERS, DEVICE_BACKENDS
from lossreg.unit import Unit

__all__ = ['Row', 'Status', 'check_unit']


def check_unit(
    unit: Unit,
    backends: Sequence[str] = DEVICE_BACKENDS['cpu'],
    device: str = 'cpu',
    gradients: Sequence[bool] = (False, True),
    waived: Collection[str] = (),
) -> Iterator[Row]:
    """All rows of one unit.

    Args:
        unit: the unit to check, alone and with its gradient.
        backends: which of :data:`lossreg.formats.BACKENDS` to check.
        device: where eager and TorchScript run.
        gradients: whether artefacts without gradient, with it, both or neither are checked. Under a compiler the loss
            counts as one.
        waived: the names of losses that need no float64 oracle.
    """
    if 'eager' in backends:
        yield from eager_rows(unit, device, waived)
    for compiler in (b for b in backends if b in COMPILERS and gradients):
        yield from compiled_rows(replace(unit, grad=max(gradients)), compiler, device)  # values come with gradients
    artefacts = [b for b in backends if BACKENDS[b]]
    for grad in gradients:
        yield from artefact_rows(replace(unit, grad=grad), artefacts, device)
