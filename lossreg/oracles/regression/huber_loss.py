"""Huber loss."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, reduce_as_torch


@np.errstate(all='ignore')
def huber_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of d²/2 where d ≤ δ, and δ (d - δ/2) elsewhere; d = |x - t|."""
    d, delta = np.abs(inputs['input'] - inputs['target']), options['delta']
    return reduce_as_torch(np.where(d <= delta, d**2 / 2, delta * (d - delta / 2)), options)
