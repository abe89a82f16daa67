"""Checks of artefacts: exported, loaded again, and compared with eager on every case."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial

import numpy as np

from lossreg.checks.eager import exactly_zero, losses_of
from lossreg.checks.rows import Row, RowMaker, Status
from lossreg.compare import AGREED, Agreement, Outputs, compare, disagreement
from lossreg.errors import LossregError, MissingBackendError, first_line
from lossreg.exporters import build
from lossreg.formats import BACKENDS, SUFFIXES
from lossreg.runtimes import Eager, OnnxRuntime, Runtime, load
from lossreg.samples import Case, Expect, edge_cases, invalid_cases, numeric_cases
from lossreg.unit import Unit

SHAPE_OPERATORS = frozenset(
    {'Shape', 'Size', 'Gather', 'Equal', 'And', 'Where', 'Squeeze', 'Unsqueeze', 'Concat', 'Cast'}
)
"""The operators that ONNX Runtime may run on the CPU, because they compute sizes."""


def artefact_rows(unit: Unit, backends: Sequence[str], device: str) -> Iterator[Row]:
    """All rows of one unit on the backends that run artefacts."""
    built: dict[str, bytes] = {}
    cases = expected_cases(unit, Eager(unit, device=device))
    for backend in backends:
        maker = RowMaker(unit, backend)
        try:
            format = BACKENDS[backend]
            if format not in built:
                built.update(build(unit, sorted({BACKENDS[b] for b in backends})))
            runtime = load(built[format], SUFFIXES[format], _device(backend, device))
        except MissingBackendError as error:
            yield maker.row('load', Status.MISSING, str(error))
            continue
        except Exception as error:  # an exporter may raise anything; it is a finding
            name = '' if isinstance(error, LossregError) else f'{type(error).__name__}: '
            found = disagreement(f'{name}{first_line(error)}')
            yield maker.row('export', Status.FAIL, found.detail, found)
            continue
        yield from compare_rows(maker, runtime, cases)
        if backend == 'ort-cuda' and isinstance(runtime, OnnxRuntime):
            yield placement_row(maker, runtime.placement())


def _device(backend: str, device: str) -> str:
    return {'ort-cpu': 'cpu', 'ort-cuda': 'cuda'}.get(backend, device)


Expected = tuple[Case, Callable[[], Outputs]]
"""A case, and a function that returns eager's outputs for it."""


def expected_cases(unit: Unit, eager: Runtime) -> list[Expected]:
    """All cases of a unit that have numbers. Eager runs once per case, when its outputs are first needed."""
    return [(case, cache(partial(eager, case.values))) for case in (*numeric_cases(unit), *edge_cases(unit))]


def compare_rows(maker: RowMaker, runtime: Runtime, cases: Sequence[Expected]) -> Iterator[Row]:
    """Compares a runtime with eager on all cases, and runs the cases that it must refuse."""
    for case, expected in cases:
        yield maker.judge(case.name, _agree, maker.unit, case, runtime, expected)
    for case in invalid_cases(maker.unit):
        yield maker.judge(case.name, _refused, maker.unit, case, runtime)


def _agree(unit: Unit, case: Case, runtime: Runtime, eager: Callable[[], Outputs]) -> Agreement:
    if case.expect is Expect.DEFINED:
        try:
            eager()
        except ValueError:
            # a file compares sizes with each other, not with 0, so its output is undefined where eager raises
            return AGREED
    found, expected = runtime(case.values), eager()
    if case.expect is Expect.ZERO:
        return exactly_zero(unit, found, expected, case.values)
    if case.expect is Expect.VALUE:
        expected = losses_of(unit, expected)
    return compare(found, expected, unit.spec.tolerance, scaled=not case.smooth)


def _refused(unit: Unit, case: Case, runtime: Runtime) -> Agreement:
    """Whether an artefact refuses invalid inputs, by an error or by NaN in the loss and in the gradient."""
    try:
        found = runtime(case.values)
    except Exception:  # each runtime has its own errors
        return AGREED
    # in a sum, an illegal label affects the loss and gradient of one term
    spoiled = 1 if unit.call.is_sum and case.expect is Expect.BAD_LABEL else math.inf
    for group in (unit.call.losses, [name for name in found if name not in unit.results]):
        # an output without elements cannot be NaN
        sound = [name for name in group if found[name].size and not np.isnan(found[name]).any()]
        if len(sound) > max(len(group) - spoiled, 0):
            value = found[sound[0]].ravel()[:1]
            return disagreement(f'{sound[0]} is {value} instead of NaN or an error')
    return AGREED


def placement_row(maker: RowMaker, placement: dict[str, list[str]]) -> Row:
    """Whether the CUDA provider runs every node that does not compute sizes."""
    strays = {
        provider: sorted({op for op in operators if op not in SHAPE_OPERATORS})
        for provider, operators in placement.items()
        if provider != 'CUDAExecutionProvider'
    }
    found = '; '.join(f'{provider} runs {", ".join(ops)}' for provider, ops in strays.items() if ops)
    if not placement.get('CUDAExecutionProvider'):
        found = 'no node runs on the CUDA provider'
    counts = ', '.join(f'{len(operators)} nodes on {provider}' for provider, operators in sorted(placement.items()))
    return maker.row('placement', Status.FAIL if found else Status.PASS, found or counts)
