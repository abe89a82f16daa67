"""GIoU of the convex hull of points and a quadrilateral."""

import numpy as np

from lossreg.oracles.gaussians import per_pair
from lossreg.oracles.reference import Array, Inputs, Options
from lossreg.oracles.rotated import convex_giou


@np.errstate(all='ignore')
def convex_giou_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of w · (1 - GIoU)."""
    return per_pair(inputs, options, lambda a, b: 1 - convex_giou(a.reshape(-1, 2), b.reshape(-1, 2)))
