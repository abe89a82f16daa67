"""PKD."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options


@np.errstate(all='ignore')
def pkd_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = loss_weight · mean of (ŝ - t̂)² / 2, with x̂ = (x - μ_c) / (σ_c + 1e-6) in each channel.

    Where heights or widths differ, s is interpolated to the size of t if ``resize_stu``, else t to that of s.
    """
    s, t = inputs['preds_S'], inputs['preds_T']
    if options['resize_stu']:
        s = _resized(s, t.shape[2:])
    else:
        t = _resized(t, s.shape[2:])
    if not s.size:
        return np.asarray(0.0)
    total = 0.0
    for c in range(s.shape[1]):
        total += float(((_standardised(s[:, c]) - _standardised(t[:, c])) ** 2).sum())
    return np.asarray(options['loss_weight'] * total / s.size / 2)


def _standardised(x: Array) -> Array:
    """σ² = Σ (x - μ)² / (n - 1); σ is 0 for a single number or equal numbers."""
    if (x == x.flat[0]).all():
        return np.zeros(x.shape)
    result: Array = (x - x.mean()) / (x.std(ddof=1) + 1e-6)
    return result


def _resized(x: Array, size: tuple[int, ...]) -> Array:
    """Bilinear interpolation between pixel centres; border pixels extend outwards."""
    if x.shape[2:] == size:
        return x
    rows, columns = (_shares(old, new) for old, new in zip(x.shape[2:], size, strict=True))
    resized = np.zeros(x.shape[:2] + size)
    for i, j in np.ndindex(size):
        for h, w in zip(*np.nonzero(np.outer(rows[i], columns[j])), strict=True):
            resized[:, :, i, j] += rows[i, h] * columns[j, w] * x[:, :, h, w]
    return resized


def _shares(old: int, new: int) -> Array:
    """(new, old): the weight of each old position in each new one."""
    shares = np.zeros((new, old))
    for i in range(new):
        centre = min(max((i + 0.5) * old / new - 0.5, 0.0), old - 1.0)
        below = int(np.floor(centre))
        shares[i, below] += 1 - (centre - below)
        shares[i, min(below + 1, old - 1)] += centre - below
    return shares
