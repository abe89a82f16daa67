"""Distance intersection over union of two boxes."""

import numpy as np

from lossreg.oracles.boxes import area, centre_distance, hull_size, intersection, per_pair
from lossreg.oracles.reference import Array, Inputs, Options


@np.errstate(all='ignore')
def diou_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of w · (1 - I / (U + eps) + ρ² / (c² + eps)): ρ between the centres, c the hull's diagonal."""
    eps = options['eps']

    def loss(a: Array, b: Array) -> float:
        overlap = intersection(a, b)
        iou = overlap / (area(a) + area(b) - overlap + eps)
        return float(1 - iou + np.sum(centre_distance(a, b) ** 2) / (np.sum(hull_size(a, b) ** 2) + eps))

    return per_pair(call, inputs, options, loss)
