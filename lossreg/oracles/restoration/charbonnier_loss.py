"""Charbonnier loss of images."""

import numpy as np

from lossreg.oracles.images import reduce_images
from lossreg.oracles.reference import Array, Inputs, Options


@np.errstate(all='ignore')
def charbonnier_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of w · √((x - t)² + ε)."""
    losses = np.sqrt((inputs['pred'] - inputs['target']) ** 2 + options['eps'])
    return reduce_images(losses, inputs.get('weight'), options)
