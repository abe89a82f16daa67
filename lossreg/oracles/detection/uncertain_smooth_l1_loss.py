"""Smooth L1 loss with a predicted uncertainty."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, reduce


@np.errstate(all='ignore')
def uncertain_smooth_l1_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of w · (exp(-σ) · ρ(|x - t|) + α σ), with ρ(d) = d² / 2β where d < β, else d - β / 2."""
    weight, beta = inputs.get('weight'), options['beta']
    losses = np.zeros(inputs['pred'].shape)
    for n in np.ndindex(losses.shape):
        w = 1.0 if weight is None else weight[n]
        if w != 0:
            error = np.abs(inputs['pred'][n] - inputs['target'][n])
            error = error**2 / (2 * beta) if error < beta else error - beta / 2
            sigma = inputs['sigma'][n]
            losses[n] = w * (np.exp(-sigma) * error + options['alpha'] * sigma)
    return reduce(losses, options, inputs.get('avg_factor'))
