"""Sigmoid focal loss of pixels."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, log_sigmoid, reduce, times


@np.errstate(all='ignore')
def seg_focal_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of w_i c_k · (α_k t + (1 - α_k)(1 - t)) · ((1 - p) t + p (1 - t))^γ · BCE(p, t), p = σ(x).

    In the calls ``pixels`` and ``labels``, t = [y_i = k], or [y_i = 1] with one class; weights are per pixel.
    In the ``dense`` calls, t is the target of the class; a pixel whose largest target is that of the class
    ``ignore_index`` is ignored, and weights are per class and pixel.
    """
    pred, target, weight = inputs['pred'], inputs['target'], inputs.get('weight')
    classes, dense, ignored = pred.shape[1], call.startswith('dense'), options['ignore_index']
    c = np.full(classes, 1.0 if options['class_weight'] is None else options['class_weight'])
    alpha = np.full(classes, options['alpha'])
    losses = np.zeros(pred.shape)
    for element in np.ndindex(pred.shape):
        n, k, *at = element
        i = element if dense else (n, *at)  # index of the target and of its weight
        label = _largest(target[(n, slice(None), *at)]) if dense else target[i]
        w = c[k] * (1.0 if weight is None else weight[i])
        if label == ignored or w == 0:
            continue
        x, t = float(pred[element]), float(target[i] if dense else label == (1 if classes == 1 else k))
        log_p, log_q = float(log_sigmoid(x)), float(log_sigmoid(-x))
        alpha_t = alpha[k] * t + (1 - alpha[k]) * (1 - t)
        modulation = float(np.power(np.exp(log_q) * t + np.exp(log_p) * (1 - t), options['gamma']))
        bce = -(times(t, log_p) + times(1 - t, log_q))
        losses[element] = w * times(alpha_t, modulation * bce)
    return reduce(losses, options, inputs.get('avg_factor'))


def _largest(targets: Array) -> int:
    """The class with the largest target, the first of equals; NaN is never the largest."""
    best = 0
    for k in range(len(targets)):
        if targets[k] > targets[best] or (np.isnan(targets[best]) and not np.isnan(targets[k])):
            best = k
    return best
