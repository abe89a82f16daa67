"""Asymmetric loss of multi-label classification."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, log_sigmoid, log_softmax, reduce


@np.errstate(all='ignore')
def asymmetric_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of -w_n · (1 - q)^γ · log max(q, ε), with γ = γ_+ t + γ_- (1 - t).

    q = t p + (1 - t) min(1 - p + clip, 1), with p = σ(pred), or the softmax of pred. t is the target, or [k = y_n] in
    the call ``labels``.
    """
    pred, target, weight = inputs['pred'], inputs['target'], inputs.get('weight')
    clip = options['clip'] or 0.0
    losses = np.zeros(pred.shape)
    for n, k in np.ndindex(pred.shape):
        w = 1.0 if weight is None else weight[n]
        if w == 0:
            continue
        t = float(target[n] == k) if call == 'labels' else target[n, k]
        x = pred[n, k]
        p = np.exp(log_sigmoid(x) if options['use_sigmoid'] else log_softmax(pred[n])[k])
        without = np.exp(log_sigmoid(-x)) if options['use_sigmoid'] else 1 - p
        q = t * p + (1 - t) * np.minimum(without + clip, 1)
        gamma = options['gamma_pos'] * t + options['gamma_neg'] * (1 - t)
        losses[n, k] = (
            -w * (t * without + (1 - t) * np.maximum(p - clip, 0)) ** gamma * np.log(np.maximum(q, options['eps']))
        )
    return reduce(losses, options, inputs.get('avg_factor'), eps=0.0)
