"""The arc tangent in float32, from operators with CUDA kernels: ONNX Runtime has no CUDA kernel for ``Atan``."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from onnxscript import opset18 as op

COEFFICIENTS = (8.05374449538e-2, -1.38776856032e-1, 1.99777106478e-1, -3.33329491539e-1)
"""p of atan y = y + y^3 p(y^2) for abs(y) <= tan(pi / 8), the highest power first (Cephes, ``atanf``)."""

RIGHT_ANGLE = float(np.float32(math.pi / 2))
RIGHT_ANGLE_REST = math.pi / 2 - RIGHT_ANGLE
"""The rounding error of pi / 2 in float32: without it, more results would be off by a unit or two."""


def arc_tangent(x: Any) -> Any:
    """atan x, off by at most 2.3 units in the last place; ONNX Runtime's CPU kernel is off by up to 3.7.

    With t = tan(pi / 8), atan abs(x) is atan y for y = abs(x) below t, pi / 4 + atan y for
    y = (abs(x) - 1) / (abs(x) + 1) below 1 / t, and pi / 2 + atan y for y = -1 / abs(x) above.
    """
    size, one = op.Abs(x), _number(1.0)
    is_middle = op.Greater(size, _number(math.tan(math.pi / 8)))
    is_large = op.Greater(size, _number(1.0 / math.tan(math.pi / 8)))

    def chosen(large: Any, middle: Any, small: Any) -> Any:
        return op.Where(is_large, large, op.Where(is_middle, middle, small))

    y = op.Div(chosen(_number(-1.0), op.Sub(size, one), size), chosen(size, op.Add(size, one), one))
    square = op.Mul(y, y)
    p = _number(COEFFICIENTS[0])
    for coefficient in COEFFICIENTS[1:]:
        p = op.Add(op.Mul(p, square), _number(coefficient))
    angle = op.Add(op.Mul(op.Mul(p, square), y), y)
    for part in (RIGHT_ANGLE_REST, RIGHT_ANGLE):
        angle = op.Add(angle, chosen(_number(part), _number(part / 2), _number(0.0)))
    return op.Where(op.Less(x, _number(0.0)), op.Neg(angle), angle)


def _number(value: float) -> Any:
    return op.Constant(value_float=value)
