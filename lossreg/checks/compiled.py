"""Checks of the loss under torch.compile against eager, on every case."""

from __future__ import annotations

from collections.abc import Iterator

from lossreg.checks.backends import compare_rows, expected_cases
from lossreg.checks.rows import Row, RowMaker, Status
from lossreg.compare import AGREED, Agreement, disagreement
from lossreg.errors import MissingBackendError
from lossreg.formats import COMPILERS
from lossreg.runtimes import Compiled, Eager
from lossreg.samples import draw
from lossreg.unit import Unit
from lossreg.versions import require_export_layer

LATER_SIZES = (4, 9, 6, 8, 10)
"""Sizes that no case has. The graphs compiled for the cases must serve them too."""


def compiled_rows(unit: Unit, backend: str, device: str) -> Iterator[Row]:
    """All rows of one unit under torch.compile, with symbolic sizes and no graph breaks."""
    maker = RowMaker(unit, backend)
    try:
        require_export_layer('torch.compile of every loss')
    except MissingBackendError as error:
        yield maker.row('load', Status.MISSING, str(error))
        return
    runtime = Compiled(unit, COMPILERS[backend], device)
    yield from compare_rows(maker, runtime, expected_cases(unit, Eager(unit, device=device)))
    yield maker.judge('no more graphs', _no_more_graphs, unit, runtime)


def _no_more_graphs(unit: Unit, runtime: Compiled) -> Agreement:
    """Whether new sizes need no compilation; otherwise training would compile for every batch."""
    before = runtime.graphs
    runtime(draw(unit, sizes=unit.sizes(LATER_SIZES), seed=8))
    more = runtime.graphs - before
    return disagreement(f'{more} more graphs compiled for new sizes') if more else AGREED
