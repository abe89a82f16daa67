"""Soft wing loss of coordinates."""

import numpy as np

from lossreg.oracles.pose.pose_l1_loss import weighted_errors
from lossreg.oracles.reference import Array, Inputs, Options


@np.errstate(all='ignore')
def soft_wing_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = loss_weight · 1/N · Σ_nkd l, with l = d where d < ω1, else ω2 log(1 + d / ε) + B, and d = |w (x - t)|.

    B = ω1 - ω2 log(1 + ω1 / ε) makes the two meet at d = ω1.
    """
    omega1, omega2, epsilon = options['omega1'], options['omega2'], options['epsilon']
    b = omega1 - omega2 * np.log(1 + omega1 / epsilon)
    total = 0.0
    for d in np.abs(weighted_errors(inputs, options)).flat:
        total += d if d < omega1 else omega2 * np.log(1 + d / epsilon) + b
    samples = len(inputs['output'])
    return np.asarray(options['loss_weight'] * total / samples if samples else 0.0)
