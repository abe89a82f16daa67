"""Intersection over union of two boxes."""

import numpy as np

from lossreg.oracles.boxes import area, intersection, per_pair
from lossreg.oracles.reference import Array, Inputs, Options


@np.errstate(all='ignore')
def iou_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of w · ℓ, ℓ = -log IoU, 1 - IoU or 1 - IoU²; IoU is at least eps, the union at least 1e-6."""
    mode = 'linear' if options['linear'] else options['mode']

    def loss(a: Array, b: Array) -> float:
        overlap = intersection(a, b)
        iou = np.maximum(overlap / np.maximum(area(a) + area(b) - overlap, 1e-6), options['eps'])
        return float({'log': -np.log(iou), 'linear': 1 - iou, 'square': 1 - iou**2}[mode])

    return per_pair(call, inputs, options, loss)
