"""Mean squared error of coordinates."""

import numpy as np

from lossreg.oracles.pose.pose_l1_loss import weighted_errors
from lossreg.oracles.reference import Array, Inputs, Options, reduce


@np.errstate(all='ignore')
def pose_mse_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = loss_weight · mean of (w (x - t))²."""
    return reduce(weighted_errors(inputs, options) ** 2, {**options, 'reduction': 'mean'})
