"""Helpers of the oracles of aligned box pairs: the loop over the pairs, and measures of one pair."""

import math
from collections.abc import Callable

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, reduce


def per_pair(call: str, inputs: Inputs, options: Options, loss: Callable[..., float], *constants: Array) -> Array:
    """Reduction of w · loss(pred, target, *c), with c the pair's entry in each of ``constants``.

    w is the mean over the coordinates in the call ``coordinate_weights``.
    """
    pred, target, weight = inputs['pred'], inputs['target'], inputs.get('weight')
    losses = np.zeros(len(pred))
    for n in range(len(pred)):
        w = 1.0 if weight is None else weight[n].mean()
        if w != 0:
            pair = (corners(box, options['box_format']) for box in (pred[n], target[n]))
            losses[n] = w * loss(*pair, *(numbers[n] for numbers in constants))
    return reduce(losses, options, inputs.get('avg_factor'))


def trade_offs(inputs: Inputs, options: Options, iou: Callable[[Array, Array], float]) -> dict[str, Array]:
    """α = v / (1 - IoU + v) of each pair where IoU > 1/2, else 0; a constant for the gradient."""
    alpha = np.zeros(len(inputs['pred']))
    for n, pair in enumerate(zip(inputs['pred'], inputs['target'], strict=True)):
        a, b = (corners(box, options['box_format']) for box in pair)
        v = aspect_difference(a, b, options['eps'])
        if iou(a, b) > 0.5 and v > 0:
            alpha[n] = v / (1 - iou(a, b) + v)
    return {'held_alpha': alpha}


def corners(box: Array, box_format: str) -> Array:
    """x1, y1, x2, y2 of a box; 'xywh' starts with the first corner, 'cxcywh' with the centre."""
    a, b, c, d = box
    if box_format == 'xywh':
        return np.array([a, b, a + c, b + d], np.float64)
    if box_format == 'cxcywh':
        return np.array([a - c / 2, b - d / 2, a + c / 2, b + d / 2], np.float64)
    return box


def area(box: Array) -> float:
    """Width times height."""
    return float((box[2] - box[0]) * (box[3] - box[1]))


def intersection(a: Array, b: Array) -> float:
    """Intersection area."""
    width, height = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    return float(np.maximum(width, 0.0) * np.maximum(height, 0.0))


def hull_size(a: Array, b: Array) -> Array:
    """Width and height of the smallest box around both."""
    size: Array = np.maximum(np.maximum(a[2:], b[2:]) - np.minimum(a[:2], b[:2]), 0.0)
    return size


def centre_distance(a: Array, b: Array) -> Array:
    """The vector from the centre of a to that of b."""
    offset: Array = (b[:2] + b[2:]) / 2 - (a[:2] + a[2:]) / 2
    return offset


def aspect_difference(a: Array, b: Array, eps: float) -> float:
    """v = 4/π² (atan(w_b / (h_b + eps)) - atan(w_a / (h_a + eps)))²."""
    w_a, h_a = a[2:] - a[:2]
    w_b, h_b = b[2:] - b[:2]
    return float(4 / math.pi**2 * (np.arctan(w_b / (h_b + eps)) - np.arctan(w_a / (h_a + eps))) ** 2)
