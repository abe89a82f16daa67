"""Compares the outputs of two backends."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lossreg.spec import Tolerance

Array = NDArray[np.floating]
Outputs = Mapping[str, Array]


@dataclass(frozen=True)
class Agreement:
    """How much results differ; true if they agree.

    Attributes:
        max_abs: the largest error.
        max_rel: the largest error of an output over that output's largest number, or over ``atol`` if that is larger.
        detail: what disagrees; empty if nothing does.
        share: the largest error of a number as a share of its tolerance; results agree up to 1.
        cases: the number of input sets of which this is the worst.
    """

    max_abs: float
    max_rel: float
    detail: str = ''
    share: float = 0.0
    cases: int = 1

    def __post_init__(self) -> None:
        if self.detail and not self.share > 1.0:
            object.__setattr__(self, 'share', math.inf)  # a wrong shape, for example, exceeds any tolerance

    def __bool__(self) -> bool:
        return not self.detail

    def joined(self, other: Agreement, cases: int) -> Agreement:
        """The worst of both, out of ``cases`` cases, with the first disagreement."""
        return Agreement(
            max(self.max_abs, other.max_abs),
            max(self.max_rel, other.max_rel),
            self.detail or other.detail,
            max(self.share, other.share),
            cases,
        )


AGREED = Agreement(0.0, 0.0)
"""The agreement of equal results."""


def disagreement(detail: str) -> Agreement:
    """The agreement of results that are wrong by no measurable amount, such as a missing output."""
    return Agreement(math.inf, math.inf, detail)


def compare(actual: Outputs, expected: Outputs, tolerance: Tolerance, scaled: bool = False) -> Agreement:
    """Compares outputs by name: same shapes, same NaN and infinities, |a - b| <= atol + rtol |b| elsewhere.

    Integers are counts, which must be equal.

    Args:
        actual: the outputs of a backend.
        expected: the right outputs. It is a disagreement if one is missing in ``actual``, or if there are none.
        tolerance: the error allowed.
        scaled: whether ``atol`` grows with the largest number expected: for extreme inputs, small results come from the
            cancellation of large numbers, and float32 is no more accurate than that.
    """
    if not expected:
        return disagreement('there is nothing to compare')
    worst = AGREED
    for name, want in expected.items():
        if name not in actual:
            return disagreement(f'output {name} is missing')
        found = _compare_one(name, np.asarray(actual[name]), np.asarray(want), tolerance, scaled)
        worst = worst.joined(found, cases=1)
    return worst


def _compare_one(name: str, got: Array, want: Array, tolerance: Tolerance, scaled: bool) -> Agreement:
    if got.shape != want.shape:
        return disagreement(f'{name} has shape {list(got.shape)}, expected {list(want.shape)}')
    is_count = np.issubdtype(got.dtype, np.integer) or np.issubdtype(want.dtype, np.integer)
    got, want = got.astype(np.float64), want.astype(np.float64)
    finite = np.isfinite(want)
    odd = ~finite & ~((got == want) | (np.isnan(got) & np.isnan(want))) | (finite & ~np.isfinite(got))
    if odd.any():
        return disagreement(f'{name} is {got[odd][0]}, expected {want[odd][0]}')
    if not finite.any():
        return AGREED
    error = np.abs(got[finite] - want[finite])
    size = np.abs(want[finite])
    atol = tolerance.atol * max(1.0, float(size.max())) if scaled else tolerance.atol
    allowed = np.zeros_like(size) if is_count else atol + tolerance.rtol * size
    with np.errstate(divide='ignore', invalid='ignore'):
        shares = np.where(error == 0.0, 0.0, error / allowed)
    at = int(np.argmax(shares))
    share = float(shares[at])
    max_abs, max_rel = float(error.max()), float(error.max() / max(size.max(), tolerance.atol))
    if not share > 1.0:
        return Agreement(max_abs, max_rel, share=share)
    detail = f'{name} is {got[finite][at]:.9g}, expected {want[finite][at]:.9g}: {share:.3g} times the error allowed'
    return Agreement(max_abs, max_rel, detail, share)
