"""L1 loss with a predicted uncertainty."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, reduce


@np.errstate(all='ignore')
def uncertain_l1_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of w · (exp(-σ) · |x - t| + α σ)."""
    weight = inputs.get('weight')
    losses = np.zeros(inputs['pred'].shape)
    for n in np.ndindex(losses.shape):
        w = 1.0 if weight is None else weight[n]
        if w != 0:
            error = np.abs(inputs['pred'][n] - inputs['target'][n])
            sigma = inputs['sigma'][n]
            losses[n] = w * (np.exp(-sigma) * error + options['alpha'] * sigma)
    return reduce(losses, options, inputs.get('avg_factor'))
