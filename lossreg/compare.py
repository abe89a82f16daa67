"""Compares what two backends computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lossreg.spec import Tolerance

Outputs = Mapping[str, NDArray[np.floating]]


@dataclass(frozen=True)
class Agreement:
    """How far two results are apart; ``detail`` is empty where they agree.

    ``max_rel`` is the largest error of an output over that output's largest number, or over ``atol`` if that is larger.
    """

    max_abs: float
    max_rel: float
    detail: str = ''

    def __bool__(self) -> bool:
        return not self.detail


def compare(actual: Outputs, expected: Outputs, tolerance: Tolerance, scaled: bool = False) -> Agreement:
    """Compares outputs by name: same shapes, same NaN and infinities, |a - b| <= atol + rtol |b| elsewhere.

    Integers are counts, which must be equal.

    Args:
        actual: what a backend returned.
        expected: what it should have returned. Names missing in ``actual`` are a disagreement.
        tolerance: the error allowed.
        scaled: whether ``atol`` grows with the largest number expected: in extreme inputs a small element comes of the
            cancellation of large ones, and float32 holds it no better than that.
    """
    worst_abs = worst_rel = 0.0
    for name, want in expected.items():
        if name not in actual:
            return Agreement(np.inf, np.inf, f'output {name} is missing')
        got = actual[name]
        if got.shape != want.shape:
            return Agreement(np.inf, np.inf, f'{name} has shape {list(got.shape)}, expected {list(want.shape)}')
        is_count = np.issubdtype(got.dtype, np.integer) or np.issubdtype(want.dtype, np.integer)
        got, want = got.astype(np.float64), want.astype(np.float64)
        finite = np.isfinite(want)
        odd = ~finite & ~((got == want) | (np.isnan(got) & np.isnan(want))) | (finite & ~np.isfinite(got))
        if odd.any():
            return Agreement(np.inf, np.inf, f'{name} is {got[odd][0]}, expected {want[odd][0]}')
        if not finite.any():
            continue
        error = np.abs(got[finite] - want[finite])
        size = np.abs(want[finite])
        atol = tolerance.atol * max(1.0, float(size.max())) if scaled else tolerance.atol
        worst_abs = max(worst_abs, float(error.max()))
        worst_rel = max(worst_rel, float(error.max() / max(size.max(), tolerance.atol)))
        excess = error if is_count else error - (atol + tolerance.rtol * size)
        if (excess > 0).any():
            at = int(np.argmax(excess))
            return Agreement(worst_abs, worst_rel, f'{name} is {got[finite][at]:.9g}, expected {want[finite][at]:.9g}')
    return Agreement(worst_abs, worst_rel)
