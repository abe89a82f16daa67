"""Masked total variation."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, weighted


@np.errstate(all='ignore')
def masked_tv_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = mean of |x[i, j + 1] - x[i, j]| + mean of |x[i + 1, j] - x[i, j]|, each weighted by the mask at [i, j]."""
    x = inputs['pred']
    mask = np.broadcast_to(inputs.get('mask', 1.0), x.shape)
    total = 0.0
    for axis in (2, 3):
        count = x.shape[axis] - 1
        here, next_one = np.take(x, np.arange(count), axis), np.take(x, np.arange(1, count + 1), axis)
        weight = np.take(mask, np.arange(count), axis)
        if weight.sum() != 0:  # nothing to average over: 0
            total += weighted(np.abs(next_one - here), weight).sum() / weight.sum()
    return np.asarray(options['loss_weight'] * total)
