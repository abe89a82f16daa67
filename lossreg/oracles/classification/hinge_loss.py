"""Hinge loss of scores against signs."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, reduce_as_torch


@np.errstate(all='ignore')
def hinge_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of max(0, margin - t s), or its square."""
    s, t = inputs['input'], inputs['target']
    losses = np.zeros(s.shape)
    for n in np.ndindex(s.shape):
        hinge = np.maximum(options['margin'] - t[n] * s[n], 0)
        losses[n] = hinge**2 if options['squared'] else hinge
    return reduce_as_torch(losses, options)
