"""Generalised intersection over union of two boxes."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, reduce


@np.errstate(all='ignore')
def giou_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of w · (1 - GIoU); w is the mean over the coordinates in the call ``coordinate_weights``."""
    pred, target, weight = inputs['pred'], inputs['target'], inputs.get('weight')
    if weight is not None and call == 'coordinate_weights':
        weight = weight.mean(axis=1)
    losses = np.zeros(len(pred))
    for n in range(len(pred)):
        if weight is not None and weight[n] == 0:
            continue
        losses[n] = (1 - _giou(pred[n], target[n], options['eps'])) * (1.0 if weight is None else weight[n])
    return reduce(losses, options, inputs.get('avg_factor'))


def _giou(a: Array, b: Array, eps: float) -> float:
    """GIoU = I/U - (E - U)/E, with the union U and the area E of the hull at least eps."""
    inner = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])  # width and height of the intersection
    outer = np.maximum(a[2:], b[2:]) - np.minimum(a[:2], b[:2])  # and of the hull
    intersection = np.prod(np.maximum(inner, 0.0))
    union = np.maximum(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - intersection, eps)
    hull = np.maximum(np.prod(np.maximum(outer, 0.0)), eps)
    return float(intersection / union - (hull - union) / hull)
