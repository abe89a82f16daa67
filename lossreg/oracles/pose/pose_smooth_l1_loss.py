"""Smooth L1 loss of coordinates."""

import numpy as np

from lossreg.oracles.pose.pose_l1_loss import weighted_errors
from lossreg.oracles.reference import Array, Inputs, Options, reduce


@np.errstate(all='ignore')
def pose_smooth_l1_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = loss_weight · mean of d² / 2 where d < 1, else d - 1/2, with d = |w (x - t)|."""
    d = np.abs(weighted_errors(inputs, options))
    return reduce(np.where(d < 1, d**2 / 2, d - 0.5), {**options, 'reduction': 'mean'})
