"""Checks of eager: its numbers and gradient against the float64 oracle, and the numerical contract."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from functools import cache, partial

import numpy as np
import torch
from torch import Tensor

from lossreg.checks.oracle import HELD_PREFIX, MissingOracleError, Oracle, finite_differences, oracle_of, run_oracle
from lossreg.checks.rows import Row, RowMaker, Status
from lossreg.compare import AGREED, Agreement, Outputs, compare, disagreement
from lossreg.errors import ConfigError, first_line
from lossreg.fused.switch import portable_forms
from lossreg.runtimes import Eager, Runtime
from lossreg.samples import Case, Expect, Kind, draw, edge_cases, invalid_cases, numeric_cases
from lossreg.spec import Tolerance
from lossreg.unit import Unit

FLOAT64 = Tolerance(1e-7, 1e-9, 'options held in float32 and softplus beyond 20 differ that much from float64')
FINITE_DIFFERENCES = Tolerance(1e-5, 1e-7, 'central differences are not more accurate')

FEW = (3, 4, 2, 3, 2)
"""Small sizes for finite differences, which run the oracle twice per element."""


def eager_rows(unit: Unit, device: str, waived: Collection[str] = ()) -> Iterator[Row]:
    """All eager rows of one unit: values, gradients, edge cases, and inputs that must be refused.

    A loss without an oracle fails unless it is ``waived``. Its numbers are then compared with those of float64 eager.
    """
    oracle, fault = None, ''
    try:
        oracle = oracle_of(type(unit.loss))
    except MissingOracleError as error:
        fault = '' if unit.name in waived else f'{error}; write it, or waive it by name: --no-oracle {unit.name}'
    except ConfigError as error:
        fault = str(error)
    unit, with_gradient = replace(unit, grad=False), replace(unit, grad=True)
    makers = {
        dtype: RowMaker(unit, 'eager', str(dtype).removeprefix('torch.')) for dtype in (torch.float32, torch.float64)
    }
    runs = {dtype: Eager(with_gradient, dtype=dtype, device=device) for dtype in makers}
    if oracle is None:
        waiver = f'{unit.name} has no float64 oracle; waived by --no-oracle'
        yield makers[torch.float64].row('oracle', Status.FAIL if fault else Status.SKIP, fault or waiver)
    for case in (*numeric_cases(unit), *edge_cases(unit)):
        expected = cache(partial(_expected, unit, oracle, case))
        for dtype, maker in makers.items():
            tolerance = FLOAT64 if dtype == torch.float64 else unit.spec.tolerance
            yield maker.judge(case.name, _values, unit, case, runs[dtype], expected, tolerance)
    if oracle is not None and unit.differentiable:
        maker = RowMaker(with_gradient, 'eager', 'float64')
        values = draw(unit, Kind.WIDE, unit.sizes(FEW), seed=1)
        yield maker.judge('finite differences', _gradient, with_gradient, oracle, values)
    for case in invalid_cases(unit):
        yield makers[torch.float32].judge(case.name, _refused, unit, case, device)


def _expected(unit: Unit, oracle: Oracle | None, case: Case) -> Outputs:
    """The oracle's numbers; without one, those of float64 eager."""
    if oracle is None:
        return losses_of(unit, Eager(unit, dtype=torch.float64)(case.values))
    return {n: a for n, a in run_oracle(oracle, unit, case.values).items() if not n.startswith(HELD_PREFIX)}


def _values(unit: Unit, case: Case, run: Runtime, oracle: Callable[[], Outputs], tolerance: Tolerance) -> Agreement:
    """The loss against what is expected, by its fast forms and by its portable ones."""
    fast = _values_of_form(unit, case, run, oracle, tolerance)
    if not fast or tolerance is FLOAT64:  # artefacts compute in float32, which is enough for the second form
        return fast
    with portable_forms():
        portable = _values_of_form(unit, case, run, oracle, tolerance)
    return fast.joined(portable if portable else disagreement(f'portable form: {portable.detail}'), cases=1)


