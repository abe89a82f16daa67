"""Extended intersection over union of two boxes."""

import numpy as np

from lossreg.oracles.boxes import area, per_pair
from lossreg.oracles.reference import Array, Inputs, Options


@np.errstate(all='ignore')
def eiou_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of w · (x²/(2s) if x < s, else x - s/2), x = 1 - I / (U + eps); I < 0 for boxes apart."""
    eps, s = options['eps'], options['smooth_point']

    def loss(a: Array, b: Array) -> float:
        overlap = _signed_intersection(a, b)
        x = 1 - overlap / (area(a) + area(b) - overlap + eps)
        return float(x**2 / (2 * s) if x < s else x - s / 2)

    return per_pair(call, inputs, options, loss)


def _signed_intersection(a: Array, b: Array) -> float:
    """(x2 - x0)(y2 - y0) + (m - x0)(n - y0) - (x1 - x0)(N - y0) - (M - x0)(y1 - y0).

    x0, y0: first corner of the hull; x1, y1 and x2, y2: corners of the intersection; m, n and M, N: their min and max.
    """
    x0, y0 = np.minimum(a[:2], b[:2])
    x1, y1 = np.maximum(a[:2], b[:2])
    x2, y2 = np.minimum(a[2:], b[2:])
    m, n, big_m, big_n = np.minimum(x1, x2), np.minimum(y1, y2), np.maximum(x1, x2), np.maximum(y1, y2)
    return float(
        (x2 - x0) * (y2 - y0) + (m - x0) * (n - y0) - (x1 - x0) * (big_n - y0) - (big_m - x0) * (y1 - y0)
    )  # fmt: skip
