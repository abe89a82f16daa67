"""Distribution focal loss."""

import math

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, log_softmax, reduce, times


@np.errstate(all='ignore')
def distribution_focal_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of -w ((b + 1 - t) log p_b + (t - b) log p_{b+1}), with b = ⌊t⌋ and p = softmax(pred)."""
    pred, target, weight = inputs['pred'], inputs['target'], inputs.get('weight')
    losses = np.zeros(len(target))
    for n, t in enumerate(target):
        if weight is not None and weight[n] == 0:
            continue
        if math.isnan(t):
            losses[n] = np.nan
            continue
        b, log_p = int(t), log_softmax(pred[n])
        losses[n] = -times(b + 1 - t, log_p[b]) - times(t - b, log_p[b + 1])
        losses[n] *= 1.0 if weight is None else weight[n]
    return reduce(losses, options, inputs.get('avg_factor'))
