"""mmpretrain's sigmoid focal loss."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, log_sigmoid, reduce, times


@np.errstate(all='ignore')
def pretrain_focal_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of w_n · (α t + (1 - α)(1 - t)) · ((1 - p) t + p (1 - t))^γ · BCE(p, t), p = σ(pred).

    t is the target, or [k = y_n] in the call ``labels``.
    """
    pred, target, weight = inputs['pred'], inputs['target'], inputs.get('weight')
    losses = np.zeros(pred.shape)
    for n, k in np.ndindex(pred.shape):
        w = 1.0 if weight is None else weight[n]
        if w == 0:
            continue
        t = float(target[n] == k) if call == 'labels' else target[n, k]
        log_p, log_q = log_sigmoid(pred[n, k]), log_sigmoid(-pred[n, k])
        alpha = options['alpha'] * t + (1 - options['alpha']) * (1 - t)
        focus = (np.exp(log_q) * t + np.exp(log_p) * (1 - t)) ** options['gamma']
        losses[n, k] = -w * alpha * focus * (times(t, log_p) + times(1 - t, log_q))
    return reduce(losses, options, inputs.get('avg_factor'), eps=0.0)
