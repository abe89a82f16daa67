"""Focal loss against soft targets."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, log_sigmoid, reduce, times


@np.errstate(all='ignore')
def smooth_focal_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of w · (α t + (1 - α)(1 - t)) · ((1 - p) t + p (1 - t))^γ · BCE(p, t), p = σ(pred).

    w has one entry per sample, or one per element in the call ``elements``.
    """
    pred, target, weight = inputs['pred'], inputs['target'], inputs.get('weight')
    losses = np.zeros(pred.shape)
    for n, c in np.ndindex(pred.shape):
        w = 1.0 if weight is None else weight[n, c] if weight.ndim == 2 else weight[n]
        if w == 0:
            continue
        t, log_p, log_q = target[n, c], log_sigmoid(pred[n, c]), log_sigmoid(-pred[n, c])
        balance = options['alpha'] * t + (1 - options['alpha']) * (1 - t)
        miss = np.exp(log_q) * t + np.exp(log_p) * (1 - t)
        entropy = -(times(t, log_p) + times(1 - t, log_q))
        losses[n, c] = w * balance * times(miss ** options['gamma'], entropy)
    return reduce(losses, options, inputs.get('avg_factor'))
