"""Intersection over union of two upright boxes in space."""

import numpy as np

from lossreg.oracles.gaussians import per_pair
from lossreg.oracles.reference import Array, Inputs, Options
from lossreg.oracles.rotated import common_area, corners


@np.errstate(all='ignore')
def rotated_iou_3d_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of w · (1 - I / U), with the volumes of the intersection and of the union; 0 / 0 is 0."""

    def loss(a: Array, b: Array) -> float:
        if np.isnan(a).any() or np.isnan(b).any():
            return np.nan
        rectangle = [0, 1, 3, 4, 6]
        height = min(a[2] + a[5] / 2, b[2] + b[5] / 2) - max(a[2] - a[5] / 2, b[2] - b[5] / 2)
        common = common_area(corners(a[rectangle]), corners(b[rectangle])) * max(height, 0.0)
        union = np.prod(a[3:6]) + np.prod(b[3:6]) - common
        return float(1 - (common / union if union != 0 else 0.0))

    return per_pair(inputs, options, loss)
