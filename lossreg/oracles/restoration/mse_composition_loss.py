"""Squared error of an image composed with a matte."""

import numpy as np

from lossreg.oracles.images import reduce_images
from lossreg.oracles.reference import Array, Inputs, Options


@np.errstate(all='ignore')
def mse_composition_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of w · (α f + (1 - α) b - t)²."""
    alpha = inputs['pred_alpha']
    merged = alpha * inputs['fg'] + (1 - alpha) * inputs['bg']
    return reduce_images((merged - inputs['ori_merged']) ** 2, inputs.get('weight'), options)
