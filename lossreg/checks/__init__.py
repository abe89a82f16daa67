"""Checks a loss against its float64 oracle, and every backend against eager. Plain functions that return rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lossreg.checks.backends import artefact_rows
from lossreg.checks.eager import eager_rows
from lossreg.checks.rows import Row, Status
from lossreg.unit import Unit

BACKENDS = ('eager', 'torchscript', 'pt2', 'ort-cpu', 'ort-cuda')

__all__ = ['BACKENDS', 'Row', 'Status', 'check_unit']


def check_unit(
    unit: Unit, backends: Sequence[str] = BACKENDS[:4], device: str = 'cpu', host: str = ''
) -> Iterator[Row]:
    """All rows of one unit.

    Args:
        unit: what to check.
        backends: which of :data:`BACKENDS` to check.
        device: where eager and TorchScript run.
        host: the host class the unit stands in for, noted in the rows.
    """
    if 'eager' in backends:
        yield from eager_rows(unit, device, host)
    artefacts = [b for b in backends if b != 'eager']
    for grad in (False, True):
        yield from artefact_rows(unit, artefacts, grad, device, host)
