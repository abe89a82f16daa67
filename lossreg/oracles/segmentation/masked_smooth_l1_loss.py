"""Smooth L1 loss of masked maps."""

import numpy as np

from lossreg.oracles.masks import counted
from lossreg.oracles.reference import Array, Inputs, Options


@np.errstate(all='ignore')
def masked_smooth_l1_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = Σ s(mx - mt) / (Σ m + ε); β = 0 means ε.

    s(d) = d² / 2β up to |d| = β and |d| - β / 2 beyond.
    """
    x, t, m = counted(inputs)
    beta = options['beta'] or options['eps']
    d = np.abs(m * x - m * t)
    summed = np.where(d < beta, d * d / (2 * beta), d - beta / 2).sum()
    return np.asarray(summed / (m.sum() + options['eps']) if m.any() else 0.0)
