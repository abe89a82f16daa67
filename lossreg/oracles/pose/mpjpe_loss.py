"""Mean per joint position error (MPJPE)."""

import numpy as np

from lossreg.oracles.pose.pose_l1_loss import weighted_errors
from lossreg.oracles.reference import Array, Inputs, Options


@np.errstate(all='ignore')
def mpjpe_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = loss_weight · 1/M · Σ √(Σ_d (w (x - t))²), over all M joints."""
    errors = weighted_errors(inputs, options)
    joints = list(np.ndindex(errors.shape[:-1]))
    total = sum(np.sqrt((errors[joint] ** 2).sum()) for joint in joints)
    return np.asarray(options['loss_weight'] * total / len(joints) if joints else 0.0)
