"""mmaction's negative log-likelihood."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options


@np.errstate(all='ignore')
def action_nll_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = loss_weight · -mean of x_ny over the samples with y ≠ -100; x holds log-probabilities."""
    summed, count = 0.0, 0
    for x, y in zip(inputs['cls_score'], inputs['label'], strict=True):
        if y != -100:
            summed -= float(x[y])
            count += 1
    return np.asarray(options['loss_weight'] * summed / count if count else 0.0)
