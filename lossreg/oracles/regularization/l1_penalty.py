"""L1 penalty."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, reduce


def l1_penalty(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = loss_weight · reduction of |x|."""
    x = inputs['input']
    penalties = np.zeros(x.shape)
    for n in np.ndindex(x.shape):
        penalties[n] = x[n] if x[n] > 0 else -x[n]
    return reduce(penalties, options)