def _values_of_form(
    unit: Unit, case: Case, run: Runtime, oracle: Callable[[], Outputs], tolerance: Tolerance
) -> Agreement:
    """The loss against what is expected; gradients finite, or 0 where they must be."""
    if case.expect is Expect.DEFINED:
        return _defined(unit, case, run, oracle, tolerance)
    found, expected = run(case.values), oracle()
    if case.expect is Expect.ZERO:
        return exactly_zero(unit, found, expected, case.values)
    if case.expect is Expect.NUMBERS:
        for name, value in found.items():
            if not np.isfinite(value).all():
                return disagreement(f'{name} is not finite')
    if case.expect is Expect.VALUE:
        expected = losses_of(unit, expected)
    return compare({name: found[name] for name in expected}, expected, tolerance, scaled=not case.smooth)


def _defined(unit: Unit, case: Case, run: Runtime, oracle: Callable[[], Outputs], tolerance: Tolerance) -> Agreement:
    """Whether an empty dimension gives a ValueError that names an input, or finite numbers.

    The numbers must be the oracle's if it has any: in NumPy, an empty array has no maximum, and its mean is NaN.
    """
    try:
        found = run(case.values)
    except ValueError as error:
        named = any(known in first_line(error) for i in unit.inputs for known in (i.name, *i.aliases))
        return Agreement(0.0, 0.0, '' if named else f'the message names no input: {first_line(error)}')
    for name, value in found.items():
        if not np.isfinite(value).all():
            return disagreement(f'{name} is not finite')
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', RuntimeWarning)
            expected = losses_of(unit, oracle())
    except (ValueError, IndexError, ZeroDivisionError):
        return AGREED
    known = {name: value for name, value in expected.items() if np.isfinite(value).all()}
    return compare({name: found[name] for name in known}, known, tolerance) if known else AGREED


def _gradient(unit: Unit, oracle: Oracle, values: Mapping[str, Tensor]) -> Agreement:
    found = Eager(unit, dtype=torch.float64)(values)
    expected = {f'grad_{i.name}': finite_differences(oracle, unit, values, i.name) for i in unit.differentiable}
    return compare(found, expected, FINITE_DIFFERENCES)


def _refused(unit: Unit, case: Case, device: str) -> Agreement:
    """Whether eager raises for invalid inputs and names them. On CUDA an illegal label gives NaN instead."""
    wanted = IndexError if case.expect is Expect.BAD_LABEL else ValueError
    try:
        found = Eager(unit, device=device)(case.values)
    except (IndexError, ValueError) as error:
        message = first_line(error)
        if not isinstance(error, wanted):
            return disagreement(f'raised {type(error).__name__} ({message}), not {wanted.__name__}')
        names = {i.name: (i.name, *i.aliases) for i in unit.inputs}
        named = [name for name in case.culprits if any(known in message for known in names[name])]
        needed = 1 if case.expect is Expect.BAD_LABEL else 2
        missing = f'the message names {named}, of {list(case.culprits)}: {message}' if len(named) < needed else ''
        return Agreement(0.0, 0.0, missing)
    losses = losses_of(unit, found)
    # in a sum, an illegal label makes one term NaN
    is_spoiled = (any if unit.call.is_sum else all)(np.isnan(loss).any() for loss in losses.values())
    if device != 'cpu' and case.expect is Expect.BAD_LABEL and is_spoiled:
        return AGREED
    return disagreement(f'returned {losses} instead of raising {wanted.__name__}')


def losses_of(unit: Unit, outputs: Outputs) -> Outputs:
    """The outputs that are differentiated."""
    return {name: outputs[name] for name in unit.call.losses}


def exactly_zero(unit: Unit, found: Outputs, expected: Outputs, values: Mapping[str, Tensor]) -> Agreement:
    """Whether loss and gradients are exactly 0, with the right shapes: any empty array would count as 0 otherwise."""
    shapes = {name: loss.shape for name, loss in losses_of(unit, expected).items()}
    shapes |= {f'grad_{i.name}': tuple(values[i.name].shape) for i in unit.differentiable}
    for name, shape in shapes.items():
        if name not in found:
            if name in expected:
                return disagreement(f'output {name} is missing')
            continue
        value = found[name]
        if value.shape != shape:
            return disagreement(f'{name} has shape {list(value.shape)}, expected {list(shape)}')
        if value.any():
            return Agreement(float(np.abs(value).max()), np.inf, f'{name} is not exactly 0')
    return AGREED
