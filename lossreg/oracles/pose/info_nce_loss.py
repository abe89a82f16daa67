"""InfoNCE loss that spreads the features of different instances."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, log_softmax


@np.errstate(all='ignore')
def info_nce_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = loss_weight · Σ_i -log softmax_j(cos(x_i, x_j) / temperature) at j = i; lengths are at least 1e-12."""
    units = [x / np.maximum(np.linalg.norm(x), 1e-12) for x in inputs['features']]
    summed = 0.0
    for i, x in enumerate(units):
        cosines = np.array([float(np.sum(x * y)) for y in units])
        summed -= log_softmax(cosines / options['temperature'])[i]
    return np.asarray(options['loss_weight'] * summed)
