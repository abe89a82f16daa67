"""L2 penalty."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, reduce


def l2_penalty(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = loss_weight · reduction of x²."""
    x = inputs['input']
    penalties = np.zeros(x.shape)
    for n in np.ndindex(x.shape):
        penalties[n] = x[n] ** 2
    return reduce(penalties, options)
