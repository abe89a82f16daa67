"""Powers of the intersection over union of two boxes, and of its penalties."""

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
def alpha_iou_loss(call: str, inputs: Inputs, options: Options) -> dict[str, Array]:
    """loss = reduction of w · (1 - IoU^α + Σ penalty^α); denominators are at least eps.

    Penalties: (E - U)/E for 'giou', ρ²/c² for 'diou', ρ²/c² and β v for 'ciou', none for 'iou'.
    """
    alpha, mode, eps = options['alpha'], options['mode'], options['eps']

    def union(a: Array, b: Array) -> float:
        return area(a) + area(b) - intersection(a, b)

    def iou(a: Array, b: Array) -> float:
        return float(intersection(a, b) / np.maximum(union(a, b), eps))

    def loss(a: Array, b: Array, beta: float) -> float:
        hull = np.prod(hull_size(a, b))
        distance = np.sum(centre_distance(a, b) ** 2) / np.maximum(np.sum(hull_size(a, b) ** 2), eps)
        v = aspect_difference(a, b, eps)
        penalties = {
            'iou': [],
            'giou': [np.maximum(hull - union(a, b), 0.0) / np.maximum(hull, eps)],
            'diou': [distance],
            'ciou': [distance, beta * v],
        }[mode]
        return float(1 - iou(a, b) ** alpha + sum(p**alpha for p in penalties))

    held = trade_offs(inputs, options, iou)
    return {'loss': per_pair(call, inputs, options, loss, inputs.get('held_alpha', held['held_alpha'])), **held}
