"""Intersection over union of two rotated boxes."""

import numpy as np

from lossreg.oracles.gaussians import per_pair
from lossreg.oracles.reference import Array, Inputs, Options
from lossreg.oracles.rotated import common_area, corners


@np.errstate(all='ignore')
def rotated_iou_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of w · ℓ, ℓ = -log IoU, 1 - IoU or 1 - IoU², with IoU at least eps; 0 / 0 is 0."""
    mode = 'linear' if options['linear'] else options['mode']

    def loss(a: Array, b: Array) -> float:
        if np.isnan(a).any() or np.isnan(b).any():
            return np.nan
        common = common_area(corners(a), corners(b))
        union = a[2] * a[3] + b[2] * b[3] - common
        iou = np.maximum(common / union if union != 0 else 0.0, options['eps'])
        return float({'log': -np.log(iou), 'linear': 1 - iou, 'square': 1 - iou**2}[mode])

    return per_pair(inputs, options, loss)
