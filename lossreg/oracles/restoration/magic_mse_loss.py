"""Squared error of images."""

import numpy as np

from lossreg.oracles.images import reduce_images
from lossreg.oracles.reference import Array, Inputs, Options


@np.errstate(all='ignore')
def magic_mse_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of w · (x - t)²."""
    return reduce_images((inputs['pred'] - inputs['target']) ** 2, inputs.get('weight'), options)
