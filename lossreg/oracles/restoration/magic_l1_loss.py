"""Absolute error of images."""

import numpy as np

from lossreg.oracles.images import reduce_images
from lossreg.oracles.reference import Array, Inputs, Options


@np.errstate(all='ignore')
def magic_l1_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of w · |x - t|."""
    return reduce_images(np.abs(inputs['pred'] - inputs['target']), inputs.get('weight'), options)
