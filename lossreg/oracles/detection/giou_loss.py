"""Generalised intersection over union of two boxes."""

import numpy as np

from lossreg.oracles.boxes import area, hull_size, intersection, per_pair
from lossreg.oracles.reference import Array, Inputs, Options


@np.errstate(all='ignore')
def giou_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of w · (1 - GIoU), GIoU = I/U - (E - U)/E; the union U and the hull's area E at least eps."""
    eps = options['eps']

    def loss(a: Array, b: Array) -> float:
        overlap = intersection(a, b)
        union = np.maximum(area(a) + area(b) - overlap, eps)
        hull = np.maximum(np.prod(hull_size(a, b)), eps)
        return float(1 - (overlap / union - (hull - union) / hull))

    return per_pair(call, inputs, options, loss)
