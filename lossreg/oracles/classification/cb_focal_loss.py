"""Class-balanced focal loss."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, log_sigmoid


@np.errstate(all='ignore')
def cb_focal_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = loss_weight · mean over n of Σ_k c_y (1 - p_k)^γ · (-log p_k), p_y = σ(x_y) and p_k = σ(-x_k) for k ≠ y.

    c_k = (1 - β) / (1 - β^n_k), scaled to an average of 1; it is 1 where no counts n are given.
    """
    scores, labels = inputs['cls_score'], inputs['label']
    counts = np.asarray(options['samples_per_cls'] or np.ones(scores.shape[1]), np.float64)
    effective = (1 - options['beta']) / (1 - options['beta'] ** counts)
    c = effective / effective.mean()
    summed = 0.0
    for n, k in np.ndindex(scores.shape):
        z = scores[n, k] if labels[n] == k else -scores[n, k]
        summed -= c[labels[n]] * float(np.exp(options['gamma'] * log_sigmoid(-z)) * log_sigmoid(z))
    return np.asarray(options['loss_weight'] * summed / len(scores) if len(scores) else 0.0)
