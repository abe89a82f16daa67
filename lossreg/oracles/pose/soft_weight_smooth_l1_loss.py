"""Smooth L1 loss of coordinates, averaged over those with a weight above 0."""

import numpy as np

from lossreg.oracles.pose.pose_l1_loss import coordinate_weight
from lossreg.oracles.reference import Array, Inputs, Options, reduce, weighted


@np.errstate(all='ignore')
def soft_weight_smooth_l1_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = loss_weight · Σ w l / M, with l = d² / (2 β) where d < β, else d - β/2, and d = |x - t|.

    M is the number of coordinates, or, with weights and without ``supervise_empty``, that of the weights above 0, at
    least 1.
    """
    d, beta = np.abs(inputs['output'] - inputs['target']), options['beta']
    losses = np.where(d < beta, d**2 / (2 * beta) if beta else 0.0, d - beta / 2)
    if not options['use_target_weight']:
        return reduce(losses, {**options, 'reduction': 'mean'})
    weight = coordinate_weight(inputs)
    losses = weighted(losses, np.broadcast_to(weight, losses.shape))
    if options['supervise_empty']:
        return reduce(losses, {**options, 'reduction': 'mean'})
    return np.asarray(options['loss_weight'] * losses.sum() / max((weight > 0).sum(), 1))
