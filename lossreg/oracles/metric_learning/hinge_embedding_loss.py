"""Hinge embedding loss of distances."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, reduce_as_torch


@np.errstate(all='ignore')
def hinge_embedding_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of x where y = 1, and of max(0, margin - x) where y = -1."""
    x, y = inputs['input'], inputs['target']
    losses = np.zeros(x.shape)
    for n in np.ndindex(x.shape):
        alike, apart = x[n], np.maximum(options['margin'] - x[n], 0)
        losses[n] = {1.0: alike, -1.0: apart}.get(float(y[n]), np.nan)
    return reduce_as_torch(losses, options)
