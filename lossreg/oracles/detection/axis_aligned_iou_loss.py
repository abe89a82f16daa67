"""Intersection over union of two boxes in space."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, reduce


@np.errstate(all='ignore')
def axis_aligned_iou_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of w · (1 - I / U), with the volumes of the intersection and of the union, at least 1e-6."""
    pred, target, weight = inputs['pred'], inputs['target'], inputs.get('weight')
    losses = np.zeros(pred.shape[:-1])
    for n in np.ndindex(losses.shape):
        w = 1.0 if weight is None else weight[n]
        if w == 0:
            continue
        a, b = pred[n], target[n]
        common = np.prod(np.maximum(np.minimum(a[3:], b[3:]) - np.maximum(a[:3], b[:3]), 0.0))
        union = np.prod(a[3:] - a[:3]) + np.prod(b[3:] - b[:3]) - common
        losses[n] = w * (1 - common / np.maximum(union, 1e-6))
    return reduce(losses, options, inputs.get('avg_factor'))
