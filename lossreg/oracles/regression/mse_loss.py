"""Squared error."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, reduce, weighted


@np.errstate(all='ignore')
def mse_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of w · (x - t)²."""
    losses = (inputs['pred'] - inputs['target']) ** 2
    return reduce(weighted(losses, inputs.get('weight')), options, inputs.get('avg_factor'))
