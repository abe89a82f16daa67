"""torch.nn's cross-entropy: of class indices or of class probabilities."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, log_softmax, reduce_as_torch, times


@np.errstate(all='ignore')
def torch_cross_entropy_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss_i = -Σ_k w_k ((1 - ε) t_ik + ε/C) log p_ik, with p = softmax(x), w = weight and ε = label_smoothing.

    t_ik = [k = y_i] for class indices. Their mean is Σ loss_i / Σ w_y over the samples not ignored; that of
    probabilities is over all samples. Classes are in dimension 1 of the input, or in its only one.
    """
    scores, target = inputs['input'], inputs['target']
    axis = min(1, scores.ndim - 1)
    indices = target.ndim < scores.ndim
    scores, target = np.moveaxis(scores, axis, -1), target if indices else np.moveaxis(target, axis, -1)
    classes, smoothing = scores.shape[-1], options['label_smoothing']
    weight = np.ones(classes) if options['weight'] is None else options['weight']
    losses, count = np.zeros(scores.shape[:-1]), 0.0
    for i in np.ndindex(losses.shape):
        if indices and (target[i] == options['ignore_index'] or (weight[target[i]] == 0 and smoothing == 0)):
            continue
        count += float(weight[target[i]]) if indices else 1.0
        log_p = log_softmax(scores[i])
        for k in range(classes):
            t = float(target[i] == k) if indices else target[i][k]
            losses[i] -= times(weight[k] * ((1 - smoothing) * t + smoothing / classes), log_p[k])
    return reduce_as_torch(losses, options, count)
