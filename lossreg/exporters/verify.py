"""Holds an artefact against eager before anyone sees it: at another shape than the traced one, on extreme inputs."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lossreg.archive import ArchiveError
from lossreg.compare import compare
from lossreg.errors import first_line
from lossreg.runtimes import Eager, load
from lossreg.samples import numeric_cases
from lossreg.unit import Unit


@dataclass(frozen=True)
class Verdict:
    """The worst error over all cases. ``detail`` says what disagreed; it is empty for a good artefact."""

    max_abs: float
    max_rel: float
    cases: int
    detail: str = ''

    def __bool__(self) -> bool:
        return not self.detail


def verify(unit: Unit, data: bytes, suffix: str, grad: bool) -> Verdict:
    """Loads an artefact from its bytes and compares it with eager on all numeric cases."""
    eager = Eager(unit, grad)
    try:
        runtime = load(data, suffix)
    except ArchiveError as error:
        return Verdict(math.inf, math.inf, 0, f'it cannot be loaded again: {error}')
    worst_abs = worst_rel = 0.0
    count = 0
    for case in numeric_cases(unit):
        try:
            outputs = runtime(case.inputs)
        except Exception as error:  # each runtime has errors of its own
            return Verdict(math.inf, math.inf, count, f'on {case.name} inputs it fails: {first_line(error)}')
        found = compare(outputs, eager(case.inputs), unit.spec.tolerance, scaled=not case.smooth)
        if not found:
            return Verdict(found.max_abs, found.max_rel, count, f'on {case.name} inputs {found.detail}')
        worst_abs, worst_rel = max(worst_abs, found.max_abs), max(worst_rel, found.max_rel)
        count += 1
    return Verdict(worst_abs, worst_rel, count)
