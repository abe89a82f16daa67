"""Exponential loss of scores against signs."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, reduce_as_torch


@np.errstate(all='ignore')
def exponential_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of exp(-t s)."""
    s, t = inputs['input'], inputs['target']
    losses = np.zeros(s.shape)
    for n in np.ndindex(s.shape):
        losses[n] = np.exp(-t[n] * s[n])
    return reduce_as_torch(losses, options)
