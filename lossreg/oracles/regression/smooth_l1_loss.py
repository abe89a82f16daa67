"""Smooth L1 loss."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, reduce, weighted


@np.errstate(all='ignore')
def smooth_l1_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of w · ℓ, with ℓ = d²/(2β) where d < β, and d - β/2 elsewhere; d = |x - t|."""
    d, beta = np.abs(inputs['pred'] - inputs['target']), options['beta']
    losses = np.where(d < beta, d**2 / (2 * beta), d - beta / 2)
    return reduce(weighted(losses, inputs.get('weight')), options, inputs.get('avg_factor'))
