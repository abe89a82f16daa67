"""Squared error, with torch's options."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, reduce_as_torch


@np.errstate(all='ignore')
def torch_mse_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of (x - t)²."""
    return reduce_as_torch((inputs['input'] - inputs['target']) ** 2, options)
