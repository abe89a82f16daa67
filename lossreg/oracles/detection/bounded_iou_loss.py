"""Bounded intersection over union: the best IoU still possible given one coordinate."""

import numpy as np

from lossreg.oracles.boxes import centre_distance, corners
from lossreg.oracles.reference import Array, Inputs, Options, reduce


@np.errstate(all='ignore')
def bounded_iou_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of w · smooth(1 - bound), for the centre's x and y, the width and the height."""
    pred, target, weight = inputs['pred'], inputs['target'], inputs.get('weight')
    losses = np.zeros(pred.shape)
    for n in range(len(pred)):
        weights = np.ones(4) if weight is None else weight[n] * np.ones(4)
        if not weights.any():
            continue
        bounds = _bounds(
            corners(pred[n], options['box_format']), corners(target[n], options['box_format']), options['eps']
        )
        for c in range(4):
            if weights[c] != 0:
                losses[n, c] = weights[c] * _smooth(1 - bounds[c], options['beta'])
    return reduce(losses, options, inputs.get('avg_factor'))


def _bounds(a: Array, b: Array, eps: float) -> list[float]:
    """max((w - 2|Δ|) / (w + 2|Δ| + eps), 0) for a centre moved by Δ; min(w_b / (w_a + eps), w_a / (w_b + eps))."""
    size_a, size_b, shift = a[2:] - a[:2], b[2:] - b[:2], np.abs(centre_distance(a, b))
    centre = np.maximum((size_b - 2 * shift) / (size_b + 2 * shift + eps), 0.0)
    size = np.minimum(size_b / (size_a + eps), size_a / (size_b + eps))
    return [*centre, *size]


def _smooth(x: float, beta: float) -> float:
    """x²/(2 beta) below beta, x - beta/2 from there on and, for beta 0, throughout."""
    return x**2 / (2 * beta) if x < beta and beta > 0 else x - beta / 2
