"""Complete intersection over union of two boxes."""

import numpy as np

from lossreg.oracles.boxes import (
    area,
    aspect_difference,
    centre_distance,
    hull_size,
    intersection,
    per_pair,
    trade_offs,
)
from lossreg.oracles.reference import Array, Inputs, Options


@np.errstate(all='ignore')
def ciou_loss(call: str, inputs: Inputs, options: Options) -> dict[str, Array]:
    """loss = reduction of w · (1 - CIoU), CIoU = IoU - ρ²/(c² + eps) - α v, from -1 to 1; IoU = I / (U + eps)."""
    eps = options['eps']

    def iou(a: Array, b: Array) -> float:
        overlap = intersection(a, b)
        return float(overlap / (area(a) + area(b) - overlap + eps))

    def loss(a: Array, b: Array, alpha: float) -> float:
        distance = np.sum(centre_distance(a, b) ** 2) / (np.sum(hull_size(a, b) ** 2) + eps)
        v = aspect_difference(a, b, eps)
        return float(1 - np.clip(iou(a, b) - distance - alpha * v, -1.0, 1.0))

    held = trade_offs(inputs, options, iou)
    return {'loss': per_pair(call, inputs, options, loss, inputs.get('held_alpha', held['held_alpha'])), **held}
