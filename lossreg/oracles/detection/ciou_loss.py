"""Complete intersection over union of two boxes."""

import numpy as np

from lossreg.oracles.boxes import (
    area,
    aspect_difference,
    centre_distance,
    hull_size,
    intersection,
    per_pair,
    trade_off,
)
from lossreg.oracles.reference import Array, Inputs, Options


@np.errstate(all='ignore')
def ciou_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """1 - CIoU, CIoU = IoU - ρ²/(c² + eps) - α v, from -1 to 1; IoU = I / (U + eps)."""
    eps = options['eps']

    def loss(a: Array, b: Array) -> float:
        overlap = intersection(a, b)
        iou = overlap / (area(a) + area(b) - overlap + eps)
        distance = np.sum(centre_distance(a, b) ** 2) / (np.sum(hull_size(a, b) ** 2) + eps)
        v = aspect_difference(a, b, eps)
        return float(1 - np.clip(iou - distance - trade_off(iou, v) * v, -1.0, 1.0))

    return per_pair(call, inputs, options, loss)
