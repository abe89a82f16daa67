"""Smooth L1 loss, with torch's options."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, reduce_as_torch


@np.errstate(all='ignore')
def torch_smooth_l1_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of d²/(2β) where d < β, and d - β/2 elsewhere; d = |x - t|. With β = 0 that is d."""
    d, beta = np.abs(inputs['input'] - inputs['target']), options['beta']
    return reduce_as_torch(np.where(d < beta, d**2 / (2 * beta), d - beta / 2), options)
