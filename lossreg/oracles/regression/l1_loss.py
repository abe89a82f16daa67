"""L1 loss."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, reduce, weighted


@np.errstate(all='ignore')
def l1_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of w · |x - t|."""
    losses = np.abs(inputs['pred'] - inputs['target'])
    return reduce(weighted(losses, inputs.get('weight')), options, inputs.get('avg_factor'))
