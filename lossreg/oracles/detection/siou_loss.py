"""SCYLLA intersection over union of two boxes."""

import math

import numpy as np

from lossreg.oracles.boxes import area, centre_distance, hull_size, intersection, per_pair
from lossreg.oracles.reference import Array, Inputs, Options


@np.errstate(all='ignore')
def siou_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of w · (1 - SIoU), SIoU = IoU - (Δ + Ω) / 2, from -1 to 1; IoU = I / (U + eps).

    Δ = Σ (1 - exp(±(2 - Λ) ρ²)) over x and y, with ρ = (distance of the centres + eps) / size of the hull, at least
    eps. Λ = cos(2 asin(s) - π/2), with s the sine of the smaller angle between the line through the centres and an
    axis. Ω = Σ (1 - exp(-|w_a - w_b| / max(w_a, w_b)))⁴ over width and height, to which eps is added.
    """
    eps, sign = options['eps'], -1 if options['neg_gamma'] else 1

    def loss(a: Array, b: Array) -> float:
        overlap = intersection(a, b)
        iou = overlap / (area(a) + area(b) - overlap + eps)
        offset = np.abs(centre_distance(a, b) + eps)
        sine = np.min(offset) / np.hypot(*offset)
        angle = np.cos(2 * np.arcsin(sine) - math.pi / 2)
        rho = offset / np.maximum(hull_size(a, b), eps)
        distance = np.sum(1 - np.exp(sign * (2 - angle) * rho**2))
        shape = 0.0
        for size_a, size_b in zip(a[2:] - a[:2] + [0.0, eps], b[2:] - b[:2] + [0.0, eps], strict=True):
            largest = np.maximum(size_a, size_b)
            omega = np.abs(size_a - size_b) / largest if largest != 0 else (0.0 if size_a == size_b else np.inf)
            shape += (1 - np.exp(-omega)) ** 4
        return float(1 - np.clip(iou - 0.5 * (distance + shape), -1.0, 1.0))

    return per_pair(call, inputs, options, loss)
