"""Square loss of scores against signs."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, reduce_as_torch


@np.errstate(all='ignore')
def square_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of (1 - t s)²."""
    s, t = inputs['input'], inputs['target']
    losses = np.zeros(s.shape)
    for n in np.ndindex(s.shape):
        losses[n] = (1 - t[n] * s[n]) ** 2
    return reduce_as_torch(losses, options)
