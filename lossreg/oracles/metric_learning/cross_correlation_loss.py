"""Cross-correlation loss (Barlow Twins)."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options


@np.errstate(all='ignore')
def cross_correlation_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = Σ_i (c_ii - 1)² + λ Σ_{i≠j} c_ij²."""
    c, summed = inputs['cross_correlation_matrix'], 0.0
    for i, j in np.ndindex(c.shape):
        summed += float((c[i, i] - 1) ** 2 if i == j else options['lambd'] * c[i, j] ** 2)
    return np.asarray(summed)
