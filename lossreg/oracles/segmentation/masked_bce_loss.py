"""Masked binary cross-entropy of probabilities."""

import numpy as np

from lossreg.oracles.masks import binary_cross_entropy, counted
from lossreg.oracles.reference import Array, Inputs, Options


@np.errstate(all='ignore')
def masked_bce_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = Σ m ℓ / (Σ m + ε)."""
    p, t, m = counted(inputs)
    summed = (m * binary_cross_entropy(p, t, logits=False)).sum()
    return np.asarray(summed / (m.sum() + options['eps']) if m.any() else 0.0)
