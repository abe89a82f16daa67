"""Balanced binary cross-entropy of probabilities."""

import numpy as np

from lossreg.oracles.masks import balanced
from lossreg.oracles.reference import Array, Inputs, Options


@np.errstate(all='ignore')
def masked_balanced_bce_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = (Σ mt ℓ + Σ of the k largest m(1 - t) ℓ) / (⌊Σ mt⌋ + k + ε)."""
    return balanced(inputs, options, logits=False)
