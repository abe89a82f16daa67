"""Varifocal loss."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, log_sigmoid, reduce, times


@np.errstate(all='ignore')
def varifocal_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of w f BCE(p, t), with p = σ(pred); f = t, or 1, where t > 0, and f = α |p - t|^γ elsewhere."""
    pred, target, weight = inputs['pred'], inputs['target'], inputs.get('weight')
    losses = np.zeros(pred.shape)
    for i in np.ndindex(pred.shape):
        if weight is not None and weight[i] == 0:
            continue
        x, t = float(pred[i]), float(target[i])
        log_p, log_q = log_sigmoid(x), log_sigmoid(-x)
        if t > 0:
            focus = t if options['iou_weighted'] else 1.0
        else:
            focus = options['alpha'] * np.abs(np.exp(log_p) - t) ** options['gamma']
        losses[i] = focus * -(times(t, log_p) + times(1 - t, log_q)) * (1.0 if weight is None else weight[i])
    return reduce(losses, options, inputs.get('avg_factor'))
