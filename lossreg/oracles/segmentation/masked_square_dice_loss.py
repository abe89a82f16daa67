"""Dice loss of masked maps, with squares in the denominator."""

import numpy as np

from lossreg.oracles.masks import counted
from lossreg.oracles.reference import Array, Inputs, Options


@np.errstate(all='ignore')
def masked_square_dice_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = mean over the samples of 1 - 2 Σ mp mt / ((Σ (mp)² + ε) + (Σ (mt)² + ε))."""
    losses, eps = [], options['eps']
    for n in range(len(inputs['gt'])):
        p, t, m = counted({name: array[n] for name, array in inputs.items()})
        losses.append(1 - 2 * (m * p * m * t).sum() / (((m * p) ** 2).sum() + eps + ((m * t) ** 2).sum() + eps))
    return np.asarray(np.mean(losses) if losses else 0.0)
