"""Masked binary cross-entropy of logits."""

import numpy as np

from lossreg.oracles.masks import binary_cross_entropy, counted
from lossreg.oracles.reference import Array, Inputs, Options


@np.errstate(all='ignore')
def masked_bce_with_logits_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = Σ m ℓ / (Σ m + ε)."""
    x, t, m = counted(inputs)
    summed = (m * binary_cross_entropy(x, t, logits=True)).sum()
    return np.asarray(summed / (m.sum() + options['eps']) if m.any() else 0.0)
